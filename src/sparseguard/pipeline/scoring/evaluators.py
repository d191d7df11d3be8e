"""Evaluators: classifiers trained on auxiliary data, used by no attack, of other architectures than any target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.core.atomic_io import read_tensors, write_folder, write_tensors
from sparseguard.core.hashing import digest
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.metrics import class_consistency
from sparseguard.numerics.supervised import Batch, Problem, Schedule, train_supervised
from sparseguard.types import ImageSet, Splits

REVISION = 1
BUDGET: dict[str, float] = {"steps": 800, "batch": 64, "rate": 2e-3, "every": 50, "patience": 6}
"""Steps at most, images a step, highest rate, steps between looks at auxiliary_val, looks without a better one."""

CHUNK = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """A trained classifier.

    Args:
        name: what tables call it.
        module: from images in [0, 1] to logits; in eval mode and frozen.
        accuracy: on test.
    """

    name: str
    module: nn.Sequential
    accuracy: float

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``(n, classes)`` of images ``(n, c, h, w)`` in [0, 1], on the CPU."""
        return self._through(self.module, images)

    def features(self, images: Tensor) -> Tensor:
        """Return what the last layer is given, ``(n, d)``, on the CPU."""
        return self._through(self.module[:-1], images)

    @torch.no_grad()
    def _through(self, module: nn.Sequential, images: Tensor) -> Tensor:
        device = next(self.module.parameters()).device
        return torch.cat([module(batch.to(device)).float().cpu() for batch in images.split(CHUNK)])


def pooling_net(shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Return three blocks of 3 x 3 convolutions, batch normalization and maxima, then means over quarters.

    From 48 pixels a side on, the first convolution takes every second pixel.
    """
    layers: list[nn.Module] = []
    first = 2 if min(shape[1:]) >= 48 else 1
    for before, width, stride in ((shape[0], 16, first), (16, 32, 1), (32, 64, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, classes))


def striding_net(shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Return two strided 5 x 5 convolutions and a dense layer that weighs every place, without normalization."""
    layers: list[nn.Module] = []
    for before, width in ((shape[0], 24), (24, 48)):
        layers += [nn.Conv2d(before, width, 5, stride=2, padding=2), nn.LeakyReLU(0.1)]
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Dropout(0.3), nn.Linear(48 * 49, 128), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(128, classes))


NETWORKS: dict[str, Callable[[tuple[int, int, int], int], nn.Sequential]] = {
    "pooling": pooling_net,
    "striding": striding_net,
}
"""From an image's shape and the number of classes to an untrained evaluator; the two read images by different means."""


def load_evaluators(splits: Splits, folder: Path, device: torch.device, progress: Progress) -> list[Evaluator]:
    """Return the evaluators from ``folder/evaluators/KEY``; train them first if they are not there.

    They learn on auxiliary (shifted a little, and mirrored where that keeps the class), keep the weights of the
    lowest loss on auxiliary_val, and see neither private images nor reconstructions. In layout ``paper`` the test
    images include what they learned on, so that their accuracy flatters them.

    Args:
        splits: the images.
        folder: the run folder.
        device: where they are trained and left.
        progress: told of every step.

    Raises:
        TrainingError: when a loss is not finite.
        StoreError: when the folder cannot be read or written.
    """
    key = digest(
        {
            "stage": "evaluators",
            "revision": REVISION,
            "budget": BUDGET,
            "data": [splits.name, splits.flips_keep_class],
            "fingerprints": [part.fingerprint() for part in (splits.auxiliary, splits.auxiliary_val, splits.test)],
        }
    )
    home = folder / "evaluators" / key
    if not home.exists():
        trained = {name: _train(name, splits, device, progress) for name in NETWORKS}

        def fill(aside: Path) -> None:
            for name, module in trained.items():
                every = torch.arange(len(splits.test)).split(CHUNK)
                right = [class_consistency(splits.test.batch(some), splits.test.labels[some], module) for some in every]
                accuracy = float(torch.cat(right).mean())
                write_tensors(aside / f"{name}.safetensors", module.state_dict(), {"accuracy": accuracy})

        write_folder(home, fill)
    return [_read(name, home, splits, device) for name in NETWORKS]


def _read(name: str, home: Path, splits: Splits, device: torch.device) -> Evaluator:
    weights, facts = read_tensors(home / f"{name}.safetensors")
    with torch.random.fork_rng():  # building draws weights
        module = NETWORKS[name](splits.test.shape, len(splits.test.classes))
    module.load_state_dict(weights)
    return Evaluator(name=name, module=module.to(device).eval().requires_grad_(False), accuracy=facts["accuracy"])


def _train(name: str, splits: Splits, device: torch.device, progress: Progress) -> nn.Sequential:
    images, generator = splits.auxiliary, torch.Generator()
    seed = derive(purpose="evaluator", evaluator=name, dataset=splits.name)
    generator.manual_seed(seed)
    steps, every = int(BUDGET["steps"]), int(BUDGET["every"])

    def batches(_period: int) -> Iterator[Batch]:
        for _ in range(every):
            index = torch.randint(len(images), (int(BUDGET["batch"]),), generator=generator)
            yield augment(images.batch(index), splits.flips_keep_class, generator), images.labels[index]

    with torch.random.fork_rng(), progress.task(f"evaluator {name}", steps) as advance:
        torch.manual_seed(seed)
        module = NETWORKS[name](images.shape, len(images.classes)).to(device)
        problem = Problem(
            batches=batches,
            loss=lambda batch: F.cross_entropy(module(batch[0].to(device)), batch[1].to(device)),
            validate=lambda: _mean_loss(module, splits.auxiliary_val, device),
            name=f"evaluator {name}",
        )
        schedule = Schedule(
            periods=steps // every,
            patience=int(BUDGET["patience"]),
            rate=lambda step: BUDGET["rate"] * (1 + math.cos(math.pi * step / steps)) / 2,
            validates_start=False,
            advance=advance,
        )
        train_supervised(module, problem, schedule)
    return module


def augment(images: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Return a batch moved by up to a fourteenth of its side each way, half of the images mirrored if ``flip``."""
    height, width = images.shape[2:]
    if flip:
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    margin = max(height, width) // 14
    down, right = (int(step) for step in torch.randint(2 * margin + 1, (2,), generator=generator))
    padded = F.pad(images, (margin,) * 4, mode="replicate")
    return padded[:, :, down : down + height, right : right + width]


@torch.no_grad()
def _mean_loss(module: nn.Module, images: ImageSet, device: torch.device) -> float:
    total = 0.0
    for index in torch.arange(len(images)).split(CHUNK):
        logits = module(images.batch(index).to(device))
        total += float(F.cross_entropy(logits, images.labels[index].to(device), reduction="sum"))
    return total / len(images)
