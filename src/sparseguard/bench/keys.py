"""Keys: what each stage's result depends on, and nothing else.

A key is the SHA-256 of plain values: resolved settings, the upstream key, fingerprints of the data read, and the
integer revision each component declares. Versions of libraries are recorded, not keyed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sparseguard import checks, leak, metrics, sparse
from sparseguard.bench.recipe import Named, Recipe, Threat
from sparseguard.settings import describe
from sparseguard.targets import fit
from sparseguard.types import Splits


def digest(values: Any) -> str:
    """Return the key of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One case of the grid and the keys of its stages."""

    threat: Threat
    defense: Named
    seed: int
    target_key: str
    attack_keys: dict[str, str]
    record_key: str


def jobs(recipe: Recipe, splits: Splits) -> list[Job]:
    """Return the grid's cases, those that share a target next to each other."""
    fingerprints = splits.fingerprints()
    grid = [
        _job(recipe, fingerprints, threat, defense, seed)
        for seed in recipe.seeds
        for defense in recipe.defenses
        for threat in recipe.threats
    ]
    return sorted(grid, key=lambda job: [other.target_key for other in grid].index(job.target_key))


def _job(recipe: Recipe, fingerprints: dict[str, str], threat: Threat, defense: Named, seed: int) -> Job:
    target_key = digest(
        {
            "stage": "target",
            "revisions": [fit.REVISION, sparse.REVISION, threat.backbone.piece.revision, defense.piece.revision],
            "data": [recipe.data.name, fingerprints["private"], fingerprints["attacker_train"]],
            "backbone": threat.backbone.described(),
            "defense": defense.described(),
            "tap": threat.tap if defense.piece.acts_at_cut else None,
            "fit": describe(recipe.fit),
            "seed": seed,
        }
    )
    attack_keys = {
        attack.label: digest(
            {
                "stage": "attack",
                "revisions": [leak.REVISION, attack.piece.revision],
                "target": target_key,
                "fingerprints": fingerprints,
                "threat": [threat.name, threat.tap],
                "attack": [attack.label, attack.described()],
            }
        )
        for attack in recipe.attacks
    }
    record_key = digest(
        {
            "stage": "record",
            "revisions": [metrics.REVISION, checks.REVISION, recipe.dataset.revision],
            "recipe": [recipe.name, recipe.description],
            "labels": [threat.name, defense.label, [other.label for other in recipe.defenses]],
            "attacks": attack_keys,
            "expected_flags": [describe(flag) for flag in recipe.expected_flags],
        }
    )
    return Job(
        threat=threat,
        defense=defense,
        seed=seed,
        target_key=target_key,
        attack_keys=attack_keys,
        record_key=record_key,
    )
