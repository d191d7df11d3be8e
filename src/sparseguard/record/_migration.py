"""Migration of records of earlier schema versions, version by version, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparseguard.record import _legacy_words as words
from sparseguard.record._legacy_descriptions import class_metric, image_metric, set_metric, threat
from sparseguard.record.class_inversion import ClassInversionDiagnostics
from sparseguard.record.conversion import bound_fields, curve_fields, figure_fields
from sparseguard.record.feature_inversion import FeatureInversionDiagnostics
from sparseguard.record.schema import DefenseFacts

Plain = dict[str, Any]


def migrate(plain: Plain) -> Plain:
    """Return a record's plain values in the present schema version.

    Raises:
        KeyError, TypeError, ValueError: when they are no record.
    """
    for version in range(int(plain.get("schema_version", 1)), max(_STEPS) + 1):
        plain = {**_STEPS[version](plain), "schema_version": version + 1}
    return plain


def picture_name(name: str) -> str:
    """Return the present name of an entry in the file beside a record."""
    kind, _, rest = name.partition("/")
    if kind != "scores" or rest.count("/") < 2:
        return f"{kind}/{words.label(rest)}"
    attack, split, metric = rest.rsplit("/", 2)
    return f"{kind}/{words.label(attack)}/{words.rename_split(split)}/{words.metric(metric)}"


def migrate_bound(plain: Plain) -> Plain:
    """Return a bound's plain values in the present schema version."""
    if "layers" in plain:
        return plain
    name, _, layer = plain["name"].removesuffix(")").partition(" (")
    return {**plain, "name": words.BOUNDS.get(name, name), "layer": layer, **bound_fields(plain.get("values", {}))}


def _to_2(plain: Plain) -> Plain:
    """Version 2 added conditions, levels and sets of an attacker, comparisons and bounds."""
    config = plain["config"]
    attacks = [{"setting": {}, **attack} for attack in config.get("attacks", [])]
    return {
        **plain,
        "config": {**config, "attacks": attacks},
        "attackers": [
            {"setting": {}, "level": attacker["knowledge"], "competes": not attacker["floor"], **attacker}
            for attacker in plain.get("attackers", [])
        ],
    }


def _to_3(plain: Plain) -> Plain:
    """Version 3 added the target's wrong answers and cost; absent, they have their defaults."""
    return plain


def _to_4(plain: Plain) -> Plain:
    """Version 4 added attacks on classes."""
    return {"class_goal": None, "class_attackers": [], "agreement": {}, **plain}


def _to_5(plain: Plain) -> Plain:
    """Version 5 has one typed outcome, metric and threat descriptions, and the field's words."""
    case, goal = plain["case"], plain["class_goal"]
    config, data = plain["config"], plain["data"]
    attacked = [
        one["name"] for one in config.get("threats") or [] if one.get("classes") and one["name"] == case["threat"]
    ]
    of_classes = bool(goal or attacked)
    outcome = None
    if plain["status"] == "ok":
        outcome = _class_outcome(plain) if of_classes else _feature_outcome(plain)
    foreign = goal["foreign"] if goal else {}
    return {
        **{name: plain.get(name) for name in ("recipe", "case", "key", "status", "failure", "claim")},
        "threat": threat(case["threat"], case["tap"], of_classes=of_classes),
        "config": _config(config, plain["recipe"], case["dataset"]),
        "data": _data(data, plain.get("identification", {})),
        "target": plain.get("target") and _target(plain["target"]),
        "features": plain.get("leaked") and _features(plain["leaked"]),
        "outcome": outcome,
        "evaluators": {
            name: {"accuracy": accuracy, "shuffled_patches": foreign.get(name)}
            for name, accuracy in plain.get("evaluators", {}).items()
        },
        "flags": [{**flag, "message": words.text(flag["message"])} for flag in plain.get("flags", [])],
        "provenance": _provenance(plain.get("provenance", {})),
    }


_STEPS: dict[int, Callable[[Plain], Plain]] = {1: _to_2, 2: _to_3, 3: _to_4, 4: _to_5}


def _config(config: Mapping[str, Any], recipe: str, dataset: str) -> Plain:
    return {
        "name": config.get("name", recipe),
        "description": config.get("description", ""),
        "seeds": config.get("seeds", []),
        "data": words.component(config.get("data", {}), dataset),
        "training": config.get("fit"),
        "threats": [{**one, "backbone": words.component(one["backbone"])} for one in config.get("threats", [])],
        "defenses": [words.labeled_component(one) for one in config.get("defenses", [])],
        "attacks": [
            {**words.labeled_component(one), "conditions": words.conditions(one["setting"])}
            for one in config.get("attacks", [])
        ],
        "class_attacks": [words.labeled_component(one) for one in config.get("class_attacks", [])],
        "scoring": {
            {"neighbours": "neighbors"}.get(name, name): value for name, value in config.get("judge", {}).items()
        },
        "expected_flags": config.get("expected_flags", []),
    }


def _data(data: Mapping[str, Any], pools: Mapping[str, int]) -> Plain:
    readers = data.get("read_by")
    return {
        "layout": data.get("layout"),
        **{name: words.by_split(data.get(name, {})) for name in ("sizes", "fingerprints", "duplicates")},
        "gallery_indices": data.get("gallery_index", []),
        "reidentification_pools": words.by_split(pools),
        "flips_keep_class": data.get("flips_keep_class"),
        "readers": readers
        and {stage: [words.rename_split(split) for split in splits] for stage, splits in readers.items()},
    }


def _provenance(provenance: Mapping[str, Any]) -> Plain:
    seconds = provenance.get("seconds", {})
    return {**provenance, "seconds": {words.text(stage): duration for stage, duration in seconds.items()}}


def _target(target: Mapping[str, Any]) -> Plain:
    history = target.get("history", [])
    curves = ("train_loss", "held_out_loss", "held_out_accuracy")
    return {
        **{name: value for name, value in target.items() if name not in ("wrong", "history", "defense")},
        "history": {name: [epoch[name] for epoch in history if name in epoch] for name in curves},
        "misclassified": words.by_split(target.get("wrong", {})),
        "defense": figure_fields(target.get("defense", {}), DefenseFacts.model_fields),
    }


def _features(leaked: Mapping[str, Any]) -> Plain:
    queries = leaked["queries"]
    return {**leaked, "queries": {"private": queries["private"], "auxiliary": queries["public"]}}


def _attack(attacker: Mapping[str, Any]) -> Plain:
    setting = words.conditions(attacker.get("setting", {}))
    component = words.component(attacker["settings"], attacker["name"])
    unchanged = ("floor", "parameter_change", "outside_range")
    return {
        **{name: attacker[name] for name in unchanged},
        "name": words.label(attacker["name"]),
        "attack": component["name"],
        "hyperparameters": component["hyperparameters"],
        "knowledge": words.rename_split(attacker["knowledge"]),
        "queries": setting.get("queries", 1),
        "conditions": setting,
        "eligible": attacker.get("competes", not attacker["floor"]),
        "prior": _prior(attacker.get("prior")),
        "indices": words.by_split(attacker.get("index", {})),
        "diagnostics": figure_fields(words.rename_figures(attacker["notes"]), FeatureInversionDiagnostics.model_fields),
        "curves": curve_fields(words.rename_figures(attacker.get("curves", {}))),
        "residuals": words.by_split(attacker.get("residuals", {})),
        "set_scores": words.by_split(attacker.get("sets", {})),
        "scores": {
            words.rename_split(split): {words.metric(name): summary for name, summary in metrics.items()}
            for split, metrics in attacker["scores"].items()
        },
    }


def _feature_outcome(plain: Plain) -> Plain:
    attacks = [_attack(attacker) for attacker in plain["attackers"]]
    names = dict.fromkeys(name for attack in attacks for metrics in attack["scores"].values() for name in metrics)
    of_sets = dict.fromkeys(name for attack in attacks for scores in attack["set_scores"].values() for name in scores)
    chosen = []
    for level, by_metric in plain["chosen"].items():
        knowledge, _, queries = level.partition(" ×")  # noqa: RUF001
        for metric, attack in by_metric.items():
            choice = {
                "knowledge": words.rename_split(knowledge),
                "queries": int(queries or 1),
                "metric": metric,
                "attack": words.label(attack),
            }
            chosen.append(choice)
    return {
        "kind": "feature-inversion",
        "metrics": {**{name: image_metric(name) for name in names}, **{name: set_metric(name) for name in of_sets}},
        "attacks": attacks,
        "chosen": chosen,
        "skipped": words.by_label(plain.get("skipped", {})),
        "comparisons": [
            {
                **{name: value for name, value in one.items() if name != "part"},
                "first": words.label(one["first"]),
                "second": words.label(one["second"]),
                "kind": "knowledge" if one["kind"] == "level" else one["kind"],
                "split": words.rename_split(one["part"]),
            }
            for one in plain.get("comparisons", [])
        ],
        "bounds": [migrate_bound(one) for one in plain.get("bounds", [])],
    }


def _prior(prior: Mapping[str, Any] | None) -> Plain | None:
    if prior is None:
        return None
    overlap = prior["overlap"]
    names = {"images": "training_images", "knows": "known_classes"}
    return {
        **{names.get(name, name): value for name, value in prior.items()},
        "overlap": None if overlap is None else words.by_split(overlap),
    }


def _class_outcome(plain: Plain) -> Plain:
    attackers = plain["class_attackers"]
    scores = {name: score for attacker in attackers for name, score in attacker["scores"].items()}
    goal = plain["class_goal"]
    return {
        "kind": "class-inversion",
        "metrics": {name: class_metric(name, score["leaks"]) for name, score in scores.items()},
        **{name: goal[name] for name in ("classes", "pool", "pairing")},
        "attacks": [_class_attack(attacker, plain["agreement"].get(attacker["name"])) for attacker in attackers],
    }


def _class_attack(attacker: Mapping[str, Any], agreement: Mapping[str, float] | None) -> Plain:
    component = words.component(attacker["settings"], attacker["name"])
    facts = {
        "steady_confidence": "augmented_confidence",
        "best": "best_confidence",
        "best_start": "best_start_confidence",
        "accuracy": "attack_accuracy",
    }
    return {
        "name": attacker["name"],
        "attack": component["name"],
        "hyperparameters": component["hyperparameters"],
        "knowledge": words.rename_split(attacker["knowledge"]),
        "control": attacker["control"],
        "prior": _prior(attacker["prior"]),
        "classes": {
            label: {facts.get(name, name): value for name, value in one.items()}
            for label, one in attacker["classes"].items()
        },
        "scores": {
            name: {
                {"foreign": "shuffled_patches"}.get(field, field): value
                for field, value in score.items()
                if field != "leaks"
            }
            for name, score in attacker["scores"].items()
        },
        "agreement": agreement and {"fraction": agreement["share"], "kappa": agreement.get("kappa")},
        "diagnostics": figure_fields(words.rename_figures(attacker["notes"]), ClassInversionDiagnostics.model_fields),
        "loss_curves": attacker["curves"],
    }
