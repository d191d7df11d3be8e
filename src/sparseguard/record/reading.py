"""Reading records, of every schema version, and the pictures beside them. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pydantic
import safetensors
import safetensors.numpy

from sparseguard.core.errors import StoreError
from sparseguard.record._migration import migrate, migrate_bound, picture_name
from sparseguard.record.feature_inversion import Bound
from sparseguard.record.records import Records
from sparseguard.record.schema import SCHEMA_VERSION, Pictures, Record


def read_record(path: Path) -> Record:
    """Read one record, of this or an earlier schema version.

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
    if not isinstance(plain, dict) or type(version) is not int or version < 1:
        raise StoreError(f"{path}: not a valid record: schema_version: expected a number from 1 on, got {version!r}.")
    try:
        return Record.model_validate(migrate(plain))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(name) for name in first["loc"])
        raise StoreError(f"{path}: not a valid record: {field}: {first['msg']}.") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        kind = type(error).__name__
        raise StoreError(f"{path}: not a valid record of schema version {version} ({kind}: {error}).") from None


def read_bounds(path: Path) -> list[Bound]:
    """Read the bounds of a run folder, of this or an earlier schema version."""
    return [Bound.model_validate(migrate_bound(plain)) for plain in json.loads(path.read_text(encoding="utf-8"))]


def read_records(folder: Path | str) -> Records:
    """Read all records of a run folder, or of a folder of records alone, in the order of their file names.

    Raises:
        StoreError: when there are none, or one cannot be read.
    """
    inner = Path(folder) / "records"
    paths = sorted(inner.glob("*.json") if inner.is_dir() else Path(folder).glob("*__seed*.json"))
    if not paths:
        raise StoreError(f"{folder}: holds no records. Make some with `sparseguard run RECIPE --out {folder}`.")
    return Records(read_record(path) for path in paths)


def read_pictures(path: Path) -> Pictures:
    """Read the file beside a record.

    Raises:
        StoreError: when it is missing or damaged.
    """
    try:
        stored = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from None
    arrays = {picture_name(name): array for name, array in stored.items()}

    kinds = {
        kind: {name.removeprefix(f"{kind}/"): array for name, array in arrays.items() if name.startswith(f"{kind}/")}
        for kind in ("gallery", "scores", "classes")
    }
    return Pictures(**kinds)
