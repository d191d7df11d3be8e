"""Write the tables of components into the docs: ``python scripts/generate_docs.py``; ``--check`` only compares.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``, where NAME is one of `TABLES`. The page
of defenses is generated as a whole.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from defenses_page import PAGE, render_page
from sparseguard import ATTACKS, BACKBONES, BOUNDS, CHECKS, CLASS_ATTACKS, DATASETS, METRICS
from sparseguard.core.config import describe
from sparseguard.data import DataSet
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.entries import ExpectedFlag
from sparseguard.pipeline.recipe.scoring import Scoring
from sparseguard.pipeline.recipe.validation.models import settings_of
from sparseguard.targets import Fit

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(\n<!-- /generated -->)", re.S)


def attacks() -> str:
    """Return the table of floors and feature inversions."""
    rows = [
        (f"`{name}`", attack.knowledge.value, "yes" if attack.floor else "no", attack.summary)
        for name, attack in _builtin(ATTACKS).items()
    ]
    return _table(("attack", "knowledge", "floor", "what it does"), rows)


def class_attacks() -> str:
    """Return the table of class inversions."""
    rows = [
        (f"`{name}`", "yes" if attack.control else "no", attack.summary)
        for name, attack in _builtin(CLASS_ATTACKS).items()
    ]
    return _table(("attack", "control", "what it does"), rows)


def attack_settings() -> str:
    """Return the table of the settings of all attacks."""
    rows = [
        (name, f"`{setting}`", f"`{json.dumps(value)}`")
        for table in (ATTACKS, CLASS_ATTACKS)
        for name, attack in _builtin(table).items()
        for setting, value in describe(attack()).items()
    ]
    return _table(("attack", "setting", "default"), rows)


def checks() -> str:
    """Return the table of checks."""
    rows = [(f"`{name}`", check.raised_when, check.meaning) for name, check in _builtin(CHECKS).items()]
    return _table(("check", "raised when", "what it means"), rows)


def metrics() -> str:
    """Return the table of the metrics of each image."""
    rows = [
        (f"`{name}`", metric.unit, f"{metric.direction}: more leaked", metric.summary)
        for name, metric in _builtin(METRICS).items()
    ]
    return _table(("metric", "unit", "direction", "what it is"), rows)


def datasets() -> str:
    """Return the table of data sets."""
    return _table(("data set", "what it is"), _summaries(_builtin(DATASETS)))


def backbones() -> str:
    """Return the table of backbones."""
    return _table(("backbone", "what it is"), _summaries(_builtin(BACKBONES)))


def bounds() -> str:
    """Return the table of bounds."""
    return _table(("bound", "what it is"), _summaries(BOUNDS))


def recipe_data() -> str:
    """Return the table of the settings that every data set has."""
    return _describe_settings(DataSet)


def recipe_training() -> str:
    """Return the table of a recipe's settings of training."""
    return _describe_settings(Fit)


def recipe_conditions() -> str:
    """Return the table of an attack's conditions."""
    return _describe_settings(Conditions)


def recipe_scoring() -> str:
    """Return the table of a recipe's further scores."""
    return _describe_settings(Scoring)


def recipe_flags() -> str:
    """Return the table of the keys of an expected flag."""
    return _describe_settings(ExpectedFlag)


TABLES = {
    "attacks": attacks,
    "attack-settings": attack_settings,
    "backbones": backbones,
    "bounds": bounds,
    "checks": checks,
    "class-attacks": class_attacks,
    "datasets": datasets,
    "metrics": metrics,
    "recipe-conditions": recipe_conditions,
    "recipe-data": recipe_data,
    "recipe-flags": recipe_flags,
    "recipe-scoring": recipe_scoring,
    "recipe-training": recipe_training,
}


def pages() -> dict[Path, str]:
    """Return the text that every page with something generated should have."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
    filled = {path: BLOCK.sub(_fill, text) for path, text in texts.items() if BLOCK.search(text)}
    return {**filled, PAGE: render_page()}


def _fill(block: re.Match[str]) -> str:
    return f"{block[1]}\n{TABLES[block[2]]()}\n{block[3]}"


def _builtin(table: Any) -> dict[str, Any]:
    """Return the components of this project; those of other distributions have no place in its docs."""
    return {name: table[name] for name in table.builtin}


def _describe_settings(cls: type) -> str:
    """Return the table of the settings of a class, from its fields and its docstring."""
    rows = []
    for name, field in settings_of(cls).items():
        default = "required" if field.is_required() else "absent" if field.default is None else ""
        rows.append((f"`{name}`", default or f"`{json.dumps(field.default)}`", field.description or ""))
    return _table(("key", "default", "meaning"), rows).replace("``", "`")


def _summaries(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"`{name}`", component.summary) for name, component in table.items()]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def main() -> int:
    """Write the pages, or with ``--check`` list those that differ; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the tables of components into the docs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page differs")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(DOCS.parent)}: {'differs' if check else 'written'}")
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
