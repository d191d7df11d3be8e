"""DP-SGD: gradients of single images, clipped and noised."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses.base import Batches, Context, Defense, State
from sparseguard.defenses.differential_privacy._accounting import Accountant, noise_for, spent
from sparseguard.defenses.differential_privacy._opacus_steps import PoissonBatches, private_steps
from sparseguard.defenses.differential_privacy._rero_bound import reconstruction_bound
from sparseguard.types import BatchContext, EpochContext

EPSILON = 8.0
FACTS = ("epsilon", "delta", "noise_multiplier", "sampling_rate", "steps", "clip", "rero_prior", "rero_bound")


@final
@settings
class DpSgd(Defense):
    r"""Train by gradients of single images that are clipped to one length, summed and noised.

    .. math:: \tilde g = \frac{1}{B} \Big( \sum_i g_i \min(1, C / \|g_i\|_2) + N(0, \sigma^2 C^2 I) \Big)

    Every image is in a batch with probability q = B / n, independently of all others; B is the batch size of `[fit]`.
    The noise is the least for which Opacus' accountant finds (epsilon, delta) differential privacy over all steps,
    for neighbouring training sets that differ by one image. The optimizer of `[fit]` takes the noised gradient.
    Training runs all epochs, and the last weights are kept: early stopping looks at private images.

    The record says what was spent, and bounds what any attack on the weights can do: an attacker who knows every other
    training image, and would reconstruct this one with probability `rero_prior` without the model, does so with it
    with a probability of at most `rero_bound`. The prior is taken as 1 / n (see `reconstruction_bound`).

    Args:
        epsilon: to be spent at most; 8 where `noise_multiplier` is absent as well.
        noise_multiplier: sigma, the noise's standard deviation in units of `clip`, in place of `epsilon`; >= 0.1.
        clip: C, longest gradient of one image (2-norm over all parameters).
        delta: chance that epsilon does not hold; should be below 1 / n.
        accountant: `prv` (tight) or `rdp` (spends more for the same noise, quicker).

    Raises:
        RecipeError: both epsilon and noise_multiplier; a layer that mixes the images of a batch, or keeps values of
            them (batch normalization in `conv` unless its normalization is "group", and in most of torchvision's
            models); without Opacus; a defense that learns from private images otherwise than by gradients of single
            images.

    Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1; the bound on reconstruction is
    that of Hayes, Mahloujifar and Balle 2023, "Bounding training data reconstruction in DP-SGD". The paper compares
    under the name of the latter, which analyses DP-SGD and proposes no defense of its own.

    Differs: by Opacus. The optimizer is that of `[fit]` (Adam where nothing is said). The bound is computed on a grid
    instead of sampled, from above. The paper names no epsilon; 8 is ours.

    Limits: it protects the training images in the released weights. It does not protect an image that is put to the
    model: what leaks of it may be as invertible as ever. Noise and batches follow from the run's seed, by a generator
    that is not made for secrets and in floating point, so the guarantee holds against those who do not know the seed,
    and its proof takes the noise for real numbers. Losses and accuracies in the record are computed from private images
    without noise, and are not covered; neither is the choice of settings by looking at them.

    Released code: Opacus with noise multiplier 1.1, clip 1.0 and delta 1e-5 in 15 of 15 scripts, for 25 epochs; no
    epsilon is reported, and the network is another one than without defense. The attacker is given a freshly
    initialized network instead of the trained one in 15 of 15.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "DP-SGD: clipped and noised gradients of single images, with an epsilon"
    source: ClassVar[str] = "Abadi et al. 2016 (CCS); Hayes et al. 2023 (NeurIPS) for the bound"
    chooses_epoch: ClassVar[bool] = False
    epsilon: Annotated[float, Field(gt=0, le=1000)] | None = None
    noise_multiplier: Annotated[float, Field(ge=0.1)] | None = None
    clip: Annotated[float, Field(gt=0)] = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    accountant: Accountant = "prv"

    @model_validator(mode="after")
    def _one_of_two(self) -> DpSgd:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give epsilon or noise_multiplier, not both: one follows from the other")
        if self.epsilon is None and self.noise_multiplier is None:
            object.__setattr__(self, "epsilon", EPSILON)
        return self

    def find_conflict(self, other: Defense) -> str | None:
        """Refuse what learns from private images in another way."""
        return other.find_unaccounted_access()

    def prepare(self, context: Context) -> State:
        """Find the noise for the steps to come, what they spend, and what that means for reconstruction."""
        budget = context.budget
        rate = budget.batch_size / budget.images
        steps = budget.epochs * math.ceil(budget.images / budget.batch_size)
        sigma = self.noise_multiplier or noise_for(
            epsilon=self.epsilon or EPSILON, rate=rate, steps=steps, delta=self.delta, accountant=self.accountant
        )
        figures = {
            "epsilon": spent(
                noise_multiplier=sigma, rate=rate, steps=steps, delta=self.delta, accountant=self.accountant
            ),
            "delta": self.delta,
            "noise_multiplier": sigma,
            "sampling_rate": rate,
            "steps": steps,
            "epochs": budget.epochs,
            "clip": self.clip,
            "rero_prior": 1 / budget.images,
            "rero_bound": reconstruction_bound(prior=1 / budget.images, noise_multiplier=sigma, rate=rate, steps=steps),
        }
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def on_epoch_start(self, context: EpochContext) -> State:
        """Refuse an epoch that was not accounted for."""
        if context.epoch >= int(context.state["epochs"]):
            raise RecipeError(
                f"dp-sgd accounts for {int(context.state['epochs'])} epochs, and the defense it is combined with trains "
                f"for more."
            )
        return {}

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Add nothing; refuse a batch to which images were added, whose number tells of the private ones."""
        if batch.own_count is not None and batch.own_count != len(batch.images):
            raise RecipeError("dp-sgd cannot be combined with a defense that adds images to batches.")
        return None

    @contextmanager
    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches, state: State
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
        """Draw batches at random, and clip and noise what the optimizer gets; the model is left as it was."""
        if not isinstance(batches, DataLoader):
            raise TypeError("dp-sgd draws its batches from the images of a DataLoader.")
        drawn = PoissonBatches(batches, next(model.parameters()).device)
        if not math.isclose(drawn.rate, float(state["sampling_rate"])):
            raise RecipeError("dp-sgd accounts for another number of images, or another batch size.")
        with private_steps(model, optimizer, drawn, float(state["noise_multiplier"]), self.clip) as private:
            yield model, private, drawn

    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return what was spent and what it bounds."""
        return {name: float(state[name]) for name in FACTS}
