from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small work is slower on several threads, above all on busy machines

import pytest
import torch
from jaxtyping import install_import_hook

import support.runtime_types  # noqa: F401 - the hook below looks it up as an attribute

install_import_hook("sparseguard", "support.runtime_types.checked")

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "fashion-mini", "private": 120, "auxiliary": 100, "auxiliary_val": 50, "test": 60},
    "training": {"epochs": 2, "batch_size": 32},
    "threats": [{"name": "split", "backbone": {"name": "linear-shallow", "width": 32}}],
    "defenses": ["none"],
    "attacks": ["mean-image", {"name": "ridge", "copies": 1}],
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest tests, so that no worker is left with them at the end."""
    items.sort(key=lambda item: item.path.parent.name != "end_to_end")


def pytest_runtest_setup() -> None:
    """Keep to one thread in every test."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A recipe that runs in a second."""
    return {**TINY}


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(
        'name = "tiny"\n'
        'defenses = ["none"]\n'
        'attacks = ["mean-image", { name = "ridge", copies = 1 }]\n'
        "[data]\n"
        'name = "fashion-mini"\nprivate = 120\nauxiliary = 100\nauxiliary_val = 50\ntest = 60\n'
        "[training]\nepochs = 2\nbatch_size = 32\n"
        '[[threats]]\nname = "split"\nbackbone = { name = "linear-shallow", width = 32 }\n'
    )
    return path
