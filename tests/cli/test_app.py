"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sparseguard
from sparseguard.cli import results
from sparseguard.report import MAX_DROP
from support import many_defenses as many
from support import synthetic_records as made
from support.command_line import in_process
from support.record_folders import write_records


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparseguard", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['sparseguard', '--help']\n"
        "import sparseguard.cli.app as cli\n"
        "try: cli.main()\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("list", "run", "report", "check", "demo"):
        assert command in done.stdout


def test_run_report_check(tiny_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = process("run", tiny_file, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["defense"] == "none"
    assert (out / "report.html").is_file()
    shown = in_process("report", out, "--with-images")
    assert shown.returncode == 0, shown.stderr
    assert "PSNR" in shown.stdout
    assert shown.stdout.endswith(f"page: {out / 'report.html'}\nall tables: sparseguard report {out} --full\n")
    assert "data:image/png" in (out / "report.html").read_text()
    assert in_process("report", out).returncode == 0
    assert "data:image/png" not in (out / "report.html").read_text()
    checked = in_process("check", out, "--json")
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout) == {"cases": 1, "flags": [], "failed": []}


def test_an_unexpected_flag_has_its_own_exit_code(tiny_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_process("run", tiny_file, "--out", out, "--set", "training.epochs=1", "--set", "training.lr=1e-12")
    checked = in_process("check", out)
    assert checked.returncode == 6, checked.stdout
    assert "target-at-majority" in checked.stdout


def test_failed_cases_have_their_own_exit_code(tiny_file: Path, tmp_path: Path) -> None:
    done = in_process(
        "run", tiny_file, "--out", tmp_path / "o", "--set", "training.optimizer=sgd", "--set", "training.lr=1e30"
    )
    assert done.returncode == 5
    assert "not finite" in " ".join(done.stdout.split())


def test_full_shows_what_the_compact_tables_leave_out(tmp_path: Path) -> None:
    folder = write_records(tmp_path, [made.record(), made.record("sca", shift=-2.0)])
    compact, full = in_process("report", folder).stdout, in_process("report", folder, "--full").stdout
    assert max(map(len, compact.splitlines())) <= 100 or "page:" in compact
    for words in ("private/test", "Tap: first_linear."):
        assert words not in compact
        assert words in full
    assert "all tables:" in compact
    assert "all tables:" not in full


def test_the_demo_ends_with_sentences_about_what_it_measured(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sparseguard.parse_recipe(tiny)
    monkeypatch.setattr("sparseguard.pipeline.load_recipe", lambda name, changes: recipe)
    done = in_process("demo", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    record = sparseguard.read_records(tmp_path / "demo")[0]
    psnr = next(attack.scores["private"]["psnr"].mean for attack in record.attacks if attack.name == "ridge")
    assert f"without a defense, black-box attacks reconstruct private images with {psnr:.1f} dB PSNR" in words
    assert "data:image/png" in (tmp_path / "demo" / "report.html").read_text()


def test_the_margin_of_matched_accuracy_is_an_option(tmp_path: Path) -> None:
    losses = ((1, 3), (2, 8), (3, 40), (4, 90))
    variants = [many.record("sca", f"sca {at}", lost=lost, shift=-2.0 * at) for at, lost in losses]
    folder = write_records(tmp_path, [many.record(), *variants])
    wide, wrong = (in_process("report", folder, "--json", "--max-drop", value) for value in ("0.2", "2"))
    assert wide.returncode == 0, wide.stderr
    assert json.loads(wide.stdout)["matched_accuracy"][0]["rows"][1]["qualified"] == 3
    assert wrong.returncode == 2
    assert "--max-drop must be between 0 and 1, got 2." in " ".join(wrong.stderr.split())
    assert results.MAX_DROP == MAX_DROP


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nowhere.toml"], 2),
        (["run", "demo", "--set", "data.privat=1"], 2),
        (["run", "demo", "--frobnicate"], 2),
        (["run", "demo", "--device", "quantum"], 2),
        (["run", "demo", "--set", "data.private=999999"], 3),
        (["report", "nowhere"], 4),
        (["check", "nowhere"], 4),
    ],
)
def test_what_the_user_can_fix_is_one_message(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = in_process(*arguments, *(["--out", tmp_path / "o"] if arguments[0] == "run" else []))
    assert done.returncode == code, done.stderr
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_ends_with_the_code_and_the_message_too(tmp_path: Path) -> None:
    done = process("check", tmp_path / "nowhere")
    assert done.returncode == 4, done.stderr
    assert done.stderr == in_process("check", tmp_path / "nowhere").stderr
    assert "nowhere" in done.stderr


def test_list_names_every_component() -> None:
    listed = json.loads(in_process("list", "--json").stdout)
    from sparseguard.attacks import ATTACKS
    from sparseguard.defenses import DEFENSES

    assert [entry["name"] for entry in listed["defenses"]] == list(DEFENSES)
    assert [entry["name"] for entry in listed["attacks"]] == list(ATTACKS)
    assert in_process("list").returncode == 0
