"""What leaked of the attacked images through one tap, and leaks for attacks to hold."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sparseguard.attacks.access import ModelAccess
from sparseguard.core.seeding import derive
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.scoring.images import effective_rank, scored_parts
from sparseguard.record import FeatureFacts, Queries
from sparseguard.targets import Target
from sparseguard.types import Knowledge, Observation, Released, Splits

PROBES = 64


class Observed:
    """One target's tap.

    Args:
        target: the released target.
        model: what is queried; the target's model, or one that remembers its answers.
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
        few = splits.auxiliary.select(torch.arange(min(PROBES, len(splits.auxiliary))))
        probe = self._leak(Knowledge.BLACK_BOX, "probe", target.model)
        first, second = probe.observe(few).features, probe.observe(few).features
        spread = float(first.flatten(1).var(0).mean().sqrt())
        self.noise_ratio = float((first - second).square().mean().sqrt()) / (spread or 1.0)

    def observations(self, repeats: int) -> dict[str, Observation]:
        """Return what leaked of every scored part when each image is sent ``repeats`` times."""
        if repeats not in self._observations:
            purpose = "private" if repeats == 1 else f"private, {repeats} times"
            leak = self._leak(Knowledge.BLACK_BOX, purpose, self._model, repeats=repeats)
            parts = self._splits.by_name()
            self._observations[repeats] = {part: leak.observe(parts[part]) for part in scored_parts(self._splits)}
        return self._observations[repeats]

    def leak(self, knowledge: Knowledge, purpose: str, conditions: Conditions) -> ModelAccess:
        """Return a leak whose noise is its own."""
        return self._leak(
            knowledge,
            purpose,
            self._model,
            repeats=conditions.queries,
            shuffled=conditions.control == "shuffled-features",
        )

    def describe(self, auxiliary_queries: int, repeats: Collection[int]) -> FeatureFacts:
        """Return the facts of the tap, of which every scored image was sent as often as ``repeats`` say together."""
        parts = self._splits.by_name()
        private_queries = sum(repeats) * sum(len(parts[part]) for part in scored_parts(self._splits))
        seen = self._leak(Knowledge.BLACK_BOX, "rank", self._model).observe(self._splits.auxiliary).features
        return FeatureFacts(
            shape=tuple(seen.shape[1:]),
            dimension=int(seen[0].numel()),
            effective_rank=effective_rank(seen),
            noise_ratio=self.noise_ratio,
            queries=Queries(private=private_queries, auxiliary=auxiliary_queries),
        )

    def _leak(
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
