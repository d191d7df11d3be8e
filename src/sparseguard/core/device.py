"""Choice of the device by name."""

from __future__ import annotations

import torch

from sparseguard.core.errors import RecipeError


def parse_device(name: str) -> torch.device:
    """Return the device called ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` is CUDA where there is one.

    Raises:
        RecipeError: when it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"device '{name}' cannot be used: {error}.") from None
    return device
