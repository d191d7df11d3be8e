"""The priors a recipe's attacks are given: loaded once, and looked at for images they must not have seen."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparseguard.core.errors import DataError, RecipeError, nearest
from sparseguard.generators import Prior, find_prior, load_prior, prior_fingerprint, read_card, shared_images
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedClassAttack, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.record import PriorFacts
from sparseguard.types import Splits


@dataclass(kw_only=True, eq=False)
class Priors:
    """The priors of a recipe by what its attacks call them.

    Args:
        splits: the images under attack.
    """

    splits: Splits
    loaded: dict[str, Prior] = field(default_factory=dict)
    facts: dict[str, PriorFacts] = field(default_factory=dict)

    def of(self, attack: NamedAttack | NamedClassAttack) -> Prior | None:
        """Return the prior an attack names; None if it names none.

        Raises:
            DataError: when it cannot be loaded, or was trained on private images: what it makes may be one of them.
        """
        source = attack.component.prior_source()
        if not source:
            return None
        if source not in self.loaded:
            prior = load_prior(source, trust_code=attack.component.trusts_prior())
            self.facts[source] = self._looked_at(source, prior, attack.label)
            self.loaded[source] = prior
        return self.loaded[source]

    def facts_of(self, attack: NamedAttack | NamedClassAttack) -> PriorFacts | None:
        """Return what is known of the prior an attack was given."""
        return None if self.of(attack) is None else self.facts[str(attack.component.prior_source())]

    def _looked_at(self, source: str, prior: Prior, label: str) -> PriorFacts:
        overlap: dict[str, int] | None = None
        if prior.trained_on is not None:
            found = {part: shared_images(prior.trained_on, images) for part, images in self.splits.parts().items()}
            if found["private"]:
                raise DataError(
                    f"[[attacks]] '{label}': the prior '{source}' was trained on {found['private']:,} of the private "
                    "images, so what it makes may be one of them. Choose another; `sparseguard prior train` makes one "
                    "of the attacker's images alone."
                )
            overlap = {part: count for part, count in found.items() if count}
        card = prior.card
        return PriorFacts(
            name=card.name,
            kind=card.kind,
            fingerprint=prior_fingerprint(source),
            shape=list(card.shape),
            num_ws=card.num_ws,
            w_dim=card.w_dim,
            trained_on=card.trained_on,
            training_images=None if prior.trained_on is None else len(prior.trained_on),
            classes=None if card.classes is None else list(card.classes),
            overlap=overlap,
        )


def attacked_classes(recipe: Recipe, threat: Threat, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes a threat attacks: those it names, or those that no prior of the recipe has seen.

    Where the priors together have seen all, it is those that not every prior has seen; where there are none either, or
    a prior does not say what it has seen, all classes.

    Args:
        recipe: the recipe.
        threat: one of its threats.
        names: of all classes of the data set.

    Raises:
        RecipeError: for a class the data set does not have.
    """
    if threat.goal != "class-inversion":
        return ()
    if threat.classes:
        for name in threat.classes:
            if name not in names:
                raise RecipeError(f"[[threats]] '{threat.name}': unknown class '{name}'. {nearest(name, names)}")
        return tuple(name for name in names if name in threat.classes)
    sources = [source for attack in recipe.class_attacks if (source := attack.component.prior_source())]
    told = [read_card(find_prior(source)).classes for source in sources]
    seen = [set(names if classes is None else classes) for classes in told]
    for known in (set[str]().union(*seen), set(names).intersection(*seen)):
        if unknown := tuple(name for name in names if name not in known):
            return unknown
    return names
