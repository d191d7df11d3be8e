"""The noise in a released model, and the pool bound at the first stage that has any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseguard.bounds._layers import BATCH
from sparseguard.bounds.base import Images
from sparseguard.bounds.bayes_noise import Noise
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Noise as StageNoise
from sparseguard.core.staged_model import StagedModel

SPREAD_ERROR = 0.05
"""Largest relative deviation of the noise seen from the noise stated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFacts:
    """Additive noise that is independent in every value and acts at the end of a stage.

    Args:
        kind: ``gaussian`` or ``laplace``.
        scale: sigma, or Laplace's b, in units of the stage's output.
        stage: the first noised stage.
        queries: how many noisy answers the attacker gets for each image.
        clean: from images to that stage's output without the noise; absent: the stage is the noise alone, or a
            `torch.nn.Sequential` that ends with it.
    """

    kind: Noise
    scale: float
    stage: str
    queries: int = 1
    clean: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, model: StagedModel, queries: int = 1) -> NoiseFacts | None:
        """Return the facts of the first noise in a model; None for a model without any."""
        found = model.find_noise()
        return None if found is None else cls(kind=found[1].kind, scale=found[1].scale, stage=found[0], queries=queries)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise."""
        return self.scale if self.kind == "gaussian" else self.scale * 2**0.5


@torch.no_grad()
def clean_features(
    model: StagedModel, noise: NoiseFacts, images: Images, *, device: torch.device, seed: int
) -> Tensor | str:
    """Return the noised stage's output without noise, ``(n, d)`` on the CPU, or why it cannot be had.

    The facts are tried out: without the noise, two runs agree; with it, the difference has mean 0 and the standard
    deviation stated.
    """
    clean = noise.clean or _without_last(model, noise.stage)
    if clean is None:
        return f"stage '{noise.stage}' does not end with a noise module, and no function without noise was given"
    found, again = (_run(clean, images, device) for _ in range(2))
    if not torch.equal(found, again):
        return f"there is noise before the end of stage '{noise.stage}', so its likelihood is not known"
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(purpose="noise facts", seed=seed))
        released = _run(lambda batch: model.forward_to(batch, noise.stage), images, device)
    if released.shape != found.shape:
        return f"without its last module, stage '{noise.stage}' has an output of another shape, so that is no noise"
    error = released - found
    spread, mean = float(error.std()), float(error.mean())
    allowed = SPREAD_ERROR + 6 / error.numel() ** 0.5
    if not (abs(spread / noise.deviation - 1) <= allowed and abs(mean) <= allowed * noise.deviation):
        return (
            f"the noise of stage '{noise.stage}' has standard deviation {spread:.3g} and mean {mean:.2g}; "
            f"{noise.deviation:.3g} and 0 were stated"
        )
    return found


def _run(function: Callable[[Tensor], Tensor], images: Images, device: torch.device) -> Tensor:
    return torch.cat([function(part.to(device)).flatten(1).cpu() for part in images.split(BATCH)])


def _without_last(model: StagedModel, stage: str) -> Callable[[Tensor], Tensor] | None:
    module = model.stages[stage]
    if isinstance(module, StageNoise):
        module = nn.Sequential(nn.Identity(), module)
    if not isinstance(module, nn.Sequential) or len(module) < 2:
        return None
    before = StagedModel({name: part for name, part in model.stages.items() if name != stage})
    names = list(model.stages)
    earlier = names[names.index(stage) - 1] if names.index(stage) else None

    def function(images: Tensor) -> Tensor:
        value: Tensor = images if earlier is None else before.forward_to(images, earlier)
        noiseless: Tensor = module[:-1](value)
        return noiseless

    return function
