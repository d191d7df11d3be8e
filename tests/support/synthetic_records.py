"""Records made up by hand, so that every expected number can be worked out on paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparseguard.record import (
    Bound,
    Case,
    Choice,
    Claim,
    Comparison,
    Component,
    DataFacts,
    Failure,
    FeatureFacts,
    FeatureInversionAttack,
    FeatureInversionDiagnostics,
    FeatureInversionOutcome,
    Flag,
    LabeledComponent,
    MetricDescription,
    Pictures,
    Provenance,
    Queries,
    RecipeConfig,
    Record,
    Summary,
    TargetFacts,
    ThreatDescription,
    TrainingConfig,
)

Means = Mapping[str, Mapping[str, float]]
FLOORS: Means = {
    "mean-image": {"psnr": 10.0, "ssim": 0.2, "id@1": 0.01},
    "class-mean": {"psnr": 12.0, "ssim": 0.1, "id@1": 0.02},
}
ATTACKS: Means = {
    "ridge": {"psnr": 20.0, "ssim": 0.5, "id@1": 0.9},
    "ridge-conv": {"psnr": 18.0, "ssim": 0.6, "id@1": 0.8},
}
CHOSEN = {"black-box": {"psnr": "ridge", "ssim": "ridge-conv", "id@1": "ridge"}}
METRICS = {
    "psnr": MetricDescription(label="PSNR", unit="dB", digits=2, direction="higher"),
    "ssim": MetricDescription(label="SSIM", digits=3, direction="higher"),
    "id@1": MetricDescription(label="id@1", digits=3, direction="higher"),
}
THREATS = {
    "end-to-end": "The attacker sees the output of the last hidden layer and wants each private image back.",
    "split": "The attacker sees the output of the first linear layer, as the server does in split inference, "
    "and wants each private image back.",
    "plug-and-play": "The attacker has the weights and searches a generator for images of each class.",
}
TRAINING = TrainingConfig(
    epochs=6, batch_size=64, optimizer="adam", lr=1e-3, momentum=0.9, weight_decay=0.0, schedule="cosine", patience=5
)
PARTS = {"private": 0.0, "test": -1.0}
"""What is added to the PSNR of a split."""
SIZES = {"private": 3000, "test": 900, "auxiliary_val": 300}
GALLERY = list(range(3, 53, 4))
"""Places of the 13 private images of the gallery."""


def summary(mean: float, n: int = 50) -> Summary:
    return Summary(mean=mean, std=1.0, ci95=(mean - 0.1, mean + 0.1), quantiles=(mean - 2, mean, mean + 2), n=n)


def attack(
    name: str, means: Mapping[str, float], floor: bool, parts: Mapping[str, float] = PARTS
) -> FeatureInversionAttack:
    return FeatureInversionAttack(
        name=name,
        attack=name,
        hyperparameters={} if floor else {"copies": 2},
        queries=1,
        eligible=not floor,
        knowledge="nothing" if floor else "black-box",
        floor=floor,
        parameter_change=None,
        outside_range=0.0 if floor else 0.03,
        diagnostics=FeatureInversionDiagnostics(penalty=None if floor else 0.001),
        scores={
            part: {
                metric: summary(mean + (added if metric == "psnr" else 0.0), SIZES[part])
                for metric, mean in means.items()
            }
            for part, added in parts.items()
        },
    )


def attacks(shift: float = 0.0, parts: Mapping[str, float] = PARTS) -> list[FeatureInversionAttack]:
    floors = [attack(name, means, True, parts) for name, means in FLOORS.items()]
    shifted = {name: {**means, "psnr": means["psnr"] + shift} for name, means in ATTACKS.items()}
    return floors + [attack(name, means, False, parts) for name, means in shifted.items()]


def choices(chosen: Mapping[str, Mapping[str, str]]) -> list[Choice]:
    """Return choices from names by label of knowledge and queries (``white-box ×16``), then by metric."""  # noqa: RUF002
    levels = {level: level.partition(" ×") for level in chosen}  # noqa: RUF001
    return [
        Choice.model_validate(
            {"knowledge": levels[level][0], "queries": int(levels[level][2] or 1), "metric": metric, "attack": name}
        )
        for level, by_metric in chosen.items()
        for metric, name in by_metric.items()
    ]


def outcome(
    attacks: list[FeatureInversionAttack],
    chosen: Mapping[str, Mapping[str, str]] = CHOSEN,
    comparisons: list[Comparison] | None = None,
    bounds: list[Bound] | None = None,
    skipped: dict[str, str] | None = None,
    metrics: dict[str, MetricDescription] | None = None,
) -> FeatureInversionOutcome:
    return FeatureInversionOutcome(
        kind="feature-inversion",
        metrics=METRICS | (metrics or {}),
        attacks=attacks,
        chosen=choices(chosen),
        comparisons=comparisons or [],
        bounds=bounds or [],
        skipped=skipped or {},
    )


OUTCOME = ("chosen", "comparisons", "bounds", "skipped", "metrics")


def record(
    defense: str = "none",
    threat: str = "split",
    seed: int = 0,
    accuracy: float = 0.8,
    shift: float = 0.0,
    order: list[str] | None = None,
    flags: list[Flag] | None = None,
    claim: Claim | None = None,
    **changes: Any,
) -> Record:
    """Make a finished record; ``shift`` is added to the PSNR of the attacks, not of the floors.

    ``changes`` are fields of the record, of its outcome (``attacks`` and `OUTCOME`), or ``pools``.
    """
    tap = {"split": "first_linear", "end-to-end": "last_hidden"}.get(threat, "logits")
    own = {name: changes.pop(name) for name in OUTCOME if name in changes}
    shown = changes.pop("attacks", None)
    sizes = {"private": 3000, "auxiliary": 1500, "auxiliary_val": 300, "test": 900}
    pools = changes.pop("pools", {"private": 2000, "test": 900})
    values: dict[str, Any] = {
        "recipe": "demo",
        "case": Case(dataset="fashion-mini", backbone="linear", defense=defense, threat=threat, tap=tap, seed=seed),
        "key": "0123456789abcdef",
        "status": "ok",
        "threat": ThreatDescription(
            goal="class-inversion" if threat == "plug-and-play" else "feature-inversion",
            title={"plug-and-play": "Plug & Play"}.get(threat, threat),
            sentence=THREATS.get(threat, f"The attacker sees what the model puts out at '{tap}'."),
        ),
        "config": config(order or []),
        "data": DataFacts(sizes=sizes, gallery_indices=GALLERY, reidentification_pools=pools),
        "target": TargetFacts(
            accuracy=accuracy,
            accuracy_n=900,
            majority_rate=0.1,
            parameters=652_510,
            epochs=6,
            best_epoch=5,
            state_hash="a",
            state_hash_after="a",
        ),
        "features": FeatureFacts(
            shape=(500,),
            dimension=500,
            effective_rank=40.0 + shift,
            noise_ratio=0.0,
            queries=Queries(auxiliary=3600, private=3000),
        ),
        "outcome": outcome(attacks(shift) if shown is None else shown, **own),
        "flags": flags or [],
        "claim": claim,
        "provenance": Provenance(device="somewhere", threads=2, finished=f"2025-01-01T00:00:0{seed}"),
    }
    return Record.model_validate(values | changes)


def config(labels: list[str], **changes: Any) -> RecipeConfig:
    """Make a recipe's configuration with these defenses, each called as its label's first word."""
    defenses = [LabeledComponent(label=label, name=label.split(" ")[0]) for label in labels]
    values: dict[str, Any] = {
        "name": "demo",
        "data": Component(name="fashion-mini"),
        "training": TRAINING,
        "defenses": defenses,
    }
    return RecipeConfig.model_validate(values | changes)


def failed(defense: str = "sca lambd=0.5", threat: str = "split", seed: int = 0, **changes: Any) -> Record:
    """Make the record of a case that ended before it had scores."""
    failure = Failure(stage="fit", kind="TrainingError", message="the loss is not finite at epoch 3.")
    nothing: dict[str, Any] = {"target": None, "features": None, "outcome": None, "pools": {}}
    return record(defense, threat, seed, status="failed", failure=failure, **(nothing | changes))


def pictures(channels: int = 1, side: int = 28) -> Pictures:
    """Make gradients as originals and noisy ones as reconstructions, with the scores of all private images."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, side)
    angles = np.linspace(0, np.pi / 2, len(GALLERY))
    flat = np.stack([np.cos(angle) * ramp[:, None] + np.sin(angle) * ramp[None, :] for angle in angles])
    originals = np.repeat(flat[:, None].clip(0, 255), channels, axis=1)
    gallery = {"original": originals.astype(np.uint8)}
    for name, noise in (("ridge", 20.0), ("ridge-conv", 40.0)):
        noisy = originals + rng.normal(0.0, noise, originals.shape)
        gallery[name] = noisy.clip(0, 255).astype(np.uint8)
    scores = {f"{name}/private/psnr": np.arange(SIZES["private"], dtype=np.float32) for name in ("ridge", "ridge-conv")}
    return Pictures(gallery=gallery, scores=scores)
