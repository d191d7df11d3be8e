"""The reviewed records of the project can be read, hold no images, and have no flag that nobody explained."""

from pathlib import Path

import pytest

from sparseguard.record import read_record

RECORDS = sorted((Path(__file__).parents[2] / "records").rglob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_reviewed_record_is_sound(path: Path) -> None:
    record = read_record(path)
    assert record.status == "ok"
    assert path.stem == record.case.slug
    assert [flag.name for flag in record.flags if flag.expected is None] == []
    assert not path.with_suffix(".safetensors").exists()
