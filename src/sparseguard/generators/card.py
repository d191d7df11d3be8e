"""Description of a prior: its origin, its images, and the images it was trained on."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from pydantic import Field
from torch import Tensor

from sparseguard.types import ImageSet

Positive = Annotated[int, Field(ge=1)]
FINGERPRINT_BYTES = 8


class PriorCard(pydantic.BaseModel):
    """Description of a prior, stored beside its weights as ``prior.json``.

    Args:
        version: of this description.
        name: in tables.
        kind: of the class that loads it: ``style`` (ours), ``module`` (a user's), ``official`` (NVIDIA's).
        shape: channels, height and width of its images.
        latent: shape of one z.
        num_ws: how many layers take a w; 0 for a generator of z only.
        w_dim: length of one w; 0 likewise.
        classes: names of the classes it was trained on; None if unknown.
        trained_on: one sentence on the images it was trained on.
        source: its origin, sentence by sentence.
        construction: arguments to build it, by kind.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    kind: Literal["style", "module", "official"]
    shape: tuple[Literal[1, 3], Positive, Positive]
    latent: Annotated[tuple[Positive, ...], Field(min_length=1)]
    num_ws: Annotated[int, Field(ge=0)]
    w_dim: Annotated[int, Field(ge=0)]
    classes: tuple[str, ...] | None = None
    trained_on: str = "unknown"
    source: tuple[str, ...] = ()
    construction: dict[str, Any] = {}


def fingerprint_images(images: ImageSet) -> Tensor:
    """Return ``(n, 8)`` uint8: the first bytes of the SHA-256 of each image's shape and 8-bit pixels.

    Images that differ in a pixel, or in size, have different fingerprints, so a resized copy is not recognized.

    Example:
        >>> import torch
        >>> from sparseguard.types import ImageSet
        >>> black = ImageSet(pixels=torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 0]),
        ...                  classes=("a",))
        >>> prints = fingerprint_images(black)
        >>> prints.shape, bool((prints[0] == prints[1]).all())
        (torch.Size([2, 8]), True)
    """
    pixels = images.pixels
    if pixels.dtype != torch.uint8:
        pixels = (pixels * 255).round().to(torch.uint8)
    shape = repr(tuple(pixels.shape[1:])).encode()
    digests = [hashlib.sha256(shape + image.numpy().tobytes()).digest()[:FINGERPRINT_BYTES] for image in pixels]
    joined = np.frombuffer(b"".join(digests), dtype=np.uint8).copy()
    return torch.from_numpy(joined).view(-1, FINGERPRINT_BYTES)


def count_shared_images(trained_on: Tensor, images: ImageSet) -> int:
    """Return how many of ``images`` are among those with the fingerprints ``trained_on``, ``(n, 8)`` uint8."""
    known = {row.numpy().tobytes() for row in trained_on}
    return sum(row.numpy().tobytes() in known for row in fingerprint_images(images))
