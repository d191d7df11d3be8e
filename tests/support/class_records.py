"""Records of class inversion, made up by hand so that every expected number can be worked out on paper."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from sparseguard.record import (
    AttackedClass,
    ClassInversionAttack,
    ClassInversionDiagnostics,
    ClassInversionOutcome,
    ClassScore,
    EvaluatorAgreement,
    EvaluatorFacts,
    MetricDescription,
    Pictures,
    PriorFacts,
    Record,
)
from support import synthetic_records as made

CLASSES = ["Bag", "Coat"]
JUDGES = ("pooling", "striding")
STEP = 0.02
"""What every score is higher by in the next seed."""


def prior(name: str = "five", knows: tuple[str, ...] = (), **changes: Any) -> PriorFacts:
    values: dict[str, Any] = {
        "name": name,
        "kind": "style",
        "fingerprint": f"hash of {name}",
        "shape": [1, 28, 28],
        "num_ws": 6,
        "w_dim": 64,
        "trained_on": "the attacker's images",
        "training_images": 1234,
        "classes": ["Sandal", *knows],
        "overlap": {"auxiliary": 1000},
        "known_classes": list(knows),
    }
    return PriorFacts.model_validate(values | changes)


def scores(add: float = 0.0) -> dict[str, ClassScore]:
    """Make scores of one attack; ``add`` is added to every value and to what stands beside it."""

    def score(value: float, **beside: float) -> ClassScore:
        others = {name: other + add for name, other in beside.items()}
        ends = (value + add - 0.1, value + add + 0.1)
        return ClassScore.model_validate({"value": value + add, "ci95": ends, "n": 40, **others})

    shares = {"other_class": 0.03, "starts": 0.41, "all_optimized": 0.7, "unseen": 0.9, "shuffled_patches": 0.05}
    near = {"other_class": 30.0, "starts": 21.0, "all_optimized": 20.0}
    found = {}
    for at, judge in enumerate(JUDGES):
        found[f"attack accuracy@1 ({judge})"] = score(0.8 - 0.1 * at, chance=0.11, **shares)
        found[f"attack accuracy@5 ({judge})"] = score(0.9, chance=0.52, **shares)
        found[f"feature distance ({judge})"] = score(12.5 + at, chance=25.25, unseen=12.75, **near)
        found[f"AUC private or unseen ({judge})"] = score(0.51, chance=0.495)
    found["PSNR to nearest (pooling)"] = score(15.125, chance=10.5, unseen=15.25, **near)
    found["SSIM to nearest (pooling)"] = score(0.4, chance=0.2, unseen=0.39)
    found["FD(fashion-net)"] = ClassScore(value=None, reason="needs 1,024 images, got 40", n=40)
    found["recall(fashion-net)"] = score(0.25, chance=0.125, unseen=0.3)
    return found


def metrics(names: Iterable[str]) -> dict[str, MetricDescription]:
    """Describe scores; of ``found (by)`` the label is what stands before the bracket."""
    digits = {"PSNR to nearest": 2, "SSIM to nearest": 3, "AUC private or unseen": 3, "attack accuracy@1": 3}
    digits["attack accuracy@5"] = 3
    described = {}
    for name in names:
        label, _, network = name.removesuffix(")").partition("(")
        lower = label.startswith(("feature distance", "FD", "FID"))
        described[name] = MetricDescription(
            label=label.strip(),
            unit="dB" if label.startswith("PSNR") else "",
            digits=digits.get(label.strip()),
            direction="lower" if lower else "higher",
            network=network or None,
            of_set=label.startswith(("FD", "FID", "recall")),
        )
    return described


def attack(name: str, add: float = 0.0, given: PriorFacts | None = None, **changes: Any) -> ClassInversionAttack:
    facts = {
        label: AttackedClass(
            confidence=0.9 + 0.05 * at,
            augmented_confidence=0.7,
            start_confidence=0.3,
            best_confidence=0.9 + 0.01 * at,
            best_start_confidence=0.6 + 0.1 * at,
            attack_accuracy=dict.fromkeys(JUDGES, 0.75 + 0.1 * at),
        )
        for at, label in enumerate(CLASSES)
    }
    values: dict[str, Any] = {
        "name": name,
        "attack": name,
        "hyperparameters": {"steps": 50},
        "knowledge": "white-box",
        "control": given is None,
        "prior": given,
        "classes": facts,
        "scores": scores(add),
        "diagnostics": ClassInversionDiagnostics(
            gradient_rule="implicit", learning_rate=0.02, gradient_cosine_implicit=0.875
        ),
        "loss_curves": {"poincare loss": [2.0, 1.0]},
    }
    return ClassInversionAttack.model_validate(values | changes)


def record(defense: str = "none", seed: int = 0, **changes: Any) -> Record:
    """Make a finished record with a control and two attacks, of which one prior knows a class.

    ``changes`` are fields of the record or of its outcome (``attacks``, ``classes``).
    """
    add = STEP * seed
    attacks = changes.pop("attacks", None)
    if attacks is None:
        attacks = [
            attack("pixel-inversion", add),
            attack("plug-and-play", add, prior(), agreement=EvaluatorAgreement(fraction=0.9 + add, kappa=0.7)),
            attack(
                "knowing",
                add,
                prior("ten", ("Bag",), overlap=None, training_images=None),
                agreement=EvaluatorAgreement(fraction=1.0),
            ),
        ]
    values: dict[str, Any] = {
        "evaluators": {
            judge: EvaluatorFacts(accuracy=0.85 + 0.01 * at + add, shuffled_patches=0.2 + add)
            for at, judge in enumerate(JUDGES)
        },
        "outcome": ClassInversionOutcome(
            kind="class-inversion",
            metrics=metrics(name for one in attacks for name in one.scores),
            classes=changes.pop("classes", CLASSES),
            pool=90,
            pairing="nearest private image of the class in the features of evaluator pooling",
            attacks=attacks,
        ),
    }
    return made.record(defense, "plug-and-play", seed, **(values | changes))


def failed(defense: str = "sca 0.5", seed: int = 0) -> Record:
    return made.failed(defense, "plug-and-play", seed)


def pictures(own: Record, images: int = 3) -> Pictures:
    """Make pictures of which each has another grey; those made without an attack are the same in every record."""
    shape = (len(CLASSES), images, 1, 28, 28)
    keys = ["private"]
    for one in own.class_attacks:
        keys += [f"{one.name}{kind}" for kind in ("", "/starts", "/nearest", "/chance")]
    shades = np.random.default_rng(len(own.case.defense)).integers(0, 255, (len(keys), *shape[:2])).astype(np.uint8)
    found = {
        key: np.broadcast_to(shade[:, :, None, None, None], shape).copy()
        for key, shade in zip(keys, shades, strict=True)
    }
    found |= {key: np.full(shape, 77, dtype=np.uint8) for key in keys if key.endswith("/chance")}
    return Pictures(gallery={}, scores={}, classes=found)
