"""Import of a user's generator as a prior."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.seeding import derive
from sparseguard.core.state_dicts import load_strictly, read_weights
from sparseguard.core.user_code.import_factory import call_factory, resolve_factory
from sparseguard.generators.card import PriorCard
from sparseguard.generators.external.module_prior import MeanAndNetwork, ModuleConstruction, ModulePrior
from sparseguard.generators.storage import save_prior
from sparseguard.generators.validation import check_images

MEAN_OF, BATCH = 10_000, 500
"""Latents whose mean w is taken, and those mapped at once."""


def import_module_prior(
    folder: Path,
    *,
    factory: str,
    weights: Path,
    name: str,
    latent: Sequence[int],
    output: tuple[float, float],
    arguments: Mapping[str, Any] | None = None,
    trained_on: str = "unknown",
    classes: Sequence[str] | None = None,
    known: Tensor | None = None,
) -> ModulePrior:
    """Write the prior of a user's generator into ``folder`` and return it.

    Args:
        folder: the new folder; it must not exist.
        factory: the user's function that makes the network, ``path/to/file.py:function`` or
            ``package.module:function``. It runs now and whenever the prior is loaded.
        weights: the network's state dict, as safetensors or as `torch.save` wrote it (read with ``weights_only``).
        name: of the prior, in tables.
        latent: shape of one z, e.g. ``(100, 1, 1)``.
        output: the values of black and white, e.g. ``(-1, 1)``; checked on a few images.
        arguments: keywords of the function.
        trained_on: one sentence on the images it was trained on.
        classes: names of their classes; None if unknown.
        known: fingerprints ``(n, 8)`` of these images; None if unknown.

    Raises:
        RecipeError: for a factory, arguments or a range that cannot be used as written.
        DataError: when the code fails, the weights do not fit the network, or its images cannot be used.
        StoreError: when the folder exists or cannot be written.
    """
    factory, plain = resolve_factory(factory), _plain(arguments or {})
    with torch.random.fork_rng():  # building draws weights
        network, sources = call_factory(factory, plain, None)
    load_strictly(network, read_weights(weights), str(weights))
    network.eval().requires_grad_(False)
    construction = _construction(factory=factory, arguments=plain, sources=sources, output=output)
    mean_w, flat = _mean_w(network, tuple(latent), name)
    generator = MeanAndNetwork(network, mean_w)
    card = PriorCard(
        name=name,
        kind="module",
        shape=_shape(generator, tuple(latent), flat, name),
        latent=tuple(latent),
        num_ws=0 if mean_w is None else mean_w.shape[0],
        w_dim=0 if mean_w is None else mean_w.shape[1],
        classes=None if classes is None else tuple(classes),
        trained_on=trained_on,
        source=(f"Made by {factory} with the weights {weights.name}.",),
        construction=construction.model_copy(update={"flat_w": flat}).model_dump(mode="json"),
    )
    measured = check_images(ModulePrior(card, known, generator), output)
    card = card.model_copy(update={"construction": {**card.construction, "seen": list(measured)}})
    save_prior(folder, card, known, generator.state_dict())
    return ModulePrior(card, known, generator)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(dict(arguments), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"arguments: {error}; they must be plain values, to be stored in the description.") from None


def _construction(**values: Any) -> ModuleConstruction:
    try:
        return ModuleConstruction(**values)
    except pydantic.ValidationError as error:
        issue = error.errors()[0]
        raise RecipeError(f"{'.'.join(map(str, issue['loc']))}: {issue['msg']} (got {issue['input']!r}).") from None


@torch.no_grad()
def _mean_w(network: nn.Module, latent: tuple[int, ...], name: str) -> tuple[Tensor | None, bool]:
    """Return the mean w ``(num_ws, w_dim)``, and whether the network's w has no layers; (None, False) without W."""
    mapping, synthesis = (getattr(network, part, None) for part in ("mapping", "synthesis"))
    if not (callable(mapping) and callable(synthesis)):
        return None, False
    generator = torch.Generator().manual_seed(derive(purpose="mean w", seed=0))
    total, flat = torch.zeros((), dtype=torch.float64), False
    for _ in range(MEAN_OF // BATCH):
        w = _tensor(mapping, torch.randn(BATCH, *latent, generator=generator), f"prior '{name}': its mapping")
        if w.ndim not in (2, 3) or len(w) != BATCH:
            raise DataError(
                f"prior '{name}': its mapping makes {tuple(w.shape)} of {BATCH} z; it must be (n, w_dim) or "
                "(n, num_ws, w_dim)."
            )
        flat = w.ndim == 2
        total = total + (w.unsqueeze(1) if flat else w).double().sum(dim=0)
    return (total / MEAN_OF).float(), flat


@torch.no_grad()
def _shape(
    generator: MeanAndNetwork, latent: tuple[int, ...], flat: bool, name: str
) -> tuple[Any, int, int]:  # Any: 1 or 3
    """Return the shape of one image."""
    mean = generator.mean_w
    start = torch.zeros(2, *latent) if mean is None else torch.stack([mean[0] if flat else mean] * 2)
    images = _tensor(generator.render, start, f"prior '{name}': its network")
    if images.ndim != 4 or images.shape[0] != 2 or images.shape[1] not in (1, 3):
        raise DataError(
            f"prior '{name}': its network makes {tuple(images.shape)} of 2 latents {tuple(start.shape[1:])}; it must "
            "be (n, channels, height, width) with 1 or 3 channels."
        )
    _, channels, height, width = images.shape
    return channels, height, width


def _tensor(function: Any, latents: Tensor, where: str) -> Tensor:
    """Return the output of a user's network for latents."""
    try:
        output = function(latents)
    except Exception as error:
        raise DataError(
            f"{where} fails for latents of shape {tuple(latents.shape)} with {type(error).__name__}: {error}"
        ) from error
    if not isinstance(output, Tensor):
        raise DataError(f"{where} returns a {type(output).__name__} instead of a tensor.")
    return output
