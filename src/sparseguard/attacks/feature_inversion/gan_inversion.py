"""Inversion within a prior: search a generator's images for the one whose features match the released ones."""

from __future__ import annotations

import warnings
from typing import ClassVar

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, NotApplicable
from sparseguard.attacks.feature_inversion._searches.generator_search import GeneratorSearch, GeneratorSettings
from sparseguard.core.config import settings
from sparseguard.generators import Prior
from sparseguard.sparse import NotConvergedWarning
from sparseguard.types import AttackInputs, AttackResult, Knowledge


@settings
class PriorInversion(GeneratorSettings, Attack):
    r"""Minimize the distance in feature space over the latents of a generator, then over its intermediate features.

    .. math:: \min_{w, m} \frac{\|f(x) - z\|^2}{s} + \alpha \frac{\overline{(w - \bar w)^2}}{\sigma^2}
              + \gamma \frac{\overline{(x - x_0)^2}}{v} + \mu \overline{m^2},
              \qquad x = \operatorname{clip}_{[0, 1]} G_k(h_k + |h_k| m, w)

    f is the target without its noise, z the released features, s their total variance, v the mean variance of a pixel,
    :math:`\bar w` and :math:`\sigma` mean and standard deviation of the prior's w, :math:`x_0` the anchor: the
    reconstruction of the best attack before this one. Overlines are means over an image's values. The search is first
    over w alone, one for each layer of the generator (z for a generator without W). Then, layer after layer, it is over
    w and the output :math:`h_k` of that layer, from the best iterate before; :math:`|h_k|` is its root mean square, so
    that m is a relative move. Each image keeps the iterate of lowest objective of every descent.

    The start is the candidate whose features are nearest to z, or, warm, the one whose pixels are nearest to
    :math:`x_0`, after some steps of w towards it. The answer is :math:`x_0 + t (x - x_0)`.

    On some auxiliary_val images the attack chooses the rule by which gradients pass sparse layers by the distance in
    feature space; then the start, gamma and alpha by the error in pixels. On all attacked auxiliary_val images it
    chooses depth and t by the error in pixels. If the search comes no nearer to these than :math:`x_0`, the answer is
    :math:`x_0`. Without an attack before this one, there is no warm start, gamma is 0 and t is 1.

    Args:
        prior: name or folder of the generator, whose images have the size of those attacked.
        trust_prior: run the Python that its folder names, if it does; see `load_prior`.
        candidates: random latents to start from.
        warm_steps: of the warm start.
        steps: of Adam in w.
        layer_steps: of Adam in the features of each layer.
        lr: step size in w, in units of its standard deviation, with cosine decay.
        layer_lr: step size in features, in units of their root mean square.
        penalty: values of alpha to try.
        proximal_weight: values of gamma to try.
        move: mu.
        fractions: values of t to try.
        probe_images: auxiliary_val images on which plans are tried.
        probe_steps: steps in w of each trial, and half as many in each layer.
        batch_size: images searched at once.

    Source: the search through a generator's layers is that of Qiu et al. 2024, "A Closer Look at GAN Priors:
    Exploiting Intermediate Features for Enhanced Model Inversion Attacks" (IF-GMI), and of progressive feature
    optimization (Qiu et al. 2025, arXiv 2508.20613). Deviations: a penalty on the move in place of an
    l1 ball; the warm start, the proximal term and the combination with the anchor; depth is chosen on auxiliary images.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "search a generator's latents and layers for the image with these features (needs prior=)"
    source: ClassVar[str] = "Qiu et al., ECCV 2024"
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    max_images: ClassVar[int | None] = 32
    learns_from_features: ClassVar[bool] = False
    starts_from_earlier: ClassVar[bool] = True

    def prior_source(self) -> str | None:
        """Return `prior`; None where it is empty."""
        return self.prior or None

    def trusts_prior(self) -> bool:
        """Return `trust_prior`."""
        return self.trust_prior

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Choose a plan on auxiliary_val and run it."""
        prior = self._require_prior(inputs, context)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the rule is judged by its trial
            return GeneratorSearch(self, access, inputs, context, prior).result()

    def _require_prior(self, inputs: AttackInputs, context: AttackContext) -> Prior:
        if not self.prior or context.prior is None:
            raise NotApplicable("no prior is named; set prior = 'NAME or FOLDER' to say which generator is searched")
        if "auxiliary_val" not in inputs:
            raise NotApplicable("it makes its choices on auxiliary_val, which an attacker with other images lacks")
        shape, attacked = tuple(context.prior.card.shape), context.auxiliary.train.shape
        if shape != attacked:
            raise NotApplicable(
                f"the prior '{context.prior.card.name}' makes images of {shape}, attacked are {attacked}"
            )
        return context.prior
