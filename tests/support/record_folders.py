"""Run folders of hand-made records."""

from collections.abc import Iterable
from pathlib import Path

from sparseguard.record import Record


def write_records(folder: Path, records: Iterable[Record]) -> Path:
    """Write records as a run would, without files beside them."""
    for record in records:
        path = folder / "records" / f"{record.case.slug}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record.model_dump_json(), encoding="utf-8")
    return folder
