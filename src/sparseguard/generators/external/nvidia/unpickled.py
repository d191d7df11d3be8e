"""Networks out of NVIDIA's pickles, as plain values, and the same networks built anew by a checkout's classes."""

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
from sparseguard.core.user_code.isolated_import import quiet
from sparseguard.generators.external.nvidia.checkout import Network, build, checkout_code, explained

TOLERANCE = 1e-4
SAMPLES = 4
TRUNCATION = 0.7
GENERATOR_SIZES = ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels")
DISCRIMINATOR_SIZES = ("c_dim", "img_resolution", "img_channels")


@dataclass(frozen=True, kw_only=True)
class Unpickled:
    """What is kept of an unpickled network.

    Args:
        name: its class.
        args: its constructor's positional arguments, plain values.
        kwargs: and keyword arguments.
        state: its parameters and buffers.
        sizes: what it says of itself.
        inputs: latents or images it was run on, and their conditions.
        outputs: what it made of them.
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
    with explained(f"{pickle}: reading it by {checkout / 'legacy.py'}"), checkout_code(checkout):
        legacy = importlib.import_module("legacy")
        with pickle.open("rb") as file:
            held = legacy.load_network_pkl(file)
        generator = _kept(held["G_ema"], GENERATOR_SIZES)
        discriminator = held.get("D")
        if discriminator is None:
            return generator, None
        return generator, _kept(discriminator, DISCRIMINATOR_SIZES)


def rebuild(given: Unpickled, checkout: Path) -> tuple[nn.Module, Network, dict[str, str]]:
    """Build the network anew with whichever class of its name in ``training/*.py`` fits, and compare what they make.

    Returns:
        The network, how it was built, and the SHA-256 of the sources it came from.

    Raises:
        DataError: when none fits, saying why each does not.
    """
    reasons = []
    for module in _modules_with(given.name, checkout):
        network = Network(module=module, name=given.name, args=given.args, kwargs=given.kwargs)
        try:
            built, sources = build(network, checkout)
            load_strictly(built, given.state, module)
            with explained(f"{checkout}: running {module}.{given.name}"):
                made = _outputs(built, given.inputs)
        except DataError as error:
            reasons.append(str(error))
            continue
        difference = float((made - given.outputs).abs().max())
        if difference <= TOLERANCE:  # not so when it is not a number
            return built, network, sources
        reasons.append(f"{module}: what it makes differs by {difference:.2g}")
    told = "; ".join(reasons) or f"no file in {checkout / 'training'} has a class of that name"
    raise DataError(f"{given.name}: no class in the checkout fits the pickle's. Use the repository it is of. {told}")


def _kept(network: Any, sizes: Sequence[str]) -> Unpickled:
    network = network.eval().requires_grad_(False).cpu()
    name = type(network).__name__
    lacks = [size for size in ("init_args", "init_kwargs", *sizes) if not _has(network, size)]
    if lacks:
        raise DataError(f"the pickle's {name} lacks {', '.join(lacks)}: it is not a network of NVIDIA's repositories.")
    found = {size: int(getattr(network, size)) for size in sizes}
    inputs = _inputs(found)
    return Unpickled(
        name=name,
        args=[_plain(value, f"{name}[{place}]") for place, value in enumerate(network.init_args)],
        kwargs={key: _plain(value, f"{name}.{key}") for key, value in network.init_kwargs.items()},
        state={key: value.detach().clone() for key, value in network.state_dict().items()},
        sizes=found,
        inputs=inputs,
        outputs=_outputs(network, inputs),
    )


def _has(network: Any, attribute: str) -> bool:
    return getattr(network, attribute, None) is not None


def _inputs(sizes: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Latents for a generator, images for a discriminator, with conditions of one class each where there are some."""
    generator = torch.Generator().manual_seed(0)
    side = sizes["img_resolution"]
    shape = (sizes["z_dim"],) if "z_dim" in sizes else (sizes["img_channels"], side, side)
    c = torch.zeros(SAMPLES, sizes["c_dim"])
    for place in range(SAMPLES if sizes["c_dim"] else 0):
        c[place, place % sizes["c_dim"]] = 1
    return torch.randn(SAMPLES, *shape, generator=generator), c


@torch.no_grad()
def _outputs(network: Any, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Images of a generator (it has a mapping and a synthesis), logits of a discriminator."""
    given, c = inputs
    with quiet():
        if not hasattr(network, "synthesis"):
            logits: Tensor = network(given, c, force_fp32=True)
            return logits
        psi = TRUNCATION if isinstance(getattr(network.mapping, "w_avg", None), Tensor) else 1.0
        images: Tensor = network(given, c, truncation_psi=psi, noise_mode="const", force_fp32=True)
        return images


def _plain(value: Any, where: str) -> Any:
    """The value as JSON keeps it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{place}]") for place, inner in enumerate(value)]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DataError(f"the pickle's network was built with {where} = {value!r}, which is no plain value.")


def _modules_with(name: str, checkout: Path) -> list[str]:
    found = []
    for file in sorted((checkout / "training").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8-sig"))
        if any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
            found.append(f"training.{file.stem}")
    return found
