"""Models as named stages: the interface between backbones, defenses and taps.

A backbone is a `Blueprint`: a list of stages, each with a function that builds its module from the shape it is fed.
A defense replaces or adds stages before the model is built. Every later stage is sized for what really arrives, and a
defense cannot bring an architecture of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError, nearest

REVISION = 2
"""Revision of noise and of `StagedModel.list_untrained_stages`."""

M = TypeVar("M", bound=nn.Module)
Shape = tuple[int, ...]
Builder = Callable[[Shape], nn.Module]
NOTHING_PRECOMPUTED: Mapping[str, Tensor] = MappingProxyType({})


@runtime_checkable
class FixedCode(Protocol):
    """A stage whose outputs for equal images are equal as long as it does not learn, so that they can be stored."""

    @property
    def learns(self) -> bool:
        """Whether training can change the outputs."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything that the outputs depend on besides the images."""
        ...


class Randomized(nn.Module, ABC):
    """A module whose outputs for equal inputs differ at every query, in training and in evaluation mode."""

    @abstractmethod
    def average(self) -> nn.Module:
        """Return the module whose output is the mean output, without randomness."""


class Noise(Randomized):
    """Noise that a defense adds to a stage's output, drawn anew for every value and query.

    Args:
        kind: the distribution.
        scale: sigma of ``gaussian``, b of ``laplace``.
    """

    def __init__(self, kind: Literal["gaussian", "laplace"], scale: float) -> None:
        super().__init__()
        self.kind: Literal["gaussian", "laplace"] = kind
        self.scale = scale

    def forward(self, values: Tensor) -> Tensor:
        """Return ``values`` plus noise from torch's global generator."""
        if self.kind == "gaussian":
            return values + self.scale * torch.randn_like(values)
        signs = torch.randint_like(values, 2) * 2 - 1
        return values + self.scale * signs * torch.empty_like(values).exponential_()

    def average(self) -> nn.Module:
        """Return the identity: the noise has mean 0."""
        return nn.Identity()

    def extra_repr(self) -> str:
        """Return the distribution."""
        return f"{self.kind}, scale={self.scale}"


@dataclass(frozen=True)
class Stage:
    """A named part of a model, and a function that builds it from the shape of its input (without the batch)."""

    name: str
    build: Builder


@dataclass(frozen=True)
class Blueprint:
    """A model before it is built.

    Args:
        stages: the stages in order.
        taps: stage whose output the attacker sees, by the tap's name in recipes.
        tap: the tap under attack, for defenses that act there; empty where none is named.
        fixed_widths: whether stages take only as many channels or values as without a defense, instead of being sized
            for what arrives; except for the first convolution of an image.
    """

    stages: tuple[Stage, ...]
    taps: Mapping[str, str]
    tap: str = ""
    fixed_widths: bool = False

    def stage_names(self) -> list[str]:
        """Return the stages' names in order."""
        return [stage.name for stage in self.stages]

    def replace(self, name: str, build: Builder) -> Blueprint:
        """Return a blueprint in which stage ``name`` is built by ``build``."""
        index = self._index(name)
        stages = (*self.stages[:index], Stage(name, build), *self.stages[index + 1 :])
        return replace(self, stages=stages)

    def insert_before(self, name: str, new: str, build: Builder) -> Blueprint:
        """Return a blueprint with a stage ``new``, built by ``build``, in front of stage ``name``.

        Raises:
            RecipeError: when there is no stage ``name``, or one called ``new`` already.
        """
        index = self._index(name)
        if new in self.stage_names():
            raise RecipeError(f"this model has a stage '{new}' already.")
        return replace(self, stages=(*self.stages[:index], Stage(new, build), *self.stages[index:]))

    def insert_after_tap(self, new: str, build: Builder) -> Blueprint:
        """Return a blueprint with a stage ``new`` after the stage of the tap; its output becomes the tap.

        Raises:
            RecipeError: when no tap is named, or there is a stage called ``new`` already.
        """
        if not self.tap:
            raise RecipeError("this defense acts at the tap under attack, and none is named.")
        if new in self.stage_names():
            raise RecipeError(f"this model has a stage '{new}' already.")
        old = self.resolve_tap(self.tap)
        after = self._index(old) + 1
        taps = {tap: new if stage == old else stage for tap, stage in self.taps.items()}
        return replace(self, stages=(*self.stages[:after], Stage(new, build), *self.stages[after:]), taps=taps)

    def resolve_tap(self, name: str) -> str:
        """Return the stage whose output is the tap ``name``.

        Raises:
            RecipeError: when this model has no such tap.
        """
        if name not in self.taps:
            raise RecipeError(f"this backbone has no tap '{name}'. {nearest(name, self.taps)}")
        return self.taps[name]

    def is_tapped_before(self, stage: str) -> bool:
        """Return whether the tap under attack comes before ``stage``; False where no tap is named."""
        return bool(self.tap) and self._index(self.resolve_tap(self.tap)) < self._index(stage)

    def build(self, input_shape: Shape, stage_seed: Callable[[str], int]) -> StagedModel:
        """Build all stages for images of ``input_shape``.

        Each stage draws its weights from ``stage_seed(stage's name)``, so that a change of one stage does not change
        the initial weights of the others.

        Raises:
            RecipeError: when a stage does not accept its input, such as images too small for its pooling.
        """
        modules: dict[str, nn.Module] = {}
        probe = torch.zeros(2, *input_shape)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for stage in self.stages:
                torch.default_generator.manual_seed(stage_seed(stage.name))
                module = stage.build(tuple(probe.shape[1:])).eval()
                try:
                    probe = module(probe)
                except (RuntimeError, AssertionError) as error:
                    arrived = tuple(probe.shape[1:])
                    raise RecipeError(
                        f"images of {input_shape} do not fit this model: its stage '{stage.name}' is given {arrived} "
                        f"({error}). Choose another image size or backbone, or a defense that keeps the grid."
                    ) from error
                modules[stage.name] = module
        return StagedModel(modules)

    def _index(self, name: str) -> int:
        names = self.stage_names()
        if name not in names:
            raise RecipeError(f"this backbone has no stage '{name}'. {nearest(name, names)}")
        return names.index(name)


class StagedModel(nn.Module):
    """A model that runs its named stages one after the other; input is images in [0, 1], output is logits."""

    def __init__(self, stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self._front: list[str] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(n, classes)``."""
        value: Tensor = images
        for module in self.stages.values():
            value = module(value)
        return value

    def outputs(self, images: Tensor, precomputed: Mapping[str, Tensor] = NOTHING_PRECOMPUTED) -> dict[str, Tensor]:
        """Return every stage's output by its name; the last one is the logits.

        Args:
            images: ``(n, c, h, w)`` in [0, 1].
            precomputed: outputs by the stage's name; these stages are not run. Stages before them are.

        Raises:
            RecipeError: when ``precomputed`` names a stage that the model does not have.
        """
        for name in precomputed:
            self._require_stage(name)
        collected: dict[str, Tensor] = {}
        value = images
        for name, module in self.stages.items():
            value = precomputed[name] if name in precomputed else module(value)
            collected[name] = value
        return collected

    def forward_to(self, images: Tensor, stage: str) -> Tensor:
        """Return the output of ``stage``; later stages are not run."""
        self._require_stage(stage)
        value: Tensor = images
        for name, module in self.stages.items():
            value = module(value)
            if name == stage:
                break
        return value

    def append_to(self, stage: str, module: nn.Module) -> None:
        """Append ``module`` to ``stage``."""
        self.stages[stage] = nn.Sequential(self.stages[stage], module)

    def find_noise(self) -> tuple[str, Noise] | None:
        """Return the first noise on the way from image to logits and the stage it is in; None without any."""
        modules = ((name, inner) for name, stage in self.stages.items() for inner in stage.modules())
        return next(((name, inner) for name, inner in modules if isinstance(inner, Noise)), None)

    def list_untrained_stages(self) -> list[str]:
        """Return the first stages, up to the first whose output training can change: stateless or with fixed codes."""
        if self._front is not None:
            return self._front
        front = []
        for name, stage in self.stages.items():
            fixed = not stage.learns if isinstance(stage, FixedCode) else not stage.state_dict()
            if not fixed:
                break
            front.append(name)
        return front

    def freeze(self) -> None:
        """Put the model into evaluation mode for good; `list_untrained_stages` stays what it is now."""
        self._front = self.list_untrained_stages()
        self.eval().requires_grad_(False)

    def _require_stage(self, stage: str) -> None:
        if stage not in self.stages:
            raise RecipeError(f"the model has no stage '{stage}'. {nearest(stage, self.stages)}")


def remove_noise(model: M) -> M:
    """Replace everything `Randomized` inside ``model`` by its average, in place, and return the model.

    Its output is then, to first order, its mean output.
    """
    for name, inner in list(model.named_children()):
        setattr(model, name, inner.average() if isinstance(inner, Randomized) else remove_noise(inner))
    return model


def resize_in_channels(conv: nn.Conv2d, channels: int) -> None:
    """Change a convolution's number of input channels in place; PyTorch's default draws its weights anew.

    Raises:
        RecipeError: when its groups do not divide the channels.

    Example:
        >>> conv = nn.Conv2d(3, 8, 5, stride=2, bias=False)
        >>> resize_in_channels(conv, 28)
        >>> conv(torch.ones(1, 28, 9, 9)).shape
        torch.Size([1, 8, 3, 3])
    """
    if channels % conv.groups:
        raise RecipeError(f"a convolution of {conv.groups} groups cannot take {channels} channels.")
    conv.in_channels = channels
    old = conv.weight
    conv.weight = nn.Parameter(old.new_empty(len(old), channels // conv.groups, *old.shape[2:]))
    conv.reset_parameters()
