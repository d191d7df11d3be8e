"""Records with everything in them: knowledge, a control, an attack of some images, curves, bounds, sets, skipped."""

from typing import Any, Literal

import numpy as np

from sparseguard.record import (
    Bound,
    Comparison,
    Conditions,
    Curves,
    DataFacts,
    EvaluatorFacts,
    FeatureInversionAttack,
    LayerBound,
    MetricDescription,
    Pictures,
    Record,
    SetScore,
    Summary,
    TargetFacts,
    TrainingCurves,
)
from support import synthetic_records as made

COUNTS = {"private": 60, "test": 40}
SUBSET = {"private": [7, 11, 20, 31, 43], "test": [0, 5, 9, 33]}
SIDE = 8
MEANS = {"mean-image": 10.0, "ridge": 20.0, "ridge-conv": 21.0, "ridge shuffled": 9.5, "ridge K=16": 22.0}
LEVELS = {"mean-image": "nothing", "ridge K=16": "black-box ×16", "search": "white-box"}  # noqa: RUF001
CHOSEN = {"white-box": "search", "black-box ×16": "ridge K=16", "black-box": "ridge-conv"}  # noqa: RUF001
MISSING = "too few images for a covariance"
ACCURACY = "evaluator accuracy (pooling-net)"
METRICS = {
    ACCURACY: MetricDescription(label="evaluator accuracy", digits=3, direction="higher", network="pooling-net"),
    **{
        f"{label}(fashion-net)": MetricDescription(label=label, direction="lower", network="fashion-net", of_set=True)
        for label in ("FD", "KID")
    },
}


def scores(seed: int = 0, shift: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    """Make scores of every image; easy images are easy for all attackers, and ``shift`` is what a defense takes."""
    rng = np.random.default_rng(seed)
    found = {}
    for part, count in COUNTS.items():
        ease = np.linspace(-3.0, 3.0, count)
        psnr = {name: mean + ease + rng.normal(0.0, 0.3, count) for name, mean in MEANS.items()}
        psnr = {name: values - (0.0 if name == "mean-image" else shift) for name, values in psnr.items()}
        psnr["search"] = psnr["ridge-conv"][SUBSET[part]] + 2.0 + rng.normal(0.0, 0.1, len(SUBSET[part]))
        for name, values in psnr.items():
            own = {"psnr": values, "ssim": values / 40.0, "id@1": (values > 19.0).astype(float)}
            own[ACCURACY] = (values > 15.0).astype(float)
            found |= {f"{name}/{part}/{metric}": each.astype(np.float32) for metric, each in own.items()}
    return found


def summarize(values: np.ndarray[Any, Any]) -> Summary:
    plain = values.astype(float)
    mean, half = float(plain.mean()), 1.96 * float(plain.std(ddof=1)) / len(plain) ** 0.5
    low, middle, high = (float(each) for each in np.quantile(plain, (0.05, 0.5, 0.95)))
    return Summary(
        mean=mean,
        std=float(plain.std(ddof=1)),
        ci95=(mean - half, mean + half),
        quantiles=(low, middle, high),
        n=len(plain),
    )


def attack(name: str, found: dict[str, np.ndarray[Any, Any]]) -> FeatureInversionAttack:
    level = LEVELS.get(name, "black-box")
    control = name == "ridge shuffled"
    parts: dict[str, dict[str, Summary]] = {part: {} for part in COUNTS}
    for key, values in found.items():
        own, part, metric = key.split("/")
        if own == name:
            parts[part][metric] = summarize(values)
    values: dict[str, Any] = {}
    if name == "ridge-conv":
        values["curves"] = Curves(auxiliary_val_psnr=[18.0, 19.5, 20.5, 20.8])
        values["set_scores"] = {
            "private": {
                "FD(fashion-net)": SetScore(value=None, reason=MISSING, n=60),
                "KID(fashion-net)": SetScore(value=0.0123, n=60),
            }
        }
    if name == "search":
        values["curves"] = Curves(feature_loss={part: [0.1, 0.01, 0.002] for part in COUNTS})
        values["residuals"] = {part: summarize(np.array([0.004, 0.005, 0.009])) for part in COUNTS}
        values["indices"] = SUBSET
    queries = 16 if name == "ridge K=16" else 1
    return FeatureInversionAttack(
        name=name,
        attack=name.split(" ")[0],
        conditions=Conditions(queries=queries, control="shuffled-features" if control else "none"),
        queries=queries,
        eligible=not control and name != "mean-image",
        knowledge=level.partition(" ")[0],  # type: ignore[arg-type]
        floor=name == "mean-image",
        parameter_change=None,
        outside_range=0.0,
        scores=parts,
        **values,
    )


def comparison(
    kind: Literal["knowledge", "control"], first: str, second: str, found: dict[str, np.ndarray[Any, Any]]
) -> list[Comparison]:
    pairs = []
    for part in COUNTS:
        for metric in ("psnr", "ssim", "id@1"):
            ours, theirs = (found[f"{name}/{part}/{metric}"].astype(float) for name in (first, second))
            mean = float((ours - (theirs[SUBSET[part]] if first == "search" else theirs)).mean())
            ends = (mean - 0.25, mean + 0.25)
            pairs.append(
                Comparison(
                    kind=kind, first=first, second=second, metric=metric, split=part, mean=mean, ci95=ends, n=len(ours)
                )
            )
    return pairs


def bounds(best: float = 30.0) -> list[Bound]:
    return [
        Bound(
            name="layer-wise reconstruction",
            layer="last",
            meaning="possible at least: an attacker at that layer gets this much",
            values={"codes_by_decode_psnr": best - 1.0},
            layers=[
                LayerBound(layer="image", psnr=100.0, corrected_psnr=100.0),
                LayerBound(layer="codes", psnr=best, corrected_psnr=best),
                LayerBound(layer="first", psnr=best - 8.0, corrected_psnr=best - 6.0),
                LayerBound(layer="last", psnr=best - 6.0, corrected_psnr=best - 6.0, rise=2.0),
            ],
            n=60,
        ),
        Bound(name="noise-pool", meaning="lower bound on every attacker's error", reason="the model adds no noise"),
        Bound(
            name="null-space",
            meaning="the row-space part is exact for whoever has the weights",
            values={"rank": 1300.0, "hidden": 0.1234567, "null_from_mean_psnr": 25.678},
            n=60,
        ),
    ]


def record(defense: str = "none", seed: int = 0, shift: float = 0.0, **changes: Any) -> Record:
    """Make a record with everything in it; its pictures are `pictures` of the same seed and shift."""
    found = scores(seed, shift)
    values: dict[str, Any] = {
        "attacks": [attack(name, found) for name in (*MEANS, "search")],
        "chosen": {level: dict.fromkeys(("psnr", "ssim", "id@1"), name) for level, name in CHOSEN.items()},
        "comparisons": [
            *comparison("knowledge", "search", "ridge-conv", found),
            *comparison("knowledge", "ridge K=16", "ridge-conv", found),
            *comparison("control", "ridge shuffled", "ridge", found),
        ],
        "bounds": bounds(30.0 - shift),
        "skipped": {"code-decoder": "there is no sparse layer"},
        "evaluators": {"pooling-net": EvaluatorFacts(accuracy=0.871)},
        "metrics": METRICS,
        "data": DataFacts(
            sizes=COUNTS,
            gallery_indices=[place for place in range(60) if place % 3 or place in SUBSET["private"]],
            fingerprints=dict.fromkeys(COUNTS, "same"),
            reidentification_pools=COUNTS,
        ),
        "target": TargetFacts(
            accuracy=0.8,
            accuracy_n=40,
            majority_rate=0.1,
            parameters=10,
            epochs=2,
            best_epoch=1,
            history=TrainingCurves(train_loss=[1.0, 1.0], held_out_loss=[1.1, 1.1], held_out_accuracy=[0.7, 0.8]),
            state_hash="a",
            state_hash_after="a",
        ),
    }
    return made.record(defense, seed=seed, order=["none", "sca"], **(values | changes))


def pictures(seed: int = 0, shift: float = 0.0) -> Pictures:
    """Make pictures that tell their image's place by their grey, and their attacker by nothing."""
    places = [place for place in range(60) if place % 3 or place in SUBSET["private"]]

    def flat(some: list[int]) -> np.ndarray[Any, Any]:
        return np.stack([np.full((1, SIDE, SIDE), 4 * place, dtype=np.uint8) for place in some])

    gallery = {name: flat(places) for name in ("original", *MEANS)}
    gallery["search"] = flat([place for place in places if place in SUBSET["private"]])
    return Pictures(gallery=gallery, scores=scores(seed, shift))
