"""Tensors beyond a limit lie in files that leave nothing behind, and hold the same values."""

import errno
import gc
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseguard.core import out_of_core as large
from sparseguard.core.errors import StoreError
from sparseguard.types import ImageSet

MIB = large.MIB
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEGUARD_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    gc.collect()
    with Path("/proc/self/status").open(encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_room_holds_what_is_written(dtype, limit):
    values = torch.arange(60).view(3, 4, 5).to(dtype)
    made = large.allocate((3, 4, 5), dtype, limit)
    made.copy_(values)
    assert made.dtype == dtype
    assert torch.equal(made, values)
    assert torch.equal(made.flatten(1) @ made.flatten(1).T, values.flatten(1) @ values.flatten(1).T)


@linux
def test_beyond_the_limit_memory_is_not_the_process_own():
    before = anonymous()
    rows = large.allocate((128, MIB), torch.uint8, limit=16 * MIB)
    rows.fill_(7)
    assert anonymous() - before < 16 * MIB
    inside = large.allocate((128, MIB), torch.uint8, limit=256 * MIB)
    inside.fill_(7)
    assert anonymous() - before > 96 * MIB, "the measure itself"


def test_nothing_is_left_in_the_folder(scratch):
    rows = large.allocate((4, MIB), torch.uint8, limit=0)
    assert list(scratch.iterdir()) == []
    rows.fill_(1)
    assert int(rows.sum(dtype=torch.int64)) == 4 * MIB


@linux
def test_a_full_disk_is_found_before_anything_is_written(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="disk is full"):
        large.allocate((4, MIB), torch.uint8, limit=0)


def test_a_folder_that_is_none_is_an_error_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARSEGUARD_SCRATCH", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="file"):
        large.allocate((2,), torch.uint8, limit=0)


@pytest.mark.parametrize("told", ["", "-1", "1e3", "lots"])
def test_a_limit_that_is_no_number_is_refused(told, monkeypatch):
    monkeypatch.setenv("SPARSEGUARD_TAP_MIB", told)
    with pytest.raises(StoreError, match="SPARSEGUARD_TAP_MIB"):
        large.tap_limit()


def test_the_limit_is_counted_in_mib(monkeypatch):
    assert large.tap_limit() == 1024 * MIB
    monkeypatch.setenv("SPARSEGUARD_TAP_MIB", "3")
    assert large.tap_limit() == 3 * MIB


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), limit=st.sampled_from([0, 1 << 20]))
def test_batches_are_gathered_in_order(sizes, limit):
    batches = [torch.rand(size, 2, 3) for size in sizes]
    assert torch.equal(large.gather(batches, sum(sizes), limit), torch.cat(batches))


@pytest.mark.parametrize(("batches", "count"), [([], 0), ([torch.rand(2, 1)], 3)])
def test_missing_rows_are_an_error(batches, count):
    with pytest.raises(ValueError, match="rows"):
        large.gather(batches, count, 0)


@given(index=st.lists(st.integers(0, 9)), chunk=st.sampled_from([1, 24, 1 << 20]))
def test_picking_and_chunks_agree_with_indexing(index, chunk):
    rows = torch.rand(10, 6)
    at = torch.tensor(index, dtype=torch.int64)
    assert torch.equal(large.select_rows(rows, at, 0), rows[at])
    assert torch.equal(torch.cat([rows[some] for some in large.row_chunks(rows, chunk)]), rows)
    assert torch.equal(torch.cat([rows[:, some] for some in large.column_chunks(rows, chunk)], 1), rows)


@pytest.mark.parametrize("shape", [(9, 4), (9, 3, 4, 5)])
def test_sums_in_chunks_are_those_of_the_whole(shape, monkeypatch):
    monkeypatch.setattr(large, "CHUNK", 64)
    monkeypatch.setattr(large.row_chunks, "__defaults__", (64,))
    monkeypatch.setattr(large.column_chunks, "__defaults__", (64,))
    rows, others = torch.randn(shape), torch.randn(5, *shape[1:])
    axes = (0,) if len(shape) == 2 else (0, 2, 3)
    mean, spread = large.mean_and_std(rows, axes)
    torch.testing.assert_close(mean, rows.double().mean(axes, keepdim=True))
    torch.testing.assert_close(spread, rows.double().std(axes, keepdim=True))
    torch.testing.assert_close(large.standardize_rows(rows, mean, spread), ((rows - mean) / spread).float())
    flat, few = rows.flatten(1), others.flatten(1)
    centre = flat.double().mean(0)
    z, w = flat.double() - centre, few.double() - centre
    torch.testing.assert_close(large.inner_products(flat, flat, centre), z @ z.T)
    torch.testing.assert_close(large.inner_products(few, flat, centre), w @ z.T)
    pixels = torch.rand(9, 2)
    gram, cross = large.moments(flat, centre, pixels, pixels.double().mean(0))
    torch.testing.assert_close(gram, z.T @ z)
    torch.testing.assert_close(cross, z.T @ (pixels.double() - pixels.double().mean(0)))


def test_a_large_subset_of_images_has_the_same_pixels(monkeypatch):
    monkeypatch.setattr("sparseguard.types.datasets.IMAGES_LIMIT", 10)
    images = ImageSet(
        pixels=torch.randint(256, (7, 3, 4, 4), dtype=torch.uint8), labels=torch.arange(7) % 2, classes=("a", "b")
    )
    some = images.select(torch.tensor([5, 0, 5]))
    assert torch.equal(some.pixels, images.pixels[[5, 0, 5]])
    assert some.labels.tolist() == [1, 0, 1]
