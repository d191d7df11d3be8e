"""Words of the first release: recipes and overrides in them mean the same as in today's words."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparseguard import Recipe, load_recipe, parse_recipe
from sparseguard.core.errors import DeprecatedWordWarning, RecipeError

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECIPES = Path(__file__).parents[4] / "recipes"


def comparable(recipe: Recipe) -> Recipe:
    """The recipe without its texts, which may be worded anew."""
    flags = tuple(replace(flag, reason="") for flag in recipe.expected_flags)
    return replace(recipe, description="", expected_flags=flags)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_of_the_first_release_is_still_read(path: Path) -> None:
    with pytest.warns(DeprecatedWordWarning):
        old = load_recipe(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = load_recipe(RECIPES / path.name)
    assert comparable(old) == comparable(new)


def test_every_old_word_has_a_notice_and_the_meaning_of_its_new_one(tiny: dict[str, Any]) -> None:
    old = {
        "name": "old",
        "data": {"name": "fashion-mini", "attacker_train": 100, "attacker_val": 50},
        "fit": {"epochs": 3},
        "judge": {"neighbours": 2},
        "defenses": ["none"],
        "attacks": [
            "nearest-public",
            "ridge",
            {"name": "local-ridge", "neighbours": [8]},
            {"name": "ridge", "label": "a", "setting": {"repeats": 2, "share": 0.5}},
            {"name": "ridge", "label": "b", "setting": {"data": "mnist", "images": 9}},
        ],
    }
    new = {
        "name": "old",
        "data": {"name": "fashion-mini", "auxiliary": 100, "auxiliary_val": 50},
        "training": {"epochs": 3},
        "scoring": {"neighbors": 2},
        "defenses": ["none"],
        "attacks": [
            "nearest-neighbor",
            "ridge",
            {"name": "local-ridge", "neighbors": [8]},
            {"name": "ridge", "label": "a", "conditions": {"queries": 2, "auxiliary_fraction": 0.5}},
            {"name": "ridge", "label": "b", "conditions": {"dataset": "mnist", "max_images": 9}},
        ],
    }
    with pytest.warns(DeprecatedWordWarning) as notices:
        recipe = parse_recipe(old)
    assert recipe == parse_recipe(new)
    (notice,) = notices
    words = ("judge", "fit", "neighbours", "attacker_train", "attacker_val", "nearest-public", "setting", "repeats")
    assert all(f"'{word}' is now '" in str(notice.message) for word in (*words, "share", "data", "images"))


def test_an_override_may_use_old_words(tiny_file: Path) -> None:
    changes = [
        "fit.epochs=7",
        "data.attacker_train=90",
        "attacks.ridge.setting.images=9",
        'attacks=["nearest-public", { name = "ridge", setting = { images = 8 } }]',
        "attacks.ridge.setting.images=9",
    ]
    with pytest.warns(DeprecatedWordWarning):
        recipe = load_recipe(tiny_file, changes)
    assert recipe.training.epochs == 7
    assert recipe.dataset.auxiliary == 90
    assert recipe.attacks[0].name == "nearest-neighbor"
    assert recipe.attacks[1].conditions.max_images == 9


def test_an_old_word_beside_its_new_one_is_refused(tiny: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="has both 'fit' and 'training'"):
        parse_recipe({**tiny, "fit": {"epochs": 1}})
