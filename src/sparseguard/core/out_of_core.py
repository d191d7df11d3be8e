"""Tensors that may be too large for memory: beyond a limit they lie in a scratch file and are read as needed."""

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

from sparseguard.core.atomic_io import explained
from sparseguard.core.errors import StoreError

MIB = 1 << 20
IMAGES_LIMIT = 64 * MIB
"""Bytes of images chosen from a set that are held in memory."""

CHUNK = 32 * MIB
"""Bytes that are worked on at once."""


def taps_limit() -> int:
    """Return how many bytes of what one tap puts out are held in memory: SPARSEGUARD_TAP_MIB, or else 1,024 MiB.

    Raises:
        StoreError: when the variable is no whole number.
    """
    told = os.environ.get("SPARSEGUARD_TAP_MIB", "1024")
    if not (told.isascii() and told.isdecimal()):
        raise StoreError(f"SPARSEGUARD_TAP_MIB is {told!r}, expected a whole number of MiB.")
    return int(told) * MIB


def scratch_folder() -> Path:
    """Return where scratch files lie: in SPARSEGUARD_SCRATCH, or else where the system keeps those that are on disk."""
    named = os.environ.get("SPARSEGUARD_SCRATCH")
    if named:
        return Path(named).expanduser()
    on_disk = Path("/var/tmp")
    return on_disk if os.access(on_disk, os.W_OK) else Path(tempfile.gettempdir())


def room(shape: Sequence[int], dtype: torch.dtype, limit: int) -> Tensor:
    """Return an uninitialized tensor: in memory, or beyond ``limit`` bytes in a file without a name.

    The file's pages are not the process's own: the system writes them out when memory is short. The file is gone with
    the tensor, also when the process is killed.

    Raises:
        StoreError: when the scratch folder cannot be written, or the disk is full.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= limit:
        return torch.empty(*shape, dtype=dtype)
    folder = scratch_folder()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix="sparseguard-", dir=folder) as file:
            _reserve(file.fileno(), size)
            mapped = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    return torch.from_numpy(mapped).view(dtype).view(*shape)


def _reserve(file: int, size: int) -> None:
    """Make a file so long; where that can be done, so that a full disk is found now and not when it is written to."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def gathered(batches: Iterable[Tensor], count: int, limit: int) -> Tensor:
    """Return batches of ``count`` rows in all as one tensor, see `room`.

    Raises:
        ValueError: when there are more or fewer rows, or none at all.
    """
    whole, filled = None, 0
    for batch in batches:
        if whole is None:
            whole = room((count, *batch.shape[1:]), batch.dtype, limit)
        whole[filled : filled + len(batch)] = batch
        filled += len(batch)
    if whole is None or filled != count:
        raise ValueError(f"expected {count:,} rows, got {filled:,}.")
    return whole


def picked(rows: Tensor, index: Tensor, limit: int) -> Tensor:
    """Return the rows at ``index``, copied chunk by chunk, see `room`."""
    out = room((len(index), *rows.shape[1:]), rows.dtype, limit)
    for places in row_chunks(out):
        out[places] = rows[index[places]]
    return out


def row_chunks(rows: Tensor, size: int = CHUNK) -> Iterator[slice]:
    """Yield slices of rows of about ``size`` bytes each, at least one row."""
    step = max(1, size // max(1, rows[:1].numel() * rows.element_size()))
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def column_chunks(rows: Tensor, size: int = CHUNK) -> Iterator[slice]:
    """Yield slices of the columns of an ``(n, d)`` matrix of about ``size`` bytes each, at least one column."""
    step = max(1, size // max(1, len(rows) * rows.element_size()))
    return (slice(start, min(start + step, rows.shape[1])) for start in range(0, rows.shape[1], step))


def mean_and_spread(rows: Tensor, axes: tuple[int, ...] = (0,)) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation over ``axes``, the rows among them; dimensions kept, in float64."""
    rest = [axis for axis in axes if axis != 0]
    count = len(rows) * math.prod(rows.shape[axis] for axis in rest)
    total = sum(rows[some].sum(axes, keepdim=True, dtype=torch.float64) for some in row_chunks(rows))
    mean = torch.as_tensor(total) / count
    squares = sum((rows[some] - mean).square().sum(axes, keepdim=True) for some in row_chunks(rows))
    return mean, (torch.as_tensor(squares) / (count - 1)).sqrt()


def inner_products(first: Tensor, second: Tensor, mean: Tensor) -> Tensor:
    """Return the float64 inner products ``(n, m)`` of ``(n, d)`` and ``(m, d)`` rows, ``mean`` taken off both."""
    total = torch.zeros(len(first), len(second), dtype=torch.float64)
    both = first if len(first) > len(second) else second
    for some in column_chunks(both):
        left = first[:, some].double() - mean[some]
        right = left if second is first else second[:, some].double() - mean[some]
        total += left @ right.T
    return total


def moments(rows: Tensor, mean: Tensor, others: Tensor, other_mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return, in float64, ``Z^T Z`` and ``Z^T X`` of ``(n, d)`` and ``(n, p)`` rows without their means."""
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    cross = torch.zeros(rows.shape[1], others.shape[1], dtype=torch.float64)
    for some in row_chunks(rows):
        centred = rows[some].double() - mean
        gram += centred.T @ centred
        cross += centred.T @ (others[some].double() - other_mean)
    return gram, cross


def standardized(rows: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return ``(rows - mean) / spread`` in the rows' precision, on disk where it is as large as a tap may not be."""
    out = room(rows.shape, rows.dtype, taps_limit())
    for some in row_chunks(rows):
        out[some] = (rows[some] - mean) / spread
    return out
