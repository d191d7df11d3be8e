import pytest
import torch
from torch import nn

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.model_copy import copy_model
from sparseguard.core.progress import Silent
from sparseguard.data import DATASETS
from sparseguard.model_audit import DEFAULT_ATTACKS, audit
from sparseguard.model_audit.hooked_model import HookedModel
from sparseguard.record import read_record
from sparseguard.report import verdict
from sparseguard.targets import state_hash
from sparseguard.types import ImageSet

FEW = [{"name": "mean-image"}, {"name": "class-mean"}, {"name": "ridge", "copies": 1}]
SPLITS = DATASETS["fashion-mini"](private=80, auxiliary=200).load()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 784, 400), nn.Linear(400, 10)
    )


def run(model, out, **more):
    given = {"taps": ["3", "logits"], "attacks": FEW, **more}
    return audit(model, SPLITS.private, SPLITS.auxiliary, out=out, **given)


def test_every_tap_is_attacked_and_told_in_words(model, tmp_path):
    model.train()
    before = state_hash(model)
    result = run(model, tmp_path)
    assert [record.case.tap for record in result.records] == ["3", "logits"]
    assert state_hash(model) == before
    assert model.training
    for record in result.records:
        assert record.status == "ok"
        assert record.data.sizes["private"] == 80
        assert record.target.state_hash == record.target.state_hash_after
        assert read_record(tmp_path / "records" / f"{record.case.slug}.json") == record
    # 400 numbers of a linear front give most of an image back, ten logits do not
    dense, logits = (
        record.feature_inversion.attack("ridge").scores["private"]["psnr"].mean for record in result.records
    )
    assert dense > logits + 3
    severe, other = (verdict(record) for record in result.records)
    assert severe.severity == "severe"
    assert "hardly works" in other.sentences[0]  # nobody trained it


def test_every_control_has_an_attack_it_is_compared_with(model, tmp_path):
    quick = [one for one in DEFAULT_ATTACKS if one["name"] in ("mean-image", "ridge")]
    (record,) = run(model, tmp_path, taps=["logits"], attacks=quick).records
    controls = {attack.name for attack in record.attacks if attack.control}
    assert controls == {"ridge, shuffled features"}
    assert {one.first for one in record.comparisons if one.kind == "control"} == controls


def test_of_a_model_that_came_trained_no_training_is_told(model, tmp_path):
    (record,) = run(model, tmp_path, taps=["logits"]).records
    assert (record.target.history.train_loss, record.target.held_out_n) == ([], 0)
    assert record.target.step_flops is None
    assert record.target.relative_cost is None


def test_accuracy_is_the_models_own(model, tmp_path):
    (record,) = run(model, tmp_path, taps=["logits"]).records
    frozen = HookedModel(model.eval(), "logits")
    test = record.target.accuracy_n
    assert test == 50  # a quarter of the held-out images
    wrong = record.target.misclassified["test"]
    assert record.target.accuracy == pytest.approx(1 - len(wrong) / test)
    assert frozen(SPLITS.auxiliary.images).shape == (200, 10)


def test_an_audit_resumes_and_measures_nothing_again(model, tmp_path):
    first = run(model, tmp_path, taps=["3"])
    lines = []
    again = run(model, tmp_path, taps=["3"], progress=Lines(lines))
    assert again.records == first.records
    assert lines == []


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
        ({"taps": "3"}, RecipeError, "expected a list of names, got '3'"),
        ({"taps": []}, RecipeError, "expected a list of names"),
        ({"attacks": [{"name": "rigde"}]}, RecipeError, "ridge"),
    ],
)
def test_what_is_not_known_is_refused(model, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        run(model, tmp_path, **change)


def test_images_that_do_not_fit_are_refused(model, tmp_path):
    with pytest.raises(DataError, match=r"expected \(16, 10\): one logit a class"):
        run(model[:4], tmp_path, taps=["3"])
    small = ImageSet(
        pixels=SPLITS.private.pixels[..., :14], labels=SPLITS.private.labels, classes=SPLITS.private.classes
    )
    with pytest.raises(DataError, match="held-out ones"):
        audit(model, small, SPLITS.auxiliary, taps=["3"], attacks=FEW, out=tmp_path)


def test_a_model_that_breaks_at_a_tap_leaves_the_other_taps(model, tmp_path, monkeypatch):
    from sparseguard.attacks.feature_inversion.ridge import Ridge
    from sparseguard.core.errors import TrainingError

    whole = Ridge.run

    def sometimes(self, leak, goal, context):
        if leak.tap == "3":
            raise TrainingError("broke")
        return whole(self, leak, goal, context)

    monkeypatch.setattr(Ridge, "run", sometimes)
    broken, fine = run(model, tmp_path).records
    assert (broken.status, fine.status) == ("failed", "ok")
    assert verdict(broken).severity == "not measured"


def test_what_failed_is_tried_again(model, tmp_path, monkeypatch):
    from sparseguard.attacks.feature_inversion.ridge import Ridge
    from sparseguard.core.errors import TrainingError

    def broken(self, leak, goal, context):
        raise TrainingError("broke")

    with monkeypatch.context() as patched:
        patched.setattr(Ridge, "run", broken)
        assert run(model, tmp_path, taps=["3"]).records[0].status == "failed"
    assert run(model, tmp_path, taps=["3"]).records[0].status == "ok"


def test_other_code_with_the_same_weights_is_another_audit(model, tmp_path):
    first = run(model, tmp_path, taps=["3"]).records[0]
    model[2].register_forward_hook(lambda _module, _inputs, output: output * 2)
    second = run(model, tmp_path, taps=["3"]).records[0]
    assert first.key != second.key


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_is_given_images_in_it(model, tmp_path, dtype):
    attacks = [*FEW, {"name": "local-ridge", "copies": 1}, {"name": "ridge-conv", "copies": 1, "epochs": 1}]
    (record,) = run(model.to(dtype), tmp_path, taps=["3"], attacks=attacks).records
    assert record.status == "ok"
    assert record.feature_inversion.attack("ridge").scores["private"]["psnr"].mean > 18


def test_what_cannot_be_differentiated_is_attacked_by_the_others_and_said(tmp_path):
    class Rounded(nn.Module):
        def forward(self, images):
            return (images * 20).round().detach()

    model = nn.Sequential(Rounded(), nn.Flatten(), nn.Linear(784, 10))
    attacks = [*FEW, {"name": "gradient-inversion", "steps": 2, "conditions": {"max_images": 4}}]
    (record,) = run(model, tmp_path, taps=["0"], attacks=attacks).records
    assert "cannot be differentiated" in record.skipped["gradient-inversion"]
    assert any("'gradient-inversion' was not run" in sentence for sentence in verdict(record).sentences)


class Lines(Silent):
    """Keeps the lines of a progress report."""

    def __init__(self, lines):
        self.lines = lines

    def say(self, line):
        self.lines.append(line)


def test_the_same_tap_twice_is_one_record_and_a_tap_that_runs_twice_is_reported(tmp_path):
    shared, lines = nn.ReLU(), []
    model = nn.Sequential(shared, nn.Flatten(), nn.Linear(784, 10), shared)
    result = run(model, tmp_path / "out", taps=["0", "0"], progress=Lines(lines))
    assert len(result.records) == 1
    assert any("2 times for an image" in line for line in lines)


def test_images_that_do_not_fit_each_other_or_are_too_few_are_told_apart(model, tmp_path):
    held = SPLITS.auxiliary
    with pytest.raises(DataError, match="8 images are too few"):
        audit(model, SPLITS.private, held.select(torch.arange(8)), taps=["3"], out=tmp_path)
    other = ImageSet(pixels=held.pixels, labels=held.labels, classes=(*held.classes[:-1], "hat"))
    with pytest.raises(DataError, match="held-out ones of"):
        audit(model, SPLITS.private, other, taps=["3"], out=tmp_path)


class Broken(nn.Module):
    def forward(self, images):
        raise KeyError("no")


def test_a_model_that_fails_or_is_none_is_told(tmp_path):
    with pytest.raises(DataError, match="KeyError: 'no'"):
        run(Broken(), str(tmp_path))
    with pytest.raises(DataError, match="is a function"):
        copy_model(lambda images: images)
