"""Compressed codes: values without zeros, exact, in the order of memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MIB = 1 << 20


class TooLargeError(Exception):
    """The codes take more memory than they may."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompactCodes:
    """Codes of images without their zeros, exact.

    The last digits of a layer's outputs depend on the order of its input in memory. So that order is stored as the
    layer gave it: `torch.channels_last`, or the axes' order.

    Args:
        offsets: ``(n + 1,)`` int64; the entries of image i are those from ``offsets[i]`` to before ``offsets[i + 1]``.
        positions: of each entry among its image's coefficients, counted in the order of memory, ascending; uint16
            where that is enough, else int32.
        values: of each entry, finite.
        shape: of one image's code, such as ``(f, p, q)``.
        channels_last: whether f is the axis whose values are next to each other.

    Raises:
        ValueError: when these do not fit together.

    Example:
        >>> import torch
        >>> from sparseguard.targets.training.code_cache.csr import CompactCodes
        >>> codes = CompactCodes.from_batches([torch.tensor([[0.0, 2.0], [0.0, 0.0]])])
        >>> codes.values.tolist(), codes.dense(torch.tensor([1, 0])).tolist()
        ([2.0], [[0.0, 0.0], [0.0, 2.0]])
    """

    offsets: Tensor
    positions: Tensor
    values: Tensor
    shape: tuple[int, ...]
    channels_last: bool = False

    def __post_init__(self) -> None:
        """Check everything `dense` relies on."""
        offsets, positions, values = self.offsets, self.positions, self.values
        size = math.prod(self.shape)
        if self.channels_last and len(self.shape) != 3:
            raise ValueError(f"only codes (f, p, q) can be kept channels last, not {self.shape}.")
        if offsets.dtype != torch.int64 or positions.dtype != _position_type(size) or not values.is_floating_point():
            raise ValueError(f"codes of other types: {offsets.dtype}, {positions.dtype}, {values.dtype}.")
        if any(array.ndim != 1 for array in self.arrays().values()) or len(positions) != len(values):
            raise ValueError("every entry of a code needs one position and one value.")
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(values) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets must rise from 0 to the number of entries, {len(values)}.")
        ordered = positions.numpy()
        if len(ordered) and (ordered.min() < 0 or ordered.max() >= size):
            raise ValueError(f"positions must lie in 0..{size - 1}.")
        rises = np.append(ordered[1:] > ordered[:-1], True)
        rises[offsets[1:].numpy() - 1] = True
        if not rises.all():
            raise ValueError("positions must rise within an image.")
        if not torch.isfinite(values).all():
            raise ValueError("codes must be finite.")

    @classmethod
    def from_batches(
        cls, batches: Iterable[Tensor], *, images: int | None = None, limit: int | None = None
    ) -> CompactCodes:
        """Gather codes that come in batches.

        Args:
            batches: ``(n, *shape)`` each, at least one.
            images: how many are to come in all.
            limit: most bytes to keep.

        Raises:
            TooLargeError: when they take more than ``limit``, or, by their density, the first batch says they will.
        """
        counts, positions, values = list[Tensor](), list[Tensor](), list[Tensor]()
        shape: tuple[int, ...] = ()
        nbytes = count = 0
        channels_last = False
        for batch in batches:
            shape = tuple(batch.shape[1:])
            if count == 0:
                channels_last = _is_channels_last(batch)
            flat = (batch.permute(0, 2, 3, 1) if channels_last else batch).detach().flatten(1).cpu()
            active = flat != 0
            counts.append(active.sum(1))
            positions.append(active.nonzero()[:, 1].to(_position_type(math.prod(shape))))
            values.append(flat[active])
            nbytes += sum(part[-1].nbytes for part in (counts, positions, values))
            expected = nbytes * (images or 0) // max(len(batch), 1) if count == 0 else 0
            count += len(batch)
            if limit is not None and max(nbytes, expected) > limit:
                size = f"{nbytes / MIB:,.1f} MiB and more" if nbytes > limit else f"about {expected / MIB:,.1f} MiB"
                raise TooLargeError(f"its codes take {size}, and {limit / MIB:,.1f} MiB are allowed")
        ends = torch.cat(counts).cumsum(0)
        return cls(
            offsets=torch.cat([ends.new_zeros(1), ends]),
            positions=_concatenate(positions),
            values=_concatenate(values),
            shape=shape,
            channels_last=channels_last,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays by name."""
        return {"offsets": self.offsets, "positions": self.positions, "values": self.values}

    def dense(self, index: Tensor) -> Tensor:
        """Return the codes ``(len(index), *shape)`` of the images at ``index``, zeros and all."""
        starts = self.offsets[index]
        counts = self.offsets[index + 1] - starts
        before = counts.cumsum(0) - counts
        entries = torch.arange(int(counts.sum())) + (starts - before).repeat_interleave(counts)
        rows = torch.arange(len(index)).repeat_interleave(counts)
        codes = self.values.new_zeros(len(index), math.prod(self.shape))
        codes[rows, _select_positions(self.positions, entries)] = self.values[entries]
        if not self.channels_last:
            return codes.view(len(index), *self.shape)
        f, p, q = self.shape
        return codes.view(len(index), p, q, f).permute(0, 3, 1, 2)

    def checksum(self) -> str:
        """Return the SHA-256 of shape, order and arrays."""
        digest = hashlib.sha256(repr((self.shape, self.channels_last)).encode())
        for name, array in self.arrays().items():
            digest.update(f"{name} {array.dtype} {len(array)}".encode())
            digest.update(array.view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _is_channels_last(batch: Tensor) -> bool:
    return batch.ndim == 4 and batch.is_contiguous(memory_format=torch.channels_last) and not batch.is_contiguous()


def _position_type(size: int) -> torch.dtype:
    return torch.uint16 if size <= 1 << 16 else torch.int32


def _select_positions(positions: Tensor, entries: Tensor) -> Tensor:
    if positions.dtype == torch.uint16:
        return positions.view(torch.int16)[entries].long() & 0xFFFF
    return positions[entries].long()


def _concatenate(chunks: list[Tensor]) -> Tensor:
    """Concatenate ``chunks`` and free each as soon as it is copied, so that memory holds them once."""
    end = sum(len(chunk) for chunk in chunks)
    joined = torch.empty(end, dtype=chunks[0].dtype)
    while chunks:
        chunk = chunks.pop()
        joined[end - len(chunk) : end] = chunk
        end -= len(chunk)
    return joined
