"""Split of a model's graph into parts that pass on one tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.fx
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError

TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part of a model, from one tensor to the next.

    Args:
        name: of the node that gives the part's output, a submodule's path with ``_`` for the dots, or an operation.
        path: of the submodule, where the part is one; else empty.
        graph: of the part, with the names of the model's submodules.
    """

    name: str
    path: str
    graph: torch.fx.Graph

    def extract(self, model: nn.Module) -> nn.Module:
        """Return this part of ``model``, which has the graph that was traced; submodules are not copied."""
        return model.get_submodule(self.path) if self.path else torch.fx.GraphModule(model, copy.deepcopy(self.graph))


def trace_parts(model: nn.Module) -> list[Part]:
    """Trace a model and return its parts; a ``Sequential`` is split further, and a part ends wherever it can.

    Raises:
        RecipeError: when the model's forward cannot be traced.
    """
    try:
        graph = _Children().trace(model)
    except Exception as error:  # tracing runs the model's own code
        message = " ".join(str(error).split())[:200]
        raise RecipeError(f"its graph cannot be traced ({message}).") from None
    nodes = list(graph.nodes)
    parts, start = list[Part](), 1
    for index in range(1, len(nodes) - 1):
        if _find_live_values(nodes, index) == [nodes[index]]:
            parts.append(_make_part(nodes[start - 1], nodes[start : index + 1]))
            start = index + 1
    return parts


@torch.no_grad()
def require_equal(model: nn.Module, parts: Sequence[Part], images: Tensor) -> None:
    """Run a model and its parts one after the other, in evaluation and in training mode.

    Raises:
        RecipeError: when their outputs differ by more than 1e-5, a part writes to its input, or two share
            weights; the parts are named.
    """
    modules = [part.extract(model) for part in parts]
    description = f"It was found to consist of {', '.join(part.name for part in parts) or 'nothing'}"
    weights = sorted(id(weight) for module in modules for weight in module.parameters())
    if weights != sorted(id(weight) for weight in model.parameters()):
        raise RecipeError(f"the stages do not have each of the model's weights once. {description}.")
    for mode in (False, True):
        model.train(mode)
        expected = _run_seeded(model, images)
        outputs = _run_seeded(lambda values: _run_parts(parts, modules, values), images)
        if not torch.allclose(expected, outputs, rtol=TOLERANCE, atol=TOLERANCE):
            raise RecipeError(f"the stages one after the other do not give the model's output. {description}.")


def _run_parts(parts: Sequence[Part], modules: Sequence[nn.Module], values: Tensor) -> Tensor:
    for part, module in zip(parts, modules, strict=True):
        before = values._version
        result = module(values)
        if values._version != before:
            raise RecipeError(f"the stage '{part.name}' writes to its input.")
        values = result
    return values


def _run_seeded(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return run(images)


@final
class _Children(torch.fx.Tracer):
    """Tracer that enters sequences only."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Return whether a module is a node of its own."""
        return type(m) is not nn.Sequential


def _find_live_values(nodes: Sequence[Any], index: int) -> list[Any]:
    """Return the values that exist after node ``index`` and that later nodes use."""
    later = set(nodes[index + 1 :])
    return [node for node in nodes[: index + 1] if any(user in later for user in node.users)]


def _make_part(source: Any, nodes: Sequence[Any]) -> Part:
    graph, last = torch.fx.Graph(), nodes[-1]
    copies = {source: graph.placeholder("values")}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if copies[node].kwargs.get("inplace"):
            copies[node].kwargs = {**copies[node].kwargs, "inplace": False}
    graph.output(copies[last])
    alone = len(nodes) == 1 and last.op == "call_module"
    return Part(name=last.name, path=str(last.target) if alone else "", graph=graph)
