"""Keys of stages: the SHA-256 of everything a stage's result depends on, and nothing else.

The values are resolved settings, the upstream key, fingerprints of the data, and the integer revision of each
component, in the words of the first release. Versions of libraries are in the record, not in keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparseguard import bounds, checks, metrics, sparse
from sparseguard.attacks import access
from sparseguard.core import staged_model
from sparseguard.core.config import describe
from sparseguard.core.hashing import digest
from sparseguard.data import DATASETS
from sparseguard.generators import PRIOR_REVISION, hash_prior
from sparseguard.pipeline.plan.first_release import (
    translate_component,
    translate_conditions,
    translate_fingerprints,
    translate_label,
)
from sparseguard.pipeline.recipe import conditions
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedClassAttack, NamedDefense, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring import classes as class_scores
from sparseguard.pipeline.scoring import evaluators, images, scorers
from sparseguard.record import SCHEMA_VERSION
from sparseguard.targets import Backbone
from sparseguard.targets.training import trainer


def compute_target_key(
    recipe: Recipe, fingerprints: Mapping[str, str], threat: Threat, defense: NamedDefense, seed: int
) -> str:
    """Return the key of a trained target."""
    return digest(
        {
            "stage": "target",
            "revisions": [
                trainer.REVISION,
                sparse.REVISION,
                staged_model.REVISION,
                threat.backbone.component.revision,
                *defense.component.revisions(),
            ],
            "data": [recipe.data.name, fingerprints["private"], fingerprints["auxiliary"]],
            "backbone": threat.backbone.describe(),
            **_initial_weights(threat.backbone.component),
            "defense": defense.describe(),
            "tap": threat.tap if defense.component.acts_at_tap else None,
            "fit": describe(recipe.training),
            "seed": seed,
        }
    )


def compute_attack_key(attack: NamedAttack, upstream: Mapping[str, object], earlier: Sequence[str]) -> str:
    """Return the key of a feature inversion.

    Args:
        attack: the attack.
        upstream: from `describe_upstream`.
        earlier: keys of the attacks it may start from.
    """
    dataset = attack.conditions.dataset
    return digest(
        {
            "stage": "attack",
            "revisions": [
                access.REVISION,
                staged_model.REVISION,
                bounds.REVISION,
                conditions.REVISION,
                attack.component.revision,
                DATASETS[dataset].revision if dataset else None,
            ],
            **upstream,
            "attack": [
                translate_label(attack.label),
                translate_component(attack.describe()),
                translate_conditions(describe(attack.conditions)),
            ],
            "earlier": list(earlier),
            **_describe_prior(attack.component.prior_source()),
        }
    )


def compute_class_attack_key(attack: NamedClassAttack, upstream: Mapping[str, object], classes: Sequence[str]) -> str:
    """Return the key of a class inversion of ``classes``."""
    return digest(
        {
            "stage": "class attack",
            "revisions": [access.REVISION, staged_model.REVISION, attack.component.revision],
            **upstream,
            "attack": [translate_label(attack.label), translate_component(attack.describe())],
            "classes": list(classes),
            **_describe_prior(attack.component.prior_source()),
        }
    )


def compute_bounds_key(upstream: Mapping[str, object], bounds_images: int) -> str:
    """Return the key of the bounds at a threat's tap, means over ``bounds_images`` private images."""
    return digest({"stage": "bounds", "revision": bounds.REVISION, **upstream, "images": bounds_images})


def compute_record_key(
    recipe: Recipe, threat: Threat, defense: NamedDefense, attack_keys: Mapping[str, str], classes: Sequence[str]
) -> str:
    """Return the key of a case's record."""
    inversion = {"classes": [list(classes), class_scores.REVISION]} if threat.goal == "class-inversion" else {}
    return digest(
        {
            "stage": "record",
            "revisions": [metrics.REVISION, images.REVISION, checks.REVISION, recipe.dataset.revision, SCHEMA_VERSION],
            "scoring": [scorers.REVISION, bounds.REVISION, evaluators.REVISION, describe(recipe.scoring)],
            "recipe": [recipe.name, recipe.description],
            "labels": [threat.name, defense.label, [other.label for other in recipe.defenses]],
            "attacks": dict(attack_keys),
            **inversion,
            "expected_flags": [describe(flag) for flag in recipe.expected_flags],
            **_third_party(),
        }
    )


def _third_party() -> dict[str, object]:
    """Return the metrics and checks of other distributions, with their versions: every record has their results."""
    origins = {**metrics.METRICS.origins(), **checks.CHECKS.origins()}
    return {"third party": origins} if origins else {}


def describe_upstream(target_key: str, fingerprints: Mapping[str, str], threat: Threat) -> dict[str, object]:
    """Return what every attack at a threat's tap depends on."""
    return {
        "target": target_key,
        "fingerprints": translate_fingerprints(fingerprints),
        "threat": [threat.name, threat.tap],
    }


def _initial_weights(backbone: Backbone) -> dict[str, object]:
    weights = backbone.upstream()
    return {"weights": weights} if weights else {}


def _describe_prior(source: str | None) -> dict[str, object]:
    return {"prior": [PRIOR_REVISION, hash_prior(source)]} if source else {}
