"""Make src/sparseguard/data/datasets/fashion_mini.npz from the official Fashion-MNIST files.

Of the 60,000 training images, exact duplicates are dropped (all copies, where their labels disagree), 1,000 of each
class are drawn and dealt out to the five parts. The same files give the same bytes with the same zlib.

    python scripts/make_fashion_mini.py --from FOLDER --out src/sparseguard/data/datasets/fashion_mini.npz

Put the SHA-256 it prints into src/sparseguard/data/datasets/fashion_mini.py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparseguard.data.readers.idx import Bytes, read_images, read_labels
from sparseguard.data.splits import SPLIT_PERCENTAGES, Index, balanced_index, partition_index

SIZE = 10_000


def without_duplicates(images: Bytes, labels: Bytes) -> Index:
    """Return the indices of ``(n, h, w)`` images that stay: the first of each, none where the copies' labels differ."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    _, first, group = np.unique(rows.view(f"V{rows.shape[1]}").ravel(), return_index=True, return_inverse=True)
    agree = np.ones(len(first), dtype=bool)
    agree[group[labels != labels[first][group]]] = False
    return np.sort(first[agree])


def draw(images: Bytes, labels: Bytes, size: int = SIZE) -> dict[str, npt.NDArray[np.integer]]:
    """Draw ``size`` different images, the same number of each class, and deal them out to the parts."""
    kept = without_duplicates(images, labels)
    drawn = kept[balanced_index(labels[kept])[:size]]
    parts = partition_index(labels[drawn], SPLIT_PERCENTAGES)
    source = drawn[np.concatenate(list(parts.values()))]
    return {
        "images": images[source],
        "labels": labels[source],
        "part": np.repeat(np.arange(len(parts), dtype=np.uint8), [len(index) for index in parts.values()]),
        "source": source.astype(np.int32),
    }


def pack(arrays: dict[str, npt.NDArray[np.integer]]) -> bytes:
    """Return the arrays as the bytes of an npz file, without the time of writing."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return content.getvalue()


def main() -> None:
    """Read the official files, write the small one, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="folder of the official .gz files")
    parser.add_argument("--out", type=Path, required=True, help="the npz file to write")
    options = parser.parse_args()
    images = read_images(options.folder / "train-images-idx3-ubyte.gz")
    labels = read_labels(options.folder / "train-labels-idx1-ubyte.gz")
    content = pack(draw(images, labels))
    options.out.write_bytes(content)
    dropped = len(images) - len(without_duplicates(images, labels))
    print(f"{options.out}: {len(content):,} bytes, {dropped} of {len(images):,} images dropped as duplicates")
    print(f"SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
