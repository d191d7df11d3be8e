"""The examples run as a user runs them, on public names only."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PUBLIC = {"sparseguard", "sparseguard.sparse"}
PICTURES = {"sparse_coding": {"atoms.png", "images.png"}, "audit_and_protect": {"before_and_after.png", "runs"}}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=script.stem, marks=[pytest.mark.slow] if script.stem == "audit_and_protect" else [])
        for script in EXAMPLES
    ],
)
def test_example_runs_and_draws(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), "--out", "drawn"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == PICTURES[script.stem]
    for name in (name for name in drawn if name.endswith(".png")):
        with Image.open(tmp_path / "drawn" / name) as picture:
            shades = picture.histogram()
        assert shades[0] > 0, f"{name} has no black"
        assert shades[255] > 0, f"{name} has no white"
        assert name in done.stdout


def imported_modules(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in names if name.split(".")[0] == "sparseguard"}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_uses_public_names_only(script: Path) -> None:
    assert imported_modules(script.read_text(encoding="utf-8")) <= PUBLIC


@pytest.mark.parametrize("page", ["README.md", "docs/audit.md"])
def test_python_of_a_first_page_uses_public_names_only(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert blocks
    assert imported_modules("\n".join(blocks)) <= PUBLIC
