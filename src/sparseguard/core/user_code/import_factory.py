"""Import and call of a user's function that builds a network, named by ``file.py:function``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sparseguard.core.errors import DataError, RecipeError, SparseguardError
from sparseguard.core.user_code.isolated_import import check_sources, importable_folder, sha256_of

REMEDY = "Put back the file as it was, or import the prior again with `sparseguard prior import`."


def resolve_factory(factory: str) -> str:
    """Return ``path/to/file.py:function`` with its path made absolute; ``package.module:function`` as it is.

    Raises:
        RecipeError: when it is neither, or there is no such file.

    Example:
        >>> resolve_factory("torchvision.models:resnet18")
        'torchvision.models:resnet18'
    """
    place, colon, name = factory.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise RecipeError(f"factory: '{factory}' is neither path/to/file.py:function nor package.module:function.")
    if not place.endswith(".py"):
        return factory
    file = Path(place).expanduser().resolve()
    if not file.is_file():
        raise RecipeError(f"factory: there is no file {file}.")
    return f"{file}:{name}"


def call_factory(
    factory: str, arguments: Mapping[str, Any], sources: Mapping[str, str] | None
) -> tuple[nn.Module, dict[str, str]]:
    """Run a factory and return its network, with the SHA-256 of its sources by name.

    The sources of a file are itself and its imports from its own folder; they cannot be imported later, so a network
    must not import them in its ``forward``. The source of a package is the named module.

    Args:
        factory: from `resolve_factory`.
        arguments: keywords of the function.
        sources: expected sources; None if unknown yet.

    Raises:
        DataError: when the sources changed, or the function returns no network.
    """
    place, _, name = factory.rpartition(":")
    if not place.endswith(".py"):
        return _call_from_package(place, name, arguments, sources)
    file = Path(place)
    if sources is not None:
        check_sources(file.parent, {file.name: sources.get(file.name, ""), **sources}, REMEDY)
    with importable_folder(file.parent) as imported:
        network = _call(file.stem, name, arguments, file)
    return network, imported


def _call_from_package(
    place: str, name: str, arguments: Mapping[str, Any], sources: Mapping[str, str] | None
) -> tuple[nn.Module, dict[str, str]]:
    network = _call(place, name, arguments, None)
    file = Path(str(importlib.import_module(place).__file__))
    if sources is not None:
        check_sources(file.parent, sources, REMEDY)
    return network, {file.name: sha256_of(file)}


def _call(module_name: str, name: str, arguments: Mapping[str, Any], file: Path | None) -> nn.Module:
    where = f"{file or module_name}:{name}"
    try:
        module = importlib.import_module(module_name)
        if file is not None and Path(str(module.__file__)).resolve() != file:
            raise DataError(f"{file}: another module is called '{module_name}'. Rename the file.")
        network = getattr(module, name)(**arguments)
    except SparseguardError:
        raise
    except Exception as error:
        raise DataError(f"{where}: its code failed with {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise DataError(f"{where}: returned a {type(network).__name__}; it must return a torch.nn.Module.")
    return network
