"""Finding a model's sparse layers, and seeing whether they work."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseguard.sparse import SparseCode2d
from sparseguard.stages import StagedModel


def sparse_layers(model: nn.Module) -> list[SparseCode2d]:
    """Return a model's sparse layers, in the order they are run."""
    return [module for module in model.modules() if isinstance(module, SparseCode2d)]


@torch.no_grad()
def inactive_sparse_layer(model: StagedModel, images: Tensor) -> str | None:
    """Return what is wrong with the first sparse layer that is missing, dead or dense; None when all are at work."""
    layers = sparse_layers(model)
    if not layers:
        return "the model has no sparse layer"
    codes: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _layer, _inputs, code: codes.append(code)) for layer in layers]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    for number, (layer, code) in enumerate(zip(layers, codes, strict=True), start=1):
        active = float((code > 0).float().mean())
        if active == 0:
            return f"sparse layer {number} is dead: no coefficient is active"
        if active == 1 and layer.lambd not in (0, (0,) * layer.features):
            return f"sparse layer {number} is dense: every coefficient is active"
    return None
