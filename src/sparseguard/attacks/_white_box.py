"""Differentiable copies of a target: gradients through sparse layers by several rules, sparsity that can be scaled."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.attacks.base import NotApplicable
from sparseguard.core.staged_model import StagedModel, remove_noise
from sparseguard.sparse import Gradient, Implicit, OneStep, SparseCoding, StraightThrough, Unrolled
from sparseguard.types import Images

Rule = Literal["unrolled", "implicit", "straight-through"]
RULES: tuple[Rule, ...] = ("unrolled", "implicit", "straight-through")

IMPLICIT_STEPS = 200
IMPLICIT_TOLERANCE = 1e-3


@dataclass(eq=False)
class WhiteBoxModel:
    """The target from image to tap, without its noise, as a differentiable function of images.

    Args:
        model: a copy of the released model up to the tap.
        rule: how gradients pass sparse layers. ``unrolled``: through the solver steps that are run, the exact gradient
            of the released model. ``implicit``: of the solution, which the layers then solve for.
            ``straight-through``: as if the code were the analysis of its input.
    """

    model: StagedModel
    rule: Rule = "unrolled"

    def __post_init__(self) -> None:
        """Remove the noise and set the rule."""
        self.model = remove_noise(copy.deepcopy(self.model))
        self.layers = [module for module in self.model.modules() if isinstance(module, SparseCoding)]
        self.lambdas = [layer.lambd for layer in self.layers]
        for layer in self.layers:
            layer.gradient = _gradient_of(self.rule)
            if self.rule == "implicit":
                layer.steps, layer.tolerance = IMPLICIT_STEPS, IMPLICIT_TOLERANCE

    @property
    def sparse(self) -> bool:
        """Whether there is a sparse layer, so that rules differ."""
        return bool(self.layers)

    def scale_lambda(self, factor: float) -> None:
        """Multiply every sparse layer's lambda as released by ``factor``."""
        for layer, lambd in zip(self.layers, self.lambdas, strict=True):
            layer.lambd = lambd * factor if isinstance(lambd, float) else tuple(each * factor for each in lambd)

    def __call__(self, images: Images) -> Float[Tensor, "n d"]:
        """Return the tap's features, flattened."""
        features: Tensor = self.model(images)
        return features.flatten(1)


def models_by_rule(model: StagedModel) -> dict[Rule, WhiteBoxModel]:
    """Return a differentiable copy for every rule; for ``unrolled`` alone where there is no sparse layer."""
    models = {rule: WhiteBoxModel(model, rule) for rule in RULES}
    return models if models["unrolled"].sparse else {"unrolled": models["unrolled"]}


def feature_loss(
    model: WhiteBoxModel, images: Images, features: Float[Tensor, "n d"], scale: float
) -> Float[Tensor, " n"]:
    r"""Return :math:`\|f(x) - z\|^2 / s` of each image, s the features' total variance: 1 for a typical other image."""
    distance: Tensor = (model(images) - features).square().sum(1)
    return distance / scale


def feature_loss_gradient(model: WhiteBoxModel, images: Images, features: Tensor, scale: float) -> Images:
    """Return the gradient of every image's feature loss by its pixels.

    Raises:
        NotApplicable: when the features are computed without gradients.
    """
    leaf = images.detach().clone().requires_grad_()
    total = feature_loss(model, leaf, features, scale).sum()
    if not total.requires_grad:
        raise NotApplicable("the features cannot be differentiated by the image: the model rounds or detaches it")
    (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Return the mean cosine, over images, between the gradients of two rules; 0 where one of them is zero."""
    return float(torch.nn.functional.cosine_similarity(first.flatten(1), second.flatten(1), dim=1).mean())


def _gradient_of(rule: Rule) -> Gradient:
    if rule == "unrolled":
        return Unrolled()
    if rule == "implicit":
        return Implicit(kkt=10 * IMPLICIT_TOLERANCE, residual=1e-2, max_steps=50, otherwise=OneStep())
    return StraightThrough()
