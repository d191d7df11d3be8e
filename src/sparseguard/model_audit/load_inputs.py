"""Loaded audit inputs: the model, from a factory and weights or an exported program, and the images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.progress import Progress
from sparseguard.core.state_dicts import load_strictly, read_weights
from sparseguard.core.user_code.import_factory import call_factory, resolve_factory
from sparseguard.model_audit.preprocessing import Preprocessed
from sparseguard.types import ImageSet

WRAPPERS = ("module.", "_orig_mod.", "module.")
"""Prefixes that `DataParallel` and `torch.compile` add to the names of weights, in either order."""


def load_model(
    factory: str,
    weights: Path | None,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    progress: Progress,
) -> nn.Module:
    """Return a model from images in [0, 1] to logits.

    Args:
        factory: ``package.module:function``, looked for in the working folder too, or ``path/to/file.py:function``,
            which is run and returns the model; or the ``.pt2`` file of a program saved by `torch.export.save`.
        weights: safetensors, or a state dict that `torch.load` reads with ``weights_only``; None keeps the factory's
            weights. Prefixes of wrappers are removed from their names.
        mean: subtracted from each channel before the model; empty: nothing.
        std: divided by after that.
        progress: reports removed prefixes, and programs of which only the logits can be audited.

    Raises:
        RecipeError: for something that is no factory, means and deviations of different numbers, or a deviation of 0.
        DataError: when the model cannot be built or read, or the weights belong to another model.
    """
    if factory.endswith(".pt2"):
        if weights is not None:
            raise RecipeError("--weights: an exported program has its own weights.")
        model = _load_program(Path(factory), progress)
    else:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        model, _ = call_factory(resolve_factory(factory), {}, None)
        if weights is not None:
            load_strictly(model, _strip_prefixes(read_weights(weights), model, weights, progress), str(weights))
    return Preprocessed(model, mean, std) if mean or std else model


def _strip_prefixes(
    weights: Mapping[str, Tensor], model: nn.Module, path: Path, progress: Progress
) -> Mapping[str, Tensor]:
    """Remove the prefixes of wrappers from every name, unless the network's own names have them."""
    for prefix in WRAPPERS:
        if weights and all(name.startswith(prefix) for name in weights) and not weights.keys() & model.state_dict():
            progress.say(f"{path}: removed '{prefix}' from the names of all weights.")
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def align_classes(sets: Sequence[ImageSet], classes: Sequence[str] = ()) -> list[ImageSet]:
    """Return the sets with one list of classes, their labels as indices into it.

    Args:
        sets: each with its own classes.
        classes: names in the order of the model's logits; empty: the classes of all sets, sorted, numbers by value.

    Raises:
        DataError: for a class that is not among ``classes``, or one named twice.
    """
    names = {name for images in sets for name in images.classes}
    order = tuple(classes) or tuple(sorted(names, key=_number_of if all(map(str.isdecimal, names)) else str))
    if len(set(order)) < len(order):
        raise DataError(f"classes: a name appears twice in {', '.join(order)}.")
    if unknown := sorted(names - set(order)):
        raise DataError(
            f"classes: there are images of {', '.join(map(repr, unknown[:5]))}, not among {', '.join(order)}."
        )
    aligned = []
    for images in sets:
        indices = torch.tensor([order.index(name) for name in images.classes])
        aligned.append(ImageSet(pixels=images.pixels, labels=indices[images.labels], classes=order))
    return aligned


def _number_of(name: str) -> tuple[int, str]:
    return int(name), name


def _load_program(path: Path, progress: Progress) -> nn.Module:
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a program saved by torch.export.save.")
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises what its readers do
        message = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a program saved by torch.export.save ({message}).") from None
    if (batch := _fixed_batch(program)) is not None:
        progress.say(
            f"{path}: was exported for batches of {batch} only. If it fails on others, export it again with "
            "dynamic_shapes={...: {0: torch.export.Dim('n')}}."
        )
    try:
        return _clear_metadata(torch.export.unflatten(program))
    except Exception as error:  # unflatten raises many things for graphs it cannot separate
        message = " ".join(str(error).split())[:200]
        progress.say(f"{path}: its modules cannot be separated ({message}); only the tap 'logits' can be audited.")
        return _clear_metadata(program.module())


def _fixed_batch(program: torch.export.ExportedProgram) -> int | None:
    """Return the batch size that a program was exported for; None where it takes any."""
    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.name in inputs and isinstance(value, Tensor) and value.ndim:
            count: Any = value.shape[0]
            return count if isinstance(count, int) else None
    return None


def _clear_metadata(model: nn.Module) -> nn.Module:
    """Remove tracing metadata from the nodes of graphs: symbolic shapes cannot be copied."""
    for module in model.modules():
        graph = getattr(module, "graph", None)
        if isinstance(graph, torch.fx.Graph):
            for node in graph.nodes:
                node.meta.clear()
    return model
