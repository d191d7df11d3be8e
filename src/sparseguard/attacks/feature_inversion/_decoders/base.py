"""Base of trained decoders: ridge's guess, corrected by a network."""

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

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, require_features
from sparseguard.attacks.feature_inversion._decoders.networks import ImageShape, TapShape
from sparseguard.attacks.feature_inversion._decoders.training import (
    Budget,
    Decoding,
    apply_in_chunks,
    psnr_curve,
    train_decoder,
    training_diagnostics,
)
from sparseguard.attacks.feature_inversion._query_augmentation import is_stochastic, training_queries
from sparseguard.core.config import Count, Positive, settings
from sparseguard.numerics.ridge import RidgeMap, fit_ridge
from sparseguard.numerics.standardization import feature_statistics
from sparseguard.numerics.supervised import Batch, TrainingCurve
from sparseguard.types import AttackInputs, AttackResult, Knowledge

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
CURVE = "auxiliary_val PSNR"
"""Name of the curve: PSNR of the mean squared error, after every epoch."""


@settings
class TrainedDecoder(Attack):
    """Train a network that corrects ridge's guess, with Adam; stop on auxiliary_val.

    The weights of the best epoch are kept, ridge itself (epoch 0) among them, so that on auxiliary_val the mean squared
    error is never above ridge's on the same queries. Noisy taps are queried anew in every epoch.

    Args:
        epochs: at most this many passes over the queries.
        copies: versions of each image queried, as in `Ridge`.
        mixes: versions made of the halves of two images.
        batch_size: queries a step.
        lr: Adam's learning rate; one epoch of warm-up, then cosine decay.
        patience: stop after this many epochs without a lower error on auxiliary_val.
        loss: ``mse``; ``l1``; or ``ssim``, 1 minus the structural similarity, plus the mean squared error.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    epochs: Count = 20
    copies: Annotated[int, Field(ge=1, le=18)] = 4
    mixes: Annotated[int, Field(ge=0, le=8)] = 0
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 1e-3
    patience: Count = 5
    loss: Literal["mse", "l1", "ssim"] = "mse"

    @abstractmethod
    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the network from features and guess to image; before training it returns the guess."""

    @final
    def learn(self, access: ModelAccess, context: AttackContext, encode: Encode, bounded: bool) -> Corrected:
        """Query the target, fit ridge and train its correction.

        Args:
            access: to the target.
            context: of the attack.
            encode: from images to the values to predict, ``(n, c, h, w)``, and each image's weight.
            bounded: whether these values lie in [0, 1].
        """
        auxiliary, device = context.auxiliary, context.device
        images = torch.cat(list(training_queries(auxiliary.train, self.copies, self.mixes)))
        targets, weight = encode(images)
        features, val_features = access.observe(images).features, access.observe(auxiliary.val).features
        val_targets, val_weight = encode(auxiliary.val.images)
        ridge = fit_ridge(
            features.flatten(1), targets.flatten(1), val_features.flatten(1), val_targets.flatten(1), bounded=bounded
        )
        network = self.network(tuple(features.shape[1:]), auxiliary.train.shape).to(device)
        mean, deviation = (values.to(device) for values in feature_statistics(features))
        corrected = Corrected(ridge.mapping, mean, deviation, network, auxiliary.train.shape, device, bounded)
        stochastic = is_stochastic(access, auxiliary.val)
        first = (features, corrected.guess(features), targets, weight)

        def data(epoch: int) -> Batch:
            if not stochastic or epoch == 0:
                return first
            noisy = access.observe(images).features
            return noisy, corrected.guess(noisy), targets, weight

        def error() -> float:
            return float(F.mse_loss(corrected(val_features) * val_weight, val_targets * val_weight))

        def loss(batch: Batch) -> Tensor:
            inputs, guess, truth, weights = batch
            return LOSSES[self.loss](corrected.correct(inputs, guess) * weights, truth * weights)

        budget = Budget(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, patience=self.patience)
        corrected.training = train_decoder(network, Decoding(data=data, loss=loss, error=error), budget, context)
        corrected.diagnostics = {
            "penalty": ridge.penalty,
            "ridge_auxiliary_val_psnr": ridge.psnr,
            **training_diagnostics(corrected.training),
        }
        return corrected


@dataclass(eq=False)
class Corrected:
    """Ridge and its trained correction: from features ``(n, *tap)`` to predictions ``(n, c, h, w)``."""

    ridge: RidgeMap
    mean: Tensor
    deviation: Tensor
    network: nn.Module
    shape: ImageShape
    device: torch.device
    bounded: bool
    training: TrainingCurve = field(init=False)
    diagnostics: dict[str, float] = field(init=False)

    def guess(self, features: Tensor) -> Tensor:
        """Return ridge's guess."""
        guess = self.ridge(features.flatten(1)).float().view(-1, *self.shape)
        return guess.clamp(0, 1) if self.bounded else guess

    def correct(self, features: Tensor, guess: Tensor) -> Tensor:
        """Return the network's correction of the guess, on the device."""
        corrected: Tensor = self.network((features - self.mean) / self.deviation, guess)
        return corrected

    def __call__(self, features: Tensor) -> Tensor:
        """Return the predictions, on the CPU."""
        predictions = apply_in_chunks(self.correct, (features, self.guess(features)), self.device)
        return predictions.clamp(0, 1) if self.bounded else predictions


def run_decoder(
    attack: TrainedDecoder, access: ModelAccess, inputs: AttackInputs, context: AttackContext
) -> AttackResult:
    """Train ``attack`` to predict images and reconstruct the inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        corrected = attack.learn(access, context, lambda images: (images, torch.ones(len(images), 1, 1, 1)), True)
    return AttackResult(
        reconstructions={split: corrected(features) for split, features in require_features(inputs).items()},
        parameter_change=corrected.training.change,
        diagnostics=corrected.diagnostics,
        curves={CURVE: psnr_curve(corrected.training)},
    )


def _mse_and_ssim(predictions: Tensor, images: Tensor) -> Tensor:
    similarity = structural_similarity_index_measure(predictions, images, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return 1 - similarity + F.mse_loss(predictions, images)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "ssim": _mse_and_ssim}
