"""Scorers of reconstructions beyond the scores per image of every run; a recipe asks for each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sparseguard.bounds import NoiseFacts, compute_bounds
from sparseguard.core.progress import Progress
from sparseguard.core.staged_model import StagedModel
from sparseguard.metrics import FashionNet, FeatureNetwork, Inception2015, Lpips, TorchvisionNetwork, class_consistency
from sparseguard.numerics.ridge import fit_ridge
from sparseguard.pipeline.recipe.scoring import Scoring
from sparseguard.pipeline.scoring.distributions import set_scores
from sparseguard.pipeline.scoring.evaluators import Evaluator, load_evaluators
from sparseguard.record import Bound, SetScore, bound_fields
from sparseguard.types import Splits

REVISION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorers:
    """Networks that score reconstructions, built once a run.

    Args:
        network: network whose features compare sets of images.
        lpips: distance of two images, lower is closer.
        evaluators: classifiers that no attack uses.
        real: the originals' features by a hash of the images.
    """

    network: FeatureNetwork | None
    lpips: Lpips | None
    evaluators: list[Evaluator]
    feature_cache: dict[str, Tensor] = field(default_factory=dict)

    def score_images(self, reconstructions: Tensor, originals: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return further scores of each image ``(n,)`` by name."""
        scores = {
            f"evaluator accuracy ({evaluator.name})": class_consistency(reconstructions, labels, evaluator.module)
            for evaluator in self.evaluators
        }
        if self.lpips is not None:
            scores["LPIPS"] = self.lpips(reconstructions, originals)
        return scores

    def score_set(self, reconstructions: Tensor, originals: Tensor) -> dict[str, SetScore]:
        """Return scores of the whole set of reconstructions."""
        if self.network is None:
            return {}
        scores = set_scores(reconstructions, originals, self.network, self.feature_cache)
        return {name: SetScore(value=score.value, reason=score.reason, n=score.n) for name, score in scores.items()}


def build_scorers(scoring: Scoring, splits: Splits, folder: Path, device: torch.device, progress: Progress) -> Scorers:
    """Return the scorers that a recipe asks for, trained or loaded."""
    network: FeatureNetwork | None = None
    if scoring.network == "fashion-net":
        network = FashionNet(device)
    elif scoring.network == "inception":
        network = Inception2015(scoring.weights, device)
    elif scoring.network == "torchvision" and scoring.model is not None and scoring.weights is not None:
        network = TorchvisionNetwork(scoring.model, scoring.weights, device)
    return Scorers(
        network=network,
        lpips=None if scoring.lpips is None else Lpips(scoring.lpips, scoring.lpips_backbone, device),
        evaluators=load_evaluators(splits, folder, device, progress) if scoring.evaluators else [],
    )


def measure_bounds(
    scoring: Scoring,
    model: StagedModel,
    stage: str,
    splits: Splits,
    device: torch.device,
    seed: int,
    progress: Progress,
) -> list[Bound]:
    """Return the bounds of a released model at one tap."""
    chosen = torch.arange(min(scoring.bounds_images, len(splits.private)))
    bounds = compute_bounds(
        model,
        tap_stage=stage,
        auxiliary=splits.auxiliary,
        private=splits.private.select(chosen),
        decode=_ridge,
        noise=NoiseFacts.from_model(model),
        device=device,
        seed=seed,
        progress=progress,
    )
    return [
        Bound(
            name=bound.name,
            layer=bound.where,
            meaning=bound.meaning,
            **bound_fields(bound.values),
            reason=bound.reason,
            n=bound.n,
        )
        for bound in bounds
    ]


def _ridge(features: Tensor, images: Tensor, seen: Tensor) -> Tensor:
    cut = len(features) * 9 // 10
    flat = images.flatten(1)
    mapping = fit_ridge(features[:cut], flat[:cut], features[cut:], flat[cut:]).mapping
    return mapping(seen).float().view(-1, *images.shape[1:])
