"""IDX files: what was written is read, and a damaged file is refused with a message, never with another error."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from sparseguard.core.errors import DataError
from sparseguard.data.readers.idx import LARGEST, read_images, read_labels

SMALL = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "file"


@given(array=np_st.arrays(np.uint8, np_st.array_shapes(min_dims=3, max_dims=3, max_side=9)), compressed=st.booleans())
def test_images_survive_the_round_trip(path, idx, array, compressed):
    path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    read = read_images(path)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


@given(array=np_st.arrays(np.uint8, st.integers(1, 300)), compressed=st.booleans())
def test_labels_survive_the_round_trip(path, idx, array, compressed):
    path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    assert np.array_equal(read_labels(path), array)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_at_any_byte_is_refused(path, idx, compressed):
    whole = gzip.compress(idx(SMALL), mtime=0) if compressed else idx(SMALL)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="file"):
            read_images(path)


@given(position=st.integers(0, 15), flip=st.integers(1, 255))
def test_a_damaged_header_is_refused(path, idx, position, flip):
    damaged = bytearray(idx(SMALL))
    damaged[position] ^= flip
    path.write_bytes(damaged)
    with pytest.raises(DataError):
        read_images(path)


@given(data=st.data())
def test_a_damaged_gzip_file_gives_the_right_images_or_is_refused(path, idx, data):
    damaged = bytearray(gzip.compress(idx(SMALL), mtime=0))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        read = read_images(path)
    except DataError:
        return
    assert np.array_equal(read, SMALL)


@given(content=st.binary(max_size=64), gzipped=st.booleans())
def test_any_other_file_is_refused(path, content, gzipped):
    path.write_bytes(gzip.compress(content) if gzipped else content)
    with pytest.raises(DataError):
        read_images(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_trailing_bytes_are_refused(path, idx, compressed):
    content = idx(SMALL) + b"\0"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(DataError, match="declares 2 x 3 x 4 = 24 bytes, found more"):
        read_images(path)


def test_what_follows_a_gzip_stream_is_refused(path, idx):
    path.write_bytes(gzip.compress(idx(SMALL)) + b"junk")
    with pytest.raises(DataError, match="cannot be read"):
        read_images(path)


def test_images_are_no_labels_and_the_message_says_what_was_found(path, idx):
    path.write_bytes(idx(SMALL))
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)
    assert "'00 00 08 03', expected '00 00 08 01'" in str(caught.value)


@pytest.mark.parametrize("kind", [0x09, 0x0B, 0x0C, 0x0D, 0x0E])
def test_other_types_than_unsigned_bytes_are_refused(path, kind):
    path.write_bytes(struct.pack(">4BI", 0, 0, kind, 1, 1) + bytes(8))
    with pytest.raises(DataError, match="unsigned bytes"):
        read_labels(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for absent in (tmp_path / "absent", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match=absent.name[:50]):
            read_images(absent)


@pytest.mark.parametrize("shape", [(0, 28, 28), (5, 0, 28), (5, 28, 0)])
def test_a_file_without_a_pixel_is_refused(path, idx, shape):
    path.write_bytes(idx(np.zeros(shape, dtype=np.uint8)))
    with pytest.raises(DataError, match="expected 1 to"):
        read_images(path)


@pytest.mark.parametrize("sizes", [(LARGEST, 2, 1), (2**32 - 1,) * 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_absurd_sizes_are_refused_without_allocating(path, sizes, compressed):
    content = struct.pack(">4B3I", 0, 0, 8, 3, *sizes) + bytes(100)
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert _peak_of_refusal(path) < 2_000_000


def test_memory_follows_the_file_not_the_header(path):
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, LARGEST // 784, 28, 28) + bytes(1000))
    assert _peak_of_refusal(path) < 4_000_000


def test_a_gzip_bomb_is_refused_before_it_unfolds(path):
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = [squeeze.compress(struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28))]
    bomb += [squeeze.compress(bytes(1 << 20)) for _ in range(64)]
    path.write_bytes(b"".join([*bomb, squeeze.flush()]))
    assert path.stat().st_size < 100_000
    assert _peak_of_refusal(path) < 2_000_000


def _peak_of_refusal(path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="declares"):
            read_images(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
