"""Records of many defenses with several settings each; accuracy, answers and leak can be worked out on paper."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparseguard.record import DataFacts, DefenseFacts, LabeledComponent, Record, TargetFacts, figure_fields
from support import synthetic_records as made

SIZES = {"private": 3000, "auxiliary": 1500, "auxiliary_val": 300, "tuning": 300, "test": 900}
PARTS = {"private": 0.0, "test": -1.0, "auxiliary_val": -2.0}
"""What is added to the PSNR of a part."""
BASE = range(60)
"""Places that none classifies wrong, in each part."""


def record(
    family: str = "none",
    label: str | None = None,
    lost: int = 0,
    gained: int = 0,
    shift: float = 0.0,
    order: Sequence[str] = (),
    **changes: Any,
) -> Record:
    """Make a record of a setting.

    Args:
        family: the defense's name.
        label: the setting's, by default the name.
        lost: images of tuning, and as many of auxiliary_val, that only none classifies right.
        gained: the same, that only this setting classifies right.
        shift: added to the PSNR of the attacks.
        order: labels in the recipe's order.
        changes: other fields of the record; ``facts`` are those of the target.
    """
    facts = dict(changes.pop("facts", {}))
    figures = figure_fields(facts.pop("defense", {}), DefenseFacts.model_fields)
    answers = sorted({*BASE[gained:], *range(100, 100 + lost)})
    accuracy = facts.pop("accuracy", 1 - len(answers) / 300)
    label = label or family
    own = LabeledComponent(label=label, name=family)
    listed = [own if name == label else LabeledComponent(label=name, name=name) for name in order]
    values: dict[str, Any] = {
        "target": TargetFacts.model_validate(
            {
                "accuracy": accuracy,
                "accuracy_n": 900,
                "majority_rate": 0.1,
                "parameters": 652_510,
                "epochs": 6,
                "best_epoch": 5,
                "defense": figures,
                "misclassified": dict.fromkeys(("test", "tuning", "auxiliary_val"), answers),
                "step_flops": 2_000_000,
                "relative_cost": 1.0,
                "state_hash": "a",
                "state_hash_after": "a",
            }
            | facts
        ),
        "config": made.config([], defenses=[*listed, *([] if label in order else [own])]),
        "data": DataFacts(sizes=SIZES, layout="sparseguard", fingerprints=dict.fromkeys(SIZES, "same")),
        "attacks": made.attacks(shift, PARTS),
    }
    return made.record(label, **(values | changes))


NAMES = (
    *("sca", "gaussian-noise", "laplace-noise", "gan-features", "nopeek", "cem", "dp-sgd", "bido", "mi-reg"),
    *("l1-codes", "input-noise", "dropout-noise", "quantize", "prune", "vib", "pixelate", "shredder", "adversarial"),
    *("sca+cem", "sca+gaussian-noise"),
    *("standardize-only", "conv-control", "relu-threshold", "low-rank", "downsample"),
)
"""25 families."""


def grid(families: int = 25, settings: int = 5, threat: str = "split") -> list[Record]:
    """Make none and many families, each with settings that leak less and cost more accuracy one after the other."""
    rng = np.random.default_rng(1)
    found = [record(threat=threat)]
    for name in NAMES[:families]:
        strength = rng.uniform(0.3, 1.3)
        for at in range(1, settings + 1):
            lost = int(rng.uniform(2, 9) * at**1.6)
            figures = {"epsilon": 50.0 / at, "delta": 1e-5, "rero_bound": 0.9 / at} if name == "dp-sgd" else {}
            figures |= {"sparse_1_lambda_over_max": 0.1 * at} if name.startswith("sca") else {}
            found.append(
                record(
                    name,
                    f"{name} strength={at}",
                    lost=lost,
                    shift=-strength * at - rng.uniform(0, 0.4),
                    threat=threat,
                    facts={"relative_cost": 1 + rng.uniform(0, 3), "defense": figures},
                )
            )
    return found
