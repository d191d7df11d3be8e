"""What all trained decoders share: ridge's guess, corrected by a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext, released
from sparseguard.attacks.feature_inversion._decoder_networks import ImageShape, TapShape
from sparseguard.attacks.feature_inversion._query_augmentation import is_stochastic, training_queries
from sparseguard.attacks.feature_inversion._train_decoder import Batch, Budget, Training, fit, in_chunks, standardizing
from sparseguard.attacks.feature_inversion.ridge import RidgeMap, fit_ridge
from sparseguard.core.config import settings
from sparseguard.types import AttackResult, Goal, Knowledge

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
CURVE = "auxiliary_val PSNR"
"""Of the mean squared error, after every epoch."""


@settings
class TrainedDecoder(Attack):
    """Train a network that corrects ridge's guess, with Adam; stop on attacker-val.

    The weights of the best epoch are kept, ridge itself (epoch 0) among them, so that on attacker-val the mean squared
    error is never above ridge's on the same queries. Noisy leaks are queried afresh in every epoch.

    Args:
        epochs: at most this many passes over the queries.
        copies: versions of each image queried, as in `Ridge`.
        mixes: versions made of the halves of two images.
        batch_size: queries a step.
        lr: Adam's learning rate; one epoch of warm-up, then cosine decay.
        patience: stop after this many epochs without a lower error on attacker-val.
        loss: ``mse``; ``l1``; or ``ssim``, 1 minus the structural similarity, plus the mean squared error.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    epochs: Annotated[int, Field(ge=1)] = 20
    copies: Annotated[int, Field(ge=1, le=18)] = 4
    mixes: Annotated[int, Field(ge=0, le=8)] = 0
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    patience: Annotated[int, Field(ge=1)] = 5
    loss: Literal["mse", "l1", "ssim"] = "mse"

    @abstractmethod
    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the network: features and guess to image, the guess itself before training."""

    @final
    def learn(self, leak: Leak, context: AttackContext, encode: Encode, bounded: bool) -> Corrected:
        """Query the leak, fit ridge and train its correction.

        Args:
            leak: of the target.
            context: of the attack.
            encode: from images to what is to be predicted of them, ``(n, c, h, w)``, and how much each one counts.
            bounded: whether what is predicted lies in [0, 1].
        """
        auxiliary, device = context.auxiliary, context.device
        images = torch.cat(list(training_queries(auxiliary.train, self.copies, self.mixes)))
        wanted, weight = encode(images)
        features, val_features = leak.observe(images).features, leak.observe(auxiliary.val).features
        val_wanted, val_weight = encode(auxiliary.val.images)
        ridge, penalty, ridge_psnr = fit_ridge(
            features.flatten(1), wanted.flatten(1), val_features.flatten(1), val_wanted.flatten(1), bounded=bounded
        )
        network = self.network(tuple(features.shape[1:]), auxiliary.train.shape).to(device)
        mean, spread = (values.to(device) for values in standardizing(features))
        corrected = Corrected(ridge, mean, spread, network, auxiliary.train.shape, device, bounded)
        fresh = is_stochastic(leak, auxiliary.val)
        first = (features, corrected.guess(features), wanted, weight)

        def data(epoch: int) -> Batch:
            if not fresh or epoch == 0:
                return first
            again = leak.observe(images).features
            return again, corrected.guess(again), wanted, weight

        def error(_: nn.Module) -> float:
            return float(F.mse_loss(corrected(val_features) * val_weight, val_wanted * val_weight))

        def loss(_: nn.Module, batch: Batch) -> Tensor:
            seen, guess, truth, weights = batch
            return LOSSES[self.loss](corrected.correct(seen, guess) * weights, truth * weights)

        budget = Budget(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, patience=self.patience)
        corrected.training = fit(network, data, loss, error, budget, context)
        corrected.notes = {"penalty": penalty, "ridge_auxiliary_val_psnr": ridge_psnr, **corrected.training.notes}
        return corrected


@dataclass(eq=False)
class Corrected:
    """Ridge and its trained correction: from features ``(n, *tap)`` to what was to be predicted ``(n, c, h, w)``."""

    ridge: RidgeMap
    mean: Tensor
    spread: Tensor
    network: nn.Module
    shape: ImageShape
    device: torch.device
    bounded: bool
    training: Training = field(init=False)
    notes: dict[str, float] = field(init=False)

    def guess(self, features: Tensor) -> Tensor:
        """Return ridge's guess."""
        guess = self.ridge(features.flatten(1)).float().view(-1, *self.shape)
        return guess.clamp(0, 1) if self.bounded else guess

    def correct(self, features: Tensor, guess: Tensor) -> Tensor:
        """Return the network's correction of the guess, on the device."""
        corrected: Tensor = self.network((features - self.mean) / self.spread, guess)
        return corrected

    def __call__(self, features: Tensor) -> Tensor:
        """Return the predictions, on the CPU."""
        made = in_chunks(self.correct, (features, self.guess(features)), self.device)
        return made.clamp(0, 1) if self.bounded else made


def decoded(attack: TrainedDecoder, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
    """Train ``attack`` on images themselves and reconstruct the goal."""
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        corrected = attack.learn(leak, context, lambda images: (images, torch.ones(len(images), 1, 1, 1)), True)
    return AttackResult(
        reconstructions={part: corrected(seen) for part, seen in released(goal).items()},
        parameter_change=corrected.training.change,
        notes=corrected.notes,
        curves={CURVE: corrected.training.curve},
    )


def _mse_and_ssim(made: Tensor, images: Tensor) -> Tensor:
    similarity = structural_similarity_index_measure(made, images, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return 1 - similarity + F.mse_loss(made, images)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "ssim": _mse_and_ssim}
