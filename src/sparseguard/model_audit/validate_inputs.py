"""Validated audit inputs: images that fit each other and the model, and the splits attackers may read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError, SparseguardError
from sparseguard.data.splits import partition_index
from sparseguard.model_audit.preprocessing import convert_inputs
from sparseguard.types import ImageSet, Splits

NAME = "your images"
HELD_OUT = {"auxiliary": 60, "auxiliary_val": 10, "tuning": 5, "test": 25}
"""Per cent of the held-out images in each split. The attacker has the first two; nobody trains on the others."""


def split_images(private: ImageSet, held_out: ImageSet, flips_keep_class: bool) -> Splits:
    """Return the splits of an audit; `HELD_OUT` divides the held-out images.

    Raises:
        DataError: when images do not fit each other, or are too few.
    """
    check_match(private, held_out, "held-out")
    splits = divide(held_out, HELD_OUT, "held-out")
    return Splits(name=NAME, private=private, layout="audit", flips_keep_class=flips_keep_class, **splits)


def divide(images: ImageSet, shares: Mapping[str, int], name: str) -> dict[str, ImageSet]:
    """Return disjoint subsets with ``shares`` per cent of the images each, by name.

    Raises:
        DataError: when one of them would be empty.
    """
    index = partition_index(images.labels.numpy(), dict(shares))
    if empty := [split for split in shares if not len(index[split])]:
        raise DataError(
            f"{name}: {len(images)} images are too few to divide into {', '.join(shares)}; none is left for "
            f"'{empty[0]}'. Give 20 or more, better some hundreds."
        )
    return {split: images.select(torch.from_numpy(indices)) for split, indices in index.items()}


def check_match(private: ImageSet, others: ImageSet, name: str) -> None:
    """Check that two sets of images have one size and one list of classes.

    Raises:
        DataError: when they differ, or there are no private images.
    """
    if not len(private):
        raise DataError("private: there are no images.")
    if private.shape != others.shape:
        raise DataError(f"private images are {private.shape}, {name} ones {others.shape}; give both in one size.")
    if private.classes != others.classes:
        raise DataError(
            f"private images are of the classes {_listed(private.classes)}, {name} ones of "
            f"{_listed(others.classes)}; give both the same, in the order of the logits. A class may have no images."
        )


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return ", ".join(classes[:5]) + more


def adapt_precision(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a model that takes the images; where it fails on them, they are converted to its own precision.

    Raises:
        DataError: when it takes them in neither precision.
    """
    try:
        _run(model, images)
    except SparseguardError:
        raise
    except Exception as refusal:  # the model's own code
        model = convert_inputs(model)
        try:
            _run(model, images)
        except Exception:  # the first message says more
            message = " ".join(str(refusal).split())[:300]
            raise DataError(
                f"the model does not take images of {tuple(images.shape[1:])} ({type(refusal).__name__}: {message}). "
                "Give them in its size, channels and normalization."
            ) from refusal
    return model


def check_logits(model: nn.Module, images: Tensor, classes: Sequence[str]) -> None:
    """Check that a model's output has one logit a class.

    Raises:
        DataError: when its output is something else.
    """
    logits = _run(model, images)
    if not isinstance(logits, Tensor) or logits.shape != (len(images), len(classes)):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(
            f"the model's output is {shape}, expected {(len(images), len(classes))}: one logit a class. "
            f"The images' classes are {_listed(classes)}."
        )


@torch.no_grad()
def _run(model: nn.Module, images: Tensor) -> Any:
    return model(images)
