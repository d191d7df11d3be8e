"""Records made up by hand, so that every expected number can be worked out on paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparseguard.record import Attacker, Case, Claim, Failure, Flag, Leaked, Pictures, Record, Summary, TargetFacts

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
PARTS = {"private": 0.0, "test": -1.0}
"""What is added to the PSNR of a part."""
SIZES = {"private": 3000, "test": 900, "auxiliary_val": 300}
GALLERY = list(range(3, 53, 4))
"""Places of the 13 private images of the gallery."""


def summary(mean: float, n: int = 50) -> Summary:
    return Summary(mean=mean, std=1.0, ci95=(mean - 0.1, mean + 0.1), quantiles=(mean - 2, mean, mean + 2), n=n)


def attacker(name: str, means: Mapping[str, float], floor: bool, parts: Mapping[str, float] = PARTS) -> Attacker:
    return Attacker(
        name=name,
        settings={} if floor else {"copies": 2},
        knowledge="nothing" if floor else "black-box",
        floor=floor,
        parameter_change=None,
        outside_range=0.0 if floor else 0.03,
        notes={} if floor else {"penalty": 0.001},
        scores={
            part: {
                metric: summary(mean + (added if metric == "psnr" else 0.0), SIZES[part])
                for metric, mean in means.items()
            }
            for part, added in parts.items()
        },
    )


def attackers(shift: float = 0.0, parts: Mapping[str, float] = PARTS) -> list[Attacker]:
    floors = [attacker(name, means, True, parts) for name, means in FLOORS.items()]
    shifted = {name: {**means, "psnr": means["psnr"] + shift} for name, means in ATTACKS.items()}
    return floors + [attacker(name, means, False, parts) for name, means in shifted.items()]


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
    """Make a finished record; ``shift`` is added to the PSNR of the attacks, not of the floors."""
    tap = {"split": "first_linear", "end-to-end": "last_hidden"}.get(threat, "logits")
    config: dict[str, Any] = {"fit": {"epochs": 6}}
    values: dict[str, Any] = {
        "recipe": "demo",
        "case": Case(dataset="fashion-mini", backbone="linear", defense=defense, threat=threat, tap=tap, seed=seed),
        "key": "0123456789abcdef",
        "status": "ok",
        "config": config | ({} if order is None else {"defense_order": order}),
        "data": {
            "sizes": {"private": 3000, "auxiliary": 1500, "auxiliary_val": 300, "test": 900},
            "gallery_index": GALLERY,
        },
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
        "leaked": Leaked(
            shape=(500,),
            dimension=500,
            effective_rank=40.0 + shift,
            noise_ratio=0.0,
            queries={"public": 3600, "private": 3000},
        ),
        "attackers": attackers(shift),
        "chosen": CHOSEN,
        "identification": {"private": 2000, "test": 900},
        "flags": flags or [],
        "claim": claim,
        "provenance": {"host": {"name": "somewhere", "threads": 2}, "started": f"2025-01-01T00:00:0{seed}"},
    }
    return Record.model_validate(values | changes)


def failed(defense: str = "sca lambd=0.5", threat: str = "split", seed: int = 0, **changes: Any) -> Record:
    """Make the record of a case that ended before it had scores."""
    failure = Failure(stage="fit", kind="TrainingError", message="the loss is not finite at epoch 3.")
    nothing: dict[str, Any] = {"target": None, "leaked": None, "attackers": [], "chosen": {}, "identification": {}}
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
