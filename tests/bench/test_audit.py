import pytest
import torch
from torch import nn

from sparseguard.bench.audit import audit
from sparseguard.bench.hooked import HookedModel
from sparseguard.data import DATASETS
from sparseguard.errors import DataError, RecipeError
from sparseguard.record import read_record
from sparseguard.report.verdict import verdict
from sparseguard.targets import state_hash
from sparseguard.types import ImageSet

FEW = [{"name": "mean-image"}, {"name": "class-mean"}, {"name": "ridge", "copies": 1}]
SPLITS = DATASETS["fashion-mini"](private=80, attacker_train=200).load()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 784, 400), nn.Linear(400, 10)
    )


def run(model, out, **more):
    given = {"taps": ["3", "logits"], "attacks": FEW, **more}
    return audit(model, SPLITS.private, SPLITS.attacker_train, out=out, **given)


def test_every_tap_is_attacked_and_told_in_words(model, tmp_path):
    model.train()
    before = state_hash(model)
    found = run(model, tmp_path)
    assert [record.case.tap for record in found.records] == ["3", "logits"]
    assert state_hash(model) == before
    assert model.training
    for record in found.records:
        assert record.status == "ok"
        assert record.data["sizes"]["private"] == 80
        assert record.target.state_hash == record.target.state_hash_after
        assert read_record(tmp_path / "records" / f"{record.case.slug}.json") == record
    # 400 numbers of a linear front give most of an image back, ten logits do not
    dense, logits = (record.attacker("ridge").scores["private"]["psnr"].mean for record in found.records)
    assert dense > logits + 3
    severe, other = (verdict(record) for record in found.records)
    assert severe.severity == "severe"
    assert "hardly works" in other.sentences[0]  # nobody trained it


def test_accuracy_is_the_models_own(model, tmp_path):
    (record,) = run(model, tmp_path, taps=["logits"]).records
    frozen = HookedModel(model.eval(), "logits")
    test = record.target.accuracy_n
    assert test == 50  # a quarter of the held-out images
    wrong = record.target.wrong["test"]
    assert record.target.accuracy == pytest.approx(1 - len(wrong) / test)
    assert frozen(SPLITS.attacker_train.images).shape == (200, 10)


def test_an_audit_goes_on_where_it_was(model, tmp_path, monkeypatch):
    from sparseguard.bench import audit as room

    run(model, tmp_path, taps=["3"])
    monkeypatch.setattr(room, "measured", lambda *_: pytest.fail("measured again"))
    again = run(model, tmp_path, taps=["3"])
    assert again.records[0].status == "ok"


def test_another_model_is_another_audit(model, tmp_path):
    first = run(model, tmp_path, taps=["3"]).records[0]
    with torch.no_grad():
        model[3].weight.add_(0.1)
    second = run(model, tmp_path, taps=["3"]).records[0]
    assert first.key != second.key


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"taps": ["layer3"]}, RecipeError, "no module 'layer3'"),
        ({"attacks": [{"name": "rigde"}]}, RecipeError, "ridge"),
    ],
)
def test_what_is_not_known_is_refused(model, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        run(model, tmp_path, **change)


def test_images_that_do_not_fit_are_refused(model, tmp_path):
    with pytest.raises(DataError, match=r"expected \(2, 10\): a logit a class"):
        run(model[:4], tmp_path, taps=["3"])
    small = ImageSet(
        pixels=SPLITS.private.pixels[..., :14], labels=SPLITS.private.labels, classes=SPLITS.private.classes
    )
    with pytest.raises(DataError, match="differs from 'private'"):
        audit(model, small, SPLITS.attacker_train, taps=["3"], attacks=FEW, out=tmp_path)


def test_a_model_that_breaks_at_a_tap_leaves_the_other_taps(model, tmp_path, monkeypatch):
    from sparseguard.attacks.ridge import Ridge
    from sparseguard.errors import TrainingError

    whole = Ridge.run

    def sometimes(self, leak, goal, context):
        if leak.tap == "3":
            raise TrainingError("broke")
        return whole(self, leak, goal, context)

    monkeypatch.setattr(Ridge, "run", sometimes)
    broken, fine = run(model, tmp_path).records
    assert (broken.status, fine.status) == ("failed", "ok")
    assert verdict(broken).severity == "not measured"
