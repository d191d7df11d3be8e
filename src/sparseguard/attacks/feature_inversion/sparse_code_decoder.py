"""A decoder that knows the sparse layer: from features to codes, from codes to the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, NotApplicable, require_features, validation_images
from sparseguard.attacks.feature_inversion._decoders.base import CURVE
from sparseguard.attacks.feature_inversion._decoders.code_network import CodeNetwork, Codes, code_loss, threshold_codes
from sparseguard.attacks.feature_inversion._decoders.networks import ImageShape
from sparseguard.attacks.feature_inversion._decoders.training import (
    Budget,
    Decoding,
    apply_in_chunks,
    psnr_curve,
    train_decoder,
    training_diagnostics,
)
from sparseguard.attacks.feature_inversion._query_augmentation import is_stochastic, training_queries
from sparseguard.bounds import PixelRange, invert_code
from sparseguard.core.config import Count, Positive, settings
from sparseguard.core.staged_model import StagedModel
from sparseguard.numerics.ridge import RidgeMap, fit_ridge
from sparseguard.numerics.standardization import feature_statistics
from sparseguard.numerics.supervised import Batch
from sparseguard.sparse import SparseCode2d, standardize
from sparseguard.types import AttackInputs, AttackResult, Images, Knowledge

Path = Callable[[Batch], Images]
"""From prepared rows to images."""


@settings
class CodeDecoder(Attack):
    r"""Decode the first sparse layer's codes, since dictionary and lambda are known, and the image from them.

    The attacker runs the known layer on its own queries. One network learns the codes' support (cross-entropy) and
    amplitudes (squared error on the support) and corrects ridge's image and codes with the reconstruction
    :math:`R * W` of its own codes. Of three answers, the attack returns the best on auxiliary_val: :math:`R * W` and
    the optimality-condition inversion of the decoded codes, both with mean and contrast estimated from the pixel
    range, and the network's refined image. If the best attack before it comes nearer, the answer is that attack's.

    Args:
        epochs: at most this many passes over the queries.
        copies: versions of each image queried.
        width: channels of the network.
        batch_size: queries a step.
        lr: Adam's learning rate; one epoch of warm-up, then cosine decay.
        patience: stop after this many epochs without a lower error on auxiliary_val.

    Source: ours.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "decodes the known sparse layer's codes, then the image from them"
    source: ClassVar[str] = "ours"
    knowledge: ClassVar[Knowledge] = Knowledge.GRAY_BOX
    starts_from_earlier: ClassVar[bool] = True
    epochs: Count = 8
    copies: Annotated[int, Field(ge=1, le=18)] = 2
    width: Count = 16
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 1e-3
    patience: Count = 5

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Train on codes of the attacker's own queries, choose the path from codes to images, apply it."""
        front = access.copy_untrained_stages().to(context.device)
        layer = list(front.stages.values())[-1] if len(front.stages) else None
        if not isinstance(layer, SparseCode2d) or layer.in_channels != context.auxiliary.train.shape[0]:
            raise NotApplicable("no sparse layer is known before training, so the specification adds nothing")
        known = _KnownLayer(front, layer, context.auxiliary.train.shape, context.device)
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            return self._attack(access, inputs, context, known)

    def _attack(
        self, access: ModelAccess, inputs: AttackInputs, context: AttackContext, known: _KnownLayer
    ) -> AttackResult:
        auxiliary, device, shape = context.auxiliary, context.device, context.auxiliary.train.shape
        images = torch.cat(list(training_queries(auxiliary.train, self.copies)))
        features, val_features = access.observe(images).features, access.observe(auxiliary.val).features
        codes, val_codes = known.encode(images), known.encode(auxiliary.val.images)
        image, code = (
            fit_ridge(
                features.flatten(1), targets.flatten(1), val_features.flatten(1), val.flatten(1), bounded=bounded
            ).mapping
            for targets, val, bounded in ((images, auxiliary.val.images, True), (codes, val_codes, False))
        )
        mean, deviation = feature_statistics(features)
        prepare = _Preparation(
            image=image, code=code, mean=mean, deviation=deviation, shapes=(shape, tuple(codes.shape[1:]))
        )
        codes = codes.half()
        stochastic, first = is_stochastic(access, auxiliary.val), (*prepare(features), codes, images)

        def data(epoch: int) -> Batch:
            return (*prepare(access.observe(images).features), codes, images) if stochastic and epoch else first

        val = prepare(val_features)
        network = CodeNetwork(
            tuple(features.shape[1:]), shape[0], tuple(codes.shape[1:]), self.width, known.dictionary
        ).to(device)
        decoding = Decoding(
            data=data,
            loss=lambda batch: code_loss(network, batch),
            error=lambda: float(F.mse_loss(_refine(network, val, device), auxiliary.val.images)),
        )
        budget = Budget(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, patience=self.patience)
        training = train_decoder(network, decoding, budget, context)
        plain = tuple(row[: len(auxiliary.train)] for row in first[:3])
        paths: dict[str, Path] = {
            "refined": lambda rows: _refine(network, rows, device),
            "R*W": known.path(network, plain, auxiliary.train.images, known.synthesize),
            "inversion": known.path(network, plain, auxiliary.train.images, known.invert),
        }
        errors = {name: float(F.mse_loss(path(val), auxiliary.val.images)) for name, path in paths.items()}
        best = min(errors, key=lambda name: errors[name])
        reconstructions: Mapping[str, Images] = {
            split: paths[best](prepare(values)) for split, values in require_features(inputs).items()
        }
        for knowledge, earlier in context.earlier.items():
            name = f"earlier, {knowledge}"
            truth = validation_images(inputs["auxiliary_val"], context)
            errors[name] = float(F.mse_loss(earlier["auxiliary_val"], truth))
            if errors[name] < errors[best]:
                best, reconstructions = name, earlier
        return AttackResult(
            reconstructions={split: reconstructions[split] for split in inputs},
            parameter_change=training.change,
            diagnostics={
                **training_diagnostics(training),
                **{f"auxiliary_val_mse, {name}": error for name, error in errors.items()},
                f"given: {best}": 1.0,
                **_support_accuracy(network, val, val_codes, device),
            },
            curves={CURVE: psnr_curve(training)},
        )


class _KnownLayer:
    """The known stages, the sparse layer at their end, and paths from its codes to images."""

    def __init__(self, front: StagedModel, layer: SparseCode2d, shape: ImageShape, device: torch.device) -> None:
        self.front, self.layer, self.device = front, layer, device
        before = list(front.stages)[-2:-1]
        blank = torch.zeros(1, *shape, device=device)
        self.dictionary = layer.operator(front.forward_to(blank, before[0]) if before else blank)
        self.lambd = layer.lambd if isinstance(layer.lambd, float) else blank.new_tensor(layer.lambd)

    def encode(self, images: Images) -> Codes:
        """Return the codes of images in [0, 1]."""
        return apply_in_chunks(self.front, (images,), self.device)

    def synthesize(self, codes: Codes) -> Images:
        """Return R * W."""
        return self.dictionary.synthesis(codes)

    def invert(self, codes: Codes) -> Images:
        """Return the layer's input by the optimality-condition inversion."""
        return invert_code(self.dictionary, codes, self.lambd, tol=1e-2, max_steps=50).projection

    def path(self, network: CodeNetwork, rows: Batch, images: Images, decode: Callable[[Codes], Images]) -> Path:
        """Return the function from prepared rows to images by ``decode``; ``images`` teach it mean and contrast."""

        def standardized(rows: Batch) -> Images:
            outputs = apply_in_chunks(lambda *row: decode(threshold_codes(*network(*row)[:2])), rows, self.device)
            return standardize(outputs) if self.layer.standardize else outputs

        pixels = PixelRange.fit(standardized(rows), images)
        return lambda rows: pixels(standardized(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Preparation:
    """Map from features to the network's inputs: standardized features, ridge's image and ridge's codes."""

    image: RidgeMap
    code: RidgeMap
    mean: Tensor
    deviation: Tensor
    shapes: tuple[ImageShape, tuple[int, ...]]

    def __call__(self, features: Tensor) -> Batch:
        flat = features.flatten(1)
        guess = self.image(flat).float().clamp(0, 1).view(-1, *self.shapes[0])
        code_guess = self.code(flat).float().clamp_min(0).view(-1, *self.shapes[1])
        return (features - self.mean) / self.deviation, guess, code_guess


def _refine(network: CodeNetwork, rows: Batch, device: torch.device) -> Images:
    return apply_in_chunks(lambda *row: network(*row)[2], rows, device).clamp(0, 1)


def _support_accuracy(network: CodeNetwork, rows: Batch, codes: Codes, device: torch.device) -> dict[str, float]:
    """Return the fraction of the true support that was predicted, and of the predicted support that is true."""
    predicted = apply_in_chunks(lambda *row: network(*row)[0] > 0, rows, device)
    both = float((predicted & (codes > 0)).sum())
    return {
        "support recall": both / max(float((codes > 0).sum()), 1.0),
        "support precision": both / max(float(predicted.sum()), 1.0),
    }
