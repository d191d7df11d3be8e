"""Records of every schema version are read, with the same numbers under the present names."""

import json
from pathlib import Path

import pytest

from sparseguard.core.errors import StoreError
from sparseguard.record import SCHEMA_VERSION, Record, read_pictures, read_record, record_text

FIXTURES = Path(__file__).parent / "fixtures"


def version(number):
    path = FIXTURES / f"version_{number}.json"
    return json.loads(path.read_text(encoding="utf-8")), read_record(path)


@pytest.mark.parametrize("number", range(1, SCHEMA_VERSION))
def test_every_earlier_version_is_read_and_written_again(number):
    plain, record = version(number)
    assert plain["schema_version"] == number
    assert record.schema_version == SCHEMA_VERSION
    assert (record.key, record.case.slug, record.status) == (
        plain["key"],
        Record.model_validate_json(record_text(record)).case.slug,
        "ok",
    )
    assert Record.model_validate_json(record_text(record)) == record


@pytest.mark.parametrize("number", [1, 2, 3])
def test_scores_of_feature_inversion_keep_their_values(number):
    plain, record = version(number)
    splits = {"attacker_val": "auxiliary_val"}
    for old, new in zip(plain["attackers"], record.outcome.attacks, strict=True):
        assert (new.name, new.attack, new.floor) == (old["name"], old["settings"]["name"], old["floor"])
        for split, metrics in old["scores"].items():
            for metric in ("psnr", "ssim", "id@1"):
                expected = metrics[metric]["mean"], metrics[metric]["std"], tuple(metrics[metric]["quantiles"])
                found = new.scores[splits.get(split, split)][metric]
                assert (found.mean, found.std, found.quantiles) == expected
    assert set(record.outcome.metrics) == {
        name
        for attack in record.attacks
        for scores in (attack.scores, attack.set_scores)
        for by_metric in scores.values()
        for name in by_metric
    }
    assert record.outcome.metrics["psnr"].unit == "dB"
    assert record.features.queries.private == plain["leaked"]["queries"]["private"]
    assert record.target.accuracy == plain["target"]["accuracy"]


def test_a_record_of_version_1_has_the_conditions_that_all_attacks_had_then():
    plain, record = version(1)
    ridge = record.outcome.attack("ridge")
    assert (ridge.knowledge, ridge.queries, ridge.eligible) == ("black-box", 1, True)
    assert record.outcome.choice("black-box", 1, "psnr") == ridge
    assert not record.outcome.attack("mean-image").eligible
    assert record.config.attacks[1].conditions == ridge.conditions
    assert record.data.sizes["auxiliary"] == plain["data"]["sizes"]["attacker_train"]
    assert ridge.diagnostics.penalty == plain["attackers"][1]["notes"]["penalty"]


def test_knowledge_and_queries_of_version_2_are_two_fields():
    plain, record = version(2)
    often = record.outcome.attack("ridge-conv x16")
    assert (often.knowledge, often.queries, often.conditions.queries) == ("black-box", 16, 16)
    assert {(one.knowledge, one.queries) for one in record.outcome.chosen} == {
        ("black-box", 1),
        ("black-box", 16),
        ("white-box", 1),
    }
    for level, choices in plain["chosen"].items():
        queries = 16 if level.endswith("16") else 1
        knowledge = "white-box" if level == "+weights" else "black-box"
        for metric, name in choices.items():
            assert record.outcome.choice(knowledge, queries, metric).name == name
    control = record.outcome.attack("ridge, shuffled features")
    assert control.control
    assert control.conditions.control == "shuffled-features"
    assert {one.kind for one in record.comparisons} == {"knowledge", "control"}
    assert [one.mean for one in record.comparisons] == [one["mean"] for one in plain["comparisons"]]


def test_figures_curves_and_bounds_of_version_2_are_fields():
    plain, record = version(2)
    old = {attacker["name"]: attacker for attacker in plain["attackers"]}
    decoder, search = (record.outcome.attack(name) for name in ("ridge-conv", "gradient-inversion"))
    assert decoder.curves.auxiliary_val_psnr == old["ridge-conv"]["curves"]["attacker_val PSNR"]
    assert decoder.diagnostics.best_epoch == old["ridge-conv"]["notes"]["best_epoch"]
    assert search.curves.feature_loss["private"] == old["gradient-inversion"]["curves"]["private misfit"]
    assert search.diagnostics.gradient_norm == old["gradient-inversion"]["notes"]["gradient_norm"]
    waterfall = next(bound for bound in plain["bounds"] if bound["name"].startswith("waterfall"))
    layers = next(bound for bound in record.bounds if bound.name == "layer-wise reconstruction").layers
    assert [(one.layer, one.psnr) for one in layers] == [
        (name.removesuffix("_corrected_psnr"), waterfall["values"][name.replace("_corrected", "")])
        for name in waterfall["values"]
        if name.endswith("_corrected_psnr")
    ]


def test_the_target_of_version_3_has_typed_facts():
    plain, record = version(3)
    old = plain["target"]
    assert record.target.defense.epsilon == old["defense"]["epsilon"]
    assert record.target.defense.reconstruction_bound == old["defense"]["rero_bound"]
    assert record.target.misclassified["tuning"] == old["wrong"]["select"]
    assert record.target.history.held_out_accuracy == [epoch["held_out_accuracy"] for epoch in old["history"]]
    assert record.defense.name == "sca+dp-sgd"


def test_class_inversion_of_version_4_is_the_outcome():
    plain, record = version(4)
    outcome = record.class_inversion
    assert record.threat.goal == "class-inversion"
    assert (outcome.classes, outcome.pool) == (plain["class_goal"]["classes"], plain["class_goal"]["pool"])
    assert record.attacks == []
    for old, new in zip(plain["class_attackers"], outcome.attacks, strict=True):
        assert new.agreement.fraction == plain["agreement"][old["name"]]["share"]
        assert new.diagnostics.diversity == old["notes"]["diversity"]
        for name, score in old["scores"].items():
            assert new.scores[name].value == score["value"]
            assert new.scores[name].shuffled_patches == score["foreign"]
            assert (outcome.metrics[name].direction == "higher") == (score["leaks"] == "more")
    evaluator = record.evaluators["pooling"]
    assert evaluator.accuracy == plain["evaluators"]["pooling"]
    assert evaluator.shuffled_patches == plain["class_goal"]["foreign"]["pooling"]


def test_pictures_of_version_1_have_the_present_names():
    record = read_record(FIXTURES / "version_1.json")
    pictures = read_pictures(FIXTURES / "version_1.safetensors")
    assert set(pictures.gallery) == {"original", "ridge"}
    for split, metrics in record.outcome.attack("ridge").scores.items():
        for metric, summary in metrics.items():
            assert pictures.scores[f"ridge/{split}/{metric}"].mean() == pytest.approx(summary.mean, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a record"),
        ("[]", "schema_version: expected a number from 1 on"),
        ('{"schema_version": true}', "schema_version: expected a number from 1 on"),
        ('{"schema_version": 1}', "not a valid record of schema version 1"),
        ('{"schema_version": 4, "case": 3}', "not a valid record of schema version 4"),
        ('{"schema_version": 5}', "not a valid record: recipe: Field required"),
        ('{"schema_version": 6}', "written with record schema 6, this sparseguard reads up to 5"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        read_record(path)


def test_a_record_is_some_hundred_lines_with_arrays_on_one():
    plain, record = version(2)
    text = record_text(record)
    assert text.count("\n") < len(json.dumps(plain, indent=1).splitlines()) / 3
    line = next(line for line in text.splitlines() if '"gallery_indices"' in line)
    assert json.loads("{" + line.strip().rstrip(",") + "}")["gallery_indices"] == record.data.gallery_indices
