"""Values of class inversion: the target classes, and the images made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from sparseguard.types.datasets import Images, Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetClasses:
    """Classes to make images of, and what an attacker knows of their images.

    Args:
        indices: of the target classes.
        names: of all classes.
        shape: channels, height and width the target takes.
        flips_keep_class: whether the mirror image of every image belongs to the same class.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    shape: tuple[int, int, int]
    flips_keep_class: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassResult:
    """Result of a class inversion: some images of every target class, the best first within a class.

    Args:
        images: ``(n, c, h, w)`` float32.
        labels: ``(n,)`` the class each was made for.
        confidence: ``(n,)`` the target's confidence in that class, as the attack measures it.
        steady_confidence: ``(n,)`` its mean over the random transforms by which the attack selects.
        selected: ``(n,)`` bool, the attack's answer; the others show the effect of the selection.
        starts: ``(n, c, h, w)`` the image each search started from.
        start_confidence: ``(n,)`` the target's confidence in those.
        diagnostics: figures by name.
        curves: learning curves by name.
    """

    images: Images
    labels: Labels
    confidence: Float[Tensor, " n"]
    steady_confidence: Float[Tensor, " n"]
    selected: Bool[Tensor, " n"]
    starts: Images
    start_confidence: Float[Tensor, " n"]
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
