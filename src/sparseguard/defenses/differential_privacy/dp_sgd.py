"""DP-SGD: clipped and noised per-sample gradients."""

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
from sparseguard.defenses.differential_privacy._accounting import Accountant, compute_epsilon, find_noise_multiplier
from sparseguard.defenses.differential_privacy._opacus_steps import PoissonBatches, make_private
from sparseguard.defenses.differential_privacy._rero_bound import reconstruction_bound
from sparseguard.types import BatchContext, EpochContext

EPSILON = 8.0
FACTS = ("epsilon", "delta", "noise_multiplier", "sampling_rate", "steps", "clip", "rero_prior", "rero_bound")


@final
@settings
class DpSgd(Defense):
    r"""Train by per-sample gradients that are clipped to one norm, summed and noised.

    .. math:: \tilde g = \frac{1}{B} \Big( \sum_i g_i \min(1, C / \|g_i\|_2) + N(0, \sigma^2 C^2 I) \Big)

    Every image is in a batch with probability q = B / n, independently of all others; B is the batch size of
    `[training]`. The noise is the least for which Opacus' accountant certifies (epsilon, delta) differential privacy
    over all steps; neighboring training sets differ by one image. The optimizer of `[training]` takes the noised
    gradient. Training runs all epochs and keeps the last weights, because early stopping looks at private images.

    The record has the epsilon spent and a bound for every attack on the weights: an attacker who knows all other
    training images, and would reconstruct this one with probability `rero_prior` without the model, does so with the
    model with probability at most `rero_bound`. The prior is 1 / n (see `reconstruction_bound`).

    Args:
        epsilon: to be spent at most; 8 where `noise_multiplier` is absent as well.
        noise_multiplier: sigma, the noise's standard deviation in units of `clip`, in place of `epsilon`; >= 0.1.
        clip: C, longest gradient of one image (2-norm over all parameters).
        delta: probability that epsilon does not hold; should be below 1 / n.
        accountant: `prv` (tight) or `rdp` (spends more for the same noise, quicker).

    Raises:
        RecipeError: both epsilon and noise_multiplier; a layer that mixes the images of a batch, or stores
            statistics of them (batch normalization in `conv` unless its normalization is "group", and in most of
            torchvision's models); without Opacus; a defense that learns from private images otherwise than by gradients
            of single images.

    Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1; the bound on reconstruction is
    that of Hayes, Mahloujifar and Balle 2023, "Bounding training data reconstruction in DP-SGD". The paper uses
    the name of the latter, which analyses DP-SGD and proposes no defense.

    Differs: implemented by Opacus. The optimizer is that of `[training]` (Adam where nothing is said). The bound is
    computed on a grid, from above, instead of by sampling. The paper names no epsilon; 8 is ours.

    Limits: it protects training images against attacks on the released weights. It does not protect a query image: its
    features may be as invertible as without the defense. The run's seed determines noise and batches, by a generator
    that is not cryptographic and in floating point. So the guarantee holds against attackers who do not know the seed,
    and its proof assumes real-valued noise. Losses and accuracies in the record are computed from private images
    without noise and are not covered; neither is a choice of settings by them.

    Released code: Opacus with noise multiplier 1.1, clip 1.0 and delta 1e-5 in 15 of 15 scripts, for 25 epochs; no
    epsilon is reported, and the network is another one than without defense. The attacker gets a freshly
    initialized network instead of the trained one in 15 of 15.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "DP-SGD: clipped and noised per-sample gradients, with an epsilon"
    source: ClassVar[str] = "Abadi et al. 2016 (CCS); Hayes et al. 2023 (NeurIPS) for the bound"
    chooses_epoch: ClassVar[bool] = False
    epsilon: Annotated[float, Field(gt=0, le=1000)] | None = None
    noise_multiplier: Annotated[float, Field(ge=0.1)] | None = None
    clip: Annotated[float, Field(gt=0)] = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    accountant: Accountant = "prv"

    @model_validator(mode="after")
    def _check_noise_setting(self) -> DpSgd:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give epsilon or noise_multiplier, not both: one follows from the other")
        if self.epsilon is None and self.noise_multiplier is None:
            object.__setattr__(self, "epsilon", EPSILON)
        return self

    def find_conflict(self, other: Defense) -> str | None:
        """Refuse defenses that learn from private images in another way."""
        return other.find_unaccounted_access()

    def prepare(self, context: Context) -> State:
        """Compute noise multiplier, epsilon and reconstruction bound."""
        budget = context.budget
        rate = budget.batch_size / budget.images
        steps = budget.epochs * math.ceil(budget.images / budget.batch_size)
        sigma = self.noise_multiplier or find_noise_multiplier(
            epsilon=self.epsilon or EPSILON, rate=rate, steps=steps, delta=self.delta, accountant=self.accountant
        )
        figures = {
            "epsilon": compute_epsilon(
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
        """Refuse an epoch beyond those accounted for."""
        if context.epoch >= int(context.state["epochs"]):
            raise RecipeError(
                f"dp-sgd accounts for {int(context.state['epochs'])} epochs, and the defense it is combined with "
                f"trains for more."
            )
        return {}

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Add nothing; refuse a batch with added images, whose number depends on private ones."""
        if batch.own_count is not None and batch.own_count != len(batch.images):
            raise RecipeError("dp-sgd cannot be combined with a defense that adds images to batches.")
        return None

    @contextmanager
    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches, state: State
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
        """Draw Poisson batches, and clip and noise gradients; the model is restored on exit."""
        if not isinstance(batches, DataLoader):
            raise TypeError("dp-sgd draws its batches from a DataLoader.")
        poisson = PoissonBatches(batches, next(model.parameters()).device)
        if not math.isclose(poisson.rate, float(state["sampling_rate"])):
            raise RecipeError("dp-sgd accounts for another number of images, or another batch size.")
        with make_private(model, optimizer, poisson, float(state["noise_multiplier"]), self.clip) as private:
            yield model, private, poisson

    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return epsilon, its inputs and the reconstruction bound."""
        return {name: float(state[name]) for name in FACTS}
