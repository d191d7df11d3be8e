"""Which source each declared revision stands for; run to accept the present state into ``tests/revisions.json``.

Finished stages are kept under keys in which a component is named by its integer revision, not by its source. So when
a component comes to give other results, its revision must be raised. `tests/test_revisions.py` fails when a source
changed and its revision did not. The author then decides:

- results may differ: raise the revision, then run ``python scripts/revisions.py``;
- results are the same (renaming, typing): only run ``python scripts/revisions.py``.

Comments, docstrings, formatting, the revision itself and the one-line ``summary`` and ``source`` do not count.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparseguard import bounds, checks, generators, metrics, sparse
from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.attacks import access as leak
from sparseguard.core import staged_model as stages
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.defenses import combined as combine
from sparseguard.pipeline.recipe import conditions as setting
from sparseguard.pipeline.scoring import classes as class_scores
from sparseguard.pipeline.scoring import evaluators
from sparseguard.pipeline.scoring import images as score
from sparseguard.pipeline.scoring import scorers as judging
from sparseguard.targets import BACKBONES
from sparseguard.targets.training import trainer as fit

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "sparseguard"
MAP = ROOT / "tests" / "contracts" / "revisions.json"
TABLES: dict[str, Mapping[str, type[Any]]] = {
    "attacks": {**ATTACKS, **CLASS_ATTACKS},
    "targets": BACKBONES,
    "data": DATASETS,
    "defenses": DEFENSES,
}
FITTING = ("batches", "compact_codes", "first_layer", "fit", "fitted", "kept_codes", "steps")
CONDITIONAL = ("conditional_gan", "networks")
IGNORED = {"revision", "REVISION", "summary", "source"}


def components() -> dict[str, tuple[int, list[Path]]]:
    """Return every component's revision and the files it consists of."""
    found: dict[str, tuple[int, list[Path]]] = {
        "sparse": (sparse.REVISION, sorted((SOURCE / "sparse").glob("*.py"))),
        "targets/fit": (
            fit.REVISION,
            [SOURCE / "checkpoint.py", *(SOURCE / "targets" / f"{name}.py" for name in FITTING)],
        ),
        "generators/conditional": (generators.REVISION, _generators(lambda name: name in CONDITIONAL)),
        "generators/priors": (generators.PRIOR_REVISION, _generators(lambda name: name not in CONDITIONAL)),
        "defenses/combined": (combine.REVISION, [SOURCE / "defenses" / "combine.py"]),
        "leak": (leak.REVISION, [SOURCE / "leak.py"]),
        "stages": (stages.REVISION, [SOURCE / "stages.py"]),
        "bounds": (bounds.REVISION, sorted((SOURCE / "bounds").glob("*.py"))),
        "bench/settings": (setting.REVISION, _bench("setting", "attacking", "observed")),
        "bench/scores": (score.REVISION, _bench("score", "comparing", "set_scores")),
        "bench/class_scores": (class_scores.REVISION, _bench("class_attacking", "class_measuring", "class_scores")),
        "bench/judging": (judging.REVISION, _bench("judging")),
        "bench/evaluators": (evaluators.REVISION, _bench("evaluators")),
        "metrics": (metrics.REVISION, sorted((SOURCE / "metrics").glob("*.py"))),
        "checks": (checks.REVISION, sorted((SOURCE / "checks").glob("*.py"))),
    }
    for room, table in TABLES.items():
        for name, piece in table.items():
            found[f"{room}/{name}"] = (piece.revision, files_of(Path(inspect.getfile(piece)).resolve()))
    return dict(sorted(found.items()))


def _generators(wanted: Callable[[str], bool]) -> list[Path]:
    return [path for path in sorted((SOURCE / "generators").glob("*.py")) if wanted(path.stem)]


def _bench(*names: str) -> list[Path]:
    return [SOURCE / "bench" / f"{name}.py" for name in names]


def files_of(path: Path) -> list[Path]:
    """Return a module's file and those of its room it imports, without the room's ``base.py``, the contract of all."""
    found, waiting = set[Path](), [path]
    while waiting:
        here = waiting.pop()
        if here in found or here.name in ("base.py", "__init__.py"):
            continue
        found.add(here)
        waiting += [path.parent / f"{name}.py" for name in _imported(here, f"sparseguard.{path.parent.name}.")]
    return sorted(found)


def _imported(path: Path, prefix: str) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return [module.removeprefix(prefix) for module in modules if module.startswith(prefix)]


def source_hash(paths: list[Path]) -> str:
    """Return the SHA-256 of the files' syntax trees, without what does not count."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {_plain(ast.parse(path.read_text(encoding='utf-8')))}".encode())
    return digest.hexdigest()


def current() -> dict[str, dict[str, int | str]]:
    """Return the map of the present state."""
    return {
        name: {"revision": revision, "source": source_hash(paths)} for name, (revision, paths) in components().items()
    }


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


if __name__ == "__main__":
    MAP.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {MAP.relative_to(ROOT)}")
