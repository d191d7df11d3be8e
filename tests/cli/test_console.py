"""Output of commands on consoles of every kind: names as they are, other encodings, full and closed streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparseguard.cli.console import print_line, show_progress
from support import synthetic_records as made
from support.command_line import in_process
from support.record_folders import write_records

NAME = "größe:boom:κ [/nope] [red]x[/red]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_records(tmp_path, [made.record(NAME)])


def process(
    *arguments: str | Path, stdout: int | None = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sparseguard", *map(str, arguments)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("options", [[], ["--full"]])
def test_names_are_neither_markup_nor_emoji(folder: Path, options: list[str]) -> None:
    done = in_process("report", folder, *options)
    assert done.returncode == 0, done.stderr
    assert "größe:boom:κ" in done.stdout.replace("\n", "")
    assert "[/nope]" in done.stdout


def test_messages_are_neither_markup_nor_emoji(tmp_path: Path) -> None:
    done = in_process("check", tmp_path / ":boom:[/nope]")
    assert done.returncode == 4
    assert ":boom:[/nope]" in done.stderr.replace("\n", "")


def test_usage_errors_are_neither_markup_nor_emoji() -> None:
    done = in_process("check", "x", "--[/nope]:boom:")
    assert done.returncode == 2
    assert "[/nope]:boom:" in done.stderr.replace("\n", "")


def test_progress_shows_labels_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as progress:
        with progress.task("[/nope] :boom:", 1) as advance:
            advance(1)
        progress.say("[red]x[/red] :boom:")
    assert "[red]x[/red] :boom:" in capsys.readouterr().err
    print_line("[/nope] :boom:")
    assert capsys.readouterr().out == "[/nope] :boom:\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "cp1252", "C"],
)
@pytest.mark.parametrize("command", ["report", "check"])
def test_names_that_the_console_cannot_encode_are_escaped(
    tmp_path: Path, environment: dict[str, str], command: str
) -> None:
    folder = write_records(tmp_path, [made.failed(NAME)])
    done = process(command, folder, **environment)
    assert done.returncode == (0 if command == "report" else 5), done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\\u03ba" in done.stdout


def test_messages_that_the_console_cannot_encode_are_escaped(tmp_path: Path) -> None:
    done = process("check", tmp_path / "κ", PYTHONIOENCODING="ascii")
    assert done.returncode == 4
    assert b"\\u03ba" in done.stderr.replace(b"\n", b"")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["tables", "json"])
def test_a_full_disk_behind_standard_output_is_one_message(folder: Path, options: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = process("report", folder, *options, stdout=full.fileno())
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr
    assert b"standard output cannot be written (No space left on device)" in done.stderr


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["tables", "json"])
def test_a_closed_pipe_ends_the_command_silently(folder: Path, options: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = process("report", folder, *options, stdout=write_end)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_standard_output_the_work_is_done(folder: Path) -> None:
    command = f'"{sys.executable}" -m sparseguard report "{folder}" >&-'
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "report.html").is_file()
