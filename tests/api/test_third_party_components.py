"""Components of other distributions: found by entry points, in the tables and on the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparseguard.core.component_table import ComponentTable

MODULE = '''
from typing import ClassVar

import torch

from sparseguard import CHECKS, METRICS, Attack, Backbone, Check, DataSet, Defense, Metric, settings
from sparseguard.attacks.base import AttackContext
from sparseguard.data import DATASETS
from sparseguard.targets import BACKBONES
from sparseguard.types import AttackResult, Knowledge


@settings
class Nothing(Defense):
    """No change."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "their defense"
    source: ClassVar[str] = "example"


@settings
class Grey(Attack):
    """A grey image for each."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "their attack"
    source: ClassVar[str] = "example"
    knowledge: ClassVar[Knowledge] = Knowledge.NOTHING
    floor: ClassVar[bool] = True

    def run(self, access, inputs, context):
        size = context.auxiliary.train.shape
        return AttackResult(reconstructions={name: torch.full((one.count, *size), 0.5) for name, one in inputs.items()})


class Images(DATASETS["fashion-mini"]):
    """The same images."""

    name = "their-images"
    summary = "their data set"


class Network(BACKBONES["linear"]):
    """The same network."""

    summary = "their backbone"


metric = METRICS["psnr"]
check = CHECKS["not-finite"]


class Incomplete(Defense):
    """No revision, no summary."""
'''

POINTS = """
[sparseguard.defenses]
their-defense = their_components:Nothing
[sparseguard.attacks]
their-attack = their_components:Grey
[sparseguard.datasets]
their-images = their_components:Images
[sparseguard.backbones]
their-network = their_components:Network
[sparseguard.metrics]
their-metric = their_components:metric
[sparseguard.checks]
their-check = their_components:check
"""


def install(folder: Path, points: str, module: str = MODULE, name: str = "their-components") -> Path:
    """Write a distribution as pip would leave it."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
    (folder / "their_components.py").write_text(module)
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={"PYTHONPATH": str(folder), "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_table_has_them_behind_its_own(tmp_path: Path) -> None:
    code = """
import sparseguard as sg
for table in (sg.DEFENSES, sg.ATTACKS, sg.DATASETS, sg.BACKBONES, sg.METRICS, sg.CHECKS):
    names = list(table)
    assert names[: len(table.builtin)] == list(table.builtin), names
    assert len(names) == len(table) == len(table.builtin) + 1, names
    print(names[-1], table.origins()[names[-1]], sep=", ")
"""
    done = run(install(tmp_path, POINTS), "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"their-{kind}, their-components 1.2" for kind in ("defense", "attack", "images", "network", "metric", "check")
    ]


def test_the_command_line_lists_them(tmp_path: Path) -> None:
    done = run(install(tmp_path, POINTS), "-m", "sparseguard", "list", "--json")
    assert done.returncode == 0, done.stderr
    names = {entry["name"] for entries in json.loads(done.stdout).values() for entry in entries}
    assert {"their-defense", "their-attack", "their-images", "their-network", "their-metric", "their-check"} <= names


def test_a_recipe_runs_them(tmp_path: Path) -> None:
    code = f"""
import sparseguard as sg
recipe = sg.parse_recipe({{
    "name": "theirs",
    "data": {{"name": "their-images", "private": 20, "auxiliary": 20, "auxiliary_val": 20, "test": 20}},
    "threats": [{{"name": "split", "backbone": {{"name": "their-network", "width": 8}}}}],
    "defenses": ["their-defense"],
    "attacks": ["mean-image", "ridge", "their-attack"],
}})
outcome = sg.run(recipe, {str(tmp_path / "run")!r}, device="cpu")
assert not outcome.failed, outcome.failed[0].failure
print([attack.name for attack in outcome.records[0].attacks])
"""
    done = run(install(tmp_path, POINTS), "-c", code)
    assert done.returncode == 0, done.stderr
    assert "their-attack" in done.stdout


UNUSABLE = {
    "absent = nothing_here:Nothing": "cannot be loaded (ModuleNotFoundError",
    "misspelled = their_components:nothing": "cannot be loaded (AttributeError",
    "sca = their_components:Nothing": "has the name of another component",
    "an-attack = their_components:Grey": "expected a class derived from Defense",
    "a-value = their_components:metric": "expected a class derived from Defense",
    "incomplete = their_components:Incomplete": "has no revision and no summary",
    "a+b = their_components:Nothing": "has a name of other characters",
}


def test_those_that_cannot_be_used_are_left_out_with_a_warning_each(tmp_path: Path) -> None:
    lines = "\n".join(UNUSABLE)
    folder = install(tmp_path, f"[sparseguard.defenses]\n{lines}\ngood = their_components:Nothing\n")
    code = "import sparseguard as sg; print(list(sg.DEFENSES)[-1], len(sg.DEFENSES) - len(sg.DEFENSES.builtin))"
    done = run(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["good", "1"]
    for point, reason in UNUSABLE.items():
        start = f"their-components 1.2: its entry point '{point.split()[0]}' in 'sparseguard.defenses' "
        warned = [line for line in done.stderr.splitlines() if start in line]
        assert len(warned) == 1, point
        assert reason in warned[0]


def test_two_distributions_with_one_name_are_both_left_out(tmp_path: Path) -> None:
    points = "[sparseguard.defenses]\nnew = their_components:Nothing\n"
    install(tmp_path, points, name="first")
    install(tmp_path, points, name="second")
    done = run(tmp_path, "-c", "import sparseguard as sg; print('new' in sg.DEFENSES)")
    assert done.stdout.strip() == "False", done.stderr
    assert "first 1.2: its entry point 'new' in 'sparseguard.defenses' has the name of one of second 1.2" in done.stderr
    assert "second 1.2: its entry point" in done.stderr


def test_an_entry_point_that_ends_the_program_does_not(tmp_path: Path) -> None:
    folder = install(tmp_path, "[sparseguard.defenses]\nnew = their_components:Nothing\n", "raise SystemExit(3)")
    done = run(folder, "-m", "sparseguard", "list", "--json")
    assert done.returncode == 0
    assert "cannot be loaded (SystemExit" in done.stderr


def test_built_in_components_are_looked_up_without_reading_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ComponentTable("sparseguard.defenses", int, {"one": 1})
    monkeypatch.setattr("sparseguard.core.component_table.entry_points", lambda **_: pytest.fail("read"))
    assert table["one"] == 1
    assert "one" in table
