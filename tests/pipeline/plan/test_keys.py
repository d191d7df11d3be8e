"""Keys: equal to those of the first release, so that its run folders keep their targets and attacks."""

from __future__ import annotations

from typing import Any

import pytest

from sparseguard import load_recipe, parse_recipe
from sparseguard.pipeline.plan.cases import PlannedCase, plan_cases

# Computed by the first release for its demo recipe, and for CONDITIONS in its words.
DEMO = {
    ("none", "end-to-end"): [
        "96282e5a18bdeb3b",
        "3b61c7439169299b",
        "c7d1e94bcb1ccbe9",
        "1789d75b53c2ac6f",
        "3d628b77e575a1b9",
        "357b1954f1cc526b",
        "dfa8da94008acc5d",
    ],
    ("none", "plug-and-play"): ["96282e5a18bdeb3b", "d237c7a2b0eea462", "e8386e3cc83d5119"],
    ("gaussian-noise", "end-to-end"): [
        "bf0bd86c8f8522b7",
        "eccfe1f7a4fd5732",
        "328e52fbdb9e6e96",
        "c294de8df1d635a1",
        "f876e12c87a20222",
        "47ef0d72a81f3560",
        "5fdd0aa9413c4439",
    ],
    ("sca", "split"): [
        "556f80c1828a239e",
        "88b26fc82d90d3cf",
        "e9ec9e07b33c2493",
        "74ade436b5f9f1ba",
        "42bef0e6e9ad3440",
        "8e4c78223ca29efe",
        "80b3ba989dca268c",
    ],
}
CONDITIONS: dict[str, Any] = {
    "name": "conditions",
    "data": {"name": "fashion-mini", "private": 500, "auxiliary": 300, "auxiliary_val": 100, "test": 100},
    "training": {"epochs": 3},
    "scoring": {"bounds_images": 20},
    "threats": ["split"],
    "defenses": [{"name": "sca+cem", "sca": {"lambd": 0.25}, "sweep": {"cem.sigma": [0.025, 0.05]}}],
    "attacks": [
        "nearest-neighbor",
        "ridge",
        {"name": "local-ridge", "neighbors": [64]},
        {"name": "ridge", "label": "ridge x16", "conditions": {"queries": 16, "max_images": 10}},
        {"name": "ridge", "label": "few", "conditions": {"auxiliary_fraction": 0.5, "known_private": 0.25}},
        {"name": "ridge", "label": "digits", "conditions": {"dataset": "mnist", "path": "digits"}},
        {"name": "gradient-inversion", "conditions": {"control": "none"}},
    ],
}
CONDITION_KEYS = [
    [
        "0453e2e92be14e92",
        "8bb5bec9b365ed0b",
        "be47db617821d8c2",
        "c6d8d1c2c3961f4c",
        "64a09e01a0222761",
        "e560a78b9e359e26",
        "144e3fccd0b1ae4a",
        "c5db98521745d070",
        "ee1e149be19c6583",
    ],
    [
        "f6b8aa26f86b95d2",
        "a8f40fb7e0a858f0",
        "a34d3bcb3d34c700",
        "fbb45f72cc7a97a8",
        "b686091a5fd9ccb9",
        "b42d1cb687327d4a",
        "9c64bd91d9485aae",
        "df96f890dd5f6667",
        "1a6a117c081cb9b0",
    ],
]


def short(case: PlannedCase) -> list[str]:
    return [key[:16] for key in (case.target_key, case.bounds_key, *case.attack_keys.values())]


def test_keys_of_the_demo_are_those_of_the_first_release() -> None:
    recipe = load_recipe("demo")
    cases = plan_cases(recipe, recipe.dataset.load())
    keys = {(case.defense.label, case.threat.name): short(case) for case in cases}
    assert {case: keys[case] for case in DEMO} == DEMO


def test_keys_of_conditions_sweeps_and_hyperparameters_are_those_of_the_first_release() -> None:
    recipe = parse_recipe(CONDITIONS)
    assert [short(case) for case in plan_cases(recipe, recipe.dataset.load())] == CONDITION_KEYS


@pytest.mark.parametrize(
    ("change", "targets", "bounds", "attacks"),
    [
        ({"name": "other"}, True, True, {"ridge", "digits"}),
        ({"scoring": {"bounds_images": 21}}, True, False, {"ridge", "digits"}),
        ({"training": {"epochs": 4}}, False, False, set()),
        ({"seeds": [1]}, False, False, set()),
        ({"attacks": ["ridge", *CONDITIONS["attacks"][5:6]]}, True, True, {"ridge", "digits"}),
        ({"attacks": [{"name": "ridge", "copies": 2}, *CONDITIONS["attacks"][5:6]]}, True, True, {"digits"}),
    ],
)
def test_a_key_depends_on_what_its_result_depends_on(
    change: dict[str, Any], targets: bool, bounds: bool, attacks: set[str]
) -> None:
    recipe = parse_recipe(CONDITIONS)
    splits = recipe.dataset.load()
    (before, *_), (after, *_) = plan_cases(recipe, splits), plan_cases(parse_recipe({**CONDITIONS, **change}), splits)
    assert (before.target_key == after.target_key) is targets
    assert (before.bounds_key == after.bounds_key) is bounds
    same = {label for label in ("ridge", "digits") if before.attack_keys[label] == after.attack_keys[label]}
    assert same == attacks
    assert before.record_key != after.record_key


def test_cases_that_share_a_target_are_next_to_each_other() -> None:
    recipe = load_recipe("demo", ["seeds=[0, 1]"])
    targets = [case.target_key for case in plan_cases(recipe, recipe.dataset.load())]
    runs = [target for target, before in zip(targets, [None, *targets], strict=False) if target != before]
    assert len(runs) == len(set(targets)) == 10
