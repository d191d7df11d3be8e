"""Prepares a source once: every image decoded into one memory-mapped array, part after part.

Chunks of decoded images are written aside one by one, so a killed run goes on where it was. Anonymous memory holds a
few chunks and what is known of every image besides its pixels, about a kilobyte each.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from sparseguard.data.decode import Decoded, Look, decode
from sparseguard.data.duplicates import count_copies, digest, first_parts
from sparseguard.data.parting import order_of_parts, ranges
from sparseguard.data.source import Bytes, Content, Item, Source
from sparseguard.data.splits import Index, Layout
from sparseguard.errors import DataError
from sparseguard.files import explained, remove_leftovers, write_file, write_folder, write_text
from sparseguard.progress import Progress, Silent
from sparseguard.settings import describe

VERSION = 1
"""Counts up when the same source and settings come to give other files."""

IMAGES, LABELS, NAMES, ABOUT = "images.npy", "labels.npy", "names.json", "prepared.json"
CHUNK = 1 << 24
"""Bytes of decoded pixels in one chunk."""

_BATCH, _BATCH_BYTES = 64, 1 << 22
_UNREADABLE = "unreadable"

Batch = list[tuple[int, Content | DataError]]
Result = tuple[int, Decoded | DataError]


def prepare(
    source: Source,
    folder: Path,
    look: Look,
    *,
    name: str,
    layout: Layout,
    flips_keep_class: bool,
    classes: Sequence[str] = (),
    remove_duplicates: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Decode a source's images in parallel into ``folder``, which is whole afterwards or absent.

    The folder holds ``images.npy`` (uint8 ``(n, c, h, w)``), ``labels.npy``, ``names.json`` and ``prepared.json``
    (classes, parts as ranges of rows, look, checksums, notes, duplicates). Images that cannot be read are left out and
    noted by name. Does nothing when the folder is there.

    Args:
        source: opened.
        folder: to be made; files of unfinished work lie beside it.
        look: what to make of every image.
        name: the set's.
        layout: how it is parted.
        flips_keep_class: whether the mirror image of every image belongs to the same class.
        classes: those the source must have; none: any.
        remove_duplicates: keep an image only in the first part that holds it, private being the first.
        settings: kept in ``prepared.json``.
        progress: shows how far it is.
        workers: threads that decode; None: one a core.

    Raises:
        DataError: when the source is refused, a class has no readable image, images differ in size while
            ``look.size`` is None, or a part is left empty.
        StoreError: when the folder cannot be written.
    """
    about = {
        "version": VERSION,
        "name": name,
        "layout": layout,
        "flips_keep_class": flips_keep_class,
        "look": describe(look),
        "settings": dict(settings or {}),
    }
    work = folder.with_name(f"{folder.name}.work")
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if folder.exists():
                return
            work.mkdir(exist_ok=True)
            remove_leftovers(work)
            try:
                items = source.items()
                _check_classes(source, classes)
                _fill(source, items, work, look, about, remove_duplicates, progress or Silent(), workers or _cores())
            except DataError:
                shutil.rmtree(work, ignore_errors=True)
                raise
            (work / "whole").rename(folder)
            shutil.rmtree(work)


def _check_classes(source: Source, wanted: Sequence[str]) -> None:
    if wanted and tuple(wanted) != source.classes:
        missing = [name for name in wanted if name not in source.classes]
        more = [name for name in source.classes if name not in wanted]
        raise DataError(
            f"expected the classes {', '.join(wanted)}; missing: {', '.join(missing) or 'none'}, "
            f"unknown: {', '.join(more[:10]) or 'none'}. Check that these are the right files."
        )


def _fill(
    source: Source,
    items: list[Item],
    work: Path,
    look: Look,
    about: dict[str, Any],
    remove_duplicates: bool,
    progress: Progress,
    workers: int,
) -> None:
    job = _Job(source=source, items=items, work=work, look=look, workers=workers)
    job.decode(progress)
    about |= {"classes": list(source.classes), "checksums": source.checksums()}
    write_folder(work / "whole", lambda aside: job.gather(aside, about, remove_duplicates))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    source: Source
    items: list[Item]
    work: Path
    look: Look
    workers: int

    def decode(self, progress: Progress) -> None:
        """Write the chunks that are missing."""
        self._keep_only_own_chunks()
        done = len(self._chunks())
        rows = max(_BATCH, CHUNK // int(np.prod(self._shape())))
        first, started = min(done * rows, len(self.items)), time.perf_counter()
        with progress.task("decoding", len(self.items)) as advance:
            advance(first)
            held: list[Result] = []
            for results in self._results(first):
                held += results
                advance(len(results))
                while len(held) >= rows:
                    self._write_chunk(done, held[:rows])
                    held, done = held[rows:], done + 1
            if held:
                self._write_chunk(done, held)
        seconds = time.perf_counter() - started
        count = len(self.items) - first
        progress.say(f"decoded {count:,} images in {seconds:.1f} s, {count / max(seconds, 1e-9):,.0f} a second")

    def gather(self, folder: Path, about: dict[str, Any], remove_duplicates: bool) -> None:
        """Write the prepared files from the chunks."""
        facts = [json.loads(file.read_text(encoding="utf-8")) for file in self._chunks()]
        index = np.array([place for chunk in facts for place in chunk["index"]], dtype=np.int64)
        digests = np.array([bytes.fromhex(one) for chunk in facts for one in chunk["digests"]], dtype="V16")
        notes = _merged([self.source.notes, *(chunk["notes"] for chunk in facts)])
        labels = np.array([self.items[place].label for place in index], dtype=np.int64)
        self._check_classes(labels, notes)
        sort = np.argsort(index)
        groups = [self.items[place].group for place in index[sort]]
        dealt = {part: sort[rows] for part, rows in order_of_parts(labels[sort], groups, about["layout"]).items()}
        part_of = np.empty(len(index), dtype=np.int64)
        for number, rows in enumerate(dealt.values()):
            part_of[rows] = number
        about["duplicates"] = count_copies(digests, part_of, labels, list(dealt)) | {"removed": remove_duplicates}
        if remove_duplicates:
            first = first_parts(digests, part_of) == part_of
            notes["copies of images in an earlier part, removed"] = [self.items[k].name for k in index[~first]]
            dealt = {part: rows[first[rows]] for part, rows in dealt.items()}
        about["parts"] = ranges({part: len(rows) for part, rows in dealt.items()}, about["layout"])
        about["notes"] = {reason: sorted(names) for reason, names in sorted(notes.items()) if names}
        about["source_images"] = len(self.items)
        if empty := [part for part, (start, end) in about["parts"].items() if start == end]:
            raise DataError(f"{about['name']}: part '{empty[0]}' is empty; the set is too small to be split.")
        order = np.concatenate(list(dealt.values()))
        self._write_images(folder / IMAGES, order, len(index))
        np.save(folder / LABELS, labels[order], allow_pickle=False)
        write_text(folder / NAMES, json.dumps([self.items[k].name for k in index[order]]))
        write_text(folder / ABOUT, json.dumps(about, indent=1))

    def _write_images(self, path: Path, order: Index, count: int) -> None:
        height, width, channels = self._shape()
        row_of = np.full(count, -1, dtype=np.int64)
        row_of[order] = np.arange(len(order))
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(order), channels, height, width))
        start = 0
        for file in self._chunks():
            pixels = np.load(file.with_suffix(".npy"), allow_pickle=False)
            rows = row_of[start : start + len(pixels)]
            out[rows[rows >= 0]] = pixels[rows >= 0].transpose(0, 3, 1, 2)
            start += len(pixels)
        out.flush()

    def _results(self, start: int) -> Iterator[list[Result]]:
        """Decode in the stream's order, a few batches ahead."""
        size = self._shape()[:2]
        pending: deque[Future[list[Result]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for batch in _batches(self.source.stream(self.items, start)):
                    pending.append(pool.submit(_decode_batch, batch, self.items, self.look, size))
                    if len(pending) > 2 * self.workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _write_chunk(self, number: int, results: Sequence[Result]) -> None:
        good = [(place, one) for place, one in results if isinstance(one, Decoded)]
        notes: dict[str, list[str]] = {}
        for place, one in results:
            reasons = one.remarks if isinstance(one, Decoded) else (_UNREADABLE,)
            for reason in reasons:
                notes.setdefault(reason, []).append(self.items[place].name)
        pixels = np.stack([one.pixels for _, one in good]) if good else np.empty((0, *self._shape()), np.uint8)
        facts = {
            "index": [place for place, _ in good],
            "digests": [digest(one.pixels).hex() for _, one in good],
            "notes": notes,
        }
        path = self.work / f"{number:08d}.npy"
        write_file(path, lambda aside: _save(aside, pixels))
        write_text(path.with_suffix(".json"), json.dumps(facts))

    def _chunks(self) -> list[Path]:
        return sorted(self.work.glob("[0-9]*.json"))

    def _keep_only_own_chunks(self) -> None:
        listed = json.dumps([[item.name, item.label] for item in self.items])
        plan = {
            "version": VERSION,
            "source": self.source.key(),
            "items": hashlib.sha256(listed.encode()).hexdigest(),
            "look": describe(self.look),
            "chunk": CHUNK,
        }
        path = self.work / "plan.json"
        if path.exists() and _read_json(path).get("plan") == plan:
            return
        shutil.rmtree(self.work)
        self.work.mkdir()
        write_text(path, json.dumps({"plan": plan, "size": self._first_size()}))

    def _first_size(self) -> tuple[int, int]:
        if self.look.size is not None:
            return self.look.size
        for place, content in self.source.stream(self.items):
            try:
                if isinstance(content, bytes | np.ndarray):
                    height, width, _ = decode(content, self.look, name=self.items[place].name).pixels.shape
                    return height, width
            except DataError:
                continue
        raise DataError("no image of this source can be read.")

    def _shape(self) -> tuple[int, int, int]:
        height, width = _read_json(self.work / "plan.json")["size"]
        return height, width, self.look.channels

    def _check_classes(self, labels: Index, notes: Mapping[str, Sequence[str]]) -> None:
        counts = np.bincount(labels, minlength=len(self.source.classes))
        if (counts == 0).any():
            name = self.source.classes[int(np.argmin(counts))]
            bad = notes.get(_UNREADABLE, [])
            shown = f", e.g. {bad[0]!r}" if bad else ""
            raise DataError(f"class '{name}' has no image that can be read ({len(bad):,} cannot in all{shown}).")


def _batches(stream: Iterator[tuple[int, Content | DataError]]) -> Iterator[Batch]:
    batch: Batch = []
    held = 0
    for place, content in stream:
        batch.append((place, content))
        held += 0 if isinstance(content, DataError) else len(content) if isinstance(content, bytes) else content.nbytes
        if len(batch) >= _BATCH or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _decode_batch(batch: Batch, items: Sequence[Item], look: Look, size: tuple[int, int]) -> list[Result]:
    results: list[Result] = []
    for place, content in batch:
        name = items[place].name
        try:
            one = content if isinstance(content, DataError) else decode(content, look, name=name)
        except DataError as error:
            one = error
        if isinstance(one, Decoded) and one.pixels.shape[:2] != size:
            found, first = (f"{h} x {w}" for h, w in (one.pixels.shape[:2], size))
            raise DataError(f"{name}: is {found} pixels, the first image is {first}. Say which size all shall have.")
        results.append((place, one))
    return results


def _merged(notes: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for one in notes:
        for reason, names in one.items():
            merged.setdefault(reason, []).extend(names)
    return merged


def _save(path: Path, pixels: Bytes) -> None:
    with path.open("wb") as file:
        np.save(file, pixels, allow_pickle=False)


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
