"""Train the priors in src/sparseguard/generators/pretrained on official Fashion-MNIST training images.

Images that are in fashion-mini, and exact copies of such, are left out, so that every image of fashion-mini is unknown
to them. ``fashion-mini`` has seen five classes, those of `KNOWN`; ``fashion-mini-ten`` all ten. Nothing is chosen by
looking at fashion-mini.

    python scripts/make_priors.py fashion-mini --from FOLDER --work FOLDER [--threads 1]

Goes on where it was stopped. What was used, and the distance over training, is on each prior's card, ``prior.json``.
Other versions of torch, and other machines, give other images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

# make_fashion_net knows which official images are not in fashion-mini
from make_fashion_net import outside_mini
from sparseguard.cli.console import ProgressBars
from sparseguard.data.datasets.fashion_mnist import CLASSES
from sparseguard.generators import (
    StyleFit,
    StylePrior,
    describe_style_prior,
    draw_samples,
    encode_grid,
    fingerprint_images,
    save_prior,
    style_prior_tensors,
    train_style_gan,
)
from sparseguard.generators.sampling import SAMPLES
from sparseguard.metrics import FashionNet, frechet_distance
from sparseguard.types import ImageSet

KNOWN = ("T-shirt/top", "Dress", "Coat", "Sneaker", "Bag")
SHIPPED = {"fashion-mini": KNOWN, "fashion-mini-ten": CLASSES}
ROOT = Path(__file__).resolve().parent.parent / "src" / "sparseguard" / "generators" / "pretrained"
FIT = {"fashion-mini": StyleFit(images=240_000), "fashion-mini-ten": StyleFit(images=140_000)}
MAX_IMAGES = 10_000
JUDGING = ("fashion-mini",)
"""Whose discriminator is kept; all of them would make the package larger."""


def main() -> None:
    """Train one prior and write its folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=sorted(SHIPPED))
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="official Fashion-MNIST files")
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    classes = SHIPPED[given.name]
    pixels, labels = outside_mini(given.folder)
    kept = torch.isin(labels, torch.tensor([CLASSES.index(name) for name in classes]))
    images = ImageSet(pixels=(pixels[kept] * 255).round().to(torch.uint8), labels=labels[kept], classes=CLASSES)
    network = FashionNet()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:MAX_IMAGES]
    real = network.features(images.batch(order))

    def judge(fakes: torch.Tensor) -> float:
        value = frechet_distance(network.features(fakes), real, network.minimum).value
        print(f"{time.strftime('%H:%M:%S')} FD(fashion-net) {value:.2f}", flush=True)
        assert value is not None
        return value

    started = time.monotonic()
    given.work.mkdir(parents=True, exist_ok=True)
    from rich.progress import Progress

    fit = FIT[given.name]
    with Progress(disable=True) as bars:
        fitted = train_style_gan(
            images, fit, flips=True, seed=0, device=torch.device("cpu"), progress=ProgressBars(bars), label=given.name,
            distance=judge, checkpoint=given.work / f"{given.name}.safetensors",
        )  # fmt: skip
    card = describe_style_prior(given.name, fitted, fit, images.shape).model_copy(
        update={
            "classes": classes,
            "trained_on": f"{len(images):,} official Fashion-MNIST training images that are not in fashion-mini, of "
            f"the classes {', '.join(classes)}",
            "source": (
                "scripts/make_priors.py, seed 0.",
                f"The distance in its history is FD(fashion-net) of 2,048 samples to {MAX_IMAGES:,} of these images.",
                f"Trained on {given.threads} thread(s) with torch {torch.__version__}, the last part in "
                f"{time.monotonic() - started:.0f} s.",
                "Fashion-MNIST: MIT licence, see data/datasets/fashion_mini.LICENSE.",
            ),
        }
    )
    picture = encode_grid(draw_samples(StylePrior(card, None, fitted.generator, fitted.discriminator)))
    kept = {
        name: value
        for name, value in style_prior_tensors(fitted).items()
        if given.name in JUDGING or not name.startswith("discriminator")
    }
    save_prior(ROOT / given.name, card, fingerprint_images(images), kept, {SAMPLES: picture})


if __name__ == "__main__":
    main()
