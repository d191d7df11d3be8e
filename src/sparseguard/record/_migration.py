"""Migration of records of earlier schema versions, version by version, as plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sparseguard.record._legacy_descriptions import class_metric, image_metric, set_metric, threat
from sparseguard.record.class_inversion import ClassInversionDiagnostics
from sparseguard.record.conversion import bound_fields, curve_fields, figure_fields
from sparseguard.record.feature_inversion import FeatureInversionDiagnostics
from sparseguard.record.schema import DefenseFacts

Plain = dict[str, Any]

_WORDS = {
    "attacker_train": "auxiliary",
    "attacker_val": "auxiliary_val",
    "select": "tuning",
    "outputs": "black-box",
    "+spec": "gray-box",
    "+weights": "white-box",
}
_IN_TEXT = re.compile(r"\battacker_train\b|attacker_val|(?<=\b(?:in|of) )select\b|\boutputs$|\+spec$|\+weights$")
_CONDITIONS = {"repeats": "queries", "share": "auxiliary_fraction", "data": "dataset", "images": "max_images"}
_SCORING = {"neighbours": "neighbors"}
_BOUNDS = {"waterfall": "layer-wise reconstruction"}
_RECOGNIZED = "recognized by "


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
    if not name.startswith("scores/") or name.count("/") < 3:
        return name
    attack, split, metric = name.rsplit("/", 2)
    return f"{attack}/{_word(split)}/{_metric(metric)}"


def migrate_bound(plain: Plain) -> Plain:
    """Return a bound's plain values in the present schema version."""
    if "layers" in plain:
        return plain
    name, _, layer = plain["name"].removesuffix(")").partition(" (")
    return {**plain, "name": _BOUNDS.get(name, name), "layer": layer, **bound_fields(plain.get("values", {}))}


def migrate_figures(figures: Mapping[str, Any]) -> Plain:
    """Return figures or curves by name, with the present words in their names."""
    return {_text(name): value for name, value in figures.items()}


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
        "flags": [{**flag, "message": _text(flag["message"])} for flag in plain.get("flags", [])],
        "provenance": plain.get("provenance", {}),
    }


_STEPS: dict[int, Callable[[Plain], Plain]] = {1: _to_2, 2: _to_3, 3: _to_4, 4: _to_5}


def _word(word: str) -> str:
    return _WORDS.get(word, word)


def _text(text: str) -> str:
    return _IN_TEXT.sub(lambda match: "auxiliary_val" if match[0] == "attacker_val" else _word(match[0]), text)


def _by_split(values: Mapping[str, Any]) -> Plain:
    return {_word(split): value for split, value in values.items()}


def _metric(name: str) -> str:
    return f"evaluator accuracy ({name.removeprefix(_RECOGNIZED)})" if name.startswith(_RECOGNIZED) else name


def _component(plain: Mapping[str, Any], name: str = "") -> Plain:
    """Return name and hyperparameters of a component's flat values."""
    rest = {_word(key): value for key, value in plain.items() if key not in ("name", "setting")}
    return {"name": plain.get("name", name), "hyperparameters": rest}


def _labeled(plain: Mapping[str, Any]) -> Plain:
    return {"label": plain["label"], **_component({key: value for key, value in plain.items() if key != "label"})}


def _conditions(setting: Mapping[str, Any]) -> Plain:
    return {_CONDITIONS.get(name, name): value for name, value in setting.items()}


def _config(config: Mapping[str, Any], recipe: str, dataset: str) -> Plain:
    return {
        "name": config.get("name", recipe),
        "description": config.get("description", ""),
        "seeds": config.get("seeds", []),
        "data": _component(config.get("data", {}), dataset),
        "training": config.get("fit"),
        "threats": [{**one, "backbone": _component(one["backbone"])} for one in config.get("threats", [])],
        "defenses": [_labeled(one) for one in config.get("defenses", [])],
        "attacks": [{**_labeled(one), "conditions": _conditions(one["setting"])} for one in config.get("attacks", [])],
        "class_attacks": [_labeled(one) for one in config.get("class_attacks", [])],
        "scoring": {_SCORING.get(name, name): value for name, value in config.get("judge", {}).items()},
        "expected_flags": config.get("expected_flags", []),
    }


def _data(data: Mapping[str, Any], pools: Mapping[str, int]) -> Plain:
    readers = data.get("read_by")
    return {
        "layout": data.get("layout"),
        **{name: _by_split(data.get(name, {})) for name in ("sizes", "fingerprints", "duplicates")},
        "gallery_indices": data.get("gallery_index", []),
        "reidentification_pools": _by_split(pools),
        "flips_keep_class": data.get("flips_keep_class"),
        "readers": readers and {stage: [_word(split) for split in splits] for stage, splits in readers.items()},
    }


def _target(target: Mapping[str, Any]) -> Plain:
    history = target.get("history", [])
    curves = ("train_loss", "held_out_loss", "held_out_accuracy")
    return {
        **{name: value for name, value in target.items() if name not in ("wrong", "history", "defense")},
        "history": {name: [epoch[name] for epoch in history if name in epoch] for name in curves},
        "misclassified": _by_split(target.get("wrong", {})),
        "defense": figure_fields(target.get("defense", {}), DefenseFacts.model_fields),
    }


def _features(leaked: Mapping[str, Any]) -> Plain:
    queries = leaked["queries"]
    return {**leaked, "queries": {"private": queries["private"], "auxiliary": queries["public"]}}


def _attack(attacker: Mapping[str, Any]) -> Plain:
    setting = _conditions(attacker.get("setting", {}))
    component = _component(attacker["settings"], attacker["name"])
    unchanged = ("name", "floor", "parameter_change", "outside_range")
    return {
        **{name: attacker[name] for name in unchanged},
        "attack": component["name"],
        "hyperparameters": component["hyperparameters"],
        "knowledge": _word(attacker["knowledge"]),
        "queries": setting.get("queries", 1),
        "conditions": setting,
        "eligible": attacker.get("competes", not attacker["floor"]),
        "prior": _prior(attacker.get("prior")),
        "indices": _by_split(attacker.get("index", {})),
        "diagnostics": figure_fields(migrate_figures(attacker["notes"]), FeatureInversionDiagnostics.model_fields),
        "curves": curve_fields(migrate_figures(attacker.get("curves", {}))),
        "residuals": _by_split(attacker.get("residuals", {})),
        "set_scores": _by_split(attacker.get("sets", {})),
        "scores": {
            _word(split): {_metric(name): summary for name, summary in metrics.items()}
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
            choice = {"knowledge": _word(knowledge), "queries": int(queries or 1), "metric": metric, "attack": attack}
            chosen.append(choice)
    return {
        "kind": "feature-inversion",
        "metrics": {**{name: image_metric(name) for name in names}, **{name: set_metric(name) for name in of_sets}},
        "attacks": attacks,
        "chosen": chosen,
        "skipped": plain.get("skipped", {}),
        "comparisons": [
            {
                **{name: value for name, value in one.items() if name != "part"},
                "kind": "knowledge" if one["kind"] == "level" else one["kind"],
                "split": _word(one["part"]),
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
        "overlap": None if overlap is None else _by_split(overlap),
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
    component = _component(attacker["settings"], attacker["name"])
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
        "knowledge": _word(attacker["knowledge"]),
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
        "diagnostics": figure_fields(migrate_figures(attacker["notes"]), ClassInversionDiagnostics.model_fields),
        "loss_curves": attacker["curves"],
    }
