"""Records of attacks on classes, made up by hand so that every expected number can be worked out on paper."""

from typing import Any

import numpy as np

from sparseguard.record import ClassAttacker, ClassFacts, ClassGoal, ClassScore, Pictures, PriorFacts, Record
from support import synthetic_records as made

CLASSES = ["Bag", "Coat"]
JUDGES = ("pooling", "striding")
THREATS = [{"name": "plug-and-play", "tap": "logits", "classes": CLASSES}, {"name": "split", "tap": "first_linear"}]
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
        "images": 1234,
        "classes": ["Sandal", *knows],
        "overlap": {"auxiliary": 1000},
        "knows": list(knows),
    }
    return PriorFacts.model_validate(values | changes)


def scores(add: float = 0.0) -> dict[str, ClassScore]:
    """Make scores of one attack; ``add`` is added to every value and to what stands beside it."""

    def score(value: float, leaks: str = "more", **beside: float) -> ClassScore:
        others = {name: other + add for name, other in beside.items()}
        ends = (value + add - 0.1, value + add + 0.1)
        return ClassScore.model_validate({"value": value + add, "ci95": ends, "n": 40, "leaks": leaks, **others})

    shares = {"other_class": 0.03, "starts": 0.41, "all_optimized": 0.7, "unseen": 0.9, "foreign": 0.05}
    near = {"other_class": 30.0, "starts": 21.0, "all_optimized": 20.0}
    found = {}
    for at, judge in enumerate(JUDGES):
        found[f"attack accuracy@1 ({judge})"] = score(0.8 - 0.1 * at, chance=0.11, **shares)
        found[f"attack accuracy@5 ({judge})"] = score(0.9, chance=0.52, **shares)
        found[f"feature distance ({judge})"] = score(12.5 + at, "less", chance=25.25, unseen=12.75, **near)
        found[f"AUC private or unseen ({judge})"] = score(0.51, chance=0.495)
    found["PSNR to nearest (pooling)"] = score(15.125, chance=10.5, unseen=15.25, **near)
    found["SSIM to nearest (pooling)"] = score(0.4, chance=0.2, unseen=0.39)
    found["FD(fashion-net)"] = ClassScore(value=None, reason="needs 1,024 images, got 40", n=40, leaks="less")
    found["recall(fashion-net)"] = score(0.25, chance=0.125, unseen=0.3)
    return found


def attacker(name: str, add: float = 0.0, given: PriorFacts | None = None, **changes: Any) -> ClassAttacker:
    facts = {
        label: ClassFacts(
            confidence=0.9 + 0.05 * at,
            steady_confidence=0.7,
            start_confidence=0.3,
            best=0.9 + 0.01 * at,
            best_start=0.6 + 0.1 * at,
            accuracy=dict.fromkeys(JUDGES, 0.75 + 0.1 * at),
        )
        for at, label in enumerate(CLASSES)
    }
    values: dict[str, Any] = {
        "name": name,
        "settings": {"name": name, "steps": 50},
        "knowledge": "white-box",
        "control": given is None,
        "prior": given,
        "classes": facts,
        "scores": scores(add),
        "notes": {"rule: implicit": 1.0, "lr": 0.02, "cosine unrolled, implicit": 0.875},
        "curves": {"poincare loss": [2.0, 1.0]},
    }
    return ClassAttacker.model_validate(values | changes)


def record(defense: str = "none", seed: int = 0, **changes: Any) -> Record:
    """Make a finished record with a control and two attacks, of which one prior knows a class."""
    add = STEP * seed
    values: dict[str, Any] = {
        "attackers": [],
        "chosen": {},
        "config": {"fit": {"epochs": 6}, "threats": THREATS},
        "evaluators": {judge: 0.85 + 0.01 * at + add for at, judge in enumerate(JUDGES)},
        "class_goal": ClassGoal(
            classes=CLASSES,
            pool=90,
            pairing="nearest private image of the class in the features of evaluator pooling",
            foreign=dict.fromkeys(JUDGES, 0.2 + add),
        ),
        "class_attackers": [
            attacker("pixel-inversion", add),
            attacker("plug-and-play", add, prior()),
            attacker("knowing", add, prior("ten", ("Bag",), overlap=None, images=None)),
        ],
        "agreement": {"plug-and-play": {"share": 0.9 + add, "kappa": 0.7}, "knowing": {"share": 1.0}},
    }
    return made.record(defense, "plug-and-play", seed, **(values | changes))


def failed(defense: str = "sca 0.5", seed: int = 0) -> Record:
    return made.failed(defense, "plug-and-play", seed, config={"threats": THREATS})


def pictures(own: Record, images: int = 3) -> Pictures:
    """Make pictures of which each has another grey; those made without an attack are the same in every record."""
    shape = (len(CLASSES), images, 1, 28, 28)
    keys = ["private"]
    for one in own.class_attackers:
        keys += [f"{one.name}{kind}" for kind in ("", "/starts", "/nearest", "/chance")]
    shades = np.random.default_rng(len(own.case.defense)).integers(0, 255, (len(keys), *shape[:2])).astype(np.uint8)
    found = {
        key: np.broadcast_to(shade[:, :, None, None, None], shape).copy()
        for key, shade in zip(keys, shades, strict=True)
    }
    found |= {key: np.full(shape, 77, dtype=np.uint8) for key in keys if key.endswith("/chance")}
    return Pictures(gallery={}, scores={}, classes=found)
