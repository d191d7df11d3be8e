"""Several defenses at once: order of stages, state of each, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Blueprint, Noise, StagedModel
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.defenses.base import Budget, Context, Defense
from sparseguard.defenses.combined import REVISION, Combined, split_name
from sparseguard.targets import BACKBONES, Fit, train
from sparseguard.types import BatchContext, EpochContext, Phase

DATA = DATASETS["fashion-mini"](private=60, auxiliary=60).load()
PLAIN = replace(BACKBONES["linear"](width=20).blueprint(10), tap="first_linear")
QUICK: dict[str, dict[str, Any]] = {
    "sca": {"features": (3, 4), "steps": (3, 3)},
    "sparse-standard": {"features": 3, "channels": 2, "steps": 3},
    "low-rank": {"rank": 6},
}


def combined(*names: str, **settings: dict[str, Any]) -> Combined:
    return Combined({name: DEFENSES[name](**{**QUICK.get(name, {}), **settings.get(name, {})}) for name in names})


def built(defense: Defense, state: Any = None) -> StagedModel:
    return defense.edit_blueprint(PLAIN, state or {}).build(DATA.private.shape, lambda stage: len(stage)).eval()


def context() -> Context:
    budget = Budget(images=54, batch_size=30, epochs=1)
    return Context(private=DATA.private, auxiliary=DATA.auxiliary, blueprint=PLAIN, seed=3, budget=budget)


@pytest.mark.parametrize("names", [("sca", "low-rank"), ("low-rank", "sca")])
@torch.no_grad()
def test_stages_of_both_are_in_place_in_either_order(names: tuple[str, str]) -> None:
    both = combined(*names)
    model = built(both)
    assert list(model.stages) == ["input", "codes", "stem", *PLAIN.stage_names()[2:]]
    images = DATA.private.images[:60]
    assert both.find_inactivity(model, images) is None
    features = model.forward_to(images, "first")
    assert int(torch.linalg.matrix_rank(features - features.mean(0), rtol=1e-4)) == 6
    alone = built(combined("sca"))
    for stage in ("codes", "stem"):
        ours, theirs = model.stages[stage].state_dict(), alone.stages[stage].state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert set(both.facts(model, images[:4], {})) == set(DEFENSES["sca"]().facts(alone, images[:4], {}))


def test_both_take_part_in_training_and_release() -> None:
    both = combined("sca", "gaussian-noise", **{"sca": {"backprop": False}, "gaussian-noise": {"sigma": 2.0}})
    assert both.randomizes
    start, model = built(both), built(both)
    fit = Fit(epochs=1, batch_size=30, patience=None)
    train(model, both, {}, DATA.private, fit, seed=1, device=torch.device("cpu"), progress=Silent(), label="t")
    name = "stages.stem.1.dictionary"  # learns by the local update, which is SCA's hook
    assert not torch.equal(model.state_dict()[name], start.state_dict()[name])
    model.eval()
    with torch.no_grad():
        clean = model.forward_to(DATA.private.images, "first")
        both.release(model)
        noise = model.forward_to(DATA.private.images, "first") - clean
    assert noise.std().item() == pytest.approx(2.0, rel=0.1)
    assert sum(isinstance(module, Noise) for module in model.modules()) == 3


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("sca", "standardize-only"), "standardize-only replaces the stage 'stem', which is sca's"),
        (("standardize-only", "sca"), "sca replaces the stage 'stem', which is standardize-only's"),
        (("downsample", "conv-control"), "conv-control replaces the stage 'stem', which is downsample's"),
        (("sca", "sparse-standard"), "sparse-standard: this model has a stage 'codes' already"),
        (("sca", "relu-threshold"), "relu-threshold: this model has a stage 'codes' already"),
    ],
)
def test_two_that_want_the_same_stage_are_refused(names: tuple[str, str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason) as refusal:
        combined(*names).edit_blueprint(PLAIN, {})
    assert f"'{'+'.join(names)}'" in str(refusal.value)


class Behind(Defense):
    """A stage behind the one that leaks."""

    revision: ClassVar[int] = 1
    acts_at_tap: ClassVar[bool] = True

    def __init__(self, stage: str, module: type[nn.Module]) -> None:
        self.stage, self.module = stage, module

    def edit_blueprint(self, blueprint: Blueprint, state: Any) -> Blueprint:
        return blueprint.insert_after_tap(self.stage, lambda _: self.module())


class Dropped(Defense):
    """Takes a stage out."""

    revision: ClassVar[int] = 1

    def edit_blueprint(self, blueprint: Blueprint, state: Any) -> Blueprint:
        return replace(blueprint, stages=tuple(stage for stage in blueprint.stages if stage.name != "codes"))


def test_a_stage_that_is_taken_out_again_is_noticed() -> None:
    with pytest.raises(RecipeError, match="dropped replaces the stage 'codes', which is sca's"):
        Combined({"sca": DEFENSES["sca"](), "dropped": Dropped()}).edit_blueprint(PLAIN, {})


def test_the_later_one_acts_behind_the_earlier_one_at_the_cut() -> None:
    parts: dict[str, Defense] = {"one": Behind("bounded", nn.Tanh), "two": Behind("halved", nn.Sigmoid)}
    for names in (("one", "two"), ("two", "one")):
        both = Combined({name: parts[name] for name in names})
        placed = both.edit_blueprint(PLAIN, {})
        stages = [parts[name].stage for name in names]  # type: ignore[attr-defined]
        at = placed.stage_names().index("first")
        assert placed.stage_names()[at : at + 4] == ["first", *stages, "first_relu"]
        assert placed.resolve_tap("first_linear") == stages[1]
        assert both.acts_at_tap


class Learning(Defense):
    """Learns before and in training, and tells what it was told."""

    revision: ClassVar[int] = 7

    def __init__(self, value: float) -> None:
        self.value, self.seen = value, list[dict[str, float]]()

    def prepare(self, context: Context) -> dict[str, Tensor]:
        return {"before": torch.tensor(self.value)}

    def edit_blueprint(self, blueprint: Blueprint, state: Any) -> Blueprint:
        self.seen.append({key: float(value) for key, value in state.items()})
        return blueprint

    def on_epoch_start(self, context: EpochContext) -> dict[str, Tensor]:
        self.seen.append({key: float(value) for key, value in context.state.items()})
        return {"epoch": torch.tensor(self.value + 1 + context.epoch)}

    def transform(self, images: Tensor, labels: Tensor, *, state: Any, epoch: int, generator: Any) -> Any:
        self.seen.append({key: float(value) for key, value in state.items()})
        return images + self.value, labels

    def penalty(self, batch: BatchContext) -> Tensor:
        self.seen.append({key: float(value) for key, value in batch.state.items()})
        return batch.logits.square().mean() * self.value


def test_each_sees_its_own_state_alone() -> None:
    parts = {"a": Learning(1.0), "a++": Learning(20.0), "none": DEFENSES["none"]()}
    both = Combined(parts)
    state = both.prepare(context())
    assert {key: float(value) for key, value in state.items()} == {"a/before": 1.0, "a++/before": 20.0}
    model = built(both, state)
    fit = Fit(epochs=2, batch_size=60, patience=None)
    train(model, both, state, DATA.private, fit, seed=1, device=torch.device("cpu"), progress=Silent(), label="t")
    for name, value in (("a", 1.0), ("a++", 20.0)):
        seen = parts[name].seen  # type: ignore[union-attr]
        first, second = {"before": value, "epoch": value + 1}, {"before": value, "epoch": value + 2}
        assert seen == [{"before": value}] * 2 + [first] * 3 + [second] * 2, name


def test_penalties_and_changes_of_batches_add_up() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    batch = BatchContext(images=images, labels=labels, outputs={}, logits=logits, state={}, epoch=0, phase="train")
    both = Combined({"x": Learning(1.0), "none": DEFENSES["none"](), "y": Learning(0.5)})
    torch.testing.assert_close(both.penalty(batch), 1.5 * logits.square().mean())
    torch.testing.assert_close(both.loss(batch), batch.cross_entropy() + 1.5 * logits.square().mean())
    changed, same = both.transform(images, labels, state={}, epoch=0, generator=torch.Generator())
    torch.testing.assert_close(changed, images + 1.5)
    assert same is labels
    assert Combined({"none": DEFENSES["none"](), "sca": DEFENSES["sca"]()}).penalty(batch) is None


def test_a_loss_of_its_own_or_two_ways_to_part_training_are_refused() -> None:
    class Whole(Defense):
        def loss(self, batch: BatchContext) -> Tensor:
            return batch.logits.sum()

    class Parted(Defense):
        def phases(self, epochs: int) -> tuple[Phase, ...]:
            return (Phase(name="other", epochs=epochs),)

    with pytest.raises(RecipeError, match="whole replaces the loss"):
        Combined({"whole": Whole(), "none": DEFENSES["none"]()})
    with pytest.raises(RecipeError, match="one and two each split the training"):
        Combined({"one": Parted(), "two": Parted()})
    assert Combined({"none": DEFENSES["none"](), "one": Parted()}).phases(3) == (Phase(name="other", epochs=3),)


def test_what_goes_beyond_gradients_is_passed_on() -> None:
    assert combined("low-rank", "downsample").find_unaccounted_access() is None
    assert "hebbian" in (combined("low-rank", "sca").find_unaccounted_access() or "")
    frozen = {"hebbian": False, "backprop": False, "normalization": "group"}
    assert combined("sca", "low-rank", sca=frozen).find_unaccounted_access() is None


def test_described_and_revisions_are_of_all() -> None:
    both = combined("sca", "low-rank")
    assert both.describe()["low-rank"] == {"rank": 6}
    assert both.describe()["sca"]["features"] == [3, 4]
    assert both.revisions() == [REVISION, DEFENSES["sca"].revision, DEFENSES["low-rank"].revision]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("sca", ["sca"]),
        ("gong++", ["gong++"]),
        ("gong+++sca", ["gong++", "sca"]),
        ("gong+sca", ["gong", "sca"]),
        ("sca+gong++", ["sca", "gong++"]),
        ("sca+gong+++dp-sgd", ["sca", "gong++", "dp-sgd"]),
        ("sca+", None),
        ("+sca", None),
        ("", None),
        ("sca++gong", None),
    ],
)
def test_names_are_parted(name: str, names: list[str] | None) -> None:
    assert split_name(name, ["sca", "gong", "gong++", "dp-sgd"]) == names
