"""Circumstances of attacks: repeated queries, controls, other images to learn from, few images attacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sparseguard import load_recipe, parse_recipe, run
from sparseguard.attacks import ATTACKS
from sparseguard.attacks.base import Attack, validation_images
from sparseguard.core.config import settings
from sparseguard.core.errors import DataError, RecipeError, TrainingError
from sparseguard.data import DATASETS
from sparseguard.pipeline.recipe.conditions import Conditions, select_attacked, select_known
from sparseguard.pipeline.scoring.images import ScoredAttack, choose
from sparseguard.pipeline.tasks import attack as attacking
from sparseguard.pipeline.tasks.attack import select_auxiliary
from sparseguard.record import Record, read_pictures
from sparseguard.types import AttackResult, Knowledge

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
RIDGE = {"name": "ridge", "copies": 1}


def with_attacks(tiny: dict[str, Any], *attacks: Any, **more: Any) -> Any:
    return parse_recipe({**tiny, "attacks": ["mean-image", *attacks], **more})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_project_parse(path: Path) -> None:
    assert load_recipe(path).description


def chosen(record: Record, metric: str) -> dict[tuple[str, int], str]:
    """Return the attacks chosen for a metric, by knowledge and number of queries."""
    return {
        (one.knowledge, one.queries): one.attack
        for one in record.outcome.chosen  # type: ignore[union-attr]
        if one.metric == metric
    }


def test_repeated_queries_help_against_noise_and_are_a_level_of_their_own(tiny: dict[str, Any], tmp_path: Path) -> None:
    often = {**RIDGE, "label": "ridge x16", "conditions": {"queries": 16}}
    (record,) = run(with_attacks(tiny, RIDGE, often, defenses=["gaussian-noise"]), tmp_path).records
    assert chosen(record, "psnr") == {
        ("black-box", 1): "ridge",
        ("black-box", 16): "ridge x16",
    }
    compared = next(one for one in record.comparisons if one.metric == "psnr" and one.split == "private")
    assert (compared.kind, compared.first, compared.second) == ("knowledge", "ridge x16", "ridge")
    assert compared.ci95[0] > 0
    ours, theirs = (record.outcome.attack(name).scores["private"]["psnr"].mean for name in ("ridge x16", "ridge"))
    assert compared.mean == pytest.approx(ours - theirs, abs=1e-5)
    assert record.features is not None
    assert record.features.queries.private == 17 * (120 + 60 + 50)


def test_repeating_is_skipped_where_it_tells_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    often = {**RIDGE, "label": "ridge x4", "conditions": {"queries": 4}}
    (record,) = run(with_attacks(tiny, RIDGE, often), tmp_path).records
    assert "answers equal queries equally" in record.skipped["ridge x4"]
    assert [attacker.name for attacker in record.attacks] == ["mean-image", "ridge"]


def test_controls_are_compared_and_never_chosen(tiny: dict[str, Any], tmp_path: Path) -> None:
    controls = [
        {**RIDGE, "label": "shuffled", "conditions": {"control": "shuffled-features"}},
        {**RIDGE, "label": "untrained", "conditions": {"control": "untrained-target"}},
        {**RIDGE, "label": "a tenth", "conditions": {"auxiliary_fraction": 0.2}},
    ]
    (record,) = run(with_attacks(tiny, RIDGE, *controls), tmp_path).records
    assert {one.attack for one in record.outcome.chosen} == {"ridge"}
    means = {attacker.name: attacker.scores["private"]["psnr"].mean for attacker in record.attacks}
    assert means["shuffled"] < means["mean-image"] + 0.5
    assert means["a tenth"] < means["ridge"]
    assert means["untrained"] != means["ridge"]
    assert "auxiliary_val" not in record.outcome.attack("a tenth").scores
    for label in ("shuffled", "untrained", "a tenth"):
        (one,) = (c for c in record.comparisons if (c.first, c.metric, c.split) == (label, "psnr", "private"))
        assert (one.kind, one.second) == ("control", "ridge")
        assert one.mean == pytest.approx(means[label] - means["ridge"], abs=1e-5)
        assert one.ci95[0] <= one.mean <= one.ci95[1]


def test_few_images_are_the_same_ones_everywhere_and_said(tiny: dict[str, Any], tmp_path: Path) -> None:
    few = {**RIDGE, "label": "few", "conditions": {"max_images": 20}}
    (record,) = run(with_attacks(tiny, RIDGE, few), tmp_path).records
    assert chosen(record, "psnr")["black-box", 1] in ("ridge", "few")
    index = record.outcome.attack("few").indices
    assert {part: len(places) for part, places in index.items()} == {"private": 20, "test": 20, "auxiliary_val": 20}
    assert set(index["private"]) <= set(record.data.gallery_indices)
    pictures = read_pictures(tmp_path / "records" / f"{record.case.slug}.safetensors")
    whole, part = (pictures.scores[f"{name}/private/psnr"] for name in ("ridge", "few"))
    assert part.tolist() == pytest.approx(whole[index["private"]].tolist(), abs=1e-4)
    assert pictures.gallery["few"].shape[0] == 20


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_a_smaller_limit_is_a_subset(limit: int) -> None:
    small, large = select_attacked(100, limit), select_attacked(100, limit + 30)
    assert small is not None
    assert large is not None
    assert len(small) == limit
    assert set(small.tolist()) <= set(large.tolist())
    assert select_attacked(100, 100) is None


def test_shares_and_other_sets_give_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = DATASETS["fashion-mini"](private=60, auxiliary=200, auxiliary_val=50, test=20).load()
    tenth = select_auxiliary(splits, Conditions(auxiliary_fraction=0.1))
    assert (len(tenth.train), len(tenth.val)) == (20, 10)
    own = {bytes(image.numpy()) for image in splits.auxiliary.pixels}
    assert {bytes(image.numpy()) for image in tenth.train.pixels} <= own

    class Other(DATASETS["fashion-mini"]):  # type: ignore[misc]
        def _read(self) -> Any:
            found = super()._read()
            if self.layout == "paper":
                return found
            cut = {
                part: images.__class__(
                    pixels=255 - images.pixels[:, :, :side], labels=images.labels, classes=images.classes
                )
                for part, images in found.by_name().items()
            }
            return found.__class__(name="other", layout=found.layout, flips_keep_class=True, **cut)

    monkeypatch.setitem(DATASETS, "other", settings(Other))
    side = 28
    foreign = select_auxiliary(splits, Conditions(dataset="other"))
    assert (len(foreign.train), len(foreign.val)) == (200, 50)
    assert not {bytes(image.numpy()) for image in foreign.train.pixels} & own
    side = 20
    with pytest.raises(RecipeError, match=r"have the shape \(1, 20, 28\)"):
        select_auxiliary(splits, Conditions(dataset="other"))


def test_known_private_images_are_learned_from_and_not_attacked(tiny: dict[str, Any], tmp_path: Path) -> None:
    knows = {"known_private": 0.5}
    entries = [
        {**RIDGE, "label": "knows half", "conditions": knows},
        {**RIDGE, "label": "knows half, attacks few", "conditions": {**knows, "max_images": 20}},
    ]
    (record,) = run(with_attacks(tiny, RIDGE, *entries), tmp_path).records
    splits = DATASETS["fashion-mini"](**{key: value for key, value in tiny["data"].items() if key != "name"}).load()
    learned = select_auxiliary(splits, Conditions(**knows))
    own = [bytes(image.numpy()) for image in splits.private.pixels]
    known = [own.index(bytes(image.numpy())) for image in learned.train.pixels[len(splits.auxiliary) :]]
    assert len(known) == len(own) // 2
    assert learned.train.labels[-len(known) :].tolist() == splits.private.labels[known].tolist()
    assert torch.equal(learned.train.pixels[: -len(known)], splits.auxiliary.pixels)
    assert learned.val is splits.auxiliary_val
    attacked = record.outcome.attack("knows half").indices
    assert sorted(known + attacked["private"]) == list(range(len(own)))
    assert set(attacked) == {"private"}
    few = record.outcome.attack("knows half, attacks few").indices["private"]
    assert len(few) == 20
    assert set(few) < set(attacked["private"])
    assert {one.attack for one in record.outcome.chosen} == {"ridge"}
    (one,) = (c for c in record.comparisons if (c.first, c.metric, c.split) == ("knows half", "psnr", "private"))
    assert (one.second, one.n) == ("ridge", len(attacked["private"]))


@pytest.mark.parametrize("known", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_an_image_is_known_or_attacked(count: int, known: float) -> None:
    attacked, had = select_attacked(count, None, known), select_known(count, known)
    left = list(range(count)) if attacked is None else attacked.tolist()
    assert left
    assert sorted(left + had.tolist()) == list(range(count))
    assert len(had) == int(known * count)


def test_missing_other_data_is_a_data_error(tiny: dict[str, Any], tmp_path: Path) -> None:
    digits = {**RIDGE, "label": "digits", "conditions": {"dataset": "mnist", "path": str(tmp_path / "nowhere")}}
    with pytest.raises(DataError, match="nowhere"):
        run(with_attacks(tiny, RIDGE, digits), tmp_path / "out")


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"conditions": {"query": 2}}, "Did you mean 'queries'"),
        ({"conditions": {"queries": 0}}, "queries"),
        ({"conditions": {"auxiliary_fraction": 0.0}}, "auxiliary_fraction"),
        ({"conditions": {"known_private": 1.0}}, "known_private"),
        ({"conditions": {"known_private": 0.5, "dataset": "mnist"}}, "leave out dataset"),
        ({"conditions": {"control": "shuffled"}}, "control"),
        ({"conditions": {"dataset": "mnits"}}, "Did you mean 'mnist'"),
        ({"conditions": "none"}, "must be a table"),
        ({"conditions": {"path": "/tmp"}}, "belongs to a data set"),
        ({"conditions": {"auxiliary_fraction": 0.5}}, "no floor or control"),
        ({"conditions": {"queries": 2}}, "no floor or control"),
    ],
)
def test_a_wrong_setting_is_refused(tiny: dict[str, Any], attack: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        with_attacks(tiny, {**RIDGE, **attack})


def test_the_set_under_attack_is_no_other_set(tiny: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="is the data set under attack"):
        with_attacks(tiny, RIDGE, {**RIDGE, "label": "same", "conditions": {"dataset": "fashion-mini"}})


@pytest.mark.parametrize("label", ["private", "probe", "rank"])
def test_a_label_that_seeds_are_made_of_is_refused(tiny: dict[str, Any], label: str) -> None:
    with pytest.raises(RecipeError, match=f"label '{label}'"):
        with_attacks(tiny, RIDGE, {**RIDGE, "label": label})


def test_no_private_or_test_image_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other set is the same one, parted otherwise: most of its attacker's images are to be reconstructed."""
    splits = DATASETS["fashion-mini"](auxiliary=200, auxiliary_val=50).load()

    class Same(DATASETS["fashion-mini"]):  # type: ignore[misc]
        layout: Any = "paper"

    monkeypatch.setitem(DATASETS, "same", settings(Same))
    auxiliary = select_auxiliary(splits, Conditions(dataset="same"))
    hidden = {bytes(image.numpy()) for part in (splits.private, splits.test) for image in part.pixels}
    assert len(auxiliary.train) == 200
    assert not {bytes(image.numpy()) for part in (auxiliary.train, auxiliary.val) for image in part.pixels} & hidden


def test_queries_do_not_depend_on_what_was_found_in_the_folder(tiny: dict[str, Any], tmp_path: Path) -> None:
    first = run(with_attacks(tiny, RIDGE), tmp_path).records[0]
    again = run(with_attacks(tiny, RIDGE, description="another"), tmp_path).records[0]
    assert first.features == again.features


def test_floors_have_no_settings(tiny: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="'mean-image' is a floor"):
        with_attacks(tiny, RIDGE, {"name": "mean-image", "label": "x", "conditions": {"auxiliary_fraction": 0.5}})


def test_a_control_starts_from_nothing_uncontrolled(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "follower", Follower)
    controlled = {"name": "follower", "label": "controlled", "conditions": {"control": "untrained-target"}}
    outcome = run(with_attacks(tiny, RIDGE, controlled), tmp_path)
    assert outcome.failed
    assert outcome.failed[0].failure is not None
    assert "nothing to follow" in outcome.failed[0].failure.message


def test_shuffling_is_skipped_for_attacks_that_do_not_learn_from_features(tiny: dict[str, Any], tmp_path: Path) -> None:
    search = {"name": "gradient-inversion", "conditions": {"control": "shuffled-features"}}
    (record,) = run(with_attacks(tiny, RIDGE, search), tmp_path).records
    assert "does not learn from features" in record.skipped["gradient-inversion"]


@settings
class Follower(Attack):
    """Answers with what it was given, a little darker; fails if that is not what its images are worth."""

    revision = 1
    summary = "test"
    source = "test"
    knowledge = Knowledge.GRAY_BOX
    starts_from_earlier = True

    def run(self, leak: Any, goal: Any, context: Any) -> AttackResult:
        if not context.earlier:
            raise TrainingError("nothing to follow")
        (best,) = context.earlier.values()
        error = float((best["auxiliary_val"] - validation_images(goal["auxiliary_val"], context)).square().mean())
        return AttackResult(reconstructions={part: best[part] * 0.99 for part in goal}, diagnostics={"given": error})


def test_a_later_attack_starts_from_the_best_earlier_one(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "follower", Follower)
    worse = {**RIDGE, "label": "few", "conditions": {"max_images": 20}}
    control = {**RIDGE, "label": "control", "conditions": {"control": "shuffled-features"}}
    follower = {"name": "follower", "conditions": {"max_images": 12}}
    recipe = with_attacks(tiny, RIDGE, worse, control, follower)
    (fresh,) = run(recipe, tmp_path / "a").records
    ridge = fresh.outcome.attack("ridge").scores["private"]["psnr"]
    assert fresh.outcome.attack("follower").diagnostics.extra["given"] < 10 ** (-(ridge.mean - 3) / 10)
    (again,) = run(with_attacks(tiny, RIDGE, worse, control), tmp_path / "b").records
    monkeypatch.setattr(attacking.AttackRunner, "_earlier", _counted := _Counted(attacking.AttackRunner._earlier))
    (resumed,) = run(recipe, tmp_path / "b").records
    assert _counted.calls == 1  # the others were found in the folder
    assert resumed.attacks == fresh.attacks
    assert again.attacks == fresh.attacks[:-1]


class _Counted:
    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __get__(self, owner: Any, _: Any) -> Any:
        def call(*args: Any) -> Any:
            self.calls += 1
            return self.function(owner, *args)

        return call


def test_one_who_knows_private_images_starts_from_what_was_made_of_the_same_ones(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "follower", Follower)
    knows = {"known_private": 0.5}
    entries = [
        RIDGE,
        {**RIDGE, "label": "knows", "conditions": knows},
        {"name": "follower", "conditions": knows},
        {"name": "follower", "label": "of few", "conditions": {**knows, "max_images": 20}},
    ]
    (record,) = run(with_attacks(tiny, *entries), tmp_path).records
    scores = read_pictures(tmp_path / "records" / f"{record.case.slug}.safetensors").scores
    of_all = record.outcome.attack("knows").indices["private"]
    of_few = [of_all.index(place) for place in record.outcome.attack("of few").indices["private"]]
    ridge, follower, few = (scores[f"{name}/private/psnr"] for name in ("knows", "follower", "of few"))
    assert follower.tolist() == pytest.approx(ridge.tolist(), abs=0.7)  # a little darker
    assert few.tolist() == pytest.approx(follower[of_few].tolist(), abs=1e-4)


def test_an_earlier_attack_that_changes_changes_those_that_start_from_it(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "follower", Follower)
    first, second = (
        run(with_attacks(tiny, {"name": "ridge", "copies": copies}, "follower"), tmp_path).records[0]
        for copies in (1, 2)
    )
    assert first.outcome.attack("follower").scores != second.outcome.attack("follower").scores


def scored(name: str, places: list[int], scores: list[float]) -> ScoredAttack:
    values = {metric: torch.tensor(scores) for metric in ("psnr", "ssim", "id@1")}
    return ScoredAttack(
        name=name,
        knowledge=Knowledge.BLACK_BOX,
        queries=1,
        indices={"auxiliary_val": places},
        scores={"auxiliary_val": values},
    )


def test_attackers_are_chosen_on_images_all_of_them_attacked() -> None:
    every = scored("every", [0, 1, 2, 3], [9.0, 1.0, 1.0, 1.0])
    few = scored("few", [1, 3], [2.0, 2.0])
    assert {one.attack for one in choose([every, few])} == {"few"}
    assert {one.attack for one in choose([every])} == {"every"}


def test_judges_are_asked_when_the_recipe_says_so(tiny: dict[str, Any], tmp_path: Path) -> None:
    plain = run(with_attacks(tiny, RIDGE), tmp_path / "plain").records[0]
    judged = with_attacks(tiny, RIDGE, scoring={"network": "fashion-net", "bounds": True, "bounds_images": 16})
    record = run(judged, tmp_path / "judged").records[0]
    assert (plain.bounds, plain.outcome.attack("ridge").set_scores) == ([], {})
    sets = record.outcome.attack("ridge").set_scores["private"]
    assert sets["FD(fashion-net)"].value is not None
    assert sets["FD(fashion-net)"].n == 120
    assert (
        sets["FD(fashion-net)"].value
        < record.outcome.attack("mean-image").set_scores["private"]["FD(fashion-net)"].value
    )
    test = record.outcome.attack("ridge").set_scores["test"]["FD(fashion-net)"]
    assert test.value is None
    assert "60" in str(test.reason)
    bounds = {(bound.name, bound.layer): bound for bound in record.bounds}
    assert bounds["null-space", "first"].values["rank"] == 32
    assert "no sparse layer" in str(bounds["optimality-inversion", "first"].reason)
    assert record.attacks[1].scores == plain.attacks[1].scores


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"network": "torchvision"}, "model= and weights="),
        ({"network": "fashion-net", "weights": "x"}, "weights are a setting of"),
        ({"model": "resnet18"}, "model is a setting of"),
        ({"networks": "fashion-net"}, "Did you mean 'network'"),
    ],
)
def test_a_wrong_judge_is_refused(tiny: dict[str, Any], scoring: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        with_attacks(tiny, RIDGE, scoring=scoring)
