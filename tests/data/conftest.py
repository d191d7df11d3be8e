"""Small IDX files, and Hugging Face's library without a network, for the tests of this folder."""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KIND_OF_DIMENSIONS = {1: "labels-idx1-ubyte", 3: "images-idx3-ubyte"}


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def idx() -> Callable[[np.ndarray], bytes]:
    return idx_bytes


@pytest.fixture(scope="session")
def write_set() -> Callable[..., Path]:
    """Write the four files of a small set; return their folder."""

    def write(folder: Path, *, compressed: bool = True, train: int = 120, t10k: int = 80, shade: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for half, count in (("train", train), ("t10k", t10k)):
            labels = (np.arange(count) % 10).astype(np.uint8)
            images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
            images[:, 0, 0] = shade
            for array in (images, labels):
                path = folder / f"{half}-{KIND_OF_DIMENSIONS[array.ndim]}"
                content = idx_bytes(array)
                if compressed:
                    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, 1))
                else:
                    path.write_bytes(content)
        return folder

    return write


@pytest.fixture
def datasets(tmp_path, monkeypatch) -> Any:
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return library
