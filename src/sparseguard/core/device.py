"""Where to compute, by the name a user gives it."""

from __future__ import annotations

import torch

from sparseguard.core.errors import RecipeError


def device_named(name: str) -> torch.device:
    """Return the device called ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto`` is CUDA where there is one.

    Raises:
        RecipeError: when it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"device '{name}' cannot be used: {error}.") from None
    return place
