"""Contexts for the computation of codes: no autocast, and no gradients where none are needed.

Under `torch.export` both do nothing: an exported program with such contexts cannot be loaded again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def disable_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast for a device."""
    if not torch.amp.is_autocast_available(device.type) or torch.compiler.is_exporting():
        return nullcontext()
    plain: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return plain


def disable_gradients() -> AbstractContextManager[None]:
    """Return a context without gradients."""
    return nullcontext() if torch.compiler.is_exporting() else torch.no_grad()
