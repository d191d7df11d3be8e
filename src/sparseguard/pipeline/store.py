"""The run folder: every finished stage under its key, whole or absent.

OUT/targets/KEY/            model.safetensors, facts.json, and state.safetensors where the defense prepared one
OUT/targets/KEY.prepared.safetensors     what its defense learned before, until the target is finished
OUT/targets/KEY.checkpoint.safetensors   while the target is being trained
OUT/codes/                  the first sparse layers' codes of the images targets train on; may be removed at any time
OUT/attacks/KEY/            reconstructions.safetensors (float16, with notes), of attacks on classes classes.safetensors
OUT/attacks/KEY.kept/       classes an attack has finished, until it has finished all
OUT/bounds/KEY.json
OUT/evaluators/KEY/            classifiers that score reconstructions
OUT/records/CASE.json       and CASE.safetensors
OUT/records/earlier/        records of earlier recipes in the same folder
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import pydantic
import torch
from torch import Tensor

from sparseguard.core.atomic_io import (
    read_tensors,
    remove_leftovers,
    translate_os_errors,
    write_file,
    write_folder,
    write_tensors,
    write_text,
)
from sparseguard.core.errors import StoreError
from sparseguard.record import Bound, Record, read_bounds, read_record, record_text, rename_figures, rename_split

BOUNDS = pydantic.TypeAdapter(list[Bound])


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Facts of a target's training; of a model that was not trained here the defaults.

    Args:
        epochs: epochs trained.
        best_epoch: the epoch whose weights are used.
        history: per epoch the training loss, and loss and accuracy on the held-out images.
        codes: how the codes of a first sparse layer were computed; None or empty where there is none.
        step_flops: floating-point operations of one training step.
        plain_flops: the same of the undefended model.
        seconds: duration of the training.
        prepare_seconds: duration of the defense's preparation.
    """

    epochs: int = 0
    best_epoch: int = 0
    history: Sequence[Mapping[str, float]] = ()
    codes: str | None = None
    step_flops: int | None = None
    plain_flops: int | None = None
    seconds: float = 0.0
    prepare_seconds: float = 0.0


@dataclass(frozen=True)
class StoredAttack:
    """An attack's reconstructions and what was noted beside them."""

    reconstructions: dict[str, Tensor]
    facts: dict[str, Any]


class Store:
    """Reads and writes one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run, and clear away what killed runs left half-written.

        Raises:
            StoreError: when another run holds it, or it cannot be written.
        """
        with translate_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock", timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise StoreError(
                    f"{self.folder}: another run is using this folder. Wait for it, or choose another with --out."
                ) from None
        try:
            remove_leftovers(self.folder)
            yield
        finally:
            lock.release()

    def checkpoint(self, key: str) -> Path:
        """Return where a target's training keeps its checkpoint."""
        return self.folder / "targets" / f"{key}.checkpoint.safetensors"

    def load_prepared(self, key: str) -> dict[str, Tensor] | None:
        """Return what a defense learned before its target exists, or None."""
        path = self._prepared(key)
        return read_tensors(path)[0] if path.exists() else None

    def save_prepared(self, key: str, state: Mapping[str, Tensor]) -> None:
        """Keep it until the target is finished, which then keeps it."""
        path = self._prepared(key)
        write_file(path, lambda aside: write_tensors(aside, state, {}))

    def _prepared(self, key: str) -> Path:
        return self.folder / "targets" / f"{key}.prepared.safetensors"

    @property
    def codes(self) -> Path:
        """Where first sparse layers' codes are kept for later trainings."""
        return self.folder / "codes"

    def load_target(self, key: str) -> tuple[dict[str, Tensor], dict[str, Tensor], TrainingFacts] | None:
        """Return a finished target's weights, its defense's state and its facts, or None."""
        folder = self.folder / "targets" / key
        if not folder.exists():
            return None
        weights, facts = read_tensors(folder / "model.safetensors")
        state, _ = read_tensors(folder / "state.safetensors")
        return weights, state, TrainingFacts(**facts)

    def save_target(
        self, key: str, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], facts: TrainingFacts
    ) -> None:
        """Keep a finished target; its checkpoint is no longer needed."""

        def fill(aside: Path) -> None:
            write_tensors(aside / "model.safetensors", weights, asdict(facts))
            write_tensors(aside / "state.safetensors", state, {})

        write_folder(self.folder / "targets" / key, fill)
        self.checkpoint(key).unlink(missing_ok=True)
        self._prepared(key).unlink(missing_ok=True)

    def load_attack(self, key: str) -> StoredAttack | None:
        """Return a finished attack, or None."""
        path = self.folder / "attacks" / key / "reconstructions.safetensors"
        if not path.parent.exists():
            return None
        tensors, facts = read_tensors(path)
        facts["notes"] = rename_figures(facts["notes"])
        facts["curves"] = rename_figures(facts["curves"])
        facts["residuals"] = {rename_split(split): values for split, values in facts["residuals"].items()}
        return StoredAttack({rename_split(split): images.float() for split, images in tensors.items()}, facts)

    def save_attack(self, key: str, reconstructions: Mapping[str, Tensor], facts: Mapping[str, Any]) -> StoredAttack:
        """Keep a finished attack and return it as it will be read back.

        Values are kept as float16: in [0, 1] its rounding is below 2.5e-4, which bounds a PSNR at about 77 dB.
        """
        halved = {split: images.to(torch.float16) for split, images in reconstructions.items()}
        write_folder(
            self.folder / "attacks" / key,
            lambda aside: write_tensors(aside / "reconstructions.safetensors", halved, facts),
        )
        return StoredAttack({split: images.float() for split, images in halved.items()}, dict(facts))

    def partial_folder(self, key: str) -> Path:
        """Return where an attack on classes keeps the classes it has finished."""
        return self.folder / "attacks" / f"{key}.kept"

    def load_class_attack(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return a finished attack on classes and its facts, or None."""
        path = self.folder / "attacks" / key / "classes.safetensors"
        if not path.parent.exists():
            return None
        tensors, facts = read_tensors(path)
        halved = (name for name, value in tensors.items() if value.dtype == torch.float16)
        return tensors | {name: tensors[name].float() for name in halved}, facts

    def save_class_attack(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a finished attack on classes, its images as float16; what it kept underway is no longer needed."""
        halved = {name: value.to(torch.float16) if value.ndim == 4 else value for name, value in tensors.items()}
        write_folder(
            self.folder / "attacks" / key, lambda aside: write_tensors(aside / "classes.safetensors", halved, facts)
        )
        shutil.rmtree(self.partial_folder(key), ignore_errors=True)

    def load_bounds(self, key: str) -> list[Bound] | None:
        """Return finished bounds, or None."""
        path = self.folder / "bounds" / f"{key}.json"
        return read_bounds(path) if path.exists() else None

    def save_bounds(self, key: str, bounds: list[Bound]) -> None:
        """Keep finished bounds."""
        write_text(self.folder / "bounds" / f"{key}.json", BOUNDS.dump_json(bounds, indent=1).decode())

    def record_path(self, slug: str) -> Path:
        """Return a record's file."""
        return self.folder / "records" / f"{slug}.json"

    def load_record(self, slug: str) -> Record | None:
        """Return a case's record, or None."""
        path = self.record_path(slug)
        return read_record(path) if path.exists() else None

    def save_record(self, record: Record, pictures: Mapping[str, Tensor]) -> None:
        """Write a case's record, and first the pictures it speaks of."""
        path = self.record_path(record.case.slug)
        self.archive([path])
        write_file(path.with_suffix(".safetensors"), lambda aside: write_tensors(aside, pictures, {"key": record.key}))
        write_text(path, record_text(record))

    def archive_others(self, slugs: set[str]) -> None:
        """Move records of cases that are not in ``slugs`` to ``records/earlier``, so that no report mixes recipes."""
        self.archive([path for path in (self.folder / "records").glob("*.json") if path.stem not in slugs])

    def archive(self, paths: list[Path]) -> None:
        """Move records to ``records/earlier``, with their key in their name."""
        for path in paths:
            if not path.exists():
                continue
            earlier = path.parent / "earlier" / f"{path.stem}.{read_record(path).key[:12]}"
            with translate_os_errors(earlier):
                earlier.parent.mkdir(exist_ok=True)
                path.rename(earlier.with_name(earlier.name + ".json"))
                pictures = path.with_suffix(".safetensors")
                if pictures.exists():
                    pictures.rename(earlier.with_name(earlier.name + ".safetensors"))
