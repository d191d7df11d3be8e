"""Inversion by gradients: search the image whose features match the released ones."""

from __future__ import annotations

import warnings
from typing import ClassVar

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, NotApplicable
from sparseguard.attacks.feature_inversion._searches.pixel_search import PixelSearch, PixelSettings
from sparseguard.core.config import settings
from sparseguard.sparse import NotConvergedWarning
from sparseguard.types import AttackInputs, AttackResult, Knowledge


@settings
class GradientInversion(PixelSettings, Attack):
    r"""Minimize the distance in feature space by Adam, with priors on the image.

    .. math:: \min_y \frac{\|f(x) - z\|^2}{s} + \alpha \, TV(x) + \beta \, \frac{\|y\|^2}{\text{pixels}},
              \qquad x = \operatorname{clip}_{[0, 1]}(x_0 + V \sigma y)

    f is the target without its noise, z the released features, s their total variance, TV the mean squared difference
    of neighboring pixels, :math:`x_0` the anchor: the reconstruction of the best attack before this one, or the mean
    image if that is nearer. The columns of V are the principal components of the auxiliary images, :math:`\sigma_i` is
    the error of :math:`x_0` along the i-th on auxiliary_val: the search moves where :math:`x_0` is likely to be wrong.

    The attack chooses on some auxiliary_val images, in this order: the rule by which gradients pass sparse layers, and
    whether lambda starts small (both by the distance in feature space); the start (zeros, mean image, the best result
    for each knowledge), then beta, then alpha (by the error in pixels). If the search comes no nearer to the
    auxiliary_val images than :math:`x_0`, the answer is :math:`x_0`.

    Args:
        steps: of Adam; every image keeps its iterate of lowest objective, so more steps never raise it.
        lr: step size in units of y, with cosine decay.
        tv: values of alpha to try.
        prior_weight: values of beta to try.
        probe_images: auxiliary_val images on which plans are tried.
        probe_steps: steps of each trial.
        batch_size: images searched at once.

    Source: He, Zhang and Lee 2019, "Model inversion attacks against collaborative inference" (white-box, regularized
    maximum likelihood). Deviations: the prior and its coordinates, starts other than zero, [0, 1] enforced, a choice
    of alpha.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "search by gradients through the weights for the image with these features"
    source: ClassVar[str] = "He et al., ACSAC 2019"
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    max_images: ClassVar[int | None] = 32
    learns_from_features: ClassVar[bool] = False
    starts_from_earlier: ClassVar[bool] = True

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Choose a plan on auxiliary_val and run it."""
        if "auxiliary_val" not in inputs:
            raise NotApplicable("it makes its choices on auxiliary_val, which an attacker with other images lacks")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the rule is judged by its trial
            return PixelSearch(self, access, inputs, context).result()
