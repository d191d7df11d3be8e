"""A decoder that knows the sparse layer: from the tap to codes, from codes to the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext, NotApplicable, own_images, released
from sparseguard.attacks.feature_inversion._decoder_base import CURVE
from sparseguard.attacks.feature_inversion._decoder_networks import Grid, ImageShape, block, zeroed
from sparseguard.attacks.feature_inversion._query_augmentation import is_stochastic, training_queries
from sparseguard.attacks.feature_inversion._train_decoder import Batch, Budget, fit, in_chunks, standardizing
from sparseguard.attacks.feature_inversion.ridge import RidgeMap, fit_ridge
from sparseguard.bounds import PixelRange, invert_code
from sparseguard.core.config import settings
from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import Dictionary, SparseCode2d, standardize
from sparseguard.types import AttackResult, Goal, Knowledge

Images = Float[Tensor, "n c h w"]
Codes = Float[Tensor, "n f p q"]
Way = Callable[[Batch], Images]
SUPPORT_WEIGHT, AMPLITUDE_WEIGHT = 0.02, 0.002
"""Of the losses of codes beside that of the image, so that all three are of one size early in training."""


class CodeNetwork(nn.Module):
    """From features, a guess of the image and one of its codes to codes, and to an image corrected by them.

    Args:
        tap: shape of one observation.
        channels: of the images.
        code: shape of one image's codes.
        width: channels of the network.
        dictionary: synthesizes images from codes; not learned.
    """

    def __init__(
        self, tap: tuple[int, ...], channels: int, code: tuple[int, ...], width: int, dictionary: Dictionary
    ) -> None:
        super().__init__()
        features, height, breadth = code
        self.dictionary = dictionary
        self.coarse = (-(-height // 4), -(-breadth // 4))
        self.spread = Grid(tap, 2 * width, self.coarse)
        self.trunk = nn.Sequential(block(2 * width + features + channels, width), block(width, width))
        self.support = nn.Conv2d(width, features, 3, padding=1)
        self.sharpness = nn.Parameter(torch.ones(()))
        self.amplitude = zeroed(nn.Conv2d(width, features, 3, padding=1))
        self.refine = nn.Sequential(
            block(width + 2 * channels, width), zeroed(nn.Conv2d(width, channels, 3, padding=1))
        )

    def forward(self, features: Tensor, guess: Images, guessed: Codes) -> tuple[Codes, Codes, Images]:
        """Return the logits of the support, the amplitudes (>= 0), and the image (not clipped)."""
        size = guessed.shape[2:]
        grid = F.interpolate(self.spread(features), size=size, mode="bilinear")
        small = F.interpolate(guess, size=size) if guess.shape[2:] != size else guess
        trunk = self.trunk(torch.cat([grid, guessed, small], 1))
        logits = self.support(trunk) + self.sharpness * guessed
        amplitudes = torch.relu(guessed + self.amplitude(trunk))
        drawn = self.dictionary.synthesis(torch.sigmoid(logits) * amplitudes)
        wide = F.interpolate(trunk, size=guess.shape[2:]) if guess.shape[2:] != size else trunk
        image: Tensor = guess + self.refine(torch.cat([wide, guess, drawn], 1))
        return logits, amplitudes, image


@settings
class CodeDecoder(Attack):
    r"""Decode the first sparse layer's codes, since dictionary and lambda are known, and the image from them.

    The attacker runs the known layer on its own queries. One network learns the codes' support (cross-entropy) and
    amplitudes (squared error on the support) and corrects ridge's image and codes, seeing the reconstruction
    :math:`R * W` of its own codes. Three answers are tried on auxiliary_val, the best is given: :math:`R * W` and the
    optimality-condition inversion of the decoded codes, both with the mean and contrast that standardization removed
    estimated from the pixel range, and the network's refined image. If what the best attack before it made is nearer,
    that is the answer: who knows the layer need not use it.

    Args:
        epochs: at most this many passes over the queries.
        copies: versions of each image queried.
        width: channels of the network.
        batch_size: queries a step.
        lr: Adam's learning rate; one epoch of warm-up, then cosine decay.
        patience: stop after this many epochs without a lower error on attacker-val.

    Source: ours (design, section 4).
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "decodes the known sparse layer's codes, then the image from them"
    source: ClassVar[str] = "ours"
    knowledge: ClassVar[Knowledge] = Knowledge.GRAY_BOX
    starts_from_earlier: ClassVar[bool] = True
    epochs: Annotated[int, Field(ge=1)] = 8
    copies: Annotated[int, Field(ge=1, le=18)] = 2
    width: Annotated[int, Field(ge=1)] = 16
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    patience: Annotated[int, Field(ge=1)] = 5

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Train on codes of the attacker's own queries, choose the way from codes to image, apply."""
        front = leak.front().to(context.device)
        layer = list(front.stages.values())[-1] if len(front.stages) else None
        if not isinstance(layer, SparseCode2d) or layer.in_channels != context.auxiliary.train.shape[0]:
            raise NotApplicable("no sparse layer is known before training, so the specification adds nothing")
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            return self._run(leak, goal, context, _Known(front, layer, context.auxiliary.train.shape, context.device))

    def _run(self, leak: Leak, goal: Goal, context: AttackContext, known: _Known) -> AttackResult:
        auxiliary, device, shape = context.auxiliary, context.device, context.auxiliary.train.shape
        images = torch.cat(list(training_queries(auxiliary.train, self.copies)))
        seen, val_seen = leak.observe(images).features, leak.observe(auxiliary.val).features
        codes, val_codes = known.codes(images), known.codes(auxiliary.val.images)
        (image, *_), (code, *_) = (
            fit_ridge(seen.flatten(1), wanted.flatten(1), val_seen.flatten(1), val_wanted.flatten(1), bounded=bounded)
            for wanted, val_wanted, bounded in ((images, auxiliary.val.images, True), (codes, val_codes, False))
        )
        mean, spread = standardizing(seen)
        prepare = _Prepared(image=image, code=code, mean=mean, spread=spread, shapes=(shape, tuple(codes.shape[1:])))
        codes = codes.half()
        fresh, first = is_stochastic(leak, auxiliary.val), (*prepare(seen), codes, images)

        def data(epoch: int) -> Batch:
            return (*prepare(leak.observe(images).features), codes, images) if fresh and epoch else first

        val = prepare(val_seen)
        network = CodeNetwork(tuple(seen.shape[1:]), shape[0], tuple(codes.shape[1:]), self.width, known.dictionary).to(
            device
        )
        trained = fit(
            network,
            data,
            _loss,
            lambda net: float(F.mse_loss(_image(net, val, device), auxiliary.val.images)),
            Budget(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, patience=self.patience),
            context,
        )
        few = tuple(row[: len(auxiliary.train)] for row in first[:3])
        ways: dict[str, Way] = {
            "refined": lambda rows: _image(network, rows, device),
            "R*W": known.way(network, few, auxiliary.train.images, known.synthesis),
            "inversion": known.way(network, few, auxiliary.train.images, known.inversion),
        }
        errors = {name: float(F.mse_loss(way(val), auxiliary.val.images)) for name, way in ways.items()}
        best = min(errors, key=lambda name: errors[name])
        made: Mapping[str, Images] = {part: ways[best](prepare(values)) for part, values in released(goal).items()}
        for level, earlier in context.earlier.items():
            errors[f"earlier, {level}"] = float(
                F.mse_loss(earlier["auxiliary_val"], own_images(goal["auxiliary_val"], context))
            )
            if errors[f"earlier, {level}"] < errors[best]:
                best, made = f"earlier, {level}", earlier
        notes = {f"auxiliary_val_mse, {name}": error for name, error in errors.items()}
        notes[f"given: {best}"] = 1.0
        notes |= _support(network, val, val_codes, device)
        return AttackResult(
            reconstructions={part: made[part] for part in goal},
            parameter_change=trained.change,
            notes={**trained.notes, **notes},
            curves={CURVE: trained.curve},
        )


class _Known:
    """The stages that are known, the sparse layer at their end, and ways from its codes to images."""

    def __init__(self, front: StagedModel, layer: SparseCode2d, shape: ImageShape, device: torch.device) -> None:
        self.front, self.layer, self.device = front, layer, device
        before = list(front.stages)[-2:-1]
        blank = torch.zeros(1, *shape, device=device)
        self.dictionary = layer.operator(front.forward_to(blank, before[0]) if before else blank)
        self.lambd = layer.lambd if isinstance(layer.lambd, float) else blank.new_tensor(layer.lambd)

    def codes(self, images: Images) -> Codes:
        """Return the codes of images in [0, 1]."""
        return in_chunks(self.front, (images,), self.device)

    def synthesis(self, codes: Codes) -> Images:
        """Return R * W."""
        return self.dictionary.synthesis(codes)

    def inversion(self, codes: Codes) -> Images:
        """Return what the optimality condition says of the layer's input."""
        return invert_code(self.dictionary, codes, self.lambd, tol=1e-2, max_steps=50).projection

    def way(self, network: CodeNetwork, rows: Batch, images: Images, back: Callable[[Codes], Images]) -> Way:
        """Return the function from prepared rows to images by ``back``, mean and contrast learned on ``images``."""

        def standardized(rows: Batch) -> Images:
            made = in_chunks(lambda *row: back(_hard(*network(*row)[:2])), rows, self.device)
            return standardize(made) if self.layer.standardize else made

        pixels = PixelRange.fit(standardized(rows), images)
        return lambda rows: pixels(standardized(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """From features to the network's inputs: standardized features, ridge's image and ridge's codes."""

    image: RidgeMap
    code: RidgeMap
    mean: Tensor
    spread: Tensor
    shapes: tuple[ImageShape, tuple[int, ...]]

    def __call__(self, features: Tensor) -> Batch:
        flat = features.flatten(1)
        guess = self.image(flat).float().clamp(0, 1).view(-1, *self.shapes[0])
        guessed = self.code(flat).float().clamp_min(0).view(-1, *self.shapes[1])
        return (features - self.mean) / self.spread, guess, guessed


def _hard(logits: Codes, amplitudes: Codes) -> Codes:
    return torch.where(logits > 0, amplitudes, 0.0)


def _image(network: nn.Module, rows: Batch, device: torch.device) -> Images:
    return in_chunks(lambda *row: network(*row)[2], rows, device).clamp(0, 1)


def _loss(network: nn.Module, batch: Batch) -> Tensor:
    *rows, codes, images = batch
    logits, amplitudes, made = network(*rows)
    active = codes > 0
    support = F.binary_cross_entropy_with_logits(logits, active.float())
    amplitude: Tensor = ((amplitudes - codes).square() * active).sum() / active.sum().clamp_min(1)
    image: Tensor = F.mse_loss(made, images)
    return image + SUPPORT_WEIGHT * support + AMPLITUDE_WEIGHT * amplitude


def _support(network: nn.Module, rows: Batch, codes: Codes, device: torch.device) -> dict[str, float]:
    """Return how much of the true support was found, and how much of what was found is true."""
    found = in_chunks(lambda *row: network(*row)[0] > 0, rows, device)
    both = float((found & (codes > 0)).sum())
    return {
        "support recall": both / max(float((codes > 0).sum()), 1.0),
        "support precision": both / max(float(found.sum()), 1.0),
    }
