"""Published JSON schema of recipes: current, true of every recipe in the repository, and strict."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sparseguard import ATTACKS, CLASS_ATTACKS, DEFENSES, parse_recipe, settings
from sparseguard.core.errors import RecipeError
from sparseguard.defenses import Defense
from sparseguard.pipeline.recipe.loading import list_shipped_recipes
from sparseguard.pipeline.recipe.validation.document import recipe_schema

ROOT = Path(__file__).parents[3]
RECIPES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "recipes").glob("*.toml"))}
RECIPES |= list_shipped_recipes()


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_current() -> None:
    published = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert published == recipe_schema(), "run `sparseguard recipe schema > docs/recipe.schema.json`"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_valid(validator: jsonschema.Draft202012Validator, name: str) -> None:
    table = tomllib.loads(RECIPES[name])
    validator.validate(table)
    assert parse_recipe(table).name == name


@pytest.mark.parametrize(
    "change",
    [
        {"defences": ["none"]},
        {"data": {"name": "fashion-mini", "privat": 100}},
        {"data": "imagenet"},
        {"training": {"epoch": 3}},
        {"scoring": {"bound": True}},
        {"threats": ["splitt"]},
        {"threats": [{"name": "split", "classes": ["Bag"]}]},
        {"threats": [{"name": "split", "backbone": {"name": "linear", "widt": 3}}]},
        {"threats": [{"name": "split", "backbone": {"name": "torchvision:resnet18", "widt": 3}}]},
        {"threats": [{"name": "split", "backbone": {"name": "torchvision:resnet18", "grey": "blue"}}]},
        {"defenses": ["scaa"]},
        {"defenses": ["sca+nothing"]},
        {"defenses": [{"name": "sca", "lambda": 0.5}]},
        {"defenses": [{"name": "sca+low-rank", "rank": 3}]},
        {"defenses": [{"name": "sca+low-rank", "low-rank": {"ranks": 3}}]},
        {"defenses": []},
        {"attacks": [{"name": "ridge", "copy": 1}]},
        {"attacks": [{"name": "ridge", "conditions": {"query": 1}}]},
        {"attacks": [{"name": "ridge", "setting": {"repeats": 2}}]},
        {"attacks": [{"name": "ridge", "copies": "1"}]},
        {"expected_flags": [{"flag": "target-changed"}]},
        {"seeds": [0, 0]},
        {"seeds": [-1]},
        {"name": "a/b"},
    ],
)
@pytest.mark.filterwarnings("ignore::sparseguard.core.errors.DeprecatedWordWarning")
def test_what_the_parser_refuses_the_schema_refuses(
    validator: jsonschema.Draft202012Validator, tiny: dict[str, Any], change: dict[str, Any]
) -> None:
    assert validator.is_valid(tiny)
    assert not validator.is_valid({**tiny, **change})
    if "setting" not in str(change):  # an old word, which the parser still reads
        with pytest.raises(RecipeError):
            parse_recipe({**tiny, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"data": "fashion-mini"},
        {"defenses": ["gong++", "sca+gong++", "sca+low-rank"]},
        {"defenses": [{"name": "sca+low-rank", "low-rank": {"rank": 3}, "sweep": {"sca.lambd": [0.1, 0.2]}}]},
        {"threats": [{"name": "split", "backbone": "linear"}]},
    ],
)
def test_every_form_that_the_parser_reads_is_valid(
    validator: jsonschema.Draft202012Validator, tiny: dict[str, Any], change: dict[str, Any]
) -> None:
    parse_recipe({**tiny, **change})
    validator.validate({**tiny, **change})


def test_every_component_and_setting_has_a_description() -> None:
    definitions = recipe_schema()["$defs"]
    entries = {
        schema["properties"]["name"].get("const"): schema
        for schema in definitions.values()
        if "name" in schema["properties"]
    }
    for name in (*DEFENSES, *ATTACKS, *CLASS_ATTACKS):
        missing = [
            setting
            for setting, schema in entries[name]["properties"].items()
            if "description" not in schema and setting not in ("name", "label", "preset", "conditions")
        ]
        assert not missing, name
        assert entries[name]["description"], name


def test_a_component_of_a_third_party_is_part_of_the_model(
    monkeypatch: pytest.MonkeyPatch, tiny: dict[str, Any]
) -> None:
    @settings
    class Blur(Defense):
        """Blur images.

        Args:
            width: of the blur.
        """

        revision = 1
        summary = "blur images"
        source = "test"
        width: int = 3

    before = recipe_schema()
    monkeypatch.setitem(DEFENSES, "my-blur", Blur)
    (defense,) = parse_recipe({**tiny, "defenses": [{"name": "my-blur", "width": 5}]}).defenses
    assert defense.component == Blur(width=5)
    assert recipe_schema()["$defs"]["MyBlurEntry"]["properties"]["width"]["description"] == "of the blur."
    with pytest.raises(RecipeError, match="Did you mean 'width'"):
        parse_recipe({**tiny, "defenses": [{"name": "my-blur", "widht": 5}]})
    monkeypatch.undo()
    assert recipe_schema() == before
