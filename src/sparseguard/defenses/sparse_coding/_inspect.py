"""Inspection of a model's sparse layers: search, activity, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import SparseCode2d


def find_sparse_layers(model: nn.Module) -> list[SparseCode2d]:
    """Return a model's sparse layers, in the order of their calls."""
    return [module for module in model.modules() if isinstance(module, SparseCode2d)]


def find_inactive_sparse_layer(model: StagedModel, images: Tensor) -> str | None:
    """Return the fault of the first sparse layer that is missing, dead or dense; None when all are active."""
    layers = find_sparse_layers(model)
    may_be_dense = [layer.lambd in (0, (0,) * layer.features) for layer in layers]
    return find_inactive_layer(model, images, "sparse layer", layers, may_be_dense)


def find_inactive_layer(
    model: StagedModel, images: Tensor, kind: str, layers: Sequence[nn.Module], may_be_dense: Sequence[bool]
) -> str | None:
    """Return the first fault of ``layers``: none exists, no output above 0, or every output above 0; else None.

    Args:
        model: run on the images.
        images: attacker-side images.
        kind: name of the kind of layer, for the message.
        layers: in the order of their calls.
        may_be_dense: for each, whether every output may be above 0.
    """
    if not layers:
        return f"the model has no {kind}"
    codes: list[Tensor] = []
    run_with_hooks(model, images, layers, lambda _, code: codes.append(code))
    for number, (dense, code) in enumerate(zip(may_be_dense, codes, strict=True), start=1):
        active = float((code > 0).float().mean())
        if active == 0:
            return f"{kind} {number} is dead: no coefficient is active"
        if active == 1 and not dense:
            return f"{kind} {number} is dense: every coefficient is active"
    return None


@torch.no_grad()
def measure_sparse_layers(model: StagedModel, images: Tensor) -> dict[str, float]:
    r"""Return sparsity, residual and KKT residual of the codes that the model's sparse layers compute.

    For the i-th sparse layer, counted from 1; all are means over the images:

    - ``sparse_i_lambda_over_max``: lambda divided by the smallest lambda at which the image's code is zero, the
      largest value of the analysis of the standardized input. An input whose code is zero for every lambda counts as 1.
    - ``sparse_i_active``: coefficients that are not zero; ``sparse_i_active_share``: their fraction of all.
    - ``sparse_i_residual``: :math:`\|z - R \circledast W\| / \|z\|`, z being the standardized input.
    - ``sparse_i_kkt``: the KKT residual, 0 at a solution (see `Problem.kkt_residual`).
    """
    layers, inputs = find_sparse_layers(model), list[Tensor]()
    run_with_hooks(model, images, layers, lambda values, _: inputs.append(values))
    facts: dict[str, float] = {}
    for number, (layer, values) in enumerate(zip(layers, inputs, strict=True), start=1):
        solution = layer.solution(values)
        largest = solution.problem.lambda_max()
        lambd = torch.as_tensor(layer.lambd).amax().to(largest)
        relative = torch.where(largest > 0, lambd / largest, torch.ones_like(largest))
        active = (solution.code != 0).flatten(1).float()
        size = solution.problem.images.flatten(1).norm(dim=1)
        residual = solution.residual.flatten(1).norm(dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
        facts |= {
            f"sparse_{number}_lambda_over_max": float(relative.mean()),
            f"sparse_{number}_active": float(active.sum(1).mean()),
            f"sparse_{number}_active_share": float(active.mean()),
            f"sparse_{number}_residual": float(residual.mean()),
            f"sparse_{number}_kkt": float(solution.kkt.mean()),
        }
    return facts


@torch.no_grad()
def run_with_hooks(
    model: StagedModel, images: Tensor, layers: Sequence[nn.Module], callback: Callable[[Tensor, Tensor], Any]
) -> None:
    """Run the model and call ``callback`` with each layer's input and output."""

    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        callback(inputs[0], output)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        model(images)
