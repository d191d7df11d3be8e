"""Recipes: an error names the place and the value, and suggests the nearest word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseguard import DEFENSES, load_recipe, parse_recipe
from sparseguard.core.errors import RecipeError
from sparseguard.pipeline.recipe.loading import list_shipped_recipes


@pytest.mark.parametrize("name", sorted(list_shipped_recipes()))
def test_shipped_recipes_parse(name: str) -> None:
    assert load_recipe(name).description


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defences": ["none"]}, "unknown key 'defences'. Did you mean 'defenses'"),
        ({"defenses": ["scaa"]}, "unknown name 'scaa'. Did you mean 'sca'"),
        ({"defenses": [{"name": "sca", "lambda": 0.5}]}, "Did you mean 'lambd'"),
        ({"defenses": [{"name": "sca", "lambd": -1}]}, "lambd"),
        ({"defenses": [{"name": "sca", "lambd": [0.1, 0.2, 0.3]}]}, "one entry for each layer"),
        ({"defenses": [{"name": "sca", "kernel_size": 4}]}, "must be odd"),
        ({"defenses": [{"name": "gaussian-noise", "sigma": "0.5"}]}, "sigma"),
        ({"defenses": ["none", "none"]}, "appears twice"),
        ({"defenses": []}, "must be a list"),
        ({"defenses": "none"}, "must be a list"),
        ({"training": {"epoch": 3}}, "Did you mean 'epochs'"),
        ({"training": {"epochs": 0}}, "epochs"),
        ({"training": {"epochs": 2.5}}, "epochs"),
        ({"training": {"lr": float("nan")}}, "lr"),
        ({"data": {"name": "fashion-mini", "privat": 3}}, "Did you mean 'private'"),
        ({"data": {"name": "imagenet"}}, "unknown name 'imagenet'"),
        ({"data": {}}, "needs a name"),
        ({"seeds": [0, 0]}, "distinct"),
        ({"seeds": [-1]}, "whole numbers"),
        ({"seeds": [True]}, "whole numbers"),
        ({"threats": ["splitt"]}, "Did you mean 'split'"),
        ({"threats": [{"name": "split", "tap": "last_hidden"}]}, "no tap 'last_hidden'"),
        ({"attacks": ["mean-image"]}, "no floor"),
        ({"expected_flags": [{"flag": "target-change", "reason": "x"}]}, "Did you mean 'target-changed'"),
        ({"expected_flags": [{"flag": "target-changed"}]}, "reason"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_reason(tiny: dict[str, Any], change: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**tiny, **change})


def test_all_errors_are_in_one_message(tiny: dict[str, Any]) -> None:
    wrong = {
        **tiny,
        "seeds": [-1],
        "training": {"epoch": 3},
        "defenses": ["none", "scaa", {"name": "sca", "lambd": "x", "kernel_size": 4}],
        "attacks": [{"name": "ridge", "conditions": {"querys": 2}}],
    }
    with pytest.raises(RecipeError) as raised:
        parse_recipe(wrong)
    assert str(raised.value).splitlines() == [
        "recipe: seeds must be a list of distinct whole numbers from 0, got [-1].",
        "[training]: unknown key 'epoch'. Did you mean 'epochs'? Known: batch_size, epochs, lr, momentum, optimizer, "
        "patience, schedule, weight_decay.",
        "[[defenses]]: unknown name 'scaa'. Did you mean 'sca'? Known: " + ", ".join(sorted(DEFENSES)) + ".",
        "[[defenses]] 'sca': lambd: Input should be a valid number, or: Input should be a valid array (got 'x').",
        "[[defenses]] 'sca': kernel_size: must be odd (got 4).",
        "[[attacks]] 'ridge': unknown key 'conditions.querys'. Did you mean 'queries'? Known: auxiliary_fraction, "
        "control, dataset, known_private, max_images, path, queries.",
    ]


@given(st.dictionaries(st.text(max_size=6), st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers())))
def test_no_table_raises_anything_but_a_recipe_error(table: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(table)


def test_overrides(tiny_file: Path) -> None:
    recipe = load_recipe(
        tiny_file, ["training.epochs=7", "defenses.none.label=plain", "seeds=[1, 2]", "data.private=50", "name=other"]
    )
    assert (recipe.training.epochs, recipe.seeds, recipe.name) == (7, (1, 2), "other")
    assert recipe.defenses[0].label == "plain"


@pytest.mark.parametrize(
    "override", ["training", "=3", "defenses.sca.lambd=1", "name.x=1", "training.epochs=many", "training..x=1"]
)
def test_wrong_overrides_are_refused(tiny_file: Path, override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(tiny_file, [override])


def test_labels_tell_what_differs_from_the_default(tiny: dict[str, Any]) -> None:
    tiny["defenses"] = ["sca", {"name": "sca", "lambd": 0.1}]
    assert [defense.label for defense in parse_recipe(tiny).defenses] == ["sca", "sca lambd=0.1"]


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"name = [")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (broken, binary, tmp_path / "absent.toml", "absent"):
        with pytest.raises(RecipeError):
            load_recipe(path)
