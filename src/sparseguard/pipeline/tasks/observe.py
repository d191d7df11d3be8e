"""Features of the attacked images at one tap, and access to the target for attacks."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sparseguard.attacks.access import ModelAccess
from sparseguard.core.seeding import derive
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.scoring.images import effective_rank, list_scored_splits
from sparseguard.record import FeatureFacts, Queries
from sparseguard.targets import Target
from sparseguard.types import Knowledge, Observation, Released, Splits

PROBES = 64


class TapObserver:
    """Observes one target's tap.

    Args:
        target: the released target.
        model: what is queried; the target's model, or one that caches its outputs.
        job: the case.
        splits: the images.
        device: where the model is.
    """

    def __init__(self, target: Target, model: Released, job: PlannedCase, splits: Splits, device: torch.device) -> None:
        self._target = target
        self._model = model
        self._job = job
        self._splits = splits
        self._device = device
        self._observations: dict[int, dict[str, Observation]] = {}
        images = splits.auxiliary.select(torch.arange(min(PROBES, len(splits.auxiliary))))
        probe = self._access(Knowledge.BLACK_BOX, "probe", target.model)
        first, second = probe.observe(images).features, probe.observe(images).features
        std = float(first.flatten(1).var(0).mean().sqrt())
        self.noise_ratio = float((first - second).square().mean().sqrt()) / (std or 1.0)

    def observations(self, repeats: int) -> dict[str, Observation]:
        """Return the features of every scored split when each image is sent ``repeats`` times."""
        if repeats not in self._observations:
            purpose = "private" if repeats == 1 else f"private, {repeats} times"
            access = self._access(Knowledge.BLACK_BOX, purpose, self._model, repeats=repeats)
            by_split = self._splits.by_name()
            self._observations[repeats] = {
                split: access.observe(by_split[split]) for split in list_scored_splits(self._splits)
            }
        return self._observations[repeats]

    def grant_access(self, knowledge: Knowledge, purpose: str, conditions: Conditions) -> ModelAccess:
        """Return access with noise of its own."""
        return self._access(
            knowledge,
            purpose,
            self._model,
            repeats=conditions.queries,
            shuffled=conditions.control == "shuffled-features",
        )

    def describe(self, auxiliary_queries: int, repeats: Collection[int]) -> FeatureFacts:
        """Return the facts of the tap, of which every scored image was sent as often as ``repeats`` say together."""
        by_split = self._splits.by_name()
        private_queries = sum(repeats) * sum(len(by_split[split]) for split in list_scored_splits(self._splits))
        features = self._access(Knowledge.BLACK_BOX, "rank", self._model).observe(self._splits.auxiliary).features
        return FeatureFacts(
            shape=tuple(features.shape[1:]),
            dimension=int(features[0].numel()),
            effective_rank=effective_rank(features),
            noise_ratio=self.noise_ratio,
            queries=Queries(private=private_queries, auxiliary=auxiliary_queries),
        )

    def _access(
        self, knowledge: Knowledge, purpose: str, model: Released, repeats: int = 1, shuffled: bool = False
    ) -> ModelAccess:
        threat = self._job.threat
        return ModelAccess(
            model,
            tap=threat.tap,
            stage=self._target.taps[threat.tap],
            knowledge=knowledge,
            seed=derive(purpose=f"leak {purpose}", threat=threat.name, tap=threat.tap, seed=self._job.seed),
            device=self._device,
            repeats=repeats,
            shuffled=shuffled,
            released=self._target.model,
        )
