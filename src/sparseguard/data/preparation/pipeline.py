"""Preparation of a source: every image decoded once into one memory-mapped array, split after split.

Chunks of decoded images are written aside one by one, so a killed run goes on where it was. Anonymous memory holds a
few chunks, and names, labels and digests of all images.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from sparseguard.core.atomic_io import remove_leftovers, translate_os_errors, write_folder
from sparseguard.core.config import describe
from sparseguard.core.errors import DataError, StoreError
from sparseguard.core.progress import Progress, Silent
from sparseguard.data.preparation.assemble import SetWriter, check_class_counts
from sparseguard.data.preparation.chunk_store import Chunks
from sparseguard.data.preparation.decode_image import ImageFormat
from sparseguard.data.preparation.parallel_decode import ParallelDecoder
from sparseguard.data.readers.base import Item, Source, describe_skipped
from sparseguard.data.readers.class_folders import ADVICE
from sparseguard.data.splits import Layout

VERSION = 1
"""Counts up when the same source and settings come to give other files."""


def prepare(
    source: Source,
    folder: Path,
    image_format: ImageFormat,
    *,
    name: str,
    layout: Layout,
    flips_keep_class: bool,
    classes: Sequence[str] = (),
    whole: int | None = None,
    remove_duplicates: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Decode a source's images in parallel into ``folder``, which is whole afterwards or absent.

    The folder holds ``images.npy`` (uint8 ``(n, c, h, w)``), ``labels.npy``, ``names.json`` and ``prepared.json``
    (classes, splits as ranges of rows, size, checksums, notes, duplicates). Images that cannot be read are left out and
    noted by name. Does nothing when the folder is there.

    Args:
        source: opened.
        folder: to be made; files of unfinished work lie beside it.
        image_format: size and channels of every image.
        name: the set's.
        layout: of the splits.
        flips_keep_class: whether the mirror image of every image belongs to the same class.
        classes: those the source must have; none: any.
        whole: number of images in the whole set; another number is noted. None: not known.
        remove_duplicates: keep an image only in the first split that holds it, private being the first.
        settings: kept in ``prepared.json``.
        progress: is shown.
        workers: threads that decode; None: one a core.

    Raises:
        DataError: when the source is refused, a class has no readable image, images differ in size while
            ``image_format.size`` is None, or a split is left empty.
        StoreError: when the folder cannot be written.
    """
    metadata = {
        "version": VERSION,
        "name": name,
        "layout": layout,
        "flips_keep_class": flips_keep_class,
        "look": describe(image_format),
        "settings": dict(settings or {}),
        "whole": whole,
    }
    work = folder.with_name(f"{folder.name}.work")
    progress = progress or Silent()
    if folder.exists():
        return
    with translate_os_errors(folder), _lock(Path(f"{folder}.lock"), progress):
        if folder.exists():
            return
        work.mkdir(exist_ok=True)
        remove_leftovers(work)
        try:
            items = source.items()
            _check_classes(source, classes)
            check_class_counts(np.array([item.label for item in items], dtype=np.int64), source, layout)
            _fill(source, items, work, image_format, metadata, remove_duplicates, progress, workers or _cores())
        except DataError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        (work / "whole").rename(folder)
        shutil.rmtree(work)


@contextmanager
def _explain_rights(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"{folder}: not writable ({error.strerror}). Set SPARSEGUARD_CACHE to a folder that is."
            ) from error
        raise


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    lock = filelock.FileLock(path)
    with _explain_rights(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            progress.say(f"waiting for another process that prepares the same; it holds {path}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_classes(source: Source, expected: Sequence[str]) -> None:
    if expected and tuple(expected) != source.classes:
        missing = [name for name in expected if name not in source.classes]
        more = [name for name in source.classes if name not in expected]
        raise DataError(
            f"expected the classes {', '.join(expected)}; missing: {', '.join(missing) or 'none'}, "
            f"unknown: {', '.join(more[:10]) or 'none'}. Check that these are the right files."
        )
    if len(source.classes) < 2:
        raise DataError(
            f"found only the class {source.classes[0]!r}, need 2 or more. {ADVICE}{describe_skipped(source.notes)}"
        )


def _fill(
    source: Source,
    items: list[Item],
    work: Path,
    image_format: ImageFormat,
    metadata: dict[str, Any],
    remove_duplicates: bool,
    progress: Progress,
    workers: int,
) -> None:
    chunks = Chunks(work)
    decoder = ParallelDecoder(
        source=source,
        items=items,
        image_format=image_format,
        chunks=chunks,
        version=metadata["version"],
        workers=workers,
    )
    decoder.run(progress)
    metadata |= {"classes": list(source.classes), "checksums": source.checksums()}
    writer = SetWriter(
        source=source, items=items, chunks=chunks, shape=decoder.shape(), remove_duplicates=remove_duplicates
    )
    write_folder(work / "whole", lambda aside: writer.write(aside, metadata))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
