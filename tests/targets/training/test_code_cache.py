"""Compact codes: exact, checked, bounded, and never trusted blindly when read from a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseguard.core.atomic_io import read_tensors, write_tensors
from sparseguard.core.errors import StoreError
from sparseguard.core.staged_model import FixedCode
from sparseguard.sparse import Detached, Lca, SparseCode2d
from sparseguard.targets import CodeCache
from sparseguard.targets.training.code_cache.csr import MIB, CompactCodes, TooLargeError

SHAPE = (3, 5, 4)


def codes(count: int = 6, *, seed: int = 0, active: float = 0.2, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, *shape, generator=generator)
    return values * (torch.rand(count, *shape, generator=generator) < active)


def compact(values: Tensor) -> CompactCodes:
    return CompactCodes.from_batches(values.split(4))


def changed(kept: CompactCodes, **parts: Any) -> CompactCodes:
    return CompactCodes(**{**kept.arrays(), "shape": kept.shape, **parts})


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_goes_in_comes_out(data: st.DataObject) -> None:
    count, *shape = data.draw(st.tuples(*[st.integers(0, 5)], *[st.integers(1, 4)] * 3))
    size = torch.Size(shape).numel()
    number = st.just(0.0) | st.floats(width=32, allow_nan=False, allow_infinity=False)
    flat = data.draw(st.lists(st.lists(number, min_size=size, max_size=size), min_size=count, max_size=count))
    values = torch.tensor(flat, dtype=torch.float32).view(count, *shape)
    if data.draw(st.booleans()):
        values = values.contiguous(memory_format=torch.channels_last)
    kept = CompactCodes.from_batches(values.split(data.draw(st.integers(1, 3))))
    assert len(kept) == count
    assert kept.nbytes == 8 * (count + 1) + 6 * int((values != 0).sum())
    assert torch.equal(kept.dense(torch.arange(count)), values)
    rows = st.lists(st.integers(0, count - 1), max_size=8) if count else st.just([])
    index = torch.tensor(data.draw(rows), dtype=torch.int64)
    assert torch.equal(kept.dense(index), values[index])


@pytest.mark.parametrize("arranged", [torch.contiguous_format, torch.channels_last])
def test_the_order_in_memory_stays(arranged: torch.memory_format) -> None:
    values = codes().contiguous(memory_format=arranged)
    assert compact(values).dense(torch.arange(6)).stride() == values.stride()


def test_images_without_codes() -> None:
    values = codes(7)
    values[[0, 3, 4, 6]] = 0
    assert torch.equal(compact(values).dense(torch.arange(7)), values)
    nothing = compact(torch.zeros(3, *SHAPE))
    assert len(nothing.values) == 0
    assert torch.equal(nothing.dense(torch.tensor([2, 0])), torch.zeros(2, *SHAPE))
    assert compact(torch.zeros(0, *SHAPE)).dense(torch.arange(0)).shape == (0, *SHAPE)


@pytest.mark.parametrize(("size", "kind"), [(1 << 16, torch.uint16), ((1 << 16) + 1, torch.int32)])
def test_positions_are_as_short_as_they_can_be(size: int, kind: torch.dtype) -> None:
    values = torch.zeros(2, size, 1, 1)
    values[0, -1], values[1, 0], values[1, size // 2 + 1] = 1.0, 2.0, 3.0
    kept = compact(values)
    assert kept.positions.dtype == kind
    assert torch.equal(kept.dense(torch.arange(2)), values)


def test_a_dense_layers_codes_have_one_axis() -> None:
    values = codes(shape=(9,))
    assert torch.equal(compact(values).dense(torch.arange(6)), values)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda kept: {"offsets": kept.offsets.int()}, "other types"),
        (lambda kept: {"positions": kept.positions.int()}, "other types"),
        (lambda kept: {"values": kept.values.long()}, "other types"),
        (lambda kept: {"values": kept.values[:-1]}, "one position and one value"),
        (lambda kept: {"values": kept.values[None]}, "one position and one value"),
        (lambda kept: {"offsets": kept.offsets[:0]}, "offsets must rise"),
        (lambda kept: {"offsets": kept.offsets + 1}, "offsets must rise"),
        (lambda kept: {"offsets": kept.offsets[:-1]}, "offsets must rise"),
        (lambda kept: {"offsets": kept.offsets[[0, 2, 1, 3, 4, 5, 6]]}, "offsets must rise"),
        (lambda kept: {"shape": (1, 2, 2)}, "positions must lie in"),
        (lambda kept: {"positions": torch.zeros_like(kept.positions)}, "positions must rise"),
        (lambda kept: {"values": kept.values / 0}, "finite"),
        (lambda kept: {"shape": (60,), "channels_last": True}, "channels last"),
    ],
)
def test_parts_that_do_not_fit_are_refused(spoil: Callable[[CompactCodes], dict[str, Any]], complaint: str) -> None:
    kept = compact(codes())
    assert changed(kept).checksum() == kept.checksum()
    with pytest.raises(ValueError, match=complaint):
        changed(kept, **spoil(kept))


def test_too_many_are_foreseen_from_the_first_batch() -> None:
    values = codes(64)
    asked = []

    def batches() -> Any:
        for batch in values.split(4):
            asked.append(len(batch))
            yield batch

    size = compact(values).nbytes
    with pytest.raises(TooLargeError, match=r"take about .* MiB"):
        CompactCodes.from_batches(batches(), images=64, limit=size // 2)
    assert asked == [4]
    assert CompactCodes.from_batches(batches(), images=64, limit=2 * size).nbytes == size


def test_codes_that_become_too_many_are_noticed() -> None:
    values = torch.cat([codes(8, active=0.01), codes(56, active=0.9)])
    limit = compact(values).nbytes // 2
    with pytest.raises(TooLargeError, match="and more"):
        CompactCodes.from_batches(values.split(8), images=64, limit=limit)


@pytest.mark.parametrize("arranged", [torch.contiguous_format, torch.channels_last])
def test_files_hold_them_exactly(tmp_path: Path, arranged: torch.memory_format) -> None:
    keep, values = CodeCache(folder=tmp_path / "codes"), codes().contiguous(memory_format=arranged)
    assert keep.load("k", 6, SHAPE) is None
    keep.save("k", compact(values))
    found = keep.load("k", 6, SHAPE)
    assert found is not None
    assert torch.equal(found.dense(torch.arange(6)), values)
    assert found.dense(torch.arange(6)).stride() == values.stride()


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CodeCache().save("k", compact(codes()))
    assert CodeCache().load("k", 6, SHAPE) is None
    assert list(tmp_path.iterdir()) == []


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def _rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    arrays, meta = read_tensors(path)
    arrays = {name: part.clone() for name, part in arrays.items()}
    change(arrays, meta)
    write_tensors(path, arrays, meta)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: _flip(path, -1),
        lambda path: _flip(path, -200),
        lambda path: _rewrite(path, lambda arrays, meta: arrays.pop("values")),
        lambda path: _rewrite(path, lambda arrays, meta: arrays.update(more=torch.ones(1))),
        lambda path: _rewrite(path, lambda arrays, meta: arrays.update(offsets=torch.tensor(3))),
        lambda path: _rewrite(path, lambda arrays, meta: arrays["values"].mul_(2)),
        lambda path: _rewrite(path, lambda arrays, meta: meta.update(key="another")),
        lambda path: _rewrite(path, lambda arrays, meta: meta.update(channels_last=True)),
        lambda path: _rewrite(path, lambda arrays, meta: meta.clear()),
    ],
)
def test_a_damaged_or_foreign_file_is_not_used(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    keep, kept = CodeCache(folder=tmp_path), compact(codes())
    keep.save("k", kept)
    damage(tmp_path / "k.safetensors")
    assert keep.load("k", 6, SHAPE) is None
    keep.save("k", kept)
    assert keep.load("k", 6, SHAPE) is not None


def test_codes_of_other_images_or_another_shape_are_not_used(tmp_path: Path) -> None:
    keep = CodeCache(folder=tmp_path)
    keep.save("k", compact(codes()))
    assert keep.load("k", 5, SHAPE) is None
    assert keep.load("k", 6, (3, 4, 5)) is None
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "k.safetensors").read_bytes())
    assert keep.load("other", 6, SHAPE) is None


def test_the_disks_share_is_kept_by_letting_the_least_used_go(tmp_path: Path) -> None:
    kept = compact(codes(50))
    keep = CodeCache(folder=tmp_path, disk=3 * (kept.nbytes + 1024))
    for number, name in enumerate("abc"):
        keep.save(name, kept)
        os.utime(tmp_path / f"{name}.safetensors", (number, number))
    assert keep.load("a", 50, SHAPE) is not None  # used just now
    keep.save("d", kept)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= keep.disk
    CodeCache(folder=tmp_path, disk=kept.nbytes).save("e", kept)
    assert not (tmp_path / "e.safetensors").exists()


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".partial-x.safetensors").write_bytes(b"half")
    CodeCache(folder=tmp_path).save("k", compact(codes()))
    assert not (tmp_path / ".partial-x.safetensors").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("")
    with pytest.raises(StoreError, match="codes"):
        CodeCache(folder=tmp_path / "codes").save("k", compact(codes()))


WRITER = """
import sys
from pathlib import Path
import torch
from sparseguard.targets.training.code_cache.csr import CompactCodes
from sparseguard.targets.training.code_cache.disk import CodeCache
values = torch.arange(4000.0).view(50, 2, 8, 5) % 3
keep = CodeCache(folder=Path(sys.argv[1]), disk=60_000)
for turn in range(40):
    keep.save("same", CompactCodes.from_batches(values.split(7)))
    keep.save(f"own{sys.argv[2]}{turn}", CompactCodes.from_batches(values.split(7)))
    found = keep.load("same", 50, (2, 8, 5))
    assert found is None or torch.equal(found.dense(torch.arange(50)), values)
"""


@pytest.mark.slow
def test_two_processes_may_write_the_same_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "ab"]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 60_000
    CodeCache(folder=tmp_path).save("same", compact(codes()))
    assert CodeCache(folder=tmp_path).load("same", 6, SHAPE) is not None
    assert list(tmp_path.glob(".partial-*")) == []


def layer(seed: int = 0, **options: Any) -> SparseCode2d:
    made = SparseCode2d(1, 4, generator=torch.Generator().manual_seed(seed), **options)
    made(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    return made


def test_a_layers_fingerprint_tells_what_its_codes_depend_on() -> None:
    known = layer().fingerprint()
    assert isinstance(layer(), FixedCode)
    assert layer().fingerprint() == known
    others = [
        layer(seed=1),
        layer(lambd=0.25),
        layer(lambd=(0.5, 0.5, 0.5, 0.4)),
        layer(steps=16),
        layer(tolerance=1e-3),
        layer(method=Lca()),
        layer(standardize=False),
        layer(nonnegative=False),
        layer(stride=2),
        layer(gradient=Detached()),
    ]
    prints = {other.fingerprint() for other in others}
    assert len(prints) == len(others)
    assert known not in prints
    moved = layer()
    with torch.no_grad():
        moved.dictionary[0, 0, 0, 0] += 1e-6
    assert moved.fingerprint() != known


def test_a_layer_learns_by_gradients_or_locally() -> None:
    assert not layer().learns
    assert layer(backprop=True).learns
    assert layer(hebbian=True).learns


def test_the_memory_of_an_image_is_what_its_active_coefficients_need() -> None:
    values = codes(20, active=0.05, shape=(16, 28, 28))
    assert compact(values).nbytes < values.nbytes * 0.05 * 1.6 < MIB
