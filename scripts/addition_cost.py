"""Count the files that one addition touches: ``python scripts/addition_cost.py [KIND ...]``.

Each kind of component is added to a copy of the tree as CONTRIBUTING.md says: its code, its line in a table, its test.
The generated docs are generated, and the contract tests run for the new component. The script fails when an addition
touches more files than `LIMITS` allows, or a test fails. Generated pages are listed and do not count.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDITIONS = Path(__file__).resolve().parent / "additions"
COPIED = ("src", "tests", "docs", "scripts", "recipes", "examples", "pyproject.toml", "README.md", "CONTRIBUTING.md")
LIMITS = {"defense": 3, "attack": 3, "dataset": 3, "backbone": 3, "check": 3, "metric": 4, "section": 3}


@dataclass(frozen=True, kw_only=True)
class Addition:
    """One addition.

    Args:
        files: new files, by path; each text is that of the file of `ADDITIONS` with this name.
        lines: existing files -> pairs of the beginning of a line and the line to insert before it.
        tests: what pytest runs.
    """

    files: dict[str, str]
    lines: dict[str, list[tuple[str, str]]]
    tests: list[str] = field(default_factory=list)


PLAN = {
    "defense": Addition(
        files={
            "src/sparseguard/defenses/controls/throwaway.py": "defense.py",
            "tests/defenses/controls/test_throwaway.py": "test_defense.py",
        },
        lines={
            "src/sparseguard/defenses/__init__.py": [
                (
                    "from sparseguard.defenses.differential_privacy",
                    "from sparseguard.defenses.controls.throwaway import Throwaway",
                ),
                ('        "downsample"', '        "throwaway": Throwaway,'),
            ]
        },
        tests=[
            "tests/contracts/test_defenses_contract.py",
            "tests/contracts/test_defenses_trained.py",
            "tests/defenses/controls",
        ],
    ),
    "attack": Addition(
        files={
            "src/sparseguard/attacks/feature_inversion/throwaway.py": "attack.py",
            "tests/attacks/feature_inversion/test_throwaway.py": "test_attack.py",
        },
        lines={
            "src/sparseguard/attacks/feature_inversion/__init__.py": [
                (
                    "from sparseguard.attacks.feature_inversion.two_stage",
                    "from sparseguard.attacks.feature_inversion.throwaway import Throwaway",
                ),
                ('    "two-stage"', '    "throwaway": Throwaway,'),
            ]
        },
        tests=["tests/contracts/test_attacks_contract.py", "tests/attacks/feature_inversion/test_throwaway.py"],
    ),
    "dataset": Addition(
        files={
            "src/sparseguard/data/datasets/throwaway.py": "dataset.py",
            "tests/data/datasets/test_throwaway.py": "test_dataset.py",
        },
        lines={
            "src/sparseguard/data/__init__.py": [
                ("from sparseguard.data.splits", "from sparseguard.data.datasets.throwaway import Throwaway"),
                ("        UserImages.name", "        Throwaway.name: Throwaway,"),
            ]
        },
        tests=["tests/data/datasets"],
    ),
    "backbone": Addition(
        files={
            "src/sparseguard/targets/backbones/throwaway.py": "backbone.py",
            "tests/targets/backbones/test_throwaway.py": "test_backbone.py",
        },
        lines={
            "src/sparseguard/targets/backbones/__init__.py": [
                (
                    "from sparseguard.targets.backbones.torchvision",
                    "from sparseguard.targets.backbones.throwaway import Throwaway",
                ),
                ('        "torchvision"', '        "throwaway": Throwaway,'),
            ]
        },
        tests=["tests/targets/backbones"],
    ),
    "check": Addition(
        files={
            "src/sparseguard/checks/throwaway.py": "check.py",
            "tests/checks/test_throwaway.py": "test_check.py",
        },
        lines={
            "src/sparseguard/checks/__init__.py": [
                ("REVISION = ", "from sparseguard.checks.throwaway import THROWAWAY\n"),
                ('    "not-finite"', '    "throwaway": THROWAWAY,'),
            ]
        },
        tests=["tests/checks"],
    ),
    "metric": Addition(
        files={
            "src/sparseguard/metrics/throwaway.py": "metric.py",
            "tests/metrics/test_throwaway.py": "test_metric.py",
        },
        lines={
            "src/sparseguard/metrics/__init__.py": [
                ("REVISION = ", "from sparseguard.metrics.throwaway import THROWAWAY\n"),
                ('        "psnr"', '        "throwaway": THROWAWAY,'),
            ],
            "docs/metrics.md": [("| `psnr` ", "| `throwaway` | | 0 to 1 | higher: more leaked | always |")],
        },
        tests=["tests/metrics/test_fidelity.py", "tests/metrics/test_throwaway.py"],
    ),
    "section": Addition(
        files={
            "src/sparseguard/report/sections/throwaway.py": "section.py",
            "tests/report/sections/test_throwaway.py": "test_section.py",
        },
        lines={
            "src/sparseguard/report/sections/__init__.py": [
                ("SECTIONS: ", "from sparseguard.report.sections.throwaway import Throwaway\n"),
                ("    Provenance()", "    Throwaway(),"),
            ]
        },
        tests=["tests/report/sections/test_throwaway.py"],
    ),
}
RAISED = {"check": "src/sparseguard/checks/__init__.py", "metric": "src/sparseguard/metrics/__init__.py"}
"""Additions that change every record, and the file whose ``REVISION`` rises with them."""


def main(kinds: list[str]) -> int:
    """Add one component of each kind; return the exit code."""
    failed = False
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            _copy(copy)
            before = _digests(copy)
            _add(copy, PLAN[kind])
            if kind in RAISED:
                _raise_revision(copy / RAISED[kind])
            touched = _touched(before, _digests(copy))
            _run(copy, "scripts/generate_docs.py")
            generated = _touched(before, _digests(copy)) - touched
            passed = _run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "throwaway", *PLAN[kind].tests)
            passed &= _run(
                copy,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-k",
                "no_source_changed",
                "tests/contracts/test_revisions.py",
            )
            fits = len(touched) <= LIMITS[kind]
            failed |= not (passed and fits)
            print(f"{kind}: {len(touched)} files (at most {LIMITS[kind]}), tests {'pass' if passed else 'FAIL'}")
            print(*(f"  {path}" for path in sorted(touched)), sep="\n")
            print(*(f"  {path} (generated)" for path in sorted(generated)), sep="\n", flush=True)
    return int(failed)


def _copy(target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "runs", ".*")
    target.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)


def _add(copy: Path, addition: Addition) -> None:
    for path, template in addition.files.items():
        (copy / path).write_text((ADDITIONS / f"{template}.txt").read_text(encoding="utf-8"), encoding="utf-8")
    for path, insertions in addition.lines.items():
        lines = (copy / path).read_text(encoding="utf-8").splitlines()
        for anchor, line in insertions:
            index = next(number for number, text in enumerate(lines) if text.startswith(anchor))
            lines.insert(index, line)
        (copy / path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _raise_revision(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    index = next(number for number, text in enumerate(lines) if text.startswith("REVISION = "))
    lines[index] = f"REVISION = {int(lines[index].split('=')[1]) + 1}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _digests(copy: Path) -> dict[str, str]:
    return {
        path.relative_to(copy).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in copy.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _touched(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def _run(copy: Path, *words: str) -> bool:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / name) for name in ("src", "tests"))}
    done = subprocess.run(
        [sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PLAN)))
