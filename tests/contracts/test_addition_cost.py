"""What one addition costs: files touched, and that it works."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "addition_cost.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["defense", "attack", "dataset", "backbone", "check", "metric", "section"])
def test_an_addition_touches_few_files_and_works(kind: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
