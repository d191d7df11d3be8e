"""What holds while codes are computed: their own precision, and no gradients where none pass.

While `torch.export` looks on both do nothing: a program that has such contexts in it cannot be loaded again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def own_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast leaves tensors of a device in the precision they have."""
    if not torch.amp.is_autocast_available(device.type) or torch.compiler.is_exporting():
        return nullcontext()
    plain: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return plain


def without_gradients() -> AbstractContextManager[None]:
    """Return a context in which no gradients are kept."""
    return nullcontext() if torch.compiler.is_exporting() else torch.no_grad()
