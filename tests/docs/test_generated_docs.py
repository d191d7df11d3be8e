"""The generated tables of the docs are those of the tables in the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run python scripts/generate_docs.py:\n{done.stdout}{done.stderr}"


def test_every_table_of_components_stands_in_the_docs() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    for name in ("attacks", "attack-settings", "checks", "class-attacks", "datasets", "metrics"):
        assert f"<!-- generated: {name} -->" in pages, name
