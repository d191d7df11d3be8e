"""Searches through a target's weights: probe plans on a few images, choose one, run it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from torch import Tensor

from sparseguard.attacks._white_box import RULES, Rule, mean_cosine, models_by_rule
from sparseguard.core.progress import Progress
from sparseguard.core.staged_model import StagedModel

Plan = TypeVar("Plan")
"""Frozen settings of one run of a search."""


class WhiteBoxSearch(ABC, Generic[Plan]):
    """A search whose plan is chosen by short runs.

    A subclass says what it tries (`plan`), how it scores a trial (`trial`) and what it does with the plan.

    Args:
        model: a copy of the released model up to the tap.
        progress: where trials are reported.
        label: the attack's name in ``progress``.

    Attributes:
        models: the target by the rule of its gradients.
        diagnostics: figures for the result.
        trials: scores of the plans tried, by criterion and plan.
    """

    def __init__(self, model: StagedModel, progress: Progress, label: str) -> None:
        self.models = models_by_rule(model)
        self.progress, self.label = progress, label
        self.diagnostics: dict[str, float] = {}
        self.trials: dict[tuple[str, Plan], float] = {}

    @abstractmethod
    def plan(self) -> Plan:
        """Choose a plan by trials, one setting after the other."""

    @abstractmethod
    def trial(self, plan: Plan, criterion: str) -> float:
        """Run a plan on a few images and return its score; lower is better."""

    def choose(self, plans: Sequence[Plan], criterion: str) -> Plan:
        """Return the plan of lowest score, the first of equals; a plan without rivals is not tried."""
        if len(plans) == 1:
            return plans[0]
        with self.progress.task(f"{self.label}: probe", len(plans)) as advance:
            for plan in plans:
                if (criterion, plan) not in self.trials:
                    self.trials[criterion, plan] = self.trial(plan, criterion)
                advance(1)
        return min(plans, key=lambda plan: self.trials[criterion, plan])

    def record_gradients(self, gradients: Mapping[Rule, Tensor]) -> None:
        """Record the mean norm of the exact gradients ``(n, ...)``, and their cosines with those of other rules."""
        exact = gradients["unrolled"]
        self.diagnostics["gradient_norm"] = float(exact.flatten(1).norm(dim=1).mean())
        for rule in RULES[1:]:
            if rule in gradients and math.isfinite(cosine := mean_cosine(exact, gradients[rule])):
                self.diagnostics[f"cosine unrolled, {rule}"] = cosine
