"""Cases of a recipe with the keys of their stages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparseguard.pipeline.plan.classes import select_classes
from sparseguard.pipeline.plan.keys import (
    compute_attack_key,
    compute_bounds_key,
    compute_class_attack_key,
    compute_record_key,
    compute_target_key,
    describe_upstream,
)
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedDefense, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.types import Knowledge, Splits


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedCase:
    """A case of the grid and the keys of its stages.

    Args:
        threat: the threat.
        defense: the defense.
        seed: the seed.
        target_key: of the trained target.
        attack_keys: of each attack, by its label.
        bounds_key: of the bounds.
        record_key: of the record.
    """

    threat: Threat
    defense: NamedDefense
    seed: int
    target_key: str
    attack_keys: dict[str, str]
    bounds_key: str
    record_key: str


def plan_cases(recipe: Recipe, splits: Splits) -> list[PlannedCase]:
    """Return the cases of the grid; those that share a target are next to each other."""
    fingerprints = splits.fingerprints()
    cases = [
        _plan_case(recipe, splits.private.classes, fingerprints, threat, defense, seed)
        for seed in recipe.seeds
        for defense in recipe.defenses
        for threat in recipe.threats
    ]
    order: dict[str, int] = {}
    for case in cases:
        order.setdefault(case.target_key, len(order))
    return sorted(cases, key=lambda case: order[case.target_key])


def select_earlier(recipe: Recipe, attack: NamedAttack) -> list[NamedAttack]:
    """Return the attacks before ``attack`` in the recipe whose results it may start from.

    They know no more, send no more queries, are of another kind, and run under the same control.
    """
    if not attack.component.starts_from_earlier:
        return []
    knowledge = list(Knowledge)
    before = recipe.attacks[: recipe.attacks.index(attack)]
    return [
        other
        for other in before
        if other.name != attack.name
        and not other.component.floor
        and other.conditions
        == replace(attack.conditions, max_images=other.conditions.max_images, queries=other.conditions.queries)
        and other.conditions.queries <= attack.conditions.queries
        and knowledge.index(other.knowledge) <= knowledge.index(attack.knowledge)
        and other.max_images in (None, attack.max_images)
    ]


def _plan_case(
    recipe: Recipe,
    names: tuple[str, ...],
    fingerprints: dict[str, str],
    threat: Threat,
    defense: NamedDefense,
    seed: int,
) -> PlannedCase:
    target_key = compute_target_key(recipe, fingerprints, threat, defense, seed)
    upstream = describe_upstream(target_key, fingerprints, threat)
    classes = select_classes(recipe, threat, names)
    attack_keys: dict[str, str] = {}
    if threat.goal == "feature-inversion":
        for attack in recipe.attacks:
            earlier = [attack_keys[other.label] for other in select_earlier(recipe, attack)]
            attack_keys[attack.label] = compute_attack_key(attack, upstream, earlier)
    else:
        attack_keys = {
            attack.label: compute_class_attack_key(attack, upstream, classes) for attack in recipe.class_attacks
        }
    return PlannedCase(
        threat=threat,
        defense=defense,
        seed=seed,
        target_key=target_key,
        attack_keys=attack_keys,
        bounds_key=compute_bounds_key(upstream, recipe.scoring.bounds_images),
        record_key=compute_record_key(recipe, threat, defense, attack_keys, classes),
    )
