"""Combined defenses and sweeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseguard.core.errors import RecipeError
from sparseguard.defenses import DEFENSES
from sparseguard.defenses.combined import split_name
from sparseguard.pipeline.recipe.loading import parse_recipe
from sparseguard.pipeline.recipe.validation.expansion import expand_sweep


@given(st.lists(st.sampled_from(sorted(DEFENSES)), min_size=1, max_size=4))
def test_combined_names_are_split_again(names):
    assert split_name("+".join(names), DEFENSES) == names


def test_settings_of_combined_defenses_go_into_tables_of_their_names(tiny):
    entry = {"name": "sca+low-rank", "sca": {"lambd": 0.1}, "low-rank": {"rank": 8}}
    (both,) = parse_recipe({**tiny, "defenses": [entry]}).defenses
    assert both.label == "sca+low-rank sca.lambd=0.1 low-rank.rank=8"
    assert both.describe()["sca"]["lambd"] == 0.1
    assert both.describe()["low-rank"] == {"rank": 8}
    assert both.describe()["name"] == "sca+low-rank"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "sca+nothing"}, "unknown name 'sca\\+nothing'"),
        ({"name": "sca+sca"}, "appears twice"),
        ({"name": "sca+low-rank", "rank": 3}, "unknown key 'rank'. Did you mean 'low-rank'"),
        ({"name": "sca+low-rank", "low-rank": 3}, "low-rank: must be a table"),
        ({"name": "sca+low-rank", "low-rank": {"ranks": 3}}, "'sca\\+low-rank': unknown key 'low-rank.ranks'"),
        ({"name": "sca+low-rank", "label": 3}, "label: Input should be a valid string"),
    ],
)
def test_an_unknown_combination_is_refused(tiny, entry, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**tiny, "defenses": [entry]})


def test_a_sweep_is_every_combination_in_order():
    entry = {"name": "bido", "label": "b", "sigma": 3.0, "sweep": {"lambda_x": [1.0, 2.0], "lambda_y": [3.0]}}
    entries = expand_sweep(entry, "[[defenses]]")
    assert entries == [
        {"name": "bido", "label": "b lambda_x=1.0 lambda_y=3.0", "sigma": 3.0, "lambda_x": 1.0, "lambda_y": 3.0},
        {"name": "bido", "label": "b lambda_x=2.0 lambda_y=3.0", "sigma": 3.0, "lambda_x": 2.0, "lambda_y": 3.0},
    ]
    assert "sweep" in entry


def test_a_sweep_reaches_into_combined_defenses():
    entry = {"name": "sca+low-rank", "sca": {"kernel_size": 3}, "sweep": {"sca.lambd": [0.1, 0.2]}}
    settings = [expanded["sca"] for expanded in expand_sweep(entry, "[[defenses]]")]
    assert settings == [{"kernel_size": 3, "lambd": 0.1}, {"kernel_size": 3, "lambd": 0.2}]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ([1], "must be a table of lists"),
        ({}, "must be a table of lists"),
        ({"lambd": 0.1}, "must be a table of lists"),
        ({"lambd": []}, "must be a table of lists"),
        ({"kernel_size": [3]}, "both given and swept"),
    ],
)
def test_a_malformed_sweep_is_refused(sweep, message):
    with pytest.raises(RecipeError, match=message):
        expand_sweep({"name": "sca", "kernel_size": 5, "sweep": sweep}, "[[defenses]]")


def test_a_recipe_has_the_swept_defenses(tiny):
    tiny["defenses"] = ["none", {"name": "gaussian-noise", "sweep": {"sigma": [0.1, 0.5]}}]
    labels = [defense.label for defense in parse_recipe(tiny).defenses]
    assert labels == ["none", "gaussian-noise sigma=0.1", "gaussian-noise"]
    assert [defense.component.sigma for defense in parse_recipe(tiny).defenses[1:]] == [0.1, 0.5]
