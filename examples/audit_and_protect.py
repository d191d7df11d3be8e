"""Audit a torchvision ResNet, protect it with a sparse front, fine-tune it, and audit it again.

    python examples/audit_and_protect.py --out drawn                      fashion-mini, which ships with the package
    python examples/audit_and_protect.py --data cifar10 --path ARCHIVE --private 5000 --epochs 10 --thorough --out drawn

What leaks is the output of the first block, as in split inference where the rest of the network runs elsewhere. Needs
torchvision. Draws private images above what the best attack makes of them, before and after.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from sparseguard import ImageSet, audit, protect, verdict
from sparseguard.data import DATASETS
from sparseguard.model_audit.runner import ATTACKS, Audit
from sparseguard.record import read_pictures

TAP = "layer1"
QUICK = [
    {"name": "mean-image"},
    {"name": "class-mean"},
    {"name": "nearest-public"},
    {"name": "ridge", "copies": 1},
    {"name": "gradient-inversion", "steps": 20, "setting": {"images": 8}},
]
"""Attacks of a minute; `ATTACKS`, the audit's own, find more."""


class Normalized(nn.Module):
    """A ResNet that takes images in [0, 1], grey or colour."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = resnet18(num_classes=classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.net(images.expand(-1, 3, -1, -1) * 2 - 1)


def fit(model: nn.Module, images: ImageSet, epochs: int, after_step: object = None) -> None:
    """Train with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images.batch(index)), images.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if callable(after_step):
                on_step_end()
    model.eval()


def audited(model: nn.Module, images: tuple[ImageSet, ImageSet], name: str, out: Path, thorough: bool) -> Audit:
    """Audit with private and held-out images and print the verdict."""
    attacks = ATTACKS if thorough else QUICK
    found = audit(model, *images, taps=[f"net.{TAP}"], attacks=attacks, name=name, out=out / "runs" / name)
    told = verdict(found.records[0])
    print(f"{name}: {told.severity}", *told.sentences, sep="\n  ")
    return found


def drawn(found: Audit) -> np.ndarray:
    """Return the gallery's first private images above the search's images of them."""
    record = found.records[0]
    pictures = read_pictures(found.folder / "records" / f"{record.case.slug}.safetensors")
    rows = [pictures.gallery[name][:8] for name in ("original", "ridge")]
    return np.concatenate([np.concatenate(list(row), axis=2) for row in rows], axis=1)  # (c, 2 h, 8 w)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("drawn"))
    parser.add_argument("--data", default="fashion-mini", choices=sorted(DATASETS))
    parser.add_argument("--path", default=None)
    parser.add_argument("--private", type=int, default=150)
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--thorough", action="store_true", help="attack as an audit does unless told otherwise")
    given = parser.parse_args()
    torch.manual_seed(0)
    settings = {"private": given.private, **({"path": given.path} if given.path else {})}
    splits = DATASETS[given.data](**settings).load()
    private, others = splits.private, splits.auxiliary
    images = private, others.select(torch.arange(min(len(others), given.held_out)))
    model = Normalized(len(private.classes))
    fit(model, private, given.epochs)
    before = audited(model, images, "resnet18", given.out, given.thorough)

    guarded = protect(model, before="net.conv1", example=private.batch(torch.arange(2)), features=(8, 8), steps=(8, 4))
    print(guarded.changes)
    fit(guarded.model, private, given.epochs, guarded.apply_updates)
    after = audited(guarded.model, images, "resnet18 behind SCA", given.out, given.thorough)

    pixels = np.concatenate([drawn(before), drawn(after)], axis=1).transpose(1, 2, 0)
    shown = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(shown).resize((shown.shape[1] * 4, shown.shape[0] * 4), Image.Resampling.NEAREST).save(
        given.out / "before_and_after.png"
    )
    print("before_and_after.png")


if __name__ == "__main__":
    main()
