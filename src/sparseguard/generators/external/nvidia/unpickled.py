"""Networks from NVIDIA's pickles as plain values, and their reconstruction by a checkout's classes."""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError
from sparseguard.core.state_dicts import load_strictly
from sparseguard.core.user_code.isolated_import import suppress_warnings
from sparseguard.generators.external.nvidia.checkout import Network, build, convert_errors, import_checkout

TOLERANCE = 1e-4
SAMPLES = 4
TRUNCATION = 0.7
GENERATOR_SIZES = ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels")
DISCRIMINATOR_SIZES = ("c_dim", "img_resolution", "img_channels")


@dataclass(frozen=True, kw_only=True)
class Unpickled:
    """An unpickled network as plain values.

    Args:
        name: its class.
        args: its constructor's positional arguments, plain values.
        kwargs: and keyword arguments.
        state: its parameters and buffers.
        sizes: its own attributes.
        inputs: latents or images, and their conditions.
        outputs: for these inputs.
    """

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    state: dict[str, Tensor]
    sizes: dict[str, int]
    inputs: tuple[Tensor, Tensor]
    outputs: Tensor


def unpickle(pickle: Path, checkout: Path) -> tuple[Unpickled, Unpickled | None]:
    """Read ``G_ema`` and ``D`` with the checkout's ``legacy.load_network_pkl``, which runs code in the pickle.

    Raises:
        DataError: when it cannot be read or run, or a network does not say how it was built.
    """
    with convert_errors(f"{pickle}: reading it by {checkout / 'legacy.py'}"), import_checkout(checkout):
        legacy = importlib.import_module("legacy")
        with pickle.open("rb") as file:
            networks = legacy.load_network_pkl(file)
        generator = _extract(networks["G_ema"], GENERATOR_SIZES)
        discriminator = networks.get("D")
        if discriminator is None:
            return generator, None
        return generator, _extract(discriminator, DISCRIMINATOR_SIZES)


def rebuild(unpickled: Unpickled, checkout: Path) -> tuple[nn.Module, Network, dict[str, str]]:
    """Build the network by the class of its name in ``training/*.py`` that fits, and compare their outputs.

    Returns:
        The network, its construction, and the SHA-256 of its sources.

    Raises:
        DataError: when none fits, with the reason for each.
    """
    reasons = []
    for module in _find_modules(unpickled.name, checkout):
        network = Network(module=module, name=unpickled.name, args=unpickled.args, kwargs=unpickled.kwargs)
        try:
            built, sources = build(network, checkout)
            load_strictly(built, unpickled.state, module)
            with convert_errors(f"{checkout}: running {module}.{unpickled.name}"):
                outputs = _outputs(built, unpickled.inputs)
        except DataError as error:
            reasons.append(str(error))
            continue
        difference = float((outputs - unpickled.outputs).abs().max())
        if difference <= TOLERANCE:  # not so when it is not a number
            return built, network, sources
        reasons.append(f"{module}: its outputs differ by {difference:.2g}")
    reason = "; ".join(reasons) or f"no file in {checkout / 'training'} has a class of that name"
    raise DataError(
        f"{unpickled.name}: no class in the checkout fits the pickle's. Use the repository it is of. {reason}"
    )


def _extract(network: Any, sizes: Sequence[str]) -> Unpickled:
    network = network.eval().requires_grad_(False).cpu()
    name = type(network).__name__
    missing = [size for size in ("init_args", "init_kwargs", *sizes) if not _has(network, size)]
    if missing:
        raise DataError(
            f"the pickle's {name} lacks {', '.join(missing)}: it is not a network of NVIDIA's repositories."
        )
    own_sizes = {size: int(getattr(network, size)) for size in sizes}
    inputs = _inputs(own_sizes)
    return Unpickled(
        name=name,
        args=[_plain(value, f"{name}[{index}]") for index, value in enumerate(network.init_args)],
        kwargs={key: _plain(value, f"{name}.{key}") for key, value in network.init_kwargs.items()},
        state={key: value.detach().clone() for key, value in network.state_dict().items()},
        sizes=own_sizes,
        inputs=inputs,
        outputs=_outputs(network, inputs),
    )


def _has(network: Any, attribute: str) -> bool:
    return getattr(network, attribute, None) is not None


def _inputs(sizes: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Return latents for a generator, images for a discriminator, and conditions of one class each."""
    generator = torch.Generator().manual_seed(0)
    side = sizes["img_resolution"]
    shape = (sizes["z_dim"],) if "z_dim" in sizes else (sizes["img_channels"], side, side)
    c = torch.zeros(SAMPLES, sizes["c_dim"])
    for index in range(SAMPLES if sizes["c_dim"] else 0):
        c[index, index % sizes["c_dim"]] = 1
    return torch.randn(SAMPLES, *shape, generator=generator), c


@torch.no_grad()
def _outputs(network: Any, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Return images of a generator (it has a mapping and a synthesis), logits of a discriminator."""
    values, c = inputs
    with suppress_warnings():
        if not hasattr(network, "synthesis"):
            logits: Tensor = network(values, c, force_fp32=True)
            return logits
        psi = TRUNCATION if isinstance(getattr(network.mapping, "w_avg", None), Tensor) else 1.0
        images: Tensor = network(values, c, truncation_psi=psi, noise_mode="const", force_fp32=True)
        return images


def _plain(value: Any, where: str) -> Any:
    """Return the value as JSON stores it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DataError(f"the pickle's network was built with {where} = {value!r}, which is no plain value.")


def _find_modules(name: str, checkout: Path) -> list[str]:
    modules = []
    for file in sorted((checkout / "training").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8-sig"))
        if any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
            modules.append(f"training.{file.stem}")
    return modules
