"""The rules of docs/architecture.md: which room may import which."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sparseguard

SOURCE = Path(sparseguard.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
FOUNDATION = {
    "errors", "settings", "seeds", "files", "large", "progress", "types", "stages", "checkpoint", "weights", "copies",
}  # fmt: skip
ALLOWED = {
    "sparse": set[str](),
    "data": FOUNDATION,
    "targets": FOUNDATION,
    "metrics": FOUNDATION,
    "leak": FOUNDATION,
    "generators": FOUNDATION,
    "defenses": FOUNDATION | {"sparse", "generators"},
    "attacks": FOUNDATION | {"leak", "sparse", "bounds", "generators"},
    "bounds": FOUNDATION | {"sparse"},
    "protection": FOUNDATION | {"sparse"},
    "checks": FOUNDATION | {"record", "class_record"},
    "class_record": set[str](),
    "console": {"progress"},
    "record": {"errors", "class_record"},
    "claims": {"errors", "record"},
    "report": {"errors", "record", "class_record", "claims"},
    "bench": FOUNDATION
    | {
        "sparse",
        "data",
        "targets",
        "metrics",
        "leak",
        "generators",
        "defenses",
        "attacks",
        "bounds",
        "checks",
        "record",
        "class_record",
        "claims",
    },
    **dict.fromkeys(FOUNDATION, FOUNDATION),
}


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> set[str]:
    """The rooms of sparseguard a file imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "sparseguard":
                names += [f"sparseguard.{alias.name}" for alias in node.names]
            else:
                names.append(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("sparseguard.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__", "cli", "cli_audit", "cli_data", "cli_prior", "listing"):
        return
    assert room in ALLOWED, f"{room}: a new room needs a rule here and in docs/architecture.md"
    forbidden = _imported(path) - ALLOWED[room] - {room}
    assert not forbidden, f"{room} must not import {sorted(forbidden)}"


def test_only_the_command_line_prints_reports() -> None:
    users = {_room(path) for path in FILES if "report" in _imported(path)} - {"report", "__init__"}
    assert users <= {"cli", "cli_audit"}


def test_records_and_reports_need_no_torch() -> None:
    code = (
        "import sys, sparseguard, sparseguard.report, sparseguard.record, sparseguard.record.claims;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_can_be_imported() -> None:
    for module in pkgutil.walk_packages(sparseguard.__path__, "sparseguard."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_that_hides_or_unpickles(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers")
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), "star import"
            assert node.module not in ("pickle", "dill", "joblib")
        elif isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "dill", "joblib"}
        elif isinstance(node, ast.Call):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert ast.unparse(node.func) != "torch.save"
            assert ast.unparse(node.func) != "torch.load" or words.get("weights_only") == "True"
            for word in node.keywords:
                if word.arg == "allow_pickle":
                    assert ast.unparse(word.value) == "False"
