"""Audit a torchvision ResNet, protect it with a sparse front, fine-tune it, and audit it again.

    python examples/audit_and_protect.py --out drawn                      fashion-mini, which ships with the package
    python examples/audit_and_protect.py --data cifar10 --path ARCHIVE --private 5000 --epochs 10 --thorough --out drawn

The attacker sees the output of the first block, as in split inference, where the rest of the network runs elsewhere.
Needs torchvision. Draws private images above their reconstructions, before and after.
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

import sparseguard as sg

TAP = "net.layer1"
QUICK = [
    {"name": "mean-image"},
    {"name": "class-mean"},
    {"name": "nearest-neighbor"},
    {"name": "ridge", "copies": 1},
    {"name": "gradient-inversion", "steps": 20, "conditions": {"max_images": 8}},
]
"""Attacks of a minute; those that an audit runs by default find more."""


class Normalized(nn.Module):
    """A ResNet that takes images in [0, 1], grey or color."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = resnet18(num_classes=classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.net(images.expand(-1, 3, -1, -1) * 2 - 1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, images: sg.ImageSet, epochs: int) -> None:
    """Train on batches of 64."""
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images.batch(index)), images.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


def audit(model: nn.Module, images: tuple[sg.ImageSet, sg.ImageSet], name: str, out: Path, thorough: bool) -> sg.Audit:
    """Audit with private and held-out images and print the verdict."""
    attacks = {} if thorough else {"attacks": QUICK}
    result = sg.audit(model, *images, taps=[TAP], name=name, out=out / "runs" / name, **attacks)
    verdict = sg.verdict(result.records[0])
    print(f"{name}: {verdict.severity}", *verdict.sentences, sep="\n  ")
    return result


def draw(result: sg.Audit) -> np.ndarray:
    """Return the first private images above their reconstructions by ridge."""
    record = result.records[0]
    pictures = sg.read_pictures(result.folder / "records" / f"{record.case.slug}.safetensors")
    rows = [pictures.gallery[name][:8] for name in ("original", "ridge")]
    return np.concatenate([np.concatenate(list(row), axis=2) for row in rows], axis=1)  # (c, 2 h, 8 w)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("drawn"))
    parser.add_argument("--data", default="fashion-mini", choices=sorted(sg.DATASETS))
    parser.add_argument("--path", default=None)
    parser.add_argument("--private", type=int, default=150)
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--thorough", action="store_true", help="run the attacks that an audit runs by default")
    options = parser.parse_args()
    torch.manual_seed(0)
    settings = {"private": options.private, **({"path": options.path} if options.path else {})}
    splits = sg.DATASETS[options.data](**settings).load()
    private, auxiliary = splits.private, splits.auxiliary
    images = private, auxiliary.select(torch.arange(min(len(auxiliary), options.held_out)))

    model = Normalized(len(private.classes))
    train(model, torch.optim.Adam(model.parameters(), lr=1e-3), private, options.epochs)
    before = audit(model, images, "resnet18", options.out, options.thorough)

    example = private.batch(torch.arange(2))
    protected = sg.protect(model, before="net.conv1", example=example, features=(8, 8), steps=(8, 4))
    print(protected.changes)
    optimizer = torch.optim.Adam(protected.model.parameters(), lr=1e-3)
    protected.attach(optimizer)
    train(protected.model, optimizer, private, options.epochs)
    after = audit(protected.model, images, "resnet18 behind SCA", options.out, options.thorough)

    pixels = np.concatenate([draw(before), draw(after)], axis=1).transpose(1, 2, 0)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture = picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.NEAREST)
    picture.save(options.out / "before_and_after.png")
    print("before_and_after.png")


if __name__ == "__main__":
    main()
