"""Checkpoint of a training at the end of an epoch, as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.atomic_io import read_tensors, write_file, write_tensors
from sparseguard.core.errors import StoreError

Tensors = Mapping[str, Tensor]
Optimizers = Mapping[str, torch.optim.Optimizer]


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizers: Optimizers,
    best: Tensors,
    extra: Mapping[str, Tensors],
    meta: Mapping[str, Any],
) -> None:
    """Write model, optimizers by name, best weights so far, further tensors by group, and ``meta``."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for group, values in extra.items():
        tensors |= {f"{group}/{name}": value for name, value in values.items()}
    full = {**meta, "param_groups": {}}
    for kind, optimizer in optimizers.items():
        state = optimizer.state_dict()
        for index, entries in state["state"].items():
            tensors |= {f"{kind}/{index}/{name}": value for name, value in entries.items() if isinstance(value, Tensor)}
        full["param_groups"][kind] = state["param_groups"]
    write_file(path, lambda aside: write_tensors(aside, tensors, full))


def load_checkpoint(
    path: Path, model: nn.Module, optimizers: Optimizers, extra: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Load the checkpoint into model and optimizers.

    Returns:
        The best weights so far, the groups of further tensors named in ``extra``, and ``meta``.

    Raises:
        StoreError: when the file is damaged, or belongs to another architecture.
    """
    tensors, meta = read_tensors(path)
    load_weights(model, _strip_prefix(tensors, "model/"), path)
    for kind, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _strip_prefix(tensors, f"{kind}/").items():
            index, entry = name.split("/", 1)
            state.setdefault(int(index), {})[entry] = value
        try:
            optimizer.load_state_dict({"state": state, "param_groups": meta["param_groups"][kind]})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{path}: its {kind} does not fit this run ({error}). Remove it to start afresh."
            ) from None
    return _strip_prefix(tensors, "best/"), {name: _strip_prefix(tensors, f"{name}/") for name in extra}, meta


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights of exactly this architecture.

    Raises:
        StoreError: naming the first difference.
    """
    expected = model.state_dict()
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        difference = f"it lacks '{missing[0]}'" if missing else f"it has '{extra[0]}', which the model lacks"
        raise StoreError(f"{path}: a checkpoint of another architecture: {difference}.")
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise StoreError(f"{path}: a checkpoint of another architecture: {error}.") from None


def _strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
