"""Parallel decoding of a source's images into chunks on disk, within bounded memory."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparseguard.core.config import describe
from sparseguard.core.errors import DataError
from sparseguard.core.progress import Progress
from sparseguard.data.preparation.chunk_store import ROW, Chunks
from sparseguard.data.preparation.decode_image import UNREADABLE, DecodedImage, ImageFormat, SkippedImageError, decode
from sparseguard.data.preparation.duplicates import image_digest
from sparseguard.data.readers.base import Content, Item, Source

CHUNK = 1 << 24
"""Bytes of decoded pixels in one chunk."""

_BATCH, _BATCH_BYTES = 64, 1 << 22

Batch = list[tuple[int, Content | DataError]]
Result = tuple[int, DecodedImage | DataError]


@dataclass(frozen=True, kw_only=True, eq=False)
class ParallelDecoder:
    """Decoder of a source's images into chunks.

    Args:
        source: opened.
        items: its images.
        image_format: size and channels of every image.
        chunks: of decoded images.
        version: of the preparation; chunks of another are not used.
        workers: threads that decode.
    """

    source: Source
    items: Sequence[Item]
    image_format: ImageFormat
    chunks: Chunks
    version: int
    workers: int

    def run(self, progress: Progress) -> None:
        """Write the chunks that are missing.

        Raises:
            DataError: when no image can be read, or they differ in size while ``image_format.size`` is None.
        """
        self.chunks.begin(self._plan(), self._size_of_all)
        done = len(self.chunks)
        rows = max(_BATCH, CHUNK // int(np.prod(self.shape())))
        first, started = min(done * rows, len(self.items)), time.perf_counter()
        with progress.task("decoding", len(self.items)) as advance, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # say nothing of which image it is
            advance(first)
            waiting: list[Result] = []
            for results in self._results(first):
                waiting += results
                advance(len(results))
                while len(waiting) >= rows:
                    self._write(done, waiting[:rows])
                    waiting, done = waiting[rows:], done + 1
            if waiting:
                self._write(done, waiting)
        seconds = time.perf_counter() - started
        count = len(self.items) - first
        progress.say(f"decoded {count:,} images in {seconds:.1f} s, {count / max(seconds, 1e-9):,.0f} a second")

    def shape(self) -> tuple[int, int, int]:
        """Return height, width and channels of all images."""
        height, width = self.chunks.fact("size")
        return height, width, self.image_format.channels

    def _plan(self) -> dict[str, Any]:
        listed = hashlib.sha256()
        for item in self.items:
            listed.update(f"{item.name}\0{item.label}\0".encode())
        return {
            "version": self.version,
            "source": self.source.key(),
            "items": listed.hexdigest(),
            "look": describe(self.image_format),
            "chunk": CHUNK,
        }

    def _size_of_all(self) -> dict[str, Any]:
        """Return the size asked for, or that of the first image that can be read, and which one that is."""
        if self.image_format.size is not None:
            return {"size": self.image_format.size, "size_from": None}
        first: DataError | None = None
        for index, content in self.source.stream(self.items):
            name = self.items[index].name
            try:
                if isinstance(content, bytes | np.ndarray):
                    return {"size": decode(content, self.image_format, name=name).pixels.shape[:2], "size_from": name}
                first = first or content
            except DataError as error:
                first = first or error
        raise DataError(f"none of {len(self.items):,} images can be read. The first one: {first}")

    def _results(self, start: int) -> Iterator[list[Result]]:
        """Decode in the stream's order, a few batches ahead."""
        size = self.shape()[:2]
        pending: deque[Future[list[Result]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for batch in _batches(self.source.stream(self.items, start)):
                    pending.append(pool.submit(self._decode_batch, batch, size))
                    if len(pending) > 2 * self.workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _decode_batch(self, batch: Batch, size: tuple[int, int]) -> list[Result]:
        results: list[Result] = []
        for index, content in batch:
            name = self.items[index].name
            try:
                image = content if isinstance(content, DataError) else decode(content, self.image_format, name=name)
            except DataError as error:
                image = error
            if isinstance(image, DecodedImage) and image.pixels.shape[:2] != size:
                own, first = (f"{h} x {w}" for h, w in (image.pixels.shape[:2], size))
                raise DataError(
                    f"{name}: is {own} pixels, the first image, {self.chunks.fact('size_from')}, is {first}. "
                    "Without a size all must have that of the first. Say which size all shall have, e.g. "
                    f"size = [{size[0]}, {size[1]}]."
                )
            results.append((index, image))
        return results

    def _write(self, number: int, results: Sequence[Result]) -> None:
        decoded = [(index, image) for index, image in results if isinstance(image, DecodedImage)]
        notes: dict[str, list[str]] = {}
        for index, image in results:
            for reason in image.remarks if isinstance(image, DecodedImage) else (_reason(image),):
                notes.setdefault(reason, []).append(self.items[index].name)
        pixels = np.stack([image.pixels for _, image in decoded]) if decoded else np.empty((0, *self.shape()), np.uint8)
        rows = np.array([(index, image_digest(image.pixels)) for index, image in decoded], dtype=ROW)
        self.chunks.write(number, pixels, rows, notes)


def _reason(error: DataError) -> str:
    return error.reason if isinstance(error, SkippedImageError) else UNREADABLE


def _batches(stream: Iterator[tuple[int, Content | DataError]]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for index, content in stream:
        batch.append((index, content))
        size += 0 if isinstance(content, DataError) else len(content) if isinstance(content, bytes) else content.nbytes
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
