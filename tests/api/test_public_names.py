"""Public names: what `dir`, editors and `import` see."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import sparseguard as sg

EVERYTHING = """
import importlib, pkgutil, types, warnings
import sparseguard as sg

packages = {"sparseguard": sg}
for module in pkgutil.walk_packages(sg.__path__, "sparseguard."):
    if not module.name.endswith("__main__"):
        packages[module.name] = importlib.import_module(module.name)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dir_lists_exactly_the_public_names() -> None:
    assert dir(sg) == sorted(sg.__all__)
    assert len(set(sg.__all__)) == len(sg.__all__)
    for name in sg.__all__:
        assert getattr(sg, name) is not None


def test_the_names_are_those_that_people_are_told_to_use() -> None:
    assert {
        "audit", "protect", "reconstruct", "load_target", "run", "load_recipe", "parse_recipe", "read_records",
        "verdict", "ImageSet", "Record", "Recipe", "Outcome", "Defense", "Attack", "DataSet", "Backbone", "Metric",
        "ATTACKS", "BACKBONES", "BOUNDS", "CHECKS", "DATASETS", "DEFENSES", "METRICS", "__version__",
    } <= set(sg.__all__)  # fmt: skip


def test_editors_and_mypy_see_every_name() -> None:
    tree = ast.parse(Path(sg.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported | {"__version__"} == set(sg.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    assert sg.__version__ == importlib.metadata.version("sparseguard")


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(sg, "audits")


def test_import_and_dir_load_no_library() -> None:
    code = "import sys; import sparseguard; dir(sparseguard); print(*sys.modules)"
    loaded = {name.split(".")[0] for name in run(code).split()}
    assert not loaded & {"torch", "numpy", "pydantic", "safetensors", "jinja2", "rich"}


def test_no_submodule_shadows_a_public_name() -> None:
    code = (
        EVERYTHING
        + "print(*(n for n in sg.__all__ if isinstance(getattr(sg, n), types.ModuleType)))\n"
        + "print(*(n for n in sg.__all__ if n in vars(sg) and isinstance(vars(sg)[n], types.ModuleType)))"
    )
    assert run(code).split("\n")[:2] == ["sparse", "sparse"]


def test_no_attribute_of_a_package_shadows_its_submodule() -> None:
    code = (
        EVERYTHING
        + """
for name, module in packages.items():
    package, _, own = name.rpartition(".")
    if package and vars(packages[package])[own] is not module:
        print(name)
"""
    )
    assert run(code) == ""


def test_sparse_is_loaded_on_first_use() -> None:
    assert run("import sparseguard as sg; print(sg.sparse.SparseCode2d.__name__)").strip() == "SparseCode2d"
