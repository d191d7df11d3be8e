"""Priors of a recipe's attacks: loaded once, and checked for private images in their training data."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparseguard.core.errors import DataError
from sparseguard.generators import Prior, count_shared_images, hash_prior, load_prior
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedClassAttack
from sparseguard.record import PriorFacts
from sparseguard.types import Splits


@dataclass(kw_only=True, eq=False)
class Priors:
    """The priors of a recipe by the names its attacks use.

    Args:
        splits: the images under attack.
    """

    splits: Splits
    loaded: dict[str, Prior] = field(default_factory=dict)
    facts: dict[str, PriorFacts] = field(default_factory=dict)

    def get(self, attack: NamedAttack | NamedClassAttack) -> Prior | None:
        """Return the prior an attack names; None if it names none.

        Raises:
            DataError: when it cannot be loaded, or was trained on private images: what it makes may be one of them.
        """
        source = attack.component.prior_source()
        if not source:
            return None
        if source not in self.loaded:
            prior = load_prior(source, trust_code=attack.component.trusts_prior())
            self.facts[source] = self._describe(source, prior, attack.label)
            self.loaded[source] = prior
        return self.loaded[source]

    def describe(self, attack: NamedAttack | NamedClassAttack) -> PriorFacts | None:
        """Return the facts of the prior an attack uses; None if it uses none."""
        return None if self.get(attack) is None else self.facts[str(attack.component.prior_source())]

    def _describe(self, source: str, prior: Prior, label: str) -> PriorFacts:
        overlap: dict[str, int] | None = None
        if prior.trained_on is not None:
            shared = {
                split: count_shared_images(prior.trained_on, images) for split, images in self.splits.by_name().items()
            }
            if shared["private"]:
                raise DataError(
                    f"[[attacks]] '{label}': the prior '{source}' was trained on {shared['private']:,} of the private "
                    "images, so what it makes may be one of them. Choose another; `sparseguard prior train` makes one "
                    "of the auxiliary data alone."
                )
            overlap = {split: count for split, count in shared.items() if count}
        card = prior.card
        return PriorFacts(
            name=card.name,
            kind=card.kind,
            fingerprint=hash_prior(source),
            shape=list(card.shape),
            num_ws=card.num_ws,
            w_dim=card.w_dim,
            trained_on=card.trained_on,
            training_images=None if prior.trained_on is None else len(prior.trained_on),
            classes=None if card.classes is None else list(card.classes),
            overlap=overlap,
        )
