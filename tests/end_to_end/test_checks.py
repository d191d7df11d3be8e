"""Checks raise in real runs that were broken on purpose, and only where they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseguard import parse_recipe, run
from sparseguard.attacks import ATTACKS
from sparseguard.attacks._white_box import WhiteBoxModel
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, require_features
from sparseguard.attacks.feature_inversion._decoders.training import Budget
from sparseguard.core.config import settings
from sparseguard.data.datasets.fashion_mini import FashionMini
from sparseguard.defenses.perturbation.gaussian_noise import GaussianNoise
from sparseguard.pipeline.tasks.observe import TapObserver
from sparseguard.record import Record
from sparseguard.types import AttackResult, ImageSet, Knowledge, Splits

RIDGE = {"name": "ridge", "copies": 1}
MLP = {"name": "ridge-mlp", "copies": 1, "epochs": 2, "width": 16, "depth": 1}
SHUFFLED = {**RIDGE, "label": "shuffled", "conditions": {"control": "shuffled-features"}}
REPEATED = {**RIDGE, "label": "repeated", "conditions": {"queries": 8}}
SEARCH = {
    "name": "gradient-inversion",
    "steps": 3,
    "probe_images": 2,
    "probe_steps": 2,
    "conditions": {"max_images": 8},
}


@pytest.fixture
def case(tiny: dict[str, Any], tmp_path: Path) -> Any:
    """Runs the one case of the tiny recipe, changed as told."""

    def run_case(**changes: Any) -> Record:
        outcome = run(parse_recipe({**tiny, **changes}), tmp_path / str(len(list(tmp_path.iterdir()))))
        (record,) = outcome.records
        assert record.status == "ok", record.failure
        return record

    return run_case


def flags(record: Record) -> dict[str, str]:
    return {flag.name: flag.message for flag in record.flags}


def test_a_sound_run_raises_nothing(case: Any) -> None:
    record = case(attacks=["mean-image", RIDGE, MLP, SHUFFLED])
    assert flags(record) == {}
    assert {comparison.kind for comparison in record.comparisons} == {"control"}


@settings
class TrainsTheTarget(Attack):
    """Fits the released model itself to the attacker's images, as a careless fine-tuning would, and runs ridge."""

    revision = 1
    summary = "test"
    source = "test"
    knowledge = Knowledge.BLACK_BOX

    def run(self, access: Any, inputs: Any, context: Any) -> AttackResult:
        model = access._released.requires_grad_(True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with torch.enable_grad():
            logits = model(context.auxiliary.train.images)
            torch.nn.functional.cross_entropy(logits, context.auxiliary.train.labels).backward()
        optimizer.step()
        model.requires_grad_(False)
        return ATTACKS["ridge"](copies=1).run(access, inputs, context)  # type: ignore[call-arg]


def test_an_attack_that_trains_the_target(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "trains-the-target", TrainsTheTarget)
    assert set(flags(case(attacks=["mean-image", RIDGE, "trains-the-target"]))) == {"target-changed"}


def test_a_defense_switched_off(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = {"defenses": ["gaussian-noise"], "attacks": ["mean-image", RIDGE, REPEATED]}
    assert flags(case(**noisy)) == {}
    monkeypatch.setattr(GaussianNoise, "release", lambda self, model: None)
    assert set(flags(case(**noisy))) == {"defense-inactive"}


def test_noise_that_is_not_fresh(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def once(self: ModelAccess, batch: Tensor) -> Tensor:
        answer: Tensor = self._model.forward_to(batch, self._stage).cpu()
        return answer

    monkeypatch.setattr(ModelAccess, "_run_batch", once)
    record = case(defenses=["gaussian-noise"], attacks=["mean-image", RIDGE, REPEATED])
    assert "repeats-no-better" in flags(record)


def test_a_decoder_that_learns_nothing(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "rate", lambda self, epoch: 0.0)
    found = flags(case(attacks=["mean-image", RIDGE, MLP]))
    assert found == {"attacker-did-not-learn": "parameters did not move: ridge-mlp"}


def test_a_shuffled_control_that_gets_the_true_features(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grant_access = TapObserver.grant_access

    def unshuffled(self: TapObserver, knowledge: Knowledge, purpose: str, setting: Any) -> ModelAccess:
        return grant_access(self, knowledge, purpose, replace(setting, control="none"))

    monkeypatch.setattr(TapObserver, "grant_access", unshuffled)
    found = flags(case(attacks=["mean-image", RIDGE, SHUFFLED]))
    assert set(found) == {"shuffled-as-good"}
    assert "shuffled minus ridge: +0.00 dB" in found["shuffled-as-good"]


def test_an_attack_that_ignores_the_features(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind(ATTACKS["mean-image"]):  # type: ignore[name-defined, misc]
        floor = False
        knowledge = Knowledge.BLACK_BOX

        def run(self, access: Any, inputs: Any, context: Any) -> AttackResult:
            require_features(inputs)
            access.observe(context.auxiliary.train)
            return super().run(access, inputs, context)  # type: ignore[no-any-return]

    monkeypatch.setitem(ATTACKS, "blind", settings(Blind))
    shuffled = {"name": "blind", "label": "shuffled", "conditions": {"control": "shuffled-features"}}
    found = flags(case(attacks=["mean-image", "blind", shuffled]))
    assert set(found) == {"shuffled-as-good", "no-better-than-mean", "at-its-floor"}


def test_a_white_box_without_gradients(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    searching = {"attacks": ["mean-image", RIDGE, SEARCH]}
    assert "hidden-gradients" not in flags(case(**searching))

    def flat(self: WhiteBoxModel, images: Tensor) -> Tensor:
        features: Tensor = self.model(images.detach()).flatten(1)
        return features + 0 * images.sum()

    monkeypatch.setattr(WhiteBoxModel, "__call__", flat)
    found = flags(case(**searching))
    assert found["hidden-gradients"] == "gradient-inversion: gradients have norm 0"


def test_a_search_cut_short(case: Any) -> None:
    assert set(flags(case(attacks=["mean-image", RIDGE, SEARCH]))) == {"optimizer-stuck"}


def test_a_private_image_among_the_test_images(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load = FashionMini.load

    def mixed(self: FashionMini) -> Splits:
        splits = load(self)
        one, rest = splits.private, splits.test
        test = ImageSet(
            pixels=torch.cat([one.pixels[:1], rest.pixels[1:]]),
            labels=torch.cat([one.labels[:1], rest.labels[1:]]),
            classes=rest.classes,
        )
        return replace(splits, test=test)

    monkeypatch.setattr(FashionMini, "load", mixed)
    found = flags(case())
    assert found == {"duplicates-across-parts": "private images that are also in another part: 1 in test"}


def test_a_target_trained_too_short(tiny: dict[str, Any], case: Any) -> None:
    fit = {**tiny["training"], "optimizer": "adam", "lr": 1e-3}
    data = {**tiny["data"], "private": 600}
    assert set(flags(case(training={**fit, "epochs": 1}, data=data))) == {"target-not-converged"}
    assert flags(case(training={**fit, "epochs": 20}, data=data)) == {}


def test_few_images_to_learn_from(tiny: dict[str, Any], case: Any) -> None:
    half = {**RIDGE, "label": "half", "conditions": {"auxiliary_fraction": 0.5}}
    assert set(flags(case(attacks=["mean-image", RIDGE, half]))) == {"more-data-helps"}
    many = {**tiny["data"], "auxiliary": 1500}
    assert flags(case(attacks=["mean-image", RIDGE, half], data=many)) == {}
