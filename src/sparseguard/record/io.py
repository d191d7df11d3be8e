"""Reading records and the pictures beside them. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pydantic
import safetensors
import safetensors.numpy

from sparseguard.core.errors import StoreError
from sparseguard.record.schema import SCHEMA_VERSION, Pictures, Record


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        StoreError: when it is no record, or was written by a newer sparseguard.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as a record ({error}).") from None
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written with record schema {version}, this sparseguard reads up to {SCHEMA_VERSION}. "
            "Upgrade sparseguard to read it."
        )
    try:
        return Record.model_validate_json(json.dumps(plain))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path}: not a valid record: {where}: {first['msg']}.") from None


def read_records(folder: Path) -> list[Record]:
    """Read all records of a run folder, in the order of their file names.

    Raises:
        StoreError: when there are none, or one cannot be read.
    """
    paths = sorted((folder / "records").glob("*.json"))
    if not paths:
        raise StoreError(f"{folder}: holds no records. Make some with `sparseguard run RECIPE --out {folder}`.")
    return [read_record(path) for path in paths]


def read_pictures(path: Path) -> Pictures:
    """Read the file beside a record.

    Raises:
        StoreError: when it is missing or damaged.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from None
    gallery = {name.removeprefix("gallery/"): array for name, array in arrays.items() if name.startswith("gallery/")}
    scores = {name.removeprefix("scores/"): array for name, array in arrays.items() if name.startswith("scores/")}
    classes = {name.removeprefix("classes/"): array for name, array in arrays.items() if name.startswith("classes/")}
    return Pictures(gallery=gallery, scores=scores, classes=classes)
