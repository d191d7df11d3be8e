"""Tensors that may exceed memory: beyond a limit they are mapped from a scratch file."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparseguard.core.atomic_io import translate_os_errors
from sparseguard.core.errors import StoreError

MIB = 1 << 20
IMAGES_LIMIT = 64 * MIB
"""Bytes of selected images that stay in memory."""

CHUNK = 32 * MIB
"""Bytes of a chunk."""


def tap_limit() -> int:
    """Return how many bytes of one tap's features stay in memory: SPARSEGUARD_TAP_MIB, or 1,024 MiB.

    Raises:
        StoreError: when the variable is not a whole number.
    """
    value = os.environ.get("SPARSEGUARD_TAP_MIB", "1024")
    if not (value.isascii() and value.isdecimal()):
        raise StoreError(f"SPARSEGUARD_TAP_MIB is {value!r}, expected a whole number of MiB.")
    return int(value) * MIB


def scratch_folder() -> Path:
    """Return the folder of scratch files: SPARSEGUARD_SCRATCH, or the system's folder on disk."""
    folder = os.environ.get("SPARSEGUARD_SCRATCH")
    if folder:
        return Path(folder).expanduser()
    on_disk = Path("/var/tmp")
    return on_disk if os.access(on_disk, os.W_OK) else Path(tempfile.gettempdir())


def allocate(shape: Sequence[int], dtype: torch.dtype, limit: int) -> Tensor:
    """Return an uninitialized tensor: in memory, or beyond ``limit`` bytes in a file without a name.

    The file's pages are not the process's own: the system writes them out when memory is short. The file
    disappears with the tensor, also when the process is killed.

    Raises:
        StoreError: when the scratch folder cannot be written, or the disk is full.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= limit:
        return torch.empty(*shape, dtype=dtype)
    folder = scratch_folder()
    with translate_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix="sparseguard-", dir=folder) as file:
            _reserve(file.fileno(), size)
            mapped = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    return torch.from_numpy(mapped).view(dtype).view(*shape)


def _reserve(file: int, size: int) -> None:
    """Set a file's length; on Linux reserve the space, so that a full disk shows now and not at the first write."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def gather(batches: Iterable[Tensor], count: int, limit: int) -> Tensor:
    """Return batches of ``count`` rows in all as one tensor, see `allocate`.

    Raises:
        ValueError: when there are more or fewer rows, or none at all.
    """
    rows, filled = None, 0
    for batch in batches:
        if rows is None:
            rows = allocate((count, *batch.shape[1:]), batch.dtype, limit)
        rows[filled : filled + len(batch)] = batch
        filled += len(batch)
    if rows is None or filled != count:
        raise ValueError(f"expected {count:,} rows, got {filled:,}.")
    return rows


def select_rows(rows: Tensor, index: Tensor, limit: int) -> Tensor:
    """Return the rows at ``index``, copied chunk by chunk, see `allocate`."""
    out = allocate((len(index), *rows.shape[1:]), rows.dtype, limit)
    for chunk in row_chunks(out):
        out[chunk] = rows[index[chunk]]
    return out


def row_chunks(rows: Tensor, size: int = CHUNK) -> Iterator[slice]:
    """Yield slices of rows of about ``size`` bytes each, at least one row."""
    count = max(1, size // max(1, rows[:1].numel() * rows.element_size()))
    return (slice(start, min(start + count, len(rows))) for start in range(0, len(rows), count))


def column_chunks(rows: Tensor, size: int = CHUNK) -> Iterator[slice]:
    """Yield slices of the columns of an ``(n, d)`` matrix of about ``size`` bytes each, at least one column."""
    count = max(1, size // max(1, len(rows) * rows.element_size()))
    return (slice(start, min(start + count, rows.shape[1])) for start in range(0, rows.shape[1], count))


def mean_and_std(rows: Tensor, axes: tuple[int, ...] = (0,)) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation over ``axes``, the rows among them; dimensions kept, in float64."""
    rest = [axis for axis in axes if axis != 0]
    count = len(rows) * math.prod(rows.shape[axis] for axis in rest)
    total = sum(rows[chunk].sum(axes, keepdim=True, dtype=torch.float64) for chunk in row_chunks(rows))
    mean = torch.as_tensor(total) / count
    squares = sum((rows[chunk] - mean).square().sum(axes, keepdim=True) for chunk in row_chunks(rows))
    return mean, (torch.as_tensor(squares) / (count - 1)).sqrt()


def inner_products(first: Tensor, second: Tensor, mean: Tensor) -> Tensor:
    """Return the float64 inner products ``(n, m)`` of ``(n, d)`` and ``(m, d)`` rows, ``mean`` subtracted from both."""
    total = torch.zeros(len(first), len(second), dtype=torch.float64)
    longer = first if len(first) > len(second) else second
    for chunk in column_chunks(longer):
        left = first[:, chunk].double() - mean[chunk]
        right = left if second is first else second[:, chunk].double() - mean[chunk]
        total += left @ right.T
    return total


def moments(rows: Tensor, mean: Tensor, targets: Tensor, target_mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return, in float64, ``Z^T Z`` and ``Z^T X`` of ``(n, d)`` and ``(n, p)`` rows minus their means."""
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    cross = torch.zeros(rows.shape[1], targets.shape[1], dtype=torch.float64)
    for chunk in row_chunks(rows):
        centred = rows[chunk].double() - mean
        gram += centred.T @ centred
        cross += centred.T @ (targets[chunk].double() - target_mean)
    return gram, cross


def standardize_rows(rows: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return ``(rows - mean) / std`` in the rows' precision, on disk where it exceeds a tap's limit."""
    out = allocate(rows.shape, rows.dtype, tap_limit())
    for chunk in row_chunks(rows):
        out[chunk] = (rows[chunk] - mean) / std
    return out
