"""Training: what a defense's hooks see, resuming, early stopping, refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseguard.data import DATASETS
from sparseguard.defenses.base import Defense
from sparseguard.defenses.sca import SparseCodingArchitecture
from sparseguard.errors import StoreError, TrainingError
from sparseguard.progress import Silent
from sparseguard.stages import StagedModel
from sparseguard.targets import BACKBONES, Fit, state_hash, train
from sparseguard.types import Phase, Step

PRIVATE = DATASETS["fashion-mini"](private=100).load().private


def built(defense: Defense, width: int = 16) -> StagedModel:
    blueprint = defense.place(BACKBONES["linear-shallow"](width=width).blueprint(10), {})
    return blueprint.build(PRIVATE.shape, lambda stage: len(stage))


def fitted(defense: Defense, fit: Fit, model: StagedModel | None = None, **options: Any) -> tuple[StagedModel, Any]:
    model = model or built(defense)
    run = train(
        model, defense, {}, PRIVATE, fit, seed=1, device=torch.device("cpu"), progress=Silent(), label="t", **options
    )
    return model, run


class KilledError(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("defense", [SparseCodingArchitecture(features=(4, 4), steps=(4, 4))])
def test_a_resumed_training_ends_with_the_same_weights(optimizer: Any, defense: Defense, tmp_path: Path) -> None:
    fit = Fit(epochs=4, batch_size=30, optimizer=optimizer, lr=0.01)
    straight, run = fitted(defense, fit)
    checkpoint = tmp_path / "c.safetensors"

    class Interrupted(Silent):
        def task(self, label: str, total: int) -> Any:  # type: ignore[override]
            from contextlib import contextmanager

            @contextmanager
            def counted() -> Any:
                seen = [0]

                def advance(steps: int) -> None:
                    seen[0] += steps
                    if seen[0] == 8:
                        raise KilledError

                yield advance

            return counted()

    with pytest.raises(KilledError):
        train(
            built(defense), defense, {}, PRIVATE, fit, seed=1, device=torch.device("cpu"), progress=Interrupted(),
            label="t", checkpoint=checkpoint, checkpoint_seconds=0.0,
        )  # fmt: skip
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

        def loss(self, step: Step) -> torch.Tensor:
            assert float(step.images.abs().max()) == 0
            assert {"first", "head"} <= set(step.outputs)
            seen.append((step.epoch, step.phase))
            return super().loss(step)

        def after_step(self, model: StagedModel) -> None:
            seen.append("after")

    fitted(Noted(), Fit(epochs=2, batch_size=45))
    assert seen == [(0, "first"), "after"] * 2 + [(1, "second"), "after"] * 2 + [(2, "second"), "after"] * 2


def test_a_loss_that_is_not_finite_is_a_failure() -> None:
    class Broken(Defense):
        def loss(self, step: Step) -> torch.Tensor:
            return super().loss(step) * float("nan")

    with pytest.raises(TrainingError, match="not finite"):
        fitted(Broken(), Fit(epochs=1))


@pytest.mark.parametrize(("hebbian", "backprop"), [(True, True), (True, False), (False, True), (False, False)])
def test_dictionaries_learn_as_switched(hebbian: bool, backprop: bool) -> None:
    defense = SparseCodingArchitecture(features=(4, 4), steps=(4, 4), hebbian=hebbian, backprop=backprop)
    start = built(defense).stages["stem"]
    model, _ = fitted(defense, Fit(epochs=1, patience=None))
    stem: Any = model.stages["stem"]
    assert torch.equal(stem[0].dictionary, start[0].dictionary)  # the first layer's atoms stay random
    assert torch.equal(stem[2].dictionary, start[2].dictionary) == (not hebbian and not backprop)
    norms = stem[2].dictionary.flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(4), atol=1e-5)


def test_weight_decay_spares_dictionaries() -> None:
    defense = SparseCodingArchitecture(features=(4, 4), steps=(4, 4), hebbian=False)
    from sparseguard.targets.fit import _optimizer

    model = built(defense)
    groups = _optimizer(model, replace(Fit(), weight_decay=0.1)).param_groups
    decayed = {id(parameter) for parameter in groups[0]["params"]}
    stem: Any = model.stages["stem"]
    assert id(stem[2].dictionary) not in decayed
    assert len(decayed) == 2
