"""A run read back in Python: its records as a table, its targets as modules."""

import sys

import pytest
import torch

import sparseguard as sg
from sparseguard.core.errors import StoreError
from sparseguard.pipeline.store import Store
from sparseguard.record import COLUMNS
from sparseguard.targets import state_hash

RECIPE = {
    "name": "small",
    "seeds": [0, 1],
    "data": {"name": "fashion-mini", "private": 60, "auxiliary": 60, "auxiliary_val": 20, "test": 40},
    "training": {"epochs": 2},
    "threats": [{"name": "split", "backbone": {"name": "linear-shallow", "width": 12}}],
    "defenses": [
        "none",
        {"name": "sca", "label": "sca", "features": [3, 4], "steps": [4, 3]},
        {"name": "gaussian-noise+quantize"},
    ],
    "attacks": ["mean-image", {"name": "ridge", "copies": 1}],
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    outcome = sg.run(sg.parse_recipe(RECIPE), str(folder), device="cpu")
    assert not outcome.failed
    return folder, outcome


def test_a_target_is_the_model_that_was_attacked(outcome):
    folder, run = outcome
    hashes = set()
    for record in run.records:
        case = record.case
        model = sg.load_target(folder, defense=case.defense, threat=case.threat, seed=case.seed)
        assert not model.training
        assert state_hash(model) == record.target.state_hash
        hashes.add(state_hash(model))
    assert len(hashes) == len(run.records)


def test_a_target_gives_the_recorded_accuracy_and_the_features_of_its_tap(outcome):
    folder, run = outcome
    record = next(record for record in run.records if record.case.defense == "none" and record.case.seed == 1)
    model = sg.load_target(str(folder), defense="none", threat="split", seed=1)
    test = run_recipe_splits().test
    with torch.no_grad():
        wrong = (model(test.images).argmax(1) != test.labels).nonzero().flatten().tolist()
        assert model.forward_to(test.images, "first").shape == (40, 12)
    assert wrong == record.target.misclassified["test"]


def run_recipe_splits():
    settings = {name: value for name, value in RECIPE["data"].items() if name != "name"}
    return sg.DATASETS["fashion-mini"](**settings).load()


@pytest.mark.parametrize("change", [{"defense": "sac"}, {"threat": "end-to-end"}, {"seed": 2}])
def test_a_case_that_is_not_there_is_refused_with_those_that_are(outcome, change):
    with pytest.raises(
        StoreError, match=r"has no case .* It has: .*defense='gaussian-noise\+quantize', threat='split', seed=1"
    ):
        sg.load_target(outcome[0], **{"defense": "none", "threat": "split", **change})


def test_weights_that_are_gone_are_told_apart_from_a_case_that_is(outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "load_target", lambda *_: None)
    with pytest.raises(StoreError, match="has no weights of 'fashion-mini__linear-shallow_width=12__none__split"):
        sg.load_target(outcome[0], defense="none", threat="split")
    with pytest.raises(StoreError, match="holds no records"):
        sg.load_target(tmp_path, defense="none", threat="split")


def test_the_target_of_an_audit_is_not_stored(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))
    images = (torch.rand(60, 1, 6, 6), torch.arange(60) % 2)
    sg.audit(model, images, images, taps=["1"], attacks=[{"name": "mean-image"}, {"name": "ridge"}], out=tmp_path)
    with pytest.raises(StoreError, match="holds an audit"):
        sg.load_target(tmp_path, defense="your model", threat="1")


def test_the_table_has_a_row_for_every_score(outcome):
    folder, run = outcome
    records = sg.read_records(str(folder))
    assert isinstance(records, sg.Records)
    table = records.to_pandas()
    assert list(table.columns) == list(COLUMNS)
    scores = [len(scores) for record in records for attack in record.attacks for scores in attack.scores.values()]
    assert len(table) == sum(scores)
    record = next(record for record in run.records if record.case.defense == "sca" and record.case.seed == 1)
    (row,) = table.query(
        "defense == 'sca' and seed == 1 and attack == 'ridge' and split == 'private' and metric == 'psnr'"
    ).to_dict("records")
    score = record.feature_inversion.attack("ridge").scores["private"]["psnr"]
    assert (row["mean"], row["std"], row["ci_low"], row["ci_high"], row["n"]) == (
        score.mean,
        score.std,
        *score.ci95,
        60,
    )
    assert (row["accuracy"], row["threat"], row["component"]) == (record.target.accuracy, "split", "ridge")
    assert (row["knowledge"], row["queries"], row["floor"], row["control"]) == ("black-box", 1, False, False)
    assert table.groupby(["defense", "seed"])["accuracy"].nunique().eq(1).all()


def test_class_inversion_has_rows_too():
    from support.class_records import record

    table = sg.Records([record()]).to_pandas()
    assert set(table["split"]) == {"private"}
    assert len(table) == sum(len(attack.scores) for attack in record().class_attacks)


def test_without_pandas_the_message_says_how_to_get_it(outcome, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    records = sg.read_records(outcome[0])
    with pytest.raises(StoreError, match=r"pip install 'sparseguard\[pandas\]'"):
        records.to_pandas()
    assert len(records.rows()) > 0
