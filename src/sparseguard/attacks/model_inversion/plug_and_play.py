"""Plug & Play: search a generator's latents for images that the target is sure belong to a class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from sparseguard.attacks._image_transforms import fit_to_shape
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import ClassAttack, ClassContext
from sparseguard.attacks.model_inversion._latent_search import LatentSearch
from sparseguard.attacks.model_inversion._latent_settings import LatentSettings, draw_w, synthesize
from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.seeding import derive
from sparseguard.generators import Prior
from sparseguard.sparse import NotConvergedWarning
from sparseguard.types import ClassResult, Images, Knowledge, TargetClasses

_FACES = {
    "optimized": 200, "selected": 50, "truncation": 0.5, "cutoff": 8, "lr": (0.005,), "transforms": 100,
    "crop": 800, "scale": (0.9, 1.0),
}  # fmt: skip


@settings
class PlugAndPlay(LatentSettings, ClassAttack):
    r"""Rank latents by the target's confidence, improve the best by gradients, select by random crops.

    .. math:: \min_w d\left(f(T(G(w))), c\right) + \beta \log(1 + e^{-D(G(w))})

    G and D are the prior's generator and discriminator, f the target without its noise, T a random crop (one a step),
    d the distance to class c. (1) `candidates` latents are drawn, truncated, mapped to W, and ranked for every class by
    the target's confidence in the image, averaged with its mirror image where that keeps the class. (2) The best
    `optimized` of each class are improved for `steps` steps of Adam. (3) They are ranked by the mean confidence over
    `transforms` random crops, mirrored at random where that keeps the class; `selected` are the answer.

    The attack chooses the rate and then, where the target has sparse layers, the rule by which gradients pass them
    (unrolled over the solver's steps, implicit at a converged solution, straight through): those that lower the loss of
    the released model most in `probe_steps` steps on some candidates. The diagnostics have the losses of all trials and
    the cosines between the rules' gradients.

    Args:
        prior: name or folder of the generator.
        trust_prior: run the Python that its folder names, if it does; see `load_prior`.
        candidates: number of random latents.
        optimized: of each class.
        selected: of each class, the answer.
        truncation: psi, the factor of w's distance to its mean.
        cutoff: the first so many layers are truncated; None: all.
        space: ``w``: one w for all layers, the first layer's; ``w+``: one for each. Without a W the search is in z.
        steps: of the search.
        lr: of Adam; of several the best one on a probe.
        betas: of Adam.
        loss: ``poincare``, ``cross-entropy`` or ``max-margin``.
        discriminator: beta; needs a prior with a discriminator.
        crop: side of the central crop of the prior's images; 0: no crop.
        scale: fraction of the area that a random crop keeps, in the search.
        transforms: random crops in the selection.
        final_scale: fraction of the area these keep.
        final_ratio: aspect ratio of these.
        probe_images: candidates on which rate and rule are tried.
        probe_steps: steps of each trial.
        batch_size: images at once.

    Source: L. Struppek et al., "Plug & Play Attacks: Towards Robust and Flexible Model Inversion Attacks", ICML 2022.
    Differs: images are clipped to [0, 1] before the target sees them, the gradient passing; randomized defenses are
    attacked through their mean answer; rule and rate are chosen by trials; the rate is constant. As in the authors'
    code, one w for all layers means that all are truncated, whatever `cutoff` from 1 on.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "search a generator's latents for images of a class (needs prior=)"
    source: ClassVar[str] = "Struppek et al., ICML 2022"
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "facescrub-ffhq": {**_FACES, "candidates": 2000, "steps": 50},
        "celeba-ffhq": {**_FACES, "candidates": 5000, "steps": 70},
        "metfaces": {**_FACES, "candidates": 5000, "steps": 70, "batch_size": 20},
        "dogs-afhq": {**_FACES, "candidates": 2000, "steps": 100, "lr": (0.01,), "crop": 0, "scale": (0.75, 1.0)},
    }

    def prior_source(self) -> str | None:
        """Return the prior's name or folder."""
        return self.prior

    def trusts_prior(self) -> bool:
        """Return `trust_prior`."""
        return self.trust_prior

    def check(self, prior: Prior | None) -> None:
        """Refuse settings that do not fit the prior."""
        if prior is None:
            raise RecipeError("plug-and-play: needs a prior: prior = 'NAME or FOLDER'.")
        card = prior.card
        if self.crop > min(card.shape[1:]):
            raise RecipeError(f"plug-and-play: crop = {self.crop} is larger than the prior's images of {card.shape}.")
        if prior.has_w and self.cutoff is not None and self.cutoff > card.num_ws:
            raise RecipeError(
                f"plug-and-play: cutoff = {self.cutoff}, the prior has {card.num_ws} layers that take a w."
            )
        if self.space == "w+" and not prior.has_w:
            raise RecipeError(f"plug-and-play: space = 'w+' needs a prior with a W; '{card.name}' has z only.")
        if self.discriminator and prior.realism(torch.zeros(1, *card.shape, device=prior.device)) is None:
            raise RecipeError("plug-and-play: the prior has no discriminator; set discriminator = 0.")

    def sample_prior(self, count: int, classes: TargetClasses, prior: Prior | None, seed: int) -> Images | None:
        """Return samples of the prior, truncated like candidates."""
        if prior is None:
            return None
        source = torch.Generator().manual_seed(derive(purpose="unattacked", seed=seed))
        samples = []
        with torch.no_grad():
            for z in prior.latents(count, source).split(self.batch_size):
                w = draw_w(self, prior, z)
                samples.append(fit_to_shape(synthesize(prior, w), classes.shape, self.crop).clamp(0, 1).cpu())
        return torch.cat(samples)

    def run(self, access: ModelAccess, classes: TargetClasses, context: ClassContext) -> ClassResult:
        """Rank, search and select."""
        if context.prior is None:
            raise RecipeError(f"{context.label}: name a prior: prior = 'NAME or FOLDER'.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the rule is judged by its trial
            return LatentSearch(self, access, classes, context, context.prior).result()
