"""Classes from a user's checkout of NVIDIA's StyleGAN2-ADA or StyleGAN3 repository."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from torch import nn

from sparseguard.core.errors import DataError, RecipeError, SparseguardError
from sparseguard.core.user_code.isolated_import import importable_folder
from sparseguard.generators.external.nvidia.shims import install_shims

ENVIRONMENT = "SPARSEGUARD_CHECKOUT"
"""Environment variable: the checkout's folder, if it moved since the import."""

OPERATIONS = ("bias_act", "upfirdn2d", "filtered_lrelu")
"""Modules below ``torch_utils/ops`` that would compile a plugin for CUDA."""

PARTS = ("legacy.py", "dnnlib", "torch_utils", "training")


class Network(pydantic.BaseModel):
    """A network as a call: a class in the checkout and its constructor's arguments.

    Args:
        module: the class's module, such as ``training.networks_stylegan3``.
        name: the class.
        args: positional arguments, plain values.
        kwargs: keyword arguments, likewise.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    module: Annotated[str, pydantic.Field(pattern=r"^training\.\w+$")]
    name: str
    args: list[Any]
    kwargs: dict[str, Any]


@contextmanager
def import_checkout(checkout: Path) -> Iterator[dict[str, str]]:
    """Make the checkout's modules importable within the context, without compilation of its operations.

    The operations then run as their reference in PyTorch, on CUDA too: slower, and equal up to rounding. Yields as
    `importable_folder` does.
    """
    with install_shims(), importable_folder(checkout) as sources:
        for name in OPERATIONS:
            if (checkout / "torch_utils" / "ops" / f"{name}.py").is_file():
                vars(importlib.import_module(f"torch_utils.ops.{name}"))["_init"] = _no_plugin
        yield sources


def build(network: Network, checkout: Path) -> tuple[nn.Module, dict[str, str]]:
    """Build a network, with new weights, and return it with the SHA-256 of the sources it came from.

    Raises:
        DataError: when the checkout's class does not take these arguments.
    """
    where = f"{checkout}: building {network.module}.{network.name}"
    with convert_errors(where), torch.random.fork_rng(), import_checkout(checkout) as sources:  # building draws weights
        built = getattr(importlib.import_module(network.module), network.name)(*network.args, **network.kwargs)
    if not isinstance(built, nn.Module):
        raise DataError(f"{checkout}: {network.module}.{network.name} returns no network.")
    return built.eval().requires_grad_(False), sources


@contextmanager
def convert_errors(action: str) -> Iterator[None]:
    """Turn whatever the checkout's code raises into a `DataError`."""
    try:
        yield
    except SparseguardError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(f"{action}: its code needs the module '{error.name}'. Install it.") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{action}: failed with {type(error).__name__}: {reason}") from error


def check_checkout(checkout: Path) -> Path:
    """Return the absolute path of a folder that looks like one of NVIDIA's repositories.

    Raises:
        RecipeError: naming the missing files.
    """
    missing = [part for part in PARTS if not (checkout / part).exists()]
    if missing:
        raise RecipeError(
            f"checkout: {checkout} lacks {', '.join(missing)}. Give the folder of a clone of NVlabs/stylegan3 or "
            "NVlabs/stylegan2-ada-pytorch."
        )
    return checkout.resolve()


def resolve_checkout(on_card: str) -> Path:
    """Return the folder in the environment variable ``SPARSEGUARD_CHECKOUT``, or else the one on the card."""
    return Path(os.environ.get(ENVIRONMENT) or on_card)


def _no_plugin() -> bool:
    return False
