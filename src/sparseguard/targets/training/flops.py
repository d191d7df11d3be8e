"""Floating-point operations of a training step: a cost that does not depend on the machine's load."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sparseguard.core.staged_model import StagedModel

P = ParamSpec("P")
T = TypeVar("T")


def count_flops(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, int]:
    """Call a function; return its result and the floating-point operations it took.

    Matrix products and convolutions are count_flops, forwards and backwards, a multiplication and an addition as two;
    elementwise operations, norms and matrix decompositions are not.

    Example:
        >>> import torch
        >>> count_flops(torch.mm, torch.ones(2, 3), torch.ones(3, 4))[1]
        48
    """
    with FlopCounterMode(display=False) as counter:
        result = function(*args, **kwargs)
    return result, int(counter.get_total_flops())


def count_step_flops(model: StagedModel, shape: tuple[int, ...], batch_size: int) -> int:
    """Return the operations of one training step of ``model`` by cross-entropy; its weights stay as they are."""
    images, labels = torch.rand(batch_size, *shape), torch.zeros(batch_size, dtype=torch.int64)
    return count_flops(lambda: F.cross_entropy(model(images), labels).backward())[1]
