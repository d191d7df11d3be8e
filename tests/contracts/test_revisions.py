import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("revisions", ROOT / "scripts" / "revisions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_source_changed_without_its_revision() -> None:
    script = _script()
    known, now = json.loads(script.MAP.read_text(encoding="utf-8")), script.current()
    wrong = []
    for name in sorted(known.keys() | now.keys()):
        if known.get(name) == now.get(name):
            continue
        if name not in known or name not in now:
            wrong.append(f"{name}: is {'gone' if name in known else 'new'}; run `python scripts/revisions.py`.")
        elif known[name]["revision"] == now[name]["revision"]:
            wrong.append(
                f"{name}: its source changed and its revision is still {now[name]['revision']}. If its results may "
                "differ, raise the revision; then run `python scripts/revisions.py`."
            )
        else:
            wrong.append(f"{name}: has a new revision; run `python scripts/revisions.py`.")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ('"""Other words."""\nrevision = 1\ndef f():\n    "doc"\n    return 1\n', True),
        ("revision = 2\ndef f():\n    return 1  # one\n", True),
        ("revision = 1\ndef f():\n    return 2\n", False),
    ],
)
def test_what_counts_as_a_change(tmp_path: Path, changed: str, same: bool) -> None:
    script = _script()
    path = tmp_path / "piece.py"
    path.write_text("revision = 1\ndef f():\n    return 1\n")
    before = script.source_hash([path])
    path.write_text(changed)
    assert (script.source_hash([path]) == before) is same


def test_files_of_an_attack_include_what_it_builds_on() -> None:
    files = [path.name for path in _script().components()["attacks/ridge-conv"][1]]
    assert files == ["networks.py", "queries.py", "ridge.py", "ridge_conv.py", "trained.py", "training.py"]
