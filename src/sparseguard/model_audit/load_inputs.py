"""Loading what an audit is asked about: the model, from a factory and weights or an exported program, and images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.out_of_core import IMAGES_LIMIT, room
from sparseguard.core.progress import Progress
from sparseguard.core.state_dicts import load_exactly, read_weights
from sparseguard.core.user_code.import_factory import absolute, call_factory
from sparseguard.data.datasets.image_folder import open_own
from sparseguard.data.preparation.decode_image import Look, decode
from sparseguard.model_audit.preprocessing import Preprocessed
from sparseguard.types import ImageSet

WRAPPERS = ("module.", "_orig_mod.", "module.")
"""What `DataParallel` and `torch.compile` put before names of weights, either around the other."""


def model_of(
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
        weights: safetensors, or a state dict that `torch.load` reads with ``weights_only``; None keeps what the factory
            gave. Prefixes that wrappers of networks leave are taken off.
        mean: subtracted from each channel before the model; empty: nothing.
        std: divided by after that.
        progress: told what was taken off names of weights, and where only the logits of a program can be had.

    Raises:
        RecipeError: for a factory that is none, means and deviations of different numbers, or a deviation of 0.
        DataError: when the model cannot be made or read, or the weights are another model's.
    """
    if factory.endswith(".pt2"):
        if weights is not None:
            raise RecipeError("--weights: an exported program has its own weights.")
        model = _exported(Path(factory), progress)
    else:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        model, _ = call_factory(absolute(factory), {}, None)
        if weights is not None:
            load_exactly(model, _unprefixed(read_weights(weights), model, weights, progress), str(weights))
    return Preprocessed(model, mean, std) if mean or std else model


def _unprefixed(
    weights: Mapping[str, Tensor], model: nn.Module, path: Path, progress: Progress
) -> Mapping[str, Tensor]:
    """Take off what wrappers put before every name, unless the network has names like that."""
    for prefix in WRAPPERS:
        if weights and all(name.startswith(prefix) for name in weights) and not weights.keys() & model.state_dict():
            progress.say(f"{path}: '{prefix}' was taken off the names of all weights.")
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def images_of(path: Path, look: Look, progress: Progress) -> ImageSet:
    """Return all images of class folders, an archive of them, or arrays, decoded; many lie on disk.

    What was left out, or changed on the way, is told by name.

    Raises:
        DataError: when there is nothing, an image cannot be read, or sizes differ and none is asked for.
    """
    notes: dict[str, list[str]] = {}
    with open_own(path) as source:
        items = source.items()
        pixels: Tensor | None = None
        with progress.task(f"read {path.name}", len(items)) as advance:
            for place, content in source.stream(items):
                if isinstance(content, DataError):
                    raise content
                name = items[place].name
                one = decode(content, look, name=name)
                image = torch.from_numpy(one.pixels).permute(2, 0, 1)
                if pixels is None:
                    pixels = room((len(items), *image.shape), torch.uint8, IMAGES_LIMIT)
                if image.shape != pixels.shape[1:]:
                    raise DataError(f"{name}: is another size than the first image. Say which size all shall have.")
                for remark in one.remarks:
                    notes.setdefault(remark, []).append(name)
                pixels[place] = image
                advance(1)
        classes, left_out = source.classes, source.notes
    for reason, names in {**notes, **left_out}.items():
        progress.say(f"{path}: {len(names):,} images: {reason}, e.g. {names[0]!r}")
    if pixels is None:
        raise DataError(f"{path}: holds no images in classes.")
    return ImageSet(pixels=pixels, labels=torch.tensor([item.label for item in items]), classes=classes)


def in_one_order(sets: Sequence[ImageSet], classes: Sequence[str] = ()) -> list[ImageSet]:
    """Return sets whose labels are places among the same classes.

    Args:
        sets: each with its own classes.
        classes: names in the order of the model's logits; empty: all that any set has, sorted, numbers by their size.

    Raises:
        DataError: for a class that is not among ``classes``, or one named twice.
    """
    there = {name for one in sets for name in one.classes}
    order = tuple(classes) or tuple(sorted(there, key=_by_size if all(map(str.isdecimal, there)) else str))
    if len(set(order)) < len(order):
        raise DataError(f"classes: a name is given twice in {', '.join(order)}.")
    if strangers := sorted(there - set(order)):
        raise DataError(
            f"classes: there are images of {', '.join(map(repr, strangers[:5]))}, not among {', '.join(order)}."
        )
    found = []
    for one in sets:
        places = torch.tensor([order.index(name) for name in one.classes])
        found.append(ImageSet(pixels=one.pixels, labels=places[one.labels], classes=order))
    return found


def _by_size(name: str) -> tuple[int, str]:
    return int(name), name


def _exported(path: Path, progress: Progress) -> nn.Module:
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a program saved by torch.export.save.")
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises what its readers do
        told = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a program saved by torch.export.save ({told}).") from None
    if (batch := _only_batch(program)) is not None:
        progress.say(
            f"{path}: was exported for batches of {batch} alone. Where it refuses others, export it again with "
            "dynamic_shapes={...: {0: torch.export.Dim('n')}}."
        )
    try:
        return _without_traces(torch.export.unflatten(program))
    except Exception as error:  # unflatten raises many things for graphs it cannot take apart
        told = " ".join(str(error).split())[:200]
        progress.say(f"{path}: its modules cannot be told apart ({told}); only the tap 'logits' can be audited.")
        return _without_traces(program.module())


def _only_batch(program: torch.export.ExportedProgram) -> int | None:
    """Return the one number of images that a program was exported for; None where it takes any."""
    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.name in inputs and isinstance(value, Tensor) and value.ndim:
            count: Any = value.shape[0]
            return count if isinstance(count, int) else None
    return None


def _without_traces(model: nn.Module) -> nn.Module:
    """Drop what tracing noted beside the nodes of graphs, symbolic shapes among it, which cannot be copied."""
    for module in model.modules():
        graph = getattr(module, "graph", None)
        if isinstance(graph, torch.fx.Graph):
            for node in graph.nodes:
                node.meta.clear()
    return model
