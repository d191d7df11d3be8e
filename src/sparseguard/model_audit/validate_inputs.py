"""What an audit is handed: whether images fit each other and the model, and who may read which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError, SparseguardError
from sparseguard.data.splits import partition_index
from sparseguard.model_audit.preprocessing import in_own_precision
from sparseguard.types import ImageSet, Splits

NAME = "your images"
HELD_OUT = {"auxiliary": 60, "auxiliary_val": 10, "tuning": 5, "test": 25}
"""Per cent of the held-out images in each part: what the attacker has, and what nobody has."""


def parted(private: ImageSet, held_out: ImageSet, flips_keep_class: bool) -> Splits:
    """Return who may read what: the held-out images are dealt out by `HELD_OUT`.

    Raises:
        DataError: when images do not fit each other, or are too few.
    """
    if not len(private):
        raise DataError("private: there are no images.")
    if private.shape != held_out.shape:
        raise DataError(f"private images are {private.shape}, held-out ones {held_out.shape}; give both in one size.")
    if private.classes != held_out.classes:
        raise DataError(
            f"private images are of the classes {_listed(private.classes)}, held-out ones of "
            f"{_listed(held_out.classes)}; give both the same, in the order of the logits. A class may have no images."
        )
    index = partition_index(held_out.labels.numpy(), HELD_OUT)
    if empty := [part for part in HELD_OUT if not len(index[part])]:
        raise DataError(
            f"held-out: {len(held_out)} images are too few to be parted into what attackers learn from, choose with, "
            f"and what nobody sees; nothing is left for '{empty[0]}'. Give 20 or more, better some hundreds."
        )
    parts = {part: held_out.select(torch.from_numpy(places)) for part, places in index.items()}
    return Splits(name=NAME, private=private, layout="audit", flips_keep_class=flips_keep_class, **parts)


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return ", ".join(classes[:5]) + more


def with_logits(model: nn.Module, splits: Splits, images: Tensor) -> nn.Module:
    """Return a model that takes the images, in its own precision where it refuses theirs.

    Raises:
        DataError: when it takes them in neither, or answers with something else than a logit a class.
    """
    try:
        logits = _answer(model, images)
    except SparseguardError:
        raise
    except Exception as refused:  # the model's own code
        model = in_own_precision(model)
        try:
            logits = _answer(model, images)
        except Exception:  # the first refusal tells more
            told = " ".join(str(refused).split())[:300]
            raise DataError(
                f"the model does not take images of {splits.private.shape} ({type(refused).__name__}: {told}). "
                "Give them in its size, channels and normalization."
            ) from refused
    classes = len(splits.private.classes)
    if not isinstance(logits, Tensor) or logits.shape != (len(images), classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(
            f"the model answers with {shape}, expected {(len(images), classes)}: a logit a class. "
            f"The images' classes are {_listed(splits.private.classes)}."
        )
    return model


@torch.no_grad()
def _answer(model: nn.Module, images: Tensor) -> Any:
    return model(images)
