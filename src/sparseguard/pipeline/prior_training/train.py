"""Training of a prior on a data set's auxiliary data: from images to a folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseguard.core.atomic_io import translate_os_errors
from sparseguard.core.config import describe, parse, parse_named
from sparseguard.core.errors import RecipeError, StoreError, nearest
from sparseguard.core.progress import Progress
from sparseguard.data import DATASETS, DataSet
from sparseguard.generators import (
    PriorCard,
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
from sparseguard.pipeline.prior_training.evaluate import FrechetEvaluator, build_evaluator, describe_distance
from sparseguard.pipeline.recipe.overrides import apply_override
from sparseguard.types import ImageSet


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPrior:
    """A prior that was trained and written.

    Args:
        card: its description, with the history of the distance.
        evaluator: of the distance; None where there were too few images.
    """

    card: PriorCard
    evaluator: FrechetEvaluator | None

    @property
    def history(self) -> list[dict[str, float]]:
        """The distance over training: images shown, distance, probability of augmentation."""
        return list(self.card.construction["history"])


def parse_dataset(name: str, changes: Sequence[str]) -> DataSet:
    """Return a data set by name, with settings changed by ``data.KEY=VALUE``.

    Raises:
        RecipeError: for anything unknown or refused.
    """
    table: dict[str, Any] = {"data": {"name": name}}
    for change in changes:
        if not change.startswith("data."):
            raise RecipeError(f"--set {change}: expected a setting of the data set, such as data.path=FOLDER.")
        apply_override(table, change)
    dataset: DataSet = parse_named(table["data"], DATASETS, "[data]")[1]
    return dataset


def parse_training(changes: Sequence[str], images: int | None = None) -> StyleFit:
    """Return the settings of a training, changed by ``KEY=VALUE``, and the images shown where given.

    Raises:
        RecipeError: for anything unknown or refused.
    """
    table: dict[str, Any] = {}
    for change in changes:
        if "=" not in change:
            raise RecipeError(f"--fit {change}: expected KEY=VALUE, such as width=24.")
        apply_override(table, change)
    return parse(StyleFit, table | ({} if images is None else {"images": images}), "--fit")


def train_prior(
    out: Path,
    dataset: DataSet,
    fit: StyleFit,
    *,
    name: str,
    classes: Sequence[str] | None,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> TrainedPrior:
    """Train a style-based prior on auxiliary alone and write its folder, with a picture of samples.

    While it is trained there is a checkpoint beside the folder, from which the same call goes on after it was killed.

    Args:
        out: the folder, which must not be there.
        dataset: whose auxiliary it learns.
        fit: how.
        name: what tables call it.
        classes: it learns these alone; None for all.
        seed: of the training.
        device: where to compute.
        progress: reports every step.

    Raises:
        RecipeError: for a class the data set does not have, or fewer images than a batch.
        DataError: when the data set cannot be read.
        StoreError: when the folder is there or cannot be written, or the checkpoint is another training's.
        TrainingError: when a loss is not finite.
    """
    if out.exists():
        raise StoreError(f"{out}: exists already. Choose another folder, or remove it.")
    names = _check_classes(dataset, classes)
    _check_writable(out)
    splits = dataset.load()
    images = _select_classes(splits.auxiliary, names)
    if len(images) < fit.batch_size:
        raise RecipeError(
            f"auxiliary of {dataset.name} has {len(images):,} images of these classes, fewer than a batch of "
            f"{fit.batch_size}. Set --fit batch_size={max(2, len(images))} or smaller, or use more classes."
        )
    evaluator = build_evaluator(images, device)
    checkpoint = locate_checkpoint(out)
    resumed, started = checkpoint.exists(), time.monotonic()
    fitted = train_style_gan(
        images, fit, flips=splits.flips_keep_class, seed=seed, device=device, progress=progress, label=name,
        distance=evaluator, checkpoint=checkpoint,
    )  # fmt: skip
    seconds = time.monotonic() - started
    card = describe_style_prior(name, fitted, fit, images.shape)
    card = card.model_copy(
        update={
            "classes": list_classes(images),
            "trained_on": f"{len(images):,} images of auxiliary of {dataset.name} ({_describe_settings(dataset)}), of "
            f"the classes {', '.join(list_classes(images))}",
            "source": (
                f"sparseguard prior train, seed {seed}.",
                describe_distance(evaluator),
                f"Trained on {device.type} with torch {torch.__version__}{', the last part' if resumed else ''} in "
                f"{seconds:.0f} s.",
            ),
            "construction": {**card.construction, **_describe_evaluator(evaluator)},
        }
    )
    prior = StylePrior(card, None, fitted.generator, fitted.discriminator).to(device)
    picture = {SAMPLES: encode_grid(draw_samples(prior))}
    save_prior(out, card, fingerprint_images(images), style_prior_tensors(fitted), picture)
    checkpoint.unlink(missing_ok=True)
    return TrainedPrior(card=card, evaluator=evaluator)


def locate_checkpoint(out: Path) -> Path:
    """Return the file beside a prior's folder from which its training goes on."""
    return out.with_name(f"{out.name}.checkpoint.safetensors")


def hash_auxiliary(dataset: DataSet) -> Tensor:
    """Return the fingerprints ``(n, 8)`` of a data set's auxiliary.

    Raises:
        DataError: when the data set cannot be read.
    """
    return fingerprint_images(dataset.load().auxiliary)


def list_classes(images: ImageSet) -> tuple[str, ...]:
    """Return the names of the classes of which there are images, in the data set's order."""
    labels = set(images.labels.tolist())
    return tuple(name for label, name in enumerate(images.classes) if label in labels)


def _check_classes(dataset: DataSet, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is None:
        return dataset.classes
    for name in classes:
        if name not in dataset.classes:
            raise RecipeError(f"{dataset.name} has no class '{name}'. {nearest(name, dataset.classes)}")
    if not classes:
        raise RecipeError(f"no class is named. Known: {', '.join(dataset.classes)}.")
    return tuple(classes)


def _select_classes(images: ImageSet, names: Sequence[str]) -> ImageSet:
    labels = torch.tensor([images.classes.index(name) for name in names])
    return images.select(torch.isin(images.labels, labels).nonzero().squeeze(1))


def _check_writable(out: Path) -> None:
    """Refuse, before a long training, a folder that cannot be written."""
    with translate_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()


def _describe_evaluator(evaluator: FrechetEvaluator | None) -> Mapping[str, Any]:
    return {} if evaluator is None else {"distance": evaluator.name, "between_halves": evaluator.between_halves}


def _describe_settings(dataset: DataSet) -> str:
    plain = {key: value for key, value in describe(dataset).items() if value is not None and key != "path"}
    return ", ".join(f"{key}={value}" for key, value in plain.items())
