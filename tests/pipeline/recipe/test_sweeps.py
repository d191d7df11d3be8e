"""Entries of recipes that stand for several defenses, at once or one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseguard.core.errors import RecipeError
from sparseguard.defenses import DEFENSES
from sparseguard.defenses.combined import split_name
from sparseguard.pipeline.recipe.recipe import parse_recipe
from sparseguard.pipeline.recipe.sweeps import defense, swept


@given(st.lists(st.sampled_from(sorted(DEFENSES)), min_size=1, max_size=4))
def test_names_put_together_are_told_apart_again(names):
    assert split_name("+".join(names), DEFENSES) == names


def test_settings_of_combined_defenses_go_into_tables_of_their_names():
    both = defense({"name": "sca+low-rank", "sca": {"lambd": 0.1}, "low-rank": {"rank": 8}})
    assert both.label == "sca+low-rank sca.lambd=0.1 low-rank.rank=8"
    assert both.describe()["sca"]["lambd"] == 0.1
    assert both.describe()["low-rank"] == {"rank": 8}
    assert both.describe()["name"] == "sca+low-rank"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "sca+nothing"}, "unknown name 'sca\\+nothing'"),
        ({"name": "sca+sca"}, "appears twice"),
        ({"name": "sca+low-rank", "rank": 3}, "unknown key 'rank'. Settings go into sca and low-rank"),
        ({"name": "sca+low-rank", "low-rank": 3}, "low-rank must be a table"),
        ({"name": "sca+low-rank", "low-rank": {"ranks": 3}}, "'sca\\+low-rank' low-rank: unknown key 'ranks'"),
        ({"name": "sca+low-rank", "label": 3}, "label must be a string"),
    ],
)
def test_what_means_nothing_is_refused(entry, said):
    with pytest.raises(RecipeError, match=said):
        defense(entry)


def test_a_sweep_is_every_combination_in_order():
    entry = {"name": "bido", "label": "b", "sigma": 3.0, "sweep": {"lambda_x": [1.0, 2.0], "lambda_y": [3.0]}}
    made = swept(entry, "[[defenses]]")
    assert made == [
        {"name": "bido", "label": "b lambda_x=1.0 lambda_y=3.0", "sigma": 3.0, "lambda_x": 1.0, "lambda_y": 3.0},
        {"name": "bido", "label": "b lambda_x=2.0 lambda_y=3.0", "sigma": 3.0, "lambda_x": 2.0, "lambda_y": 3.0},
    ]
    assert "sweep" in entry


def test_a_sweep_reaches_into_combined_defenses():
    made = swept({"name": "sca+low-rank", "sca": {"kernel_size": 3}, "sweep": {"sca.lambd": [0.1, 0.2]}}, "w")
    assert [one["sca"] for one in made] == [{"kernel_size": 3, "lambd": 0.1}, {"kernel_size": 3, "lambd": 0.2}]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ([1], "must be a table of lists"),
        ({}, "must be a table of lists"),
        ({"lambd": 0.1}, "must be a table of lists"),
        ({"lambd": []}, "must be a table of lists"),
        ({"kernel_size": [3]}, "both given and swept"),
    ],
)
def test_a_sweep_that_means_nothing_is_refused(sweep, said):
    with pytest.raises(RecipeError, match=said):
        swept({"name": "sca", "kernel_size": 5, "sweep": sweep}, "[[defenses]]")


def test_a_recipe_has_the_swept_defenses(tiny):
    tiny["defenses"] = ["none", {"name": "gaussian-noise", "sweep": {"sigma": [0.1, 0.5]}}]
    labels = [one.label for one in parse_recipe(tiny).defenses]
    assert labels == ["none", "gaussian-noise sigma=0.1", "gaussian-noise"]
    assert [one.component.sigma for one in parse_recipe(tiny).defenses[1:]] == [0.1, 0.5]
