"""The values that cross the walls between rooms. Frozen; shape, dtype and range are checked once, here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparseguard.errors import DataError, TrainingError
from sparseguard.large import IMAGES_LIMIT, picked, row_chunks

_FINGERPRINT_BYTES = 1 << 22

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]


class Knowledge(StrEnum):
    """What an attack is given besides the attacker's own images."""

    NOTHING = "nothing"
    LABEL = "label"
    OUTPUTS = "outputs"
    SPEC = "+spec"
    WEIGHTS = "+weights"


FLOORS = (Knowledge.NOTHING, Knowledge.LABEL)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    Args:
        pixels: ``(n, c, h, w)``, c = 1 or 3; uint8 0-255, or float32 in [0, 1].
        labels: ``(n,)`` int64, indices into ``classes``.
        classes: the classes' names.

    Raises:
        DataError: for another shape or type, a value that is not finite or outside [0, 1], or a label out of range.

    Example:
        >>> import torch
        >>> from sparseguard.types import ImageSet
        >>> images = ImageSet(pixels=torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        ...                   labels=torch.tensor([0, 1]), classes=("cat", "dog"))
        >>> len(images), images.shape
        (2, (1, 4, 4))
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check everything the rest of the program relies on."""
        pixels, labels = self.pixels, self.labels
        if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise DataError(f"images need the shape (n, 1 or 3, h, w), got {tuple(pixels.shape)}.")
        if pixels.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"images must be uint8 or float32, got {pixels.dtype}.")
        if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
            raise DataError(
                f"{len(pixels)} images need as many int64 labels, got {labels.dtype} {tuple(labels.shape)}."
            )
        if pixels.dtype == torch.float32 and len(pixels):
            _check_unit_range(pixels)
        if len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(f"labels must lie in 0..{len(self.classes) - 1}, got {low}..{high}.")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        c, h, w = self.pixels.shape[1:]
        return int(c), int(h), int(w)

    @property
    def images(self) -> Images:
        """All images as float32 in [0, 1]."""
        return as_unit_float(self.pixels)

    def batch(self, index: Tensor) -> Images:
        """Return the images at ``index`` as float32 in [0, 1]."""
        return as_unit_float(self.pixels[index])

    def select(self, index: Tensor) -> ImageSet:
        """Return the subset at ``index``, on disk where it is large (see `sparseguard.large`)."""
        pixels = picked(self.pixels, index, IMAGES_LIMIT)
        return ImageSet(pixels=pixels, labels=self.labels[index], classes=self.classes)

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, type, pixels, labels and class names."""
        digest = hashlib.sha256(repr((tuple(self.pixels.shape), str(self.pixels.dtype), self.classes)).encode())
        for values in (self.pixels, self.labels):
            row = max(1, values[:1].numel() * values.element_size())
            for chunk in values.split(max(1, _FINGERPRINT_BYTES // row)):
                digest.update(chunk.contiguous().numpy().tobytes())
        return digest.hexdigest()


def as_unit_float(pixels: Tensor) -> Tensor:
    """Turn uint8 0-255 into float32 in [0, 1]; leave float32 alone."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _check_unit_range(pixels: Tensor) -> None:
    bad = ~torch.isfinite(pixels)
    if bad.any():
        first = int(bad.flatten(1).any(1).nonzero()[0])
        raise DataError(f"images must be finite: {int(bad.sum())} values are not, the first in image {first}.")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise DataError(f"images must lie in [0, 1], got values in [{low:g}, {high:g}]. Divide 8-bit values by 255.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """One data set, parted once: who may read what.

    Args:
        name: the data set's name.
        private: the target trains on these (its early stopping on a tenth of them).
        attacker_train: attackers, dictionaries and priors learn on these.
        attacker_val: attackers are stopped and chosen on these.
        select: defense settings are chosen on these.
        test: nobody trains on these; accuracy is measured here.
        layout: ``sparseguard`` (design: 70 / 15 / 3 / 3 / 9 %), or ``paper`` (the attacker has all of the other 30 %,
            and accuracy is measured there too, so test images are no unseen ones for the attacker).
        flips_keep_class: whether the mirror image of every image belongs to the same class.
    """

    name: str
    private: ImageSet
    attacker_train: ImageSet
    attacker_val: ImageSet
    select: ImageSet
    test: ImageSet
    layout: str
    flips_keep_class: bool

    def __post_init__(self) -> None:
        """Check that the parts hold images of one kind."""
        for part, images in self.parts().items():
            if images.shape != self.private.shape or images.classes != self.private.classes:
                raise DataError(f"{self.name}: part '{part}' differs from 'private' in image size or classes.")
            if len(images) == 0:
                raise DataError(f"{self.name}: part '{part}' is empty; the set is too small to be split.")

    def parts(self) -> dict[str, ImageSet]:
        """Return the parts by name."""
        return {
            "private": self.private,
            "attacker_train": self.attacker_train,
            "attacker_val": self.attacker_val,
            "select": self.select,
            "test": self.test,
        }

    def fingerprints(self) -> dict[str, str]:
        """Return each part's fingerprint."""
        return {part: images.fingerprint() for part, images in self.parts().items()}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training; the loss is told its name."""

    name: str
    epochs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One training batch as a defense's loss sees it.

    Args:
        images: ``(n, c, h, w)`` in [0, 1], after the defense's `transform`.
        labels: ``(n,)``.
        outputs: every stage's output by its name.
        logits: the last stage's output.
        state: what the defense learned: in `prepare`, and before epochs.
        epoch: counted from 0 over all phases.
        phase: the current phase's name.
        given: how many of the images, from the first on, are the batch's own; the rest were added by `transform`.
            None: all.
        share: how much of the training lies behind, by epochs, in [0, 1).
        cut: name of the stage that leaks; empty where none is named.
        companion: what is trained beside the model and never released, where the defense has one.
        model: whose parameters are trained.
    """

    images: Images
    labels: Labels
    outputs: Mapping[str, Tensor]
    logits: Tensor
    state: Mapping[str, Tensor]
    epoch: int
    phase: str
    given: int | None = None
    share: float = 0.0
    cut: str = ""
    companion: nn.Module | None = None
    model: nn.Module | None = None

    @property
    def own(self) -> slice:
        """The places of the batch's own images."""
        return slice(0, self.given)

    def cross_entropy(self) -> Tensor:
        """Return the mean cross-entropy of the batch's own images, in nats; 0 for an empty batch."""
        logits, labels = self.logits[self.own], self.labels[self.own]
        return F.cross_entropy(logits, labels) if len(labels) else logits.sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """A model between two epochs, as a defense may look at it.

    Args:
        model: in evaluation mode; gradients of its parameters are the defense's to clear.
        images: those the model trains on.
        state: what the defense learned so far.
        epoch: the epoch that begins, counted from 0.
        phase: its phase.
        begins: whether it is the phase's first.
        seed: derived for this epoch.
        device: where the model is.
    """

    model: nn.Module
    images: ImageSet
    state: Mapping[str, Tensor]
    epoch: int
    phase: str
    begins: bool
    seed: int
    device: torch.device


@dataclass(frozen=True, kw_only=True, eq=False)
class Public:
    """The attacker's own images, drawn from the same distribution as the private ones."""

    train: ImageSet
    val: ImageSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What one tap released for a batch of images, one row an image.

    Raises:
        TrainingError: when a value is not finite; a target that emits those protects nobody, it is broken.
    """

    features: Float[Tensor, "n ..."]
    tap: str

    def __post_init__(self) -> None:
        """Refuse values that are not finite."""
        if not all(torch.isfinite(self.features[some]).all() for some in row_chunks(self.features)):
            raise TrainingError(f"the tap '{self.tap}' released values that are not finite; the target is broken.")

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """One set of images to be reconstructed, as far as the attack may know it.

    Args:
        count: how many images.
        observation: what leaked of them; None for attacks that see no leak.
        labels: their classes; None for attacks that are not told.
        index: their places ``(n,)`` in the part, where only some of it is attacked; None: all of it, in order.
    """

    count: int
    observation: Observation | None = None
    labels: Labels | None = None
    index: Int[Tensor, " n"] | None = None


Goal = Mapping[str, Attacked]
"""Instance reconstruction: the sets to reconstruct, by the name of their part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """What an attack returns.

    Args:
        reconstructions: per part of the goal ``(n, c, h, w)`` float32.
        parameter_change: how far the attacker's own parameters moved from their start, relative to their size;
            None for an attacker that has none.
        notes: figures worth keeping (chosen regularization, epochs, validation error).
        curves: learning curves by what they show, e.g. the PSNR on attacker_val after every epoch.
        residuals: per part ``(n,)``, how far the features of each reconstruction are from what leaked, relative to the
            spread of the features; for attacks that can compute it.
    """

    reconstructions: Mapping[str, Images]
    parameter_change: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    residuals: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)


@runtime_checkable
class Released(Protocol):
    """A released model that can be evaluated up to a named stage."""

    def until(self, images: Tensor, stage: str) -> Tensor:
        """Return the output of ``stage``."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """Class-level reconstruction: which classes to make images of, and what an attacker knows of the images.

    Args:
        wanted: indices of the attacked classes.
        names: of all classes.
        shape: channels, height and width the target takes.
        flips_keep_class: whether the mirror image of every image belongs to the same class.
    """

    wanted: tuple[int, ...]
    names: tuple[str, ...]
    shape: tuple[int, int, int]
    flips_keep_class: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassResult:
    """What a class-level attack returns: some images of every wanted class, the best first within a class.

    Args:
        images: ``(n, c, h, w)`` float32.
        labels: ``(n,)`` the class each was made for.
        confidence: ``(n,)`` the target's confidence in that class, as the attack measures it.
        steady_confidence: ``(n,)`` its mean over the random changes by which the attack selects.
        selected: ``(n,)`` bool, the attack's answer; the others are kept to tell what selecting did.
        starts: ``(n, c, h, w)`` the image each search started from.
        start_confidence: ``(n,)`` the target's confidence in those.
        notes: figures worth keeping.
        curves: learning curves by what they show.
    """

    images: Images
    labels: Labels
    confidence: Float[Tensor, " n"]
    steady_confidence: Float[Tensor, " n"]
    selected: Bool[Tensor, " n"]
    starts: Images
    start_confidence: Float[Tensor, " n"]
    notes: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
