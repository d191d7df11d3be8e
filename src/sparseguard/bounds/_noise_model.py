"""Noise in a released model, and the noise-free features of the first stage that has any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseguard.bounds._layers import BATCH
from sparseguard.bounds.bayes_noise import Noise
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Noise as StageNoise
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import Images

DEVIATION_ERROR = 0.05
"""Largest relative difference between the measured and the stated standard deviation of the noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFacts:
    """Additive noise that is independent in every value and acts at the end of a stage.

    Args:
        kind: ``gaussian`` or ``laplace``.
        scale: sigma, or Laplace's b, in units of the stage's output.
        stage: the first noised stage.
        queries: how many noisy answers the attacker gets for each image.
        clean: from images to that stage's output without the noise; None: the stage is the noise alone, or a
            `torch.nn.Sequential` that ends with it.
    """

    kind: Noise
    scale: float
    stage: str
    queries: int = 1
    clean: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def from_model(cls, model: StagedModel, queries: int = 1) -> NoiseFacts | None:
        """Return the facts of the first noise in a model; None for a model without any."""
        first = model.find_noise()
        if first is None:
            return None
        stage, noise = first
        return cls(kind=noise.kind, scale=noise.scale, stage=stage, queries=queries)

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise."""
        return self.scale if self.kind == "gaussian" else self.scale * 2**0.5


@torch.no_grad()
def compute_clean_features(
    model: StagedModel, noise: NoiseFacts, images: Images, *, device: torch.device, seed: int
) -> Tensor | str:
    """Return the noised stage's output without noise, ``(n, d)`` on the CPU, or why it is not available.

    The facts are checked: without the noise, two runs agree; with it, the difference has mean 0 and the standard
    deviation stated.
    """
    clean = noise.clean or _drop_last_module(model, noise.stage)
    if clean is None:
        return f"stage '{noise.stage}' does not end with a noise module, and no function without noise was given"
    features, repeated = (_run(clean, images, device) for _ in range(2))
    if not torch.equal(features, repeated):
        return f"there is noise before the end of stage '{noise.stage}', so its likelihood is not known"
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(purpose="noise facts", seed=seed))
        released = _run(lambda batch: model.forward_to(batch, noise.stage), images, device)
    if released.shape != features.shape:
        return f"without its last module, stage '{noise.stage}' has an output of another shape, so that is no noise"
    error = released - features
    deviation, mean = float(error.std()), float(error.mean())
    allowed = DEVIATION_ERROR + 6 / error.numel() ** 0.5
    if not (abs(deviation / noise.deviation - 1) <= allowed and abs(mean) <= allowed * noise.deviation):
        return (
            f"the noise of stage '{noise.stage}' has standard deviation {deviation:.3g} and mean {mean:.2g}; "
            f"{noise.deviation:.3g} and 0 were stated"
        )
    return features


def _run(function: Callable[[Tensor], Tensor], images: Images, device: torch.device) -> Tensor:
    return torch.cat([function(batch.to(device)).flatten(1).cpu() for batch in images.split(BATCH)])


def _drop_last_module(model: StagedModel, stage: str) -> Callable[[Tensor], Tensor] | None:
    module = model.stages[stage]
    if isinstance(module, StageNoise):
        module = nn.Sequential(nn.Identity(), module)
    if not isinstance(module, nn.Sequential) or len(module) < 2:
        return None
    others = StagedModel({name: other for name, other in model.stages.items() if name != stage})
    names = list(model.stages)
    earlier = names[names.index(stage) - 1] if names.index(stage) else None

    def function(images: Tensor) -> Tensor:
        value: Tensor = images if earlier is None else others.forward_to(images, earlier)
        noiseless: Tensor = module[:-1](value)
        return noiseless

    return function
