"""What is said of reconstructions beyond the image-by-image scores every run has; each costs time and is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.feature_inversion.ridge import fit_ridge
from sparseguard.bounds import NoiseFacts, bounds_of
from sparseguard.core.config import settings
from sparseguard.core.progress import Progress
from sparseguard.core.staged_model import StagedModel
from sparseguard.metrics import FashionNet, FeatureNetwork, Inception2015, Lpips, TorchvisionNetwork, recognized
from sparseguard.pipeline.scoring.distributions import set_scores
from sparseguard.pipeline.scoring.evaluators import Evaluator, evaluators
from sparseguard.record import Bound, SetScore
from sparseguard.types import Splits

REVISION = 1


@settings
class Judge:
    """Which further scores a recipe asks for.

    Args:
        network: whose features sets of images are compared in: ``fashion-net`` (comes with the package, for
            Fashion-MNIST), ``inception`` (the 2015 weights; then the score is called FID), ``torchvision``.
        model: name of the torchvision model.
        weights: of ``inception`` or the torchvision model.
        lpips: backbone weights for LPIPS.
        lpips_backbone: the backbone these are of.
        evaluators: train two classifiers on the attacker's images and ask them whether reconstructions are still of
            their class.
        neighbours: for attacks on classes: how many private images a feature distance is a mean over.
        bounds: what a perfect attacker could know.
        bounds_images: how many private images bounds are means over.

    Raises:
        pydantic.ValidationError: when a torchvision network has no model or weights, or another one is given them.
    """

    network: Literal["none", "fashion-net", "inception", "torchvision"] = "none"
    model: str | None = None
    weights: Path | None = None
    lpips: Path | None = None
    lpips_backbone: Literal["alex", "vgg", "squeeze"] = "alex"
    evaluators: bool = False
    neighbours: Annotated[int, Field(ge=1)] = 1
    bounds: bool = False
    bounds_images: Annotated[int, Field(ge=2)] = 128

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Judge:
        if self.network == "torchvision" and (self.model is None or self.weights is None):
            raise ValueError("network 'torchvision' needs model= and weights=")
        if self.model is not None and self.network != "torchvision":
            raise ValueError("model names a network of network = 'torchvision'")
        if self.weights is not None and self.network not in ("torchvision", "inception"):
            raise ValueError("weights are those of network = 'torchvision' or 'inception'")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Networks that judge reconstructions, made once a run.

    Args:
        network: whose features sets are compared in.
        lpips: distance of two images, lower is closer.
        evaluators: classifiers.
        real: keeps the originals' features.
    """

    network: FeatureNetwork | None
    lpips: Lpips | None
    evaluators: list[Evaluator]
    real: dict[str, Tensor] = field(default_factory=dict)

    def per_image(self, made: Tensor, originals: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return further scores of each image ``(n,)`` by name."""
        scores = {f"recognized by {judge.name}": recognized(judge.module, made, labels) for judge in self.evaluators}
        if self.lpips is not None:
            scores["LPIPS"] = self.lpips(made, originals)
        return scores

    def of_set(self, made: Tensor, originals: Tensor) -> dict[str, SetScore]:
        """Return scores of all reconstructions together."""
        if self.network is None:
            return {}
        found = set_scores(made, originals, self.network, self.real)
        return {name: SetScore(value=one.value, reason=one.reason, n=one.n) for name, one in found.items()}


def bench(judge: Judge, splits: Splits, folder: Path, device: torch.device, progress: Progress) -> Bench:
    """Return what a recipe asks for, trained or loaded."""
    network: FeatureNetwork | None = None
    if judge.network == "fashion-net":
        network = FashionNet(device)
    elif judge.network == "inception":
        network = Inception2015(judge.weights, device)
    elif judge.network == "torchvision" and judge.model is not None and judge.weights is not None:
        network = TorchvisionNetwork(judge.model, judge.weights, device)
    return Bench(
        network=network,
        lpips=None if judge.lpips is None else Lpips(judge.lpips, judge.lpips_backbone, device),
        evaluators=evaluators(splits, folder, device, progress) if judge.evaluators else [],
    )


def perfect_attacker(
    judge: Judge, model: StagedModel, stage: str, splits: Splits, device: torch.device, seed: int, progress: Progress
) -> list[Bound]:
    """Return the bounds of a released model at one tap."""
    few = torch.arange(min(judge.bounds_images, len(splits.private)))
    found = bounds_of(
        model,
        tap_stage=stage,
        auxiliary=splits.auxiliary,
        private=splits.private.select(few),
        decode=_ridge,
        noise=NoiseFacts.of(model),
        device=device,
        seed=seed,
        progress=progress,
    )
    return [
        Bound(
            name=f"{one.name} ({one.where})",
            meaning=one.meaning,
            values=dict(one.values),
            reason=one.reason,
            n=one.n,
        )
        for one in found
    ]


def _ridge(features: Tensor, images: Tensor, seen: Tensor) -> Tensor:
    cut = len(features) * 9 // 10
    flat = images.flatten(1)
    mapping, _, _ = fit_ridge(features[:cut], flat[:cut], features[cut:], flat[cut:])
    return mapping(seen).float().view(-1, *images.shape[1:])
