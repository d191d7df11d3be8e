"""A user's function that makes a network, named in words."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sparseguard.core.errors import DataError, RecipeError, SparseguardError
from sparseguard.core.user_code.isolated_import import check_sources, code_of, sha256_of

REMEDY = "Put back the file as it was, or import the prior again with `sparseguard prior import`."


def absolute(factory: str) -> str:
    """Return ``path/to/file.py:function`` with its path made absolute; ``package.module:function`` as it is.

    Raises:
        RecipeError: when it is neither, or there is no such file.

    Example:
        >>> absolute("torchvision.models:resnet18")
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
    """Run a factory and return its network, with the SHA-256 of the sources it came from by their names.

    Of a file, the sources are itself and what it imports from its own folder; its modules cannot be imported once it
    has returned, so a network must not import them in its ``forward``. Of a package, the one module named.

    Args:
        factory: as `absolute` returns it.
        arguments: keywords the function is called with.
        sources: what its sources must be; None when that is not known yet.

    Raises:
        DataError: when the sources are others, or it does not return a network.
    """
    place, _, name = factory.rpartition(":")
    if not place.endswith(".py"):
        return _from_package(place, name, arguments, sources)
    file = Path(place)
    if sources is not None:
        check_sources(file.parent, {file.name: sources.get(file.name, ""), **sources}, REMEDY)
    with code_of(file.parent) as found:
        network = _called(file.stem, name, arguments, file)
    return network, found


def _from_package(
    place: str, name: str, arguments: Mapping[str, Any], sources: Mapping[str, str] | None
) -> tuple[nn.Module, dict[str, str]]:
    network = _called(place, name, arguments, None)
    file = Path(str(importlib.import_module(place).__file__))
    if sources is not None:
        check_sources(file.parent, sources, REMEDY)
    return network, {file.name: sha256_of(file)}


def _called(module_name: str, name: str, arguments: Mapping[str, Any], file: Path | None) -> nn.Module:
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
