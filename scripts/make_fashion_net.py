"""Train src/sparseguard/metrics/fashion_net.safetensors on the official Fashion-MNIST training images.

Images that are in fashion-mini, and exact copies of such, are left out. Nothing is chosen by looking at fashion-mini:
the number of epochs is fixed, and its accuracy on all 10,000 of fashion-mini's images is measured once, at the end.

    python scripts/make_fashion_net.py --from FOLDER --out src/sparseguard/metrics/fashion_net.safetensors

The header of the file says how it was trained. Other versions of torch, and other machines, give other last digits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.core.atomic_io import write_tensors
from sparseguard.core.seeding import derive
from sparseguard.data import DATASETS
from sparseguard.data.datasets.fashion_mini import FILE
from sparseguard.data.readers.idx import read_images, read_labels
from sparseguard.metrics.feature_networks import fashion_layers

EPOCHS, BATCH, RATE = 12, 128, 2e-3
MINI = Path(__file__).parent.parent / "src" / "sparseguard" / "data" / "datasets" / FILE


def outside_mini(folder: Path) -> tuple[Tensor, Tensor]:
    """Return images ``(n, 1, 28, 28)`` in [0, 1] and labels of the official training half outside fashion-mini."""
    images = read_images(folder / "train-images-idx3-ubyte.gz")
    labels = read_labels(folder / "train-labels-idx1-ubyte.gz")
    with np.load(MINI, allow_pickle=False) as arrays:
        taken = {image.tobytes() for image in arrays["images"]}
        assert all(images[place].tobytes() in taken for place in arrays["source"]), "other files than fashion-mini's"
    free = np.array([image.tobytes() not in taken for image in images])
    return torch.from_numpy(images[free]).unsqueeze(1).float() / 255, torch.from_numpy(labels[free].astype(np.int64))


def augmented(images: Tensor) -> Tensor:
    """Shift the batch by up to two pixels each way and mirror half of it."""
    flip = torch.rand(len(images)) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    down, right = (int(step) for step in torch.randint(0, 5, (2,)))
    return F.pad(images, (2, 2, 2, 2))[:, :, down : down + 28, right : right + 28]


def fit(images: Tensor, labels: Tensor) -> nn.Sequential:
    """Train by Adam with a one-cycle rate."""
    torch.manual_seed(derive(purpose="fashion-net"))
    net = fashion_layers()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, weight_decay=1e-5)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE * 2, total_steps=steps)
    for epoch in range(EPOCHS):
        started, total = time.monotonic(), 0.0
        for index in torch.randperm(len(images))[: steps // EPOCHS * BATCH].split(BATCH):
            loss = F.cross_entropy(net(augmented(images[index])), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}: loss {total * EPOCHS / steps:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Sequential) -> float:
    """Return the share of fashion-mini's images it classifies rightly."""
    right = total = 0
    for part in DATASETS["fashion-mini"]().load().by_name().values():
        right += int((net(part.images).argmax(1) == part.labels).sum())
        total += len(part)
    return right / total


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="folder of the official .gz files")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    options = parser.parse_args()
    images, labels = outside_mini(options.folder)
    net = fit(images, labels)
    facts = {
        "made_by": "scripts/make_fashion_net.py",
        "images": f"{len(images):,} of the official Fashion-MNIST training images, none of them in fashion-mini",
        "training": f"Adam, one cycle to {2 * RATE:g}, {EPOCHS} epochs of batches of {BATCH}, shifts of 2, mirroring",
        "accuracy_on_fashion_mini": round(accuracy(net), 4),
        "torch": torch.__version__,
    }
    write_tensors(options.out, net.state_dict(), facts)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {facts}")


if __name__ == "__main__":
    main()
