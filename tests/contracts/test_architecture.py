"""The layout of docs/architecture.md. The import contract itself is import-linter's (pyproject.toml, `make check`)."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path

import sparseguard

SOURCE = Path(sparseguard.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_records_and_reports_need_no_torch() -> None:
    _run(
        "import sys, sparseguard, sparseguard.report, sparseguard.record, sparseguard.record.claims\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )


def test_the_public_names_are_what_dir_shows_and_all_exist() -> None:
    assert set(dir(sparseguard)) >= set(sparseguard.__all__)
    assert all(getattr(sparseguard, name) is not None for name in sparseguard.__all__)


def test_every_module_is_imported_and_no_attribute_shadows_a_module() -> None:
    """In a process of its own, since the order of imports decides what a package's attribute is."""
    names = [_module_name(path) for path in FILES if path.stem != "__main__"]
    code = (
        f"import importlib, json, sys\nnames = {names!r}\n"
        "for name in names: importlib.import_module(name)\n"
        "import sparseguard\n"
        "for name in sparseguard.__all__: getattr(sparseguard, name)\n"
        "pairs = [name.rpartition('.') for name in names if '.' in name]\n"
        "print(json.dumps([f'{package}.{own}' for package, _, own in pairs\n"
        "    if getattr(sys.modules[package], own, None) is not sys.modules[f'{package}.{own}']]))"
    )
    assert json.loads(_run(code)) == []


def test_no_module_bears_the_name_of_what_it_holds() -> None:
    shadowing = [
        f"{_module_name(path)}.{node.name}"
        for path in FILES
        for node in _tree(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == path.stem
    ]
    assert shadowing == []


def test_modules_and_folders_stay_small() -> None:
    """No module above 300 lines, no folder above 14 modules beside its `__init__`."""
    lengths = {_module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
    sizes = {
        str(folder.relative_to(SOURCE)): len(list(folder.glob("[!_]*.py")) + list(folder.glob("_[!_]*.py")))
        for folder in FOLDERS
    }
    assert {name: size for name, size in sizes.items() if size > 14} == {}


def test_nothing_hides_imports_or_unpickles() -> None:
    for path in FILES:
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
                assert node.module not in ("pickle", "dill", "joblib"), path
            elif isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"pickle", "dill", "joblib"}, path
            elif isinstance(node, ast.Call):
                _check_call(node)


def _check_call(node: ast.Call) -> None:
    options = {word.arg: ast.unparse(word.value) for word in node.keywords}
    assert ast.unparse(node.func) != "torch.save"
    assert ast.unparse(node.func) != "torch.load" or options.get("weights_only") == "True"
    assert options.get("allow_pickle", "False") == "False"


def test_every_component_has_a_file_without_underscore() -> None:
    tables = {
        "attacks": ("ATTACKS", "CLASS_ATTACKS"),
        "data": ("DATASETS",),
        "defenses": ("DEFENSES",),
        "targets": ("BACKBONES",),
    }
    for package, names in tables.items():
        module = importlib.import_module(f"sparseguard.{package}")
        for entry in (value for name in names for value in getattr(module, name).values()):
            own = getattr(entry, "__module__", "").rpartition(".")[2]
            assert not own.startswith("_"), f"{entry} is an entry of a table in a helper's file"


def test_no_test_imports_another_test() -> None:
    tests = Path(__file__).resolve().parents[1]
    for path in sorted(tests.rglob("*.py")):
        for node in ast.walk(_tree(path)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in modules if "test_" in name], f"{path}: imports another test"
