"""The examples run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
PICTURES = {"sparse_coding": {"atoms.png", "images.png"}, "audit_and_protect": {"before_and_after.png", "runs"}}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
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
