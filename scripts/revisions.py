"""Compare every component's source with its revision: ``python scripts/revisions.py``.

A run keeps finished stages under keys that name a component by its integer revision, not by its source. When a
component comes to give other results, its revision must therefore rise. ``tests/contracts/revisions.json`` has the
digest of each component's source at its revision. The script records new components and raised revisions, and lists
components whose source changed under the same revision. Then:

- if results may differ, raise the revision and run the script again;
- if they are the same (a renamed variable, types), run ``python scripts/revisions.py --same-results``.

A component's source is its module with the modules it imports from its own package and from ``numerics`` (in ``core``
and ``pipeline`` its module alone). ``sparse``, and packages with a ``REVISION`` in ``__init__``, are one component.
Comments, docstrings, formatting, the revision itself, and the one-line ``summary`` and ``source`` do not count.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparseguard import ATTACKS, BACKBONES, CLASS_ATTACKS, DATASETS, DEFENSES

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "sparseguard"
REGISTER = ROOT / "tests" / "contracts" / "revisions.json"
TABLES = {
    "attacks": ATTACKS,
    "backbones": BACKBONES,
    "class_attacks": CLASS_ATTACKS,
    "data": DATASETS,
    "defenses": DEFENSES,
}
CONSTANTS = {"REVISION", "PRIOR_REVISION"}
IGNORED = {"revision", "summary", "source", *CONSTANTS}
ALSO = {
    "pipeline/recipe/conditions": ["pipeline/tasks/attack", "pipeline/tasks/observe"],
    "pipeline/scoring/classes": ["pipeline/scoring/class_images", "pipeline/tasks/attack_classes"],
    "pipeline/scoring/images": ["pipeline/scoring/distributions", "pipeline/scoring/paired"],
    "targets/training/trainer": ["core/checkpoint"],
}
"""Modules that a revision stands for besides its own."""

ALONE = ("core", "pipeline")
"""Packages of which a component is its module alone."""

Entry = dict[str, int | str]


class Component(NamedTuple):
    """A revision and the files it stands for."""

    revision: int
    files: list[Path]


def components() -> dict[str, Component]:
    """Return every component by name: of the tables, and of modules and packages that declare a revision."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).with_suffix("").as_posix()
        for constant, revision in _constants(path).items():
            if path.name == "__init__.py" or constant != "REVISION" or path.parent.name == "sparse":
                package = path.parent.relative_to(SOURCE).as_posix()
                found[f"{package} {constant}"] = Component(revision, _package(path.parent, constant))
            else:
                others = [SOURCE / f"{other}.py" for other in ALSO.get(name, [])]
                found[name] = Component(revision, imported_files(path, *others))
    for table, members in TABLES.items():
        for name in members.builtin:
            component = members[name]
            path = Path(inspect.getfile(component)).resolve()
            found[f"{table}/{name}"] = Component(component.revision, imported_files(path))
    return dict(sorted(found.items()))


def imported_files(*paths: Path) -> list[Path]:
    """Return files and those they import, directly or not, from their own package and from ``numerics``.

    Left out are base modules (the contract of all), and modules and packages with a revision of their own.
    """
    found, waiting = set(paths), list(paths)
    while waiting:
        path = waiting.pop()
        package = path.relative_to(SOURCE).parts[0]
        if package in ALONE:
            continue
        for other in _imports(path):
            own = other.relative_to(SOURCE).parts[0] in (package, "numerics")
            plain = not _is_contract(other) and not _constants(other)
            if own and plain and other not in found:
                found.add(other)
                waiting.append(other)
    return sorted(found)


def source_hash(paths: list[Path]) -> str:
    """Return the SHA-256 of the files' syntax trees, without what does not count."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {_plain(ast.parse(path.read_text(encoding='utf-8')))}".encode())
    return digest.hexdigest()


def current() -> dict[str, Entry]:
    """Return revision and digest of every component of the present tree."""
    return {
        name: {"revision": revision, "source": source_hash(files)} for name, (revision, files) in components().items()
    }


def changed(known: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[str]:
    """Return the components whose source changed under the same revision; new and raised ones may have any source."""
    return [
        name
        for name in known.keys() & now.keys()
        if known[name]["revision"] == now[name]["revision"] and known[name]["source"] != now[name]["source"]
    ]


def _package(folder: Path, constant: str) -> list[Path]:
    """Return the files of a package; in ``generators``, priors and the conditional GAN have a revision each."""
    files = sorted(folder.rglob("*.py"))
    if folder.name != "generators":
        return files
    conditional = [file for file in files if "conditional_gan" in file.parts]
    return conditional if constant == "REVISION" else [file for file in files if file not in conditional]


def _is_contract(path: Path) -> bool:
    """Whether a module is the contract of all components of a package, not a part of some."""
    return path.stem == "__init__" or (path.stem == "base" and not path.parent.name.startswith("_"))


def _constants(path: Path) -> dict[str, int]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {
        target.id: node.value.value  # type: ignore[misc, attr-defined]
        for node in assigned
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in CONSTANTS
    }


def _imports(path: Path) -> Iterator[Path]:
    """Yield the files that define the names a file imports, directly or through a package's ``__init__``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparseguard."):
            for alias in node.names:
                yield from _home(SOURCE.joinpath(*str(node.module).split(".")[1:]), alias.name)


def _home(module: Path, name: str) -> Iterator[Path]:
    if module.with_suffix(".py").is_file():
        yield module.with_suffix(".py")
    elif (module / f"{name}.py").is_file():
        yield module / f"{name}.py"
    elif (module / "__init__.py").is_file():
        for node in ast.parse((module / "__init__.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
                yield from _home(SOURCE.joinpath(*str(node.module).split(".")[1:]), name)


def _plain(node: Any) -> Any:
    """Like `ast.dump`, but without empty fields, so that it is the same under every version of Python."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node if not _ignored(entry)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: _plain(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
    return [type(node).__name__, fields]


def _ignored(node: Any) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return bool(targets) and all(isinstance(target, ast.Name) and target.id in IGNORED for target in targets)


def main() -> int:
    """Record, or list what must not be recorded; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare every component's source with its revision.")
    parser.add_argument("--same-results", action="store_true", help="record changed sources under their old revision")
    same_results = parser.parse_args().same_results
    known, now = json.loads(REGISTER.read_text(encoding="utf-8")), current()
    kept = [] if same_results else sorted(changed(known, now))
    entries = {name: known[name] if name in kept else entry for name, entry in now.items()}
    REGISTER.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for name in kept:
        print(f"{name}: its source changed and its revision is still {now[name]['revision']}.")
    return 1 if kept else 0


if __name__ == "__main__":
    sys.exit(main())
