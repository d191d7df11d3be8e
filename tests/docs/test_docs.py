"""Everything the documentation shows is run, parsed or compared."""

import doctest
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import sparseguard
from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.checks import CHECKS
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.metrics import METRICS
from sparseguard.pipeline import parse_recipe
from sparseguard.record import json_schema

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
SOURCE = Path(sparseguard.__file__).parent
MODULES = [
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(SOURCE.rglob("*.py"))
]
SLOW = {"tutorials/audit.md", "tutorials/table.md"}
"""Pages whose code takes longer than ten seconds."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_file = pytest.mark.parametrize("path", FILES, ids=_name)
each_page = pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "docs")], ids=_name)
each_program = pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, id=_name(path), marks=[pytest.mark.slow] if _name(path).removeprefix("docs/") in SLOW else []
        )
        for path in FILES
    ],
)


class Block(NamedTuple):
    language: str
    text: str
    line: int


def _tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def _blocks(path: Path, *languages: str) -> list[Block]:
    fences = [token for token in _tokens(path) if token.type == "fence"]
    found = [
        Block(token.info.split()[0] if token.info else "", token.content, (token.map or [0])[0]) for token in fences
    ]
    return [block for block in found if block.language in languages]


def _first_columns(path: Path) -> list[list[str]]:
    """The rows of every table, cell by cell."""
    rows: list[list[str]] = []
    for token in _tokens(path):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level >= 4:
            rows[-1].append(token.content)
    return rows


def _table(path: Path, names: Any) -> dict[str, list[str]]:
    """The rows whose first cell is one of ``names`` in code type."""
    found = {row[0].strip("`"): row[1:] for row in _first_columns(path) if row and row[0].startswith("`")}
    return {name: cells for name, cells in found.items() if name in names}


@each_program
def test_python_blocks_run(path: Path, tmp_path: Path) -> None:
    blocks = _blocks(path, "python", "py")
    source = ""
    for block in blocks:
        text = doctest.script_from_examples(block.text) if block.text.lstrip().startswith(">>>") else block.text
        source += "\n" * (block.line + 1 - source.count("\n")) + text
    if not source:
        return
    script = tmp_path / f"{path.stem}_md.py"
    script.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"line numbers are those of {path.name}:\n{done.stderr}"


@each_file
def test_toml_and_json_blocks_parse(path: Path) -> None:
    for block in _blocks(path, "toml"):
        table = tomllib.loads(block.text)
        if "defenses" in table or "data" in table:
            parse_recipe(table)
    for block in _blocks(path, "json"):
        json.loads(block.text)


def _commands(path: Path) -> list[list[str]]:
    shells = _blocks(path, "console", "bash", "sh", "shell")
    text = "".join(block.text for block in shells).replace("\\\n", " ")
    lines = [shlex.split(line.removeprefix("$ "), comments=True) for line in text.splitlines()]
    return [words for words in lines if words]


@each_file
def test_commands_exist(path: Path) -> None:
    for words in _commands(path):
        if words[0] == "sparseguard":
            _parse_command(words[1:])
        elif words[0] == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            for target in words[1:]:
                assert "=" in target or re.search(rf"^{re.escape(target)}\s*:", makefile, re.M), f"make {target}"


def _parse_command(words: list[str]) -> None:
    import typer.main

    command: Any = typer.main.get_command(importlib.import_module("sparseguard.cli.app").app)
    if not words or words[0].startswith("-"):
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(words) <= known, f"sparseguard {' '.join(words)}"
        return
    assert words[0] in command.commands, f"sparseguard has no command {words[0]}"
    sub = command.commands[words[0]]
    if hasattr(sub, "commands"):
        assert words[1] in sub.commands, f"sparseguard {words[0]} has no command {words[1]}"
        words = words[1:]
        sub = sub.commands[words[0]]
    context = sub.context_class(sub)
    values, rest, _ = sub.make_parser(context).parse_args(list(words[1:]))
    assert not rest, f"{words}: {rest} mean nothing"
    for parameter in sub.params:
        given = values.get(parameter.name)
        missing = parameter.required and (given is None or "UNSET" in repr(given))
        assert not missing, f"{words}: {parameter.name} is missing"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _anchors(path: Path) -> set[str]:
    tokens = _tokens(path)
    texts = [after.children or [] for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    named = re.findall(r'<a id="([\w-]+)">', path.read_text(encoding="utf-8"))
    return {_slug("".join(child.content for child in children)) for children in texts} | set(named)


@each_file
def test_links_lead_somewhere(path: Path) -> None:
    for token in _tokens(path):
        for child in token.children or []:
            target = str(child.attrGet("href") or child.attrGet("src") or "")
            if not target or re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            other = (path.parent / name).resolve() if name else path
            assert other.exists(), f"{path.name}: dead link {target}"
            if anchor and other.suffix == ".md":
                assert anchor in _anchors(other), f"{path.name}: dead anchor {target}"


@each_page
def test_a_page_leads_to_the_glossary(path: Path) -> None:
    top = path.read_text(encoding="utf-8").split("\n## ")[0]
    assert path.stem == "glossary" or "glossary.md" in top, "link to the glossary at the first use of a term"


def test_checks_page_says_what_the_checks_say() -> None:
    shown = _table(ROOT / "docs" / "checks.md", CHECKS)
    assert shown == {name: [check.raised_when, check.meaning] for name, check in CHECKS.items()}


def test_attacks_page_lists_the_attacks() -> None:
    shown = _table(ROOT / "docs" / "attacks.md", ATTACKS)
    assert shown == {
        name: [attack.knowledge.value, "yes" if attack.floor else "no", attack.summary]
        for name, attack in ATTACKS.items()
    }


def test_plug_and_play_page_lists_the_attacks_on_classes_and_the_presets() -> None:
    page = ROOT / "docs" / "plug-and-play.md"
    shown = _table(page, CLASS_ATTACKS)
    assert shown == {
        name: ["yes" if attack.control else "no", attack.summary] for name, attack in CLASS_ATTACKS.items()
    }
    assert all(
        preset in page.read_text(encoding="utf-8") for attack in CLASS_ATTACKS.values() for preset in attack.presets
    )


def test_threat_models_page_lists_the_metrics() -> None:
    shown = _table(ROOT / "docs" / "threat-models.md", METRICS)
    assert {name: cells[-1] for name, cells in shown.items()} == {
        name: metric.summary for name, metric in METRICS.items()
    }


def test_recipes_page_lists_the_data_sets() -> None:
    shown = _table(ROOT / "docs" / "recipes.md", DATASETS)
    assert shown == {name: [piece.summary] for name, piece in DATASETS.items()}


def test_defenses_page_is_made_from_the_table_and_the_docstrings() -> None:
    script = ROOT / "scripts" / "defenses_page.py"
    spec = importlib.util.spec_from_file_location("defenses_page", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.render_page(), "run python scripts/defenses_page.py"
    for name, piece in DEFENSES.items():
        text = module.parse_docstring(piece.__doc__)
        assert text.body, name
        assert set(text.labeled) == set(module.LABELS), name


def test_record_schema_is_the_one_in_docs() -> None:
    kept = json.loads((ROOT / "docs" / "record.schema.json").read_text(encoding="utf-8"))
    assert kept == json_schema(), "run the command at the end of docs/records.md"


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    if name.endswith("__main__"):
        return
    assert doctest.testmod(importlib.import_module(name)).failed == 0
