"""Promises of `run`: nothing twice, nothing lost, the same numbers wherever it was interrupted."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch

from sparseguard import parse_recipe, run
from sparseguard.attacks import ATTACKS
from sparseguard.attacks.base import Attack
from sparseguard.core.config import settings
from sparseguard.core.errors import StoreError, TrainingError
from sparseguard.pipeline.tasks import train_target as stages
from sparseguard.pipeline.tasks.query_cache import CachedModel
from sparseguard.record import read_pictures, read_record, read_records
from sparseguard.targets import CodeCache
from sparseguard.types import AttackResult, Knowledge


def content(record: Any) -> dict[str, Any]:
    plain = record.model_dump(mode="json")
    plain.pop("provenance")
    return plain


def test_a_second_run_computes_nothing(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(tiny)
    first = run(recipe, tmp_path / "out")
    assert first.computed == 1
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("trained again"))
    second = run(recipe, tmp_path / "out")
    assert second.computed == 0
    assert second.records == first.records


def test_two_folders_hold_the_same_numbers(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["defenses"] = ["none", "gaussian-noise"]
    first, second = (run(parse_recipe(tiny), tmp_path / name) for name in "ab")
    assert [content(record) for record in first.records] == [content(record) for record in second.records]


def test_adding_a_defense_changes_nobody_elses_numbers(tiny: dict[str, Any], tmp_path: Path) -> None:
    alone = run(parse_recipe(tiny), tmp_path / "alone").records[0]
    tiny["defenses"] = ["standardize-only", "none"]
    beside = next(r for r in run(parse_recipe(tiny), tmp_path / "beside").records if r.case.defense == "none")
    assert beside.attacks == alone.attacks
    assert beside.target == alone.target


def test_a_record_says_what_was_scored(tiny: dict[str, Any], tmp_path: Path) -> None:
    run(parse_recipe(tiny), tmp_path)
    (record,) = read_records(tmp_path)
    assert record.data.sizes["private"] == 120
    assert record.data.reidentification_pools == {"private": 120, "test": 120, "auxiliary_val": 101}
    assert record.target is not None
    assert record.target.state_hash == record.target.state_hash_after
    assert record.features is not None
    assert record.features.dimension == 32
    assert record.features.noise_ratio == 0
    pictures = read_pictures(tmp_path / "records" / f"{record.case.slug}.safetensors")
    scores = pictures.scores["ridge/private/psnr"]
    assert len(scores) == 120
    assert float(scores.mean()) == pytest.approx(
        record.outcome.attack("ridge").scores["private"]["psnr"].mean, rel=1e-5
    )
    assert pictures.gallery["original"].shape == (64, 1, 28, 28)


@pytest.mark.slow
def test_a_first_sparse_layer_is_run_once_an_image_in_all_targets_that_share_it(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sca = {"name": "sca", "features": [4, 4], "steps": [4, 4]}
    tiny["defenses"] = ["none", sca, {**sca, "hebbian": False}]
    computed = []
    save = CodeCache.save
    monkeypatch.setattr(
        CodeCache, "save", lambda self, key, codes: (computed.append(len(codes)), save(self, key, codes))
    )
    records = run(parse_recipe(tiny), tmp_path).records
    assert computed == [108, 12]
    assert len(list((tmp_path / "codes").glob("*.safetensors"))) == 2
    told = [record.provenance.get("first_sparse_layer") for record in records]
    assert told == [None, "computed once", "computed once"]


def test_changed_settings_run_again_and_keep_the_earlier_record(tiny: dict[str, Any], tmp_path: Path) -> None:
    run(parse_recipe(tiny), tmp_path)
    tiny["training"] = {**tiny["training"], "epochs": 1}
    assert run(parse_recipe(tiny), tmp_path).computed == 1
    assert len(list((tmp_path / "records" / "earlier").glob("*.json"))) == 1
    assert len(read_records(tmp_path)) == 1


def test_paper_layout_scores_no_test_images(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["data"] = {"name": "fashion-mini", "layout": "paper", "private": 120, "auxiliary": 100, "test": 60}
    (record,) = run(parse_recipe(tiny), tmp_path).records
    assert record.data.layout == "paper"
    assert set(record.outcome.attack("ridge").scores) == {"private", "auxiliary_val"}


def test_a_target_that_breaks_is_a_failed_case_and_the_others_go_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["training"] = {"epochs": 2, "optimizer": "sgd", "lr": 1e30, "schedule": "constant"}
    tiny["defenses"] = ["none", "gaussian-noise"]
    outcome = run(parse_recipe(tiny), tmp_path)
    assert [record.status for record in outcome.records] == ["failed", "failed"]
    assert outcome.records[0].failure is not None
    assert "not finite" in outcome.records[0].failure.message
    assert run(parse_recipe(tiny), tmp_path).computed == 0
    assert run(parse_recipe(tiny), tmp_path, retry_failed=True).computed == 2


@settings
class Vandal(Attack):
    """An attack that reaches the model behind the leak's back and changes it."""

    revision = 1
    summary = "test"
    source = "test"
    knowledge = Knowledge.BLACK_BOX

    def run(self, leak: Any, goal: Any, context: Any) -> AttackResult:
        inner = leak._model._model if isinstance(leak._model, CachedModel) else leak._model
        with torch.no_grad():
            next(iter(inner.parameters())).add_(1)
        shape = context.auxiliary.train.shape
        zeros = {part: torch.zeros(attacked.count, *shape) - 0.5 for part, attacked in goal.items()}
        return AttackResult(reconstructions=zeros, parameter_change=0.0)


def test_checks_notice_an_attack_that_cheats(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "vandal", Vandal)
    tiny["attacks"] = ["mean-image", "vandal"]
    tiny["expected_flags"] = [{"flag": "target-changed", "reason": "it does."}]
    (record,) = run(parse_recipe(tiny), tmp_path).records
    flags = {flag.name: flag.expected for flag in record.flags}
    assert flags["target-changed"] == "it does."
    assert {"out-of-range", "attacker-did-not-learn", "no-better-than-mean"} <= set(flags)


def test_a_defense_switched_off_is_noticed(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparseguard.defenses.perturbation.gaussian_noise import GaussianNoise

    tiny["defenses"] = ["gaussian-noise"]
    monkeypatch.setattr(GaussianNoise, "release", lambda self, model: None)
    (record,) = run(parse_recipe(tiny), tmp_path).records
    assert "defense-inactive" in {flag.name for flag in record.flags}


def test_two_runs_in_one_folder_are_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(StoreError, match="another run is using"):
        run(parse_recipe(tiny), tmp_path)


def test_a_full_disk_leaves_nothing_partial_and_loses_nothing(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    room = {"left": 2}

    def full(self: Path, content: bytes) -> int:
        if room["left"] == 0:
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        room["left"] -= 1
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="disk is full"):
        run(parse_recipe(tiny), tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.rglob(".partial-*")) == []
    assert len([path for path in (tmp_path / "targets").iterdir() if path.is_dir()]) == 1
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("the finished target was lost"))
    assert run(parse_recipe(tiny), tmp_path).records[0].status == "ok"


def test_a_folder_that_is_a_file_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="out"):
        run(parse_recipe(tiny), tmp_path / "out")


def test_damaged_weights_are_named(tiny: dict[str, Any], tmp_path: Path) -> None:
    run(parse_recipe(tiny), tmp_path)
    (weights,) = (tmp_path / "targets").glob("*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    tiny["attacks"] = [*tiny["attacks"], "class-mean"]
    with pytest.raises(StoreError, match=r"model\.safetensors.*damaged"):
        run(parse_recipe(tiny), tmp_path)


def test_a_record_from_a_newer_schema_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    run(parse_recipe(tiny), tmp_path)
    (path,) = (tmp_path / "records").glob("*.json")
    plain = json.loads(path.read_text())
    plain["schema_version"] = 999
    path.write_text(json.dumps(plain))
    with pytest.raises(StoreError, match="Upgrade sparseguard"):
        read_record(path)
    with pytest.raises(StoreError, match="Upgrade sparseguard"):
        run(parse_recipe(tiny), tmp_path)


def test_leftovers_of_a_killed_write_are_cleared(tiny: dict[str, Any], tmp_path: Path) -> None:
    for name in ("targets/.partial-x", "attacks/.partial-y"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    run(parse_recipe(tiny), tmp_path)
    assert list(tmp_path.rglob(".partial-*")) == []


def _hears_interrupts() -> None:
    """Undo what a shell that runs the tests in the background does to all processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sent", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_to_the_same_numbers(tiny_file: Path, tmp_path: Path, sent: signal.Signals) -> None:
    command = [sys.executable, "-m", "sparseguard", "run", str(tiny_file), "--set", 'defenses=["none", "sca"]']
    command += [
        "--set",
        "defenses.sca.features=[4, 4]",
        "--set",
        "defenses.sca.steps=[4, 4]",
        "--set",
        "training.epochs=8",  # long enough to be stopped in
        "--out",
        str(tmp_path / "stopped"),
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_hears_interrupts
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "stopped").glob("targets/*/model.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again" in errors
        assert "Traceback" not in errors
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert list((tmp_path / "stopped").rglob(".partial-*")) == []
    straight = subprocess.run([*command[:-1], str(tmp_path / "straight")], capture_output=True, text=True, check=True)
    assert straight.stdout.replace("straight", "stopped") == finished.stdout


def test_an_attack_that_fails_names_itself(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparseguard.attacks.feature_inversion.ridge import Ridge

    def fail(self: Ridge, leak: Any, goal: Any, context: Any) -> AttackResult:
        raise TrainingError(f"{context.label}: broke")

    monkeypatch.setattr(Ridge, "run", fail)
    (record,) = run(parse_recipe(tiny), tmp_path).records
    assert record.failure is not None
    assert "ridge: broke" in record.failure.message
