"""Any classifier of torchvision, split into stages by its graph."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError, RecipeError, nearest
from sparseguard.core.staged_model import Blueprint, Builder, Shape, Stage, resize_in_channels
from sparseguard.core.state_dicts import read_weights
from sparseguard.targets.backbones._fx_split import Part, require_equal, trace_parts
from sparseguard.targets.backbones.base import Backbone, build_plain

PREFIX = "torchvision:"
RESERVED = ("input", "stem")
"""Stages in front of the model's."""

INSTALL = "Install torchvision (pip install 'sparseguard[download]')"
CLASSES = 10
SIDE = 224
"""Pixels a side on which a model and its stages are compared."""

ONLY_IN_TRAINING = ("aux1", "aux2", "AuxLogits")
"""Auxiliary heads, whose weights are ignored."""

EXTRA: Mapping[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Arguments by which these are plain classifiers: without the heads that only help in training."""


@final
class Normalize(nn.Module):
    """Normalization that torchvision's weights expect: channel by channel, minus mean, over standard deviation.

    Args:
        mean: a value a channel, or one for all.
        std: likewise.
        repeats: how often the channels are repeated, to make three of one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], repeats: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.repeats = repeats

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalized images."""
        return (images.repeat(1, self.repeats, 1, 1) - self.mean) / self.std


@settings
class TorchvisionModel(Backbone):
    """A classifier of torchvision by its name, ``torchvision:resnet18`` for short in a recipe.

    Its graph gives the stages: its children in order, a ``Sequential`` split into its own. A stage ends wherever a
    single tensor passes on. A test on random images compares the stages with the whole model. Stages are named as in
    the model, with ``_`` for the dots. Taps have the model's own names: ``layer1.0``, ``layer3`` (output of its last
    stage), and operations between, such as ``flatten``.

    The first convolution is replaced where other than three channels arrive, as behind a defense that puts sparse
    codes there. ReLUs do not overwrite their input, and heads that help in training only are left out (``googlenet``,
    ``inception_v3``).

    Args:
        model: name in ``torchvision.models``.
        weights: a state dict of that model to start from, as safetensors or as `torch.load` reads it with
            ``weights_only``, for any number of classes; empty: random ones. The head starts anew where the file's has
            another number of classes.
        grey: treatment of one channel: ``repeat`` it three times, or a first ``convolution`` replaced for it.
        normalize: ``imagenet`` means and deviations, or ``unit``, [-1, 1], as weights of ``googlenet`` and
            ``inception_v3`` expect. With one channel to the convolution it is always the latter.

    Taps: every stage, ``logits``, ``last_hidden`` (the input of the head), and ``first_linear`` where the model has a
    dense layer in front of its head that is a stage.

    Raises:
        RecipeError: without torchvision, for a model it does not have, or one whose stages are not its whole.
        DataError: when weights cannot be read or are another model's.

    Source: https://docs.pytorch.org/vision/stable/models.html

    Limits: each stage with weights is taken out of a model drawn for it alone, so that equal stages start equally under
    every defense; building takes as many times the model's own time as there are such stages.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "any torchvision classifier, its modules as taps; torchvision:NAME"
    model: str = "resnet18"
    weights: str = ""
    grey: Literal["repeat", "convolution"] = "repeat"
    normalize: Literal["imagenet", "unit"] = "imagenet"

    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages."""
        parts, taps = split_model(self.model)
        weights = read_weights(Path(self.weights)) if self.weights else {}
        stages = [Stage(name, self._make_builder(part, classes, weights, part is parts[0][1])) for name, part in parts]
        return Blueprint(
            stages=(Stage("input", self._build_input), Stage("stem", build_plain(nn.Identity)), *stages),
            taps=taps,
            fixed_widths=True,
        )

    def upstream(self) -> str:
        """Return the SHA-256 of the weights to start from; empty without."""
        return hashlib.sha256(Path(self.weights).read_bytes()).hexdigest() if self.weights else ""

    def _build_input(self, shape: Shape) -> nn.Module:
        repeats = 3 if shape[0] == 1 and self.grey == "repeat" else 1
        if self.normalize == "imagenet" and shape[0] * repeats == 3:
            return Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), repeats)
        return Normalize((0.5,), (0.5,), repeats)

    def _make_builder(self, part: Part, classes: int, weights: Mapping[str, Tensor], first: bool) -> Builder:
        def build(shape: Shape) -> nn.Module:
            model = build_model(self.model, classes)
            if weights:
                load_without_head(model, weights, self.weights)
            module = part.extract(model)
            if first:
                _fit_first_conv(module, shape[0], self.model)
            return module

        return build


def build_model(name: str, classes: int) -> nn.Module:
    """Return a model of torchvision with random weights, none of whose modules overwrites its input.

    Raises:
        RecipeError: without torchvision, or for a model it does not have among its classifiers.
    """
    try:
        from torchvision import models  # type: ignore[import-untyped]
    except ImportError:
        raise RecipeError(
            f"backbone 'torchvision': torchvision is not installed. {INSTALL}, or choose another backbone."
        ) from None
    names = models.list_models(module=models)
    if name not in names:
        raise RecipeError(f"backbone 'torchvision': no model '{name}'. {nearest(name, names)}")
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **EXTRA.get(name, {}))
    for module in model.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010
    return model


@functools.cache
def split_model(name: str) -> tuple[list[tuple[str, Part]], dict[str, str]]:
    """Return the names and parts of a model's stages, compared with the model on random images, and its taps.

    Raises:
        RecipeError: when the stages are not the whole model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, images = build_model(name, CLASSES), torch.randn(2, 3, SIDE, SIDE)
    try:
        parts = trace_parts(model.eval())
        require_equal(model, parts, images)
    except RecipeError as error:
        raise RecipeError(f"backbone 'torchvision:{name}' cannot be split into stages: {error}") from None
    named = [(f"model_{part.name}" if part.name in RESERVED else part.name, part) for part in parts]
    return named, _find_taps(model, named)


def load_without_head(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights, except for a head of another number of classes, which stays as it is.

    Raises:
        DataError: when they are another model's, naming the first difference.
    """
    own = model.state_dict()
    head = tuple(own)[-2:]
    unused = [name for name in weights if name.partition(".")[0] in ONLY_IN_TRAINING]
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unknown = sorted(set(weights) - set(own) - set(unused)) + missing
    if unknown:
        raise DataError(f"{where}: another model's weights: '{unknown[0]}' is not in both. Check backbone.model.")
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    other = [name for name in own if name in weights and name not in fitting and name not in head]
    if other:
        shapes = f"{tuple(weights[other[0]].shape)}, expected {tuple(own[other[0]].shape)}"
        raise DataError(f"{where}: another model's weights: '{other[0]}' is {shapes}. Check backbone.model.")
    model.load_state_dict(fitting, strict=False)


def expand_short_name(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Expand the short name ``torchvision:NAME`` of a recipe's backbone.

    Example:
        >>> expand_short_name({"name": "torchvision:resnet18", "grey": "convolution"})
        {'name': 'torchvision', 'grey': 'convolution', 'model': 'resnet18'}
    """
    name = entry.get("name")
    if not isinstance(name, str) or not name.startswith(PREFIX):
        return dict(entry)
    return {**entry, "name": PREFIX.rstrip(":"), "model": name.removeprefix(PREFIX)}


def _fit_first_conv(module: nn.Module, channels: int, name: str) -> None:
    conv = next((inner for inner in module.modules() if isinstance(inner, nn.Conv2d)), None)
    if conv is None:
        raise RecipeError(f"backbone 'torchvision:{name}': its first stage has no convolution.")
    if conv.in_channels != channels:
        resize_in_channels(conv, channels)


def _find_taps(model: nn.Module, parts: Sequence[tuple[str, Part]]) -> dict[str, str]:
    taps: dict[str, str] = {}
    for stage, part in parts:
        names = part.path.split(".")
        taps |= {".".join(names[:depth]): stage for depth in range(1, len(names))}
        taps[part.path or part.name] = stage
    modules = [part.extract(model) for _, part in parts]
    head = max(index for index, module in enumerate(modules) if list(module.parameters()))
    dense = [parts[index][0] for index in range(head) if isinstance(modules[index], nn.Linear)]
    if dense:
        taps["first_linear"] = dense[0]
    if head > 0:
        taps["last_hidden"] = parts[head - 1][0]
    return {**taps, "logits": parts[-1][0]}
