"""Revisions rise with the source of the components they stand for."""

import functools
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def revisions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("revisions", ROOT / "scripts" / "revisions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.components = functools.cache(module.components)  # type: ignore[attr-defined]
    return module


def test_no_source_changed_without_its_revision(revisions: ModuleType) -> None:
    known = json.loads(revisions.REGISTER.read_text(encoding="utf-8"))
    wrong = revisions.changed(known, revisions.current())
    assert not wrong, (
        f"the source of {', '.join(wrong)} changed and the revision did not. If results may differ, raise it; if they "
        "are the same, run `python scripts/revisions.py --same-results`."
    )


def test_every_table_and_declared_revision_is_a_component(revisions: ModuleType) -> None:
    names = revisions.components().keys()
    assert {"attacks/ridge", "backbones/conv", "class_attacks/plug-and-play", "data/mnist", "defenses/sca"} <= names
    assert {"attacks/access", "core/staged_model", "metrics REVISION", "checks REVISION"} <= names


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ('"""Other words."""\nrevision = 1\ndef f():\n    "doc"\n    return 1\n', True),
        ("revision = 2\ndef f():\n    return 1  # one\n", True),
        ("revision = 1\ndef f():\n    return 2\n", False),
    ],
)
def test_only_code_counts_as_a_change(revisions: ModuleType, tmp_path: Path, change: str, same: bool) -> None:
    path = tmp_path / "component.py"
    path.write_text("revision = 1\ndef f():\n    return 1\n")
    before = revisions.source_hash([path])
    path.write_text(change)
    assert (revisions.source_hash([path]) == before) is same


def test_new_and_raised_components_may_have_any_source(revisions: ModuleType) -> None:
    known = {"a": {"revision": 1, "source": "x"}, "b": {"revision": 1, "source": "x"}, "gone": {"revision": 1}}
    now = {name: {"revision": revision, "source": "y"} for name, revision in (("a", 1), ("b", 2), ("new", 1))}
    assert revisions.changed(known, now) == ["a"]


def test_an_attack_includes_the_modules_it_builds_on(revisions: ModuleType) -> None:
    component = revisions.components()["attacks/ridge-conv"]
    files = {path.relative_to(revisions.SOURCE).as_posix() for path in component.files}
    assert {"attacks/feature_inversion/decoder.py", "numerics/supervised.py"} <= files
    assert any(path.startswith("attacks/feature_inversion/_") for path in files)
    assert not files & {"attacks/base.py", "attacks/access.py", "attacks/__init__.py"}
