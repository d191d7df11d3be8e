"""BiDO: train hidden layers to depend less on the image and more on the label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.defenses.base import Defense
from sparseguard.numerics.dependence import coco, gaussian_kernel, hsic, linear_kernel, normalized_hsic
from sparseguard.types import BatchContext

MEASURES = {"hsic-normalized": normalized_hsic, "hsic": hsic, "coco": coco}


def find_hidden_stages(images: Tensor, outputs: Mapping[str, Tensor]) -> list[str]:
    """Return the stages whose outputs count as hidden layers, in order.

    All stages do, including those of other defenses, except for

    - `input`, which scales images,
    - a stage whose output shares the memory of its input: the identity, or one that only reshapes,
    - a stage ``X`` with a stage ``X_relu``, which counts instead,
    - the last stage, whose output is the logits.

    Args:
        images: input of the first stage.
        outputs: every stage's output by its name, in order.
    """
    names, inputs, stages = list(outputs), images, []
    for name in names:
        same = outputs[name].data_ptr() == inputs.data_ptr() and outputs[name].numel() == inputs.numel()
        if not same and name not in ("input", names[-1]) and f"{name}_relu" not in outputs:
            stages.append(name)
        inputs = outputs[name]
    return stages


@settings
class BilateralDependency(Defense):
    r"""Train hidden layers to depend little on the image and much on the label (BiDO).

    .. math:: L = \mathrm{CE} + \lambda_x \sum_j d(X, Z_j) - \lambda_y \sum_j d(Z_j, Y)

    The sums run over all hidden layers :math:`Z_j` of a batch of m images X with labels Y: every stage's output, after
    the nonlinearity where that is a stage, without the scaled image and the logits. Kernels on images (in
    [0, 1]) and hidden layers are Gaussian with variance :math:`\sigma^2` times the number of values; the kernel on
    labels is linear on one-hot vectors. With :math:`H = I - 1/m`, :math:`K' = H K H` and :math:`L' = H L H`, the
    measure d is one of

    - `hsic-normalized`: :math:`\operatorname{tr}(R_K R_L)`, :math:`R_K = K' (K' + 10^{-5} m I)^{-1}`,
    - `hsic`: :math:`(m-1)^{-2} \operatorname{tr}(K H L H)`,
    - `coco`: :math:`\sqrt{\|K' L'\|_2} / m`.

    The model has the stages of the undefended model, and no randomness.

    Args:
        measure: of dependence, `hsic-normalized`, `hsic` or `coco`. The lambdas belong to the measure: these differ by
            orders of magnitude.
        lambda_x: weight of the dependence on the image, at least 0.
        lambda_y: weight of the dependence on the label, at least 0.
        sigma: width of the Gaussian kernels for each value, above 0.

    Source: Peng, Liu, Zhang, Lan, Ye, Liu, Han, Bilateral Dependency Optimization: Defending Against Model-inversion
    Attacks, KDD 2022. The authors' settings: (lambda_x, lambda_y) = (0.05, 0.5) with normalized HSIC on CelebA, (1, 50)
    and (2, 20) with COCO on MNIST; sigma 5.

    Differs: the authors' code centers one side of the kernels of normalized HSIC, which gives the same value; its COCO
    has the Frobenius norm, here it is the spectral norm of the definition. The authors choose five (VGG) or three
    layers by hand, here all hidden layers count. In torchvision's models every
    module is a stage: convolutions, normalizations and ReLUs alike.

    Limits: a penalty on batches, without a guarantee for single images; at a query nothing is removed or hidden.
    Gaussian kernels this wide respond to large differences only, so layers may keep fine detail at little cost, and
    normalized HSIC ignores what is small compared with its regularization.

    Released code: the term added to the loss is a number without gradient in 12 of 15 scripts, so the target trains as
    without a defense; in the other three, only the dependence between image and logits is lowered, and there is no
    label term.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "BiDO: hidden layers depend less on the image, more on the label (HSIC or COCO)"
    source: ClassVar[str] = "Peng et al., KDD 2022 (BiDO)"
    measure: Literal["hsic-normalized", "hsic", "coco"] = "hsic-normalized"
    lambda_x: Annotated[float, Field(ge=0)] = 0.05
    lambda_y: Annotated[float, Field(ge=0)] = 0.5
    sigma: Annotated[float, Field(gt=0)] = 5.0

    def find_unaccounted_access(self) -> str | None:
        """Return that the measures depend on a whole batch."""
        return "its measures of dependence couple the images of a batch"

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the weighted dependences on the image minus those on the label.

        Raises:
            ArithmeticError: when they cannot be computed, as for outputs that are not finite.
        """
        images, labels, measure = batch.images[batch.own], batch.labels[batch.own], MEASURES[self.measure]
        if len(images) < 2:
            return None
        on_images = gaussian_kernel(images.flatten(1), self.sigma)
        on_labels = linear_kernel(F.one_hot(labels, batch.logits.shape[1]).to(images.dtype))
        terms = []
        for name in find_hidden_stages(batch.images, batch.outputs):
            hidden = gaussian_kernel(batch.outputs[name][batch.own].flatten(1), self.sigma)
            try:
                terms.append(self.lambda_x * measure(on_images, hidden) - self.lambda_y * measure(hidden, on_labels))
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise ArithmeticError(f"the dependence of stage '{name}' cannot be computed: {error}") from error
        return torch.stack(terms).sum() if terms else None
