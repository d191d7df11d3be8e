"""Training: what a defense's hooks see, resuming, early stopping, refusal."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from sparseguard.core.atomic_io import read_tensors, write_tensors
from sparseguard.core.errors import StoreError, TrainingError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.defenses.base import Defense
from sparseguard.defenses.sparse_coding._inspect import find_sparse_layers
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.defenses.sparse_coding.sparse_standard import SparseStandard
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import CodeCache, Fit, state_hash
from sparseguard.types import BatchContext, Phase
from support.small_training import Interrupted, KilledError, built, fitted


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("defense", [SparseCodingArchitecture(features=(4, 4), steps=(4, 4))])
def test_a_resumed_training_ends_with_the_same_weights(optimizer: Any, defense: Defense, tmp_path: Path) -> None:
    fit = Fit(epochs=4, batch_size=30, optimizer=optimizer, lr=0.01)
    straight, run = fitted(defense, fit)
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(KilledError):
        fitted(defense, fit, progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert checkpoint.exists()
    resumed, again = fitted(defense, fit, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert state_hash(resumed) == state_hash(straight)
    assert again.history == run.history


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    plain = Defense()
    fitted(plain, Fit(epochs=1), checkpoint=checkpoint, checkpoint_seconds=0.0)
    with pytest.raises(StoreError, match="another architecture"):
        fitted(plain, Fit(epochs=1), built(plain, width=17), checkpoint=checkpoint)
    with pytest.raises(StoreError, match="another architecture"):
        fitted(SparseCodingArchitecture(), Fit(epochs=1), checkpoint=checkpoint)


def test_early_stopping_keeps_the_best_epoch() -> None:
    _, run = fitted(Defense(), Fit(epochs=60, lr=0.05, schedule="constant", patience=3))
    losses = [entry["held_out_loss"] for entry in run.history]
    assert run.epoch < 60
    assert run.best_epoch == losses.index(min(losses)) + 1
    assert run.epoch - run.best_epoch == 3
    assert run.best_loss == min(losses)


def test_hooks_are_called_and_shape_the_training() -> None:
    seen: list[Any] = []

    class Noted(Defense):
        def phases(self, epochs: int) -> tuple[Phase, ...]:
            return Phase(name="first", epochs=1), Phase(name="second", epochs=epochs)

        def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
            return images * 0, labels

        def loss(self, batch: BatchContext) -> torch.Tensor:
            assert float(batch.images.abs().max()) == 0
            assert {"first", "head"} <= set(batch.outputs)
            seen.append((batch.epoch, batch.phase))
            return super().loss(batch)

        def on_step_end(self, model: StagedModel) -> None:
            seen.append("after")

    fitted(Noted(), Fit(epochs=2, batch_size=45))
    assert seen == [(0, "first"), "after"] * 2 + [(1, "second"), "after"] * 2 + [(2, "second"), "after"] * 2


def test_a_loss_that_is_not_finite_is_a_failure() -> None:
    class Broken(Defense):
        def loss(self, batch: BatchContext) -> torch.Tensor:
            return super().loss(batch) * float("nan")

    with pytest.raises(TrainingError, match="not finite"):
        fitted(Broken(), Fit(epochs=1))


@pytest.mark.parametrize(("hebbian", "backprop"), [(True, True), (True, False), (False, True), (False, False)])
def test_dictionaries_learn_as_switched(hebbian: bool, backprop: bool) -> None:
    defense = SparseCodingArchitecture(features=(4, 4), steps=(4, 4), hebbian=hebbian, backprop=backprop)
    start = built(defense)
    model, _ = fitted(defense, Fit(epochs=1, patience=None))
    (first, second), (first_start, second_start) = find_sparse_layers(model), find_sparse_layers(start)
    assert torch.equal(first.dictionary, first_start.dictionary)  # the first layer's atoms stay random
    assert torch.equal(second.dictionary, second_start.dictionary) == (not hebbian and not backprop)
    norms = second.dictionary.flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(4), atol=1e-5)


def test_weight_decay_spares_dictionaries() -> None:
    defense = SparseCodingArchitecture(features=(4, 4), steps=(4, 4), hebbian=False)
    from sparseguard.targets.training.trainer import build_optimizer

    model = built(defense)
    groups = build_optimizer(model, replace(Fit(), weight_decay=0.1)).param_groups
    decayed = {id(parameter) for parameter in groups[0]["params"]}
    assert not {id(layer.dictionary) for layer in find_sparse_layers(model)} & decayed
    assert len(decayed) == 2


SPARSE = SparseStandard(features=4, channels=3, steps=4)
SCA = SparseCodingArchitecture(features=(4, 4), steps=(4, 4))
THREE = Fit(epochs=3, batch_size=30, optimizer="sgd", lr=0.05, patience=None)
FEW, USED, HELD_OUT = 2, 90, 10
AUGMENTED = "the defense changes the images (augmentation)"


def coded(model: StagedModel) -> list[int]:
    """How many images the model's stage ``codes`` is run on, call by call."""
    counts: list[int] = []
    model.stages["codes"].register_forward_hook(lambda _layer, inputs, _code: counts.append(len(inputs[0])))
    return counts


def training(defense: Defense, fit: Fit = THREE, **options: Any) -> tuple[StagedModel, Any, list[int], list[str]]:
    """A training, the images its first sparse layer was run on, and what was said."""
    heard, model = Heard(), built(defense)
    counts = coded(model)
    _, run = fitted(defense, fit, model, progress=heard, **options)
    return model, run, counts, heard.lines


def same_weights(one: StagedModel, other: StagedModel) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("defense", [SPARSE, SCA])
def test_the_first_sparse_layer_is_run_once_an_image(defense: Defense) -> None:
    kept, run, counts, said = training(defense)
    assert (sum(counts), run.codes, said) == (FEW + USED + HELD_OUT, "computed once", [])
    without, other, counts, said = training(defense, code_cache=CodeCache(memory=0))
    assert sum(counts) == FEW + USED + 3 * (USED + HELD_OUT)
    same_weights(kept, without)
    for ours, theirs in zip(run.history, other.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_too_many_codes_are_not_kept_which_is_said() -> None:
    _, run, _, said = training(SPARSE, code_cache=CodeCache(memory=1000))
    assert said == [f"t: the first sparse layer is run in training: {run.codes}."]
    assert "MiB are allowed" in run.codes


def test_a_model_without_sparse_layers_has_nothing_to_say() -> None:
    heard = Heard()
    _, run = fitted(Defense(), Fit(epochs=1), progress=heard)
    assert (run.codes, heard.lines) == ("", [])


class Copying(SparseStandard):
    def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
        return images * 1, labels


class Writing(SparseStandard):
    def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
        return images.mul_(1), labels


class Tracing(SparseStandard):
    def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
        return images.requires_grad_(), labels


@pytest.mark.parametrize("kind", [Copying, Writing, Tracing])
def test_augmented_images_are_coded_anew_which_is_said_once(kind: type[SparseStandard]) -> None:
    augmented, run, counts, said = training(kind(features=4, channels=3, steps=4))
    assert sum(counts) == FEW + 3 * USED + HELD_OUT  # what is held out is never augmented
    assert said == [f"t: the first sparse layer is run in training: {AUGMENTED}."]
    assert run.codes == AUGMENTED
    same_weights(augmented, training(SPARSE)[0])


def test_changed_labels_alone_are_no_augmentation() -> None:
    class Relabelled(SparseStandard):
        def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
            return images, labels.flip(0)

    assert training(Relabelled(features=4, channels=3, steps=4))[1].codes == "computed once"


class Sometimes(SparseStandard):
    """Changes the images of the first and the third epoch."""

    def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
        return (images, labels) if epoch % 2 else (1 - images, labels)


def test_a_resumed_training_takes_up_the_codes_where_it_was(tmp_path: Path) -> None:
    defense, fit, checkpoint = Sometimes(features=4, channels=3, steps=4), Fit(epochs=4, batch_size=30), tmp_path / "c"
    straight, run, counts, _ = training(defense, fit)
    assert sum(counts) == FEW + 2 * USED + USED + HELD_OUT
    with pytest.raises(KilledError):
        fitted(defense, fit, progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    arrays, meta = read_tensors(checkpoint)
    assert meta["run"]["codes"] == AUGMENTED
    resumed, again = fitted(defense, fit, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert state_hash(resumed) == state_hash(straight)
    assert again == run
    del meta["run"]["codes"]  # as written by an earlier version
    write_tensors(checkpoint, arrays, meta)
    assert state_hash(fitted(defense, fit, checkpoint=checkpoint)[0]) == state_hash(straight)


@pytest.mark.parametrize("learning", [{"backprop": True}, {"hebbian": True}])
def test_a_first_layer_that_learns_is_run_which_is_said(learning: dict[str, Any]) -> None:
    class Learning(SparseStandard):
        def edit_blueprint(self, blueprint: Blueprint, state: Any) -> Blueprint:
            placed = super().edit_blueprint(blueprint, state)
            return placed.replace("codes", lambda shape: SparseCode2d(shape[0], 4, steps=4, **learning))

    _, run, counts, said = training(Learning(features=4, channels=3))
    assert sum(counts) == 3 * (USED + HELD_OUT)
    assert (run.codes, said) == ("it learns", ["t: the first sparse layer is run in training: it learns."])


class Unsteady(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.rand_like(images) if self.training else images


@pytest.mark.parametrize("before", [Unsteady, lambda: nn.BatchNorm2d(1), lambda: nn.Conv2d(1, 1, 1)])
def test_a_layer_fed_by_something_that_changes_is_run(before: Callable[[], nn.Module]) -> None:
    class Fed(SparseStandard):
        def edit_blueprint(self, blueprint: Blueprint, state: Any) -> Blueprint:
            return super().edit_blueprint(blueprint, state).replace("input", lambda _: before())

    _, run, counts, _ = training(Fed(features=4, channels=3, steps=4))
    assert run.codes == "what comes before it learns or is random"
    assert sum(counts[-9:]) >= 2 * (USED + HELD_OUT)


def test_a_layer_changed_behind_its_back_is_a_failure() -> None:
    class Meddling(SparseStandard):
        def on_step_end(self, model: StagedModel) -> None:
            with torch.no_grad():
                find_sparse_layers(model)[0].dictionary.neg_()

    with pytest.raises(TrainingError, match="'codes' was changed in training"):
        training(Meddling(features=4, channels=3, steps=4))


class Wrapped(SparseStandard):
    """Trains with whatever the tests have it wrap."""

    exchanged: ClassVar[Callable[..., Any]]

    @contextmanager
    def wrap(self, model: Any, optimizer: Any, batches: Any, state: Any) -> Any:
        yield type(self).exchanged(model, optimizer, batches)


class Shell(nn.Module):
    """A model around a model that knows nothing of known outputs."""

    def __init__(self, inner: StagedModel) -> None:
        super().__init__()
        self.inner = inner

    def outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.inner.outputs(images)


def _in_order(batches: Any) -> Any:
    """Another loader of the same images."""
    return DataLoader(batches.dataset, batch_size=30, sampler=range(USED), collate_fn=batches.collate_fn)


def _written_to(batches: Any) -> list[Any]:
    made = list(batches)
    for images, _ in made:
        images.mul_(0.5)
    return made


@pytest.mark.parametrize(
    ("exchanged", "outcome"),
    [
        (lambda m, o, b: (m, o, _in_order(b)), "computed once"),
        (lambda m, o, b: (m, o, [copy.copy(batch) for batch in b]), "computed once"),
        (lambda m, o, b: (m, o, [pickle.loads(pickle.dumps(batch)) for batch in b]), "computed once"),
        (lambda m, o, b: (m, o, [(images, labels) for images, labels in b]), "the defense serves batches of its own"),
        (
            lambda m, o, b: (m, o, [[images * 1, labels] for images, labels in b]),
            "the defense serves batches of its own",
        ),
        (lambda m, o, b: (m, o, _written_to(b)), AUGMENTED),
        (lambda m, o, b: (m, o, copy.deepcopy(_written_to(b))), "the defense serves batches of its own"),
        (lambda m, o, b: (Shell(m), o, b), "the defense trains another model in its place"),
    ],
)
def test_wrapped_training_uses_codes_only_where_it_is_sure(exchanged: Any, outcome: str) -> None:
    Wrapped.exchanged = staticmethod(exchanged)
    _, run, counts, said = training(Wrapped(features=4, channels=3, steps=4))
    assert run.codes == outcome
    assert len(said) == (outcome != "computed once")
    served = USED if outcome == "computed once" else 3 * USED
    assert sum(counts) == FEW + served + (3 * HELD_OUT if "model" in outcome else HELD_OUT)


def test_a_later_training_finds_the_codes(tmp_path: Path) -> None:
    cache = CodeCache(folder=tmp_path)
    first, _, counts, _ = training(SPARSE, code_cache=cache)
    assert sum(counts) == FEW + USED + HELD_OUT
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    again, run, counts, _ = training(SPARSE, code_cache=cache)
    assert (sum(counts), run.codes) == (FEW, "computed once")
    assert state_hash(again) == state_hash(first)
    _, _, counts, _ = training(SparseStandard(features=4, channels=3, steps=5), code_cache=cache)
    assert sum(counts) == FEW + USED + HELD_OUT


def test_damaged_codes_are_computed_again(tmp_path: Path) -> None:
    cache = CodeCache(folder=tmp_path)
    first = training(SPARSE, code_cache=cache)[0]
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])
    again, _, counts, said = training(SPARSE, code_cache=cache)
    assert (sum(counts), said) == (FEW + USED + HELD_OUT, [])
    assert state_hash(again) == state_hash(first)
    assert sum(training(SPARSE, code_cache=cache)[2]) == FEW


def test_kept_codes_do_not_lift_the_memory_limit(tmp_path: Path) -> None:
    training(SPARSE, code_cache=CodeCache(folder=tmp_path))
    assert "MiB are allowed" in training(SPARSE, code_cache=CodeCache(folder=tmp_path, memory=1000))[1].codes


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("")
    _, run, counts, said = training(SPARSE, code_cache=CodeCache(folder=tmp_path / "codes"))
    assert (sum(counts), run.codes) == (FEW + USED + HELD_OUT, "computed once")
    assert len(said) == 2
    assert all("stay in memory only" in line for line in said)
