"""Recipe: a grid of experiments, with every component built and validated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparseguard.core.errors import RecipeError
from sparseguard.data import DataSet
from sparseguard.pipeline.recipe.entries import (
    ExpectedFlag,
    NamedAttack,
    NamedClassAttack,
    NamedComponent,
    NamedDefense,
    Threat,
)
from sparseguard.pipeline.recipe.scoring import Scoring
from sparseguard.targets import Fit
from sparseguard.types import Knowledge


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A resolved recipe.

    Args:
        name: of the recipe.
        description: one line.
        seeds: each case is run with each of them.
        data: the data set.
        training: how every target is trained.
        threats: taps and goals.
        defenses: of the targets.
        attacks: feature inversions.
        class_attacks: class inversions.
        scoring: further scores.
        expected_flags: flags of the checks that the author expects.
    """

    name: str
    description: str
    seeds: tuple[int, ...]
    data: NamedComponent
    training: Fit
    threats: tuple[Threat, ...]
    defenses: tuple[NamedDefense, ...]
    attacks: tuple[NamedAttack, ...]
    class_attacks: tuple[NamedClassAttack, ...]
    scoring: Scoring
    expected_flags: tuple[ExpectedFlag, ...]

    @property
    def dataset(self) -> DataSet:
        """Settings of the data set."""
        dataset: DataSet = self.data.component
        return dataset


def limit_batch_size(recipe: Recipe, size: int) -> Recipe:
    """Return the recipe with every class inversion, and every white-box attack, searching ``size`` images at once.

    Raises:
        RecipeError: when no attack of the recipe has a batch size.
    """
    searches = [attack for attack in recipe.attacks if attack.knowledge == Knowledge.WHITE_BOX]
    if not (searches or recipe.class_attacks):
        raise RecipeError("--batch: no attack of this recipe searches by gradients, so there is no memory to bound.")
    limited = {
        attack.label: replace(attack.component, batch_size=size) for attack in (*searches, *recipe.class_attacks)
    }
    return replace(
        recipe,
        attacks=tuple(
            replace(attack, component=limited.get(attack.label, attack.component)) for attack in recipe.attacks
        ),
        class_attacks=tuple(replace(attack, component=limited[attack.label]) for attack in recipe.class_attacks),
    )
