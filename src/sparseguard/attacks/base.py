"""What an attack is: the author writes `run`, the library owns the call around it and its checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch

from sparseguard.attacks.access import Leak
from sparseguard.core.errors import SparseguardError, TrainingError
from sparseguard.core.progress import Progress
from sparseguard.generators import Prior
from sparseguard.types import Attacked, AttackResult, AuxiliaryData, Goal, Images, Knowledge


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackContext:
    """What every attack is given besides the leak.

    Args:
        public: the attacker's own images.
        seed: of the attack's own randomness.
        device: where to train.
        progress: told how far it is.
        label: its name in `progress`.
        earlier: by level of knowledge, what the attack before this one that was best on auxiliary_val made of the same
            images; of those that know no more.
        prior: the generator its settings name; None where they name none.
    """

    auxiliary: AuxiliaryData
    seed: int
    device: torch.device
    progress: Progress
    label: str
    earlier: Mapping[str, Mapping[str, Images]] = field(default_factory=dict)
    prior: Prior | None = None


class NotApplicable(SparseguardError):  # noqa: N818 - a reason, not a mistake
    """An attack has nothing to offer against this target; the message says why."""


class Attack(ABC):
    """Settings of an attack on instances: reconstruct each image from what leaked of it."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    knowledge: ClassVar[Knowledge]
    floor: ClassVar[bool] = False
    """Whether this is what anybody could do without the leak's help: a floor, not an attack."""

    images: ClassVar[int | None] = None
    """How many images of each part it is given, unless a recipe says otherwise; None for all."""

    learns_from_features: ClassVar[bool] = True
    """Whether what it makes depends on the features of the attacker's own images, as a control supposes."""

    starts_from_earlier: ClassVar[bool] = False
    """Whether it is given what attacks before it in the recipe made."""

    def prior_source(self) -> str | None:
        """Return name or folder of the prior it is to be given; None if it needs none."""
        return None

    def trusts_prior(self) -> bool:
        """Return whether Python that the prior's folder names may be run."""
        return False

    @abstractmethod
    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Reconstruct every part of the goal.

        Raises:
            NotApplicable: when there is nothing it could do against this target that others do not.
        """

    @final
    def __call__(self, leak: Leak, goal: Goal, context: AttackContext) -> tuple[AttackResult, float]:
        """Run the attack; return its result clipped to [0, 1], and how far outside the furthest value was.

        Raises:
            TrainingError: when a reconstruction is not finite or has a wrong shape; neither is ever scored.
        """
        result = self.run(leak, goal, context)
        size = context.auxiliary.train.shape
        outside = 0.0
        clipped = {}
        for part, attacked in goal.items():
            images = result.reconstructions.get(part)
            if images is None or images.shape != (attacked.count, *size):
                shape = None if images is None else tuple(images.shape)
                raise TrainingError(f"{context.label}: '{part}' needs {(attacked.count, *size)} images, got {shape}.")
            if not torch.isfinite(images).all():
                raise TrainingError(f"{context.label}: reconstructions of '{part}' are not finite.")
            outside = max(outside, float((images - images.clamp(0, 1)).abs().max()))
            clipped[part] = images.clamp(0, 1)
        return replace(result, reconstructions=clipped), outside


def released(goal: Goal) -> dict[str, torch.Tensor]:
    """Return what leaked of each part, ``(n, *tap)``."""
    features = {}
    for part, attacked in goal.items():
        if attacked.observation is None:
            raise TrainingError(f"the attack needs an observation of '{part}'.")
        features[part] = attacked.observation.features
    return features


def observed(goal: Goal) -> dict[str, torch.Tensor]:
    """Return what leaked of each part, flattened to ``(n, d)``."""
    return {part: features.flatten(1) for part, features in released(goal).items()}


def own_images(attacked: Attacked, context: AttackContext) -> Images:
    """Return the originals of the part auxiliary_val, which the attacker has."""
    val = context.auxiliary.val
    return val.images if attacked.index is None else val.batch(attacked.index)
