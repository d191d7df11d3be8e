"""What a first sparse layer that does not learn makes of the images, computed once an image set and kept compactly."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import Tensor

from sparseguard.errors import StoreError, TrainingError
from sparseguard.files import explained, read_tensors, remove_leftovers, write_file, write_tensors
from sparseguard.progress import Progress
from sparseguard.stages import FixedCode, StagedModel
from sparseguard.types import ImageSet

FORMAT = 1
"""Raised when files mean something else, or codes are computed in another way."""

CHUNK = 256
MIB = 1 << 20
HEADER = 1024
"""More bytes than a file spends on saying what it holds."""


class TooLargeError(Exception):
    """The codes take more memory than they may."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompactCodes:
    """Codes of images without their zeros, exact.

    What is made of a tensor depends, in its last digits, on the order of its values in memory. So that order is kept
    as the layer gave it: `torch.channels_last`, or the axes' order.

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
        >>> from sparseguard.targets.codes import CompactCodes
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
        if any(part.ndim != 1 for part in self.arrays().values()) or len(positions) != len(values):
            raise ValueError("every entry of a code needs one position and one value.")
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(values) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets must rise from 0 to the number of entries, {len(values)}.")
        places = positions.numpy()
        if len(places) and (places.min() < 0 or places.max() >= size):
            raise ValueError(f"positions must lie in 0..{size - 1}.")
        rises = np.append(places[1:] > places[:-1], True)
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
        taken = seen = 0
        channels_last = False
        for batch in batches:
            shape = tuple(batch.shape[1:])
            if seen == 0:
                channels_last = _is_channels_last(batch)
            flat = (batch.permute(0, 2, 3, 1) if channels_last else batch).detach().flatten(1).cpu()
            active = flat != 0
            counts.append(active.sum(1))
            positions.append(active.nonzero()[:, 1].to(_position_type(math.prod(shape))))
            values.append(flat[active])
            taken += sum(part[-1].nbytes for part in (counts, positions, values))
            foreseen = taken * (images or 0) // max(len(batch), 1) if seen == 0 else 0
            seen += len(batch)
            if limit is not None and max(taken, foreseen) > limit:
                size = f"{taken / MIB:,.1f} MiB and more" if taken > limit else f"about {foreseen / MIB:,.1f} MiB"
                raise TooLargeError(f"its codes take {size}, and {limit / MIB:,.1f} MiB are allowed")
        ends = torch.cat(counts).cumsum(0)
        return cls(
            offsets=torch.cat([ends.new_zeros(1), ends]),
            positions=_joined(positions),
            values=_joined(values),
            shape=shape,
            channels_last=channels_last,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(part.nbytes for part in self.arrays().values())

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
        codes[rows, _picked(self.positions, entries)] = self.values[entries]
        if not self.channels_last:
            return codes.view(len(index), *self.shape)
        f, p, q = self.shape
        return codes.view(len(index), p, q, f).permute(0, 3, 1, 2)

    def checksum(self) -> str:
        """Return the SHA-256 of shape, order and arrays."""
        digest = hashlib.sha256(repr((self.shape, self.channels_last)).encode())
        for name, part in self.arrays().items():
            digest.update(f"{name} {part.dtype} {len(part)}".encode())
            digest.update(part.view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _is_channels_last(batch: Tensor) -> bool:
    return batch.ndim == 4 and batch.is_contiguous(memory_format=torch.channels_last) and not batch.is_contiguous()


def _position_type(size: int) -> torch.dtype:
    return torch.uint16 if size <= 1 << 16 else torch.int32


def _picked(positions: Tensor, entries: Tensor) -> Tensor:
    if positions.dtype == torch.uint16:
        return positions.view(torch.int16)[entries].long() & 0xFFFF
    return positions[entries].long()


def _joined(pieces: list[Tensor]) -> Tensor:
    """Concatenate ``pieces`` and let go of each as soon as it is copied, so that they are not held twice."""
    end = sum(len(piece) for piece in pieces)
    joined = torch.empty(end, dtype=pieces[0].dtype)
    while pieces:
        piece = pieces.pop()
        joined[end - len(piece) : end] = piece
        end -= len(piece)
    return joined


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Where codes are kept, and how many bytes of them.

    Args:
        folder: where a later training finds them again, in files that may be removed at any time; None: nowhere.
        memory: most bytes to hold for one training; if they take more, the layer is run instead.
        disk: most bytes of files in ``folder``; the ones not used for longest make room.
    """

    folder: Path | None = None
    memory: int = 1024 * MIB
    disk: int = 4096 * MIB

    def load(self, key: str, count: int, shape: tuple[int, ...]) -> CompactCodes | None:
        """Return the codes of ``count`` images kept under ``key``; None when there are none, or they are damaged."""
        if self.folder is None or not (path := self._path(self.folder, key)).exists():
            return None
        try:
            arrays, meta = read_tensors(path)
            found = CompactCodes(**arrays, shape=shape, channels_last=meta.get("channels_last") is True)
        except (StoreError, TypeError, ValueError):
            return None
        if len(found) != count or meta.get("key") != key or meta.get("checksum") != found.checksum():
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def save(self, key: str, codes: CompactCodes) -> None:
        """Keep codes under ``key``, if there is a folder and room in it can be made.

        Raises:
            StoreError: when the folder cannot be written.
        """
        if self.folder is None or (size := codes.nbytes + HEADER) > self.disk:
            return
        meta = {"key": key, "checksum": codes.checksum(), "channels_last": codes.channels_last}
        path = self._path(self.folder, key)
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock"):
                remove_leftovers(self.folder)  # nobody else is writing
                path.unlink(missing_ok=True)
                self._make_room(self.folder, size)
                write_file(path, lambda aside: write_tensors(aside, codes.arrays(), meta))

    def _make_room(self, folder: Path, needed: int) -> None:
        states = {path: path.stat() for path in folder.glob("*.safetensors")}
        oldest_first = sorted((state.st_mtime, state.st_size, path) for path, state in states.items())
        held = sum(size for _, size, _ in oldest_first)
        for _, size, path in oldest_first:
            if held + needed <= self.disk:
                return
            path.unlink(missing_ok=True)
            held -= size

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / f"{key}.safetensors"


def _first_fixed_code(model: StagedModel) -> tuple[str, FixedCode] | None:
    return next(((name, stage) for name, stage in model.stages.items() if isinstance(stage, FixedCode)), None)


class FirstLayer:
    """The first sparse layer of a model that is being trained: its codes where they are known, or why they are not.

    An image set's codes are computed, or found in the folder, when they are first asked for.

    Args:
        model: in training; its first stage that is a `FixedCode`, if any, is the layer.
        images: all that it trains on.
        keep: where, and how many bytes.
        device: where the model is.
        progress: told how far computing is, and why the layer is run where it is run.
        label: the training's name in it.

    Attributes:
        outcome: ``computed once``, or why the layer was run; empty for a model without such a layer.
    """

    def __init__(
        self, model: StagedModel, images: ImageSet, keep: Keep, *, device: torch.device, progress: Progress, label: str
    ) -> None:
        self._model, self._keep, self._device = model, keep, device
        self._progress, self._label = progress, label
        self._images = len(images)
        self._codes: dict[ImageSet, CompactCodes] = {}
        self._said = set[str]()
        self.outcome = ""
        self._fingerprint, self._shape = "", tuple[int, ...]()
        self._layer = _first_fixed_code(model)
        if self._layer is not None:
            self._examine(*self._layer, images.batch(torch.arange(min(2, len(images)))).to(device))

    def known(self, images: ImageSet, rows: Tensor) -> dict[str, Tensor]:
        """Return the codes of the images at ``rows`` by their stage's name, as `StagedModel.outputs` takes them.

        Empty when there are none to be had.
        """
        if self._layer is None:
            return {}
        stage, _ = self._layer
        if images not in self._codes:
            try:
                self._codes[images] = self._found_or_computed(stage, images)
            except TooLargeError as error:
                self.switch_off(str(error))
                return {}
        self.outcome = self.outcome or "computed once"
        return {stage: self._codes[images].dense(rows).to(self._device)}

    def run_because(self, reason: str) -> None:
        """Take down, and say once, why the layer is run on a batch although it does not learn."""
        if self._layer is None:
            return
        self.outcome = reason
        if reason not in self._said:
            self._progress.say(f"{self._label}: the first sparse layer is run in training: {reason}.")
            self._said.add(reason)

    def switch_off(self, reason: str) -> None:
        """Let the layer be run from now on, and say why."""
        self.run_because(reason)
        self._layer = None
        self._codes.clear()

    def require_unchanged(self) -> None:
        """Make sure that the codes in use are still the layer's.

        Raises:
            TrainingError: when the layer was changed although it says that it does not learn.
        """
        if self._layer is not None and self._codes and self._layer[1].fingerprint() != self._fingerprint:
            raise TrainingError(
                f"{self._label}: the stage '{self._layer[0]}' was changed in training, but says that it does not learn."
            )

    def _before(self, stage: str) -> dict[str, torch.nn.Module]:
        names = list(self._model.stages)
        return {name: self._model.stages[name] for name in names[: names.index(stage)]}

    @torch.no_grad()
    def _examine(self, name: str, stage: FixedCode, few: Tensor) -> None:
        if stage.learns:
            self.switch_off("it learns")
        elif not self._repeats(name, few):
            self.switch_off("what comes before it learns or is random")
        else:
            self._shape = tuple(self._model.until(few, name).shape[1:])
            self._fingerprint = stage.fingerprint()  # after a call, so that what the first call settles is settled

    def _repeats(self, stage: str, few: Tensor) -> bool:
        """Return whether what comes before the layer will give equal images equal values all through training."""
        first = second = few
        with torch.random.fork_rng():
            for module in self._before(stage).values():
                if module.state_dict():
                    return False
                first, second = module.train()(first), module(second)
        return torch.equal(first, second)

    def _found_or_computed(self, stage: str, images: ImageSet) -> CompactCodes:
        before = [[name, repr(module)] for name, module in self._before(stage).items()]
        parts = [FORMAT, before, self._fingerprint, images.fingerprint()]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        limit = self._keep.memory * len(images) // self._images
        found = self._keep.load(key, len(images), self._shape)
        if found is not None and found.nbytes <= limit:
            return found
        codes = CompactCodes.from_batches(self._run(stage, images), images=len(images), limit=limit)
        try:
            self._keep.save(key, codes)
        except StoreError as error:
            self._progress.say(f"{self._label}: the first sparse layer's codes are kept in memory only. {error}")
        return codes

    @torch.no_grad()
    def _run(self, stage: str, images: ImageSet) -> Iterator[Tensor]:
        with self._progress.task(f"{self._label}: codes", len(images)) as advance:
            for index in torch.arange(len(images)).split(CHUNK):
                yield self._model.until(images.batch(index).to(self._device), stage)
                advance(len(index))
