"""Finding a model's sparse layers, seeing whether they work, and measuring them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import SparseCode2d


def sparse_layers(model: nn.Module) -> list[SparseCode2d]:
    """Return a model's sparse layers, in the order they are run."""
    return [module for module in model.modules() if isinstance(module, SparseCode2d)]


def inactive_sparse_layer(model: StagedModel, images: Tensor) -> str | None:
    """Return what is wrong with the first sparse layer that is missing, dead or dense; None when all are at work."""
    layers = sparse_layers(model)
    may_be_dense = [layer.lambd in (0, (0,) * layer.features) for layer in layers]
    return inactive_layer(model, images, "sparse layer", layers, may_be_dense)


def inactive_layer(
    model: StagedModel, images: Tensor, kind: str, layers: Sequence[nn.Module], may_be_dense: Sequence[bool]
) -> str | None:
    """Return what is wrong with the first of ``layers``: none there, no output above 0, or every output above 0.

    Args:
        model: to be run.
        images: to run it on.
        kind: what a layer is called.
        layers: in the order they are run.
        may_be_dense: for each, whether every output may be above 0.
    """
    if not layers:
        return f"the model has no {kind}"
    codes: list[Tensor] = []
    run_watched(model, images, layers, lambda _, code: codes.append(code))
    for number, (dense, code) in enumerate(zip(may_be_dense, codes, strict=True), start=1):
        active = float((code > 0).float().mean())
        if active == 0:
            return f"{kind} {number} is dead: no coefficient is active"
        if active == 1 and not dense:
            return f"{kind} {number} is dense: every coefficient is active"
    return None


@torch.no_grad()
def sparse_facts(model: StagedModel, images: Tensor) -> dict[str, float]:
    r"""Return how sparse, faithful and well solved the codes are that the model's sparse layers really compute.

    For the i-th sparse layer, counted from 1; all are means over the images:

    - ``sparse_i_lambda_over_max``: lambda divided by the smallest lambda at which the image's code is zero, the
      largest value of the analysis of the standardized input. An input that no lambda gives a code counts as 1.
    - ``sparse_i_active``: coefficients that are not zero; ``sparse_i_active_share``: their share of all.
    - ``sparse_i_residual``: :math:`\|z - R \circledast W\| / \|z\|`, z being the standardized input.
    - ``sparse_i_kkt``: the KKT residual, 0 at a solution (see `Problem.kkt_residual`).
    """
    layers, inputs = sparse_layers(model), list[Tensor]()
    run_watched(model, images, layers, lambda given, _: inputs.append(given))
    facts: dict[str, float] = {}
    for number, (layer, given) in enumerate(zip(layers, inputs, strict=True), start=1):
        found = layer.solution(given)
        largest = found.problem.lambda_max()
        lambd = torch.as_tensor(layer.lambd).amax().to(largest)
        relative = torch.where(largest > 0, lambd / largest, torch.ones_like(largest))
        active = (found.code != 0).flatten(1).float()
        size = found.problem.images.flatten(1).norm(dim=1)
        residual = found.residual.flatten(1).norm(dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
        facts |= {
            f"sparse_{number}_lambda_over_max": float(relative.mean()),
            f"sparse_{number}_active": float(active.sum(1).mean()),
            f"sparse_{number}_active_share": float(active.mean()),
            f"sparse_{number}_residual": float(residual.mean()),
            f"sparse_{number}_kkt": float(found.kkt.mean()),
        }
    return facts


@torch.no_grad()
def run_watched(
    model: StagedModel, images: Tensor, layers: Sequence[nn.Module], see: Callable[[Tensor, Tensor], Any]
) -> None:
    """Run the model, and let ``see`` have each layer's input and output."""

    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(inputs[0], output)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        model(images)
