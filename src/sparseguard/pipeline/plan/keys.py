"""Keys: what each stage's result depends on, and nothing else.

A key is the SHA-256 of plain values: resolved settings, the upstream key, fingerprints of the data read, and the
integer revision each component declares. Versions of libraries are recorded, not keyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sparseguard import bounds, checks, metrics, sparse
from sparseguard.attacks import access as leak
from sparseguard.core import staged_model as stages
from sparseguard.core.config import describe
from sparseguard.core.hashing import digest
from sparseguard.data import DATASETS
from sparseguard.generators import PRIOR_REVISION, prior_fingerprint
from sparseguard.pipeline.recipe import conditions
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedClassAttack, NamedDefense, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring import classes as class_scores
from sparseguard.pipeline.scoring import evaluators
from sparseguard.pipeline.scoring import images as score
from sparseguard.pipeline.scoring import scorers as judging
from sparseguard.pipeline.tasks.priors import attacked_classes
from sparseguard.record import SCHEMA_VERSION
from sparseguard.targets import Backbone
from sparseguard.targets.training import trainer as fit
from sparseguard.types import Knowledge, Splits


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedCase:
    """One case of the grid and the keys of its stages."""

    threat: Threat
    defense: NamedDefense
    seed: int
    target_key: str
    attack_keys: dict[str, str]
    bounds_key: str
    record_key: str


def select_earlier(recipe: Recipe, attack: NamedAttack) -> list[NamedAttack]:
    """Return the attacks before ``attack`` in the recipe whose results it may start from.

    None that know more, ask more often, are of its own kind, or were run under another control.
    """
    if not attack.component.starts_from_earlier:
        return []
    levels = list(Knowledge)
    before = recipe.attacks[: recipe.attacks.index(attack)]
    return [
        other
        for other in before
        if other.name != attack.name
        and not other.component.floor
        and other.conditions == replace(
            attack.conditions, max_images=other.conditions.max_images, queries=other.conditions.queries
        )
        and other.conditions.queries <= attack.conditions.queries
        and levels.index(other.knowledge) <= levels.index(attack.knowledge)
        and other.max_images in (None, attack.max_images)
    ]


def plan_cases(recipe: Recipe, splits: Splits) -> list[PlannedCase]:
    """Return the grid's cases, those that share a target next to each other."""
    fingerprints = splits.fingerprints()
    grid = [
        _job(recipe, splits.private.classes, fingerprints, threat, defense, seed)
        for seed in recipe.seeds
        for defense in recipe.defenses
        for threat in recipe.threats
    ]
    return sorted(grid, key=lambda job: [other.target_key for other in grid].index(job.target_key))


def _job(
    recipe: Recipe,
    names: tuple[str, ...],
    fingerprints: dict[str, str],
    threat: Threat,
    defense: NamedDefense,
    seed: int,
) -> PlannedCase:
    target_key = digest(
        {
            "stage": "target",
            "revisions": [
                fit.REVISION,
                sparse.REVISION,
                stages.REVISION,
                threat.backbone.component.revision,
                *defense.component.revisions(),
            ],
            "data": [recipe.data.name, fingerprints["private"], fingerprints["auxiliary"]],
            "backbone": threat.backbone.describe(),
            **_upstream(threat.backbone.component),
            "defense": defense.describe(),
            "tap": threat.tap if defense.component.acts_at_tap else None,
            "fit": describe(recipe.training),
            "seed": seed,
        }
    )
    attack_keys: dict[str, str] = {}
    upstream = {"target": target_key, "fingerprints": fingerprints, "threat": [threat.name, threat.tap]}
    for attack in recipe.attacks if threat.goal == "feature-inversion" else ():
        attack_keys[attack.label] = digest(
            {
                "stage": "attack",
                "revisions": [
                    leak.REVISION,
                    stages.REVISION,
                    bounds.REVISION,
                    conditions.REVISION,
                    attack.component.revision,
                    DATASETS[attack.conditions.dataset].revision if attack.conditions.dataset else None,
                ],
                **upstream,
                "attack": [attack.label, attack.describe(), describe(attack.conditions)],
                "earlier": [attack_keys[other.label] for other in select_earlier(recipe, attack)],
                **_of_prior(attack.component.prior_source()),
            }
        )
    classes = attacked_classes(recipe, threat, names)
    for one in recipe.class_attacks if threat.goal == "class-inversion" else ():
        attack_keys[one.label] = _class_attack_key(one, upstream, classes)
    record_key = digest(
        {
            "stage": "record",
            "revisions": [metrics.REVISION, score.REVISION, checks.REVISION, recipe.dataset.revision, SCHEMA_VERSION],
            "judge": [judging.REVISION, bounds.REVISION, evaluators.REVISION, describe(recipe.scoring)],
            "recipe": [recipe.name, recipe.description],
            "labels": [threat.name, defense.label, [other.label for other in recipe.defenses]],
            "attacks": attack_keys,
            **({"classes": [list(classes), class_scores.REVISION]} if threat.goal == "class-inversion" else {}),
            "expected_flags": [describe(flag) for flag in recipe.expected_flags],
        }
    )
    return PlannedCase(
        threat=threat,
        defense=defense,
        seed=seed,
        target_key=target_key,
        attack_keys=attack_keys,
        bounds_key=digest(
            {
                "stage": "bounds",
                "revision": bounds.REVISION,
                "target": target_key,
                "threat": [threat.name, threat.tap],
                "images": recipe.scoring.bounds_images,
                "fingerprints": fingerprints,
            }
        ),
        record_key=record_key,
    )


def _class_attack_key(attack: NamedClassAttack, upstream: Mapping[str, object], classes: tuple[str, ...]) -> str:
    return digest(
        {
            "stage": "class attack",
            "revisions": [leak.REVISION, stages.REVISION, attack.component.revision],
            **upstream,
            "attack": [attack.label, attack.describe()],
            "classes": list(classes),
            **_of_prior(attack.component.prior_source()),
        }
    )


def _upstream(backbone: Backbone) -> dict[str, object]:
    weights = backbone.upstream()
    return {"weights": weights} if weights else {}


def _of_prior(source: str | None) -> dict[str, object]:
    return {"prior": [PRIOR_REVISION, prior_fingerprint(source)]} if source else {}
