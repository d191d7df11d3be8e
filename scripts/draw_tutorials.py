"""Draws the pictures of the tutorials: runs the code of each page and keeps the pictures that it wrote.

python scripts/draw_tutorials.py [PAGE.md ...]
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

TUTORIALS = Path(__file__).resolve().parent.parent / "docs" / "tutorials"


def draw(page: Path) -> None:
    """Run the page's Python blocks in an empty folder and copy the pictures that the page shows."""
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S))
    with TemporaryDirectory() as folder:
        script = Path(folder) / f"{page.stem}.py"
        script.write_text(code, encoding="utf-8")
        subprocess.run([sys.executable, script.name], cwd=folder, check=True)
        for name in re.findall(r"\]\(([\w-]+\.png)\)", text):
            shutil.copy(Path(folder) / name, page.parent / name)
            print(f"{page.stem}: wrote {name}, {(page.parent / name).stat().st_size / 1000:.0f} kB")


for path in [TUTORIALS / name for name in sys.argv[1:]] or sorted(TUTORIALS.glob("*.md")):
    draw(path)
