"""Ridge regression plus a residual convolutional decoder."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sparseguard.attacks.base import Attack, AttackContext, observed
from sparseguard.attacks.queries import is_stochastic, training_queries
from sparseguard.attacks.ridge import Ridge, RidgeMap
from sparseguard.errors import TrainingError
from sparseguard.leak import Leak
from sparseguard.settings import settings
from sparseguard.types import AttackResult, Goal, Knowledge


class ResidualDecoder(nn.Module):
    """Correct a first guess of the image from standardized features and the guess itself.

    Features are spread over a grid of a quarter of the image's size by a dense layer, and brought to full size in
    two doublings; the guess joins at full size. The last convolution starts at zero, so the decoder starts as the
    guess.

    Args:
        dimension: of the flattened features.
        shape: channels, height and width of the images.
        width: channels at full size; twice and four times as many at half and quarter size.
    """

    def __init__(self, dimension: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        c, h, w = shape
        self.sizes = (math.ceil(h / 4), math.ceil(w / 4)), (math.ceil(h / 2), math.ceil(w / 2)), (h, w)
        self.spread = nn.Linear(dimension, 4 * width * self.sizes[0][0] * self.sizes[0][1])
        self.at_quarter = _block(4 * width, 2 * width)
        self.at_half = _block(2 * width, width)
        self.at_full = _block(width + c, width)
        self.out = nn.Conv2d(width, c, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "n d"], guess: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the corrected guess, not clipped."""
        grid = self.spread(features).view(len(features), -1, *self.sizes[0])  # (n, 4w, h/4, w/4)
        grid = F.interpolate(self.at_quarter(grid), size=self.sizes[1])  # (n, 2w, h/2, w/2)
        grid = F.interpolate(self.at_half(grid), size=self.sizes[2])  # (n, w, h, w)
        grid = self.at_full(torch.cat([grid, guess], 1))
        corrected: Tensor = guess + self.out(grid)
        return corrected


def _block(inward: int, outward: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1), nn.GroupNorm(math.gcd(4, outward), outward), nn.SiLU()
    )


@settings
class RidgeConv(Attack):
    """Train a residual decoder on top of ridge, with Adam on mean squared error; stop on attacker-val.

    The weights of the best epoch are kept, ridge itself (epoch 0) among them, so that on attacker-val this attack is
    never worse than ridge. Noisy leaks are queried afresh in every epoch.

    Args:
        epochs: at most this many passes over the attacker's images in all their copies.
        copies: versions of each image queried, as in `Ridge`.
        width: of the decoder.
        batch_size: images a step.
        lr: Adam's learning rate; one epoch of warm-up, then cosine decay.
        patience: stop after this many epochs without a lower error on attacker-val.

    Source: the paper's end-to-end and split attacks train a decoder; the architecture is ours. The same budget is
    spent on every defense.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "ridge plus a residual convolutional decoder, trained with Adam"
    source: ClassVar[str] = "paper, section 2 (end-to-end and split threat models); architecture ours"
    knowledge: ClassVar[Knowledge] = Knowledge.OUTPUTS
    epochs: Annotated[int, Field(ge=1)] = 20
    copies: Annotated[int, Field(ge=1, le=18)] = 4
    width: Annotated[int, Field(ge=1)] = 16
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    patience: Annotated[int, Field(ge=1)] = 5

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Fit ridge, train the correction, apply both."""
        ridge, notes = Ridge(copies=self.copies).fit(leak, context)
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            decoder, scale, trained = self._train(leak, context, ridge)
        reconstructions = {
            part: _apply(decoder, scale, ridge, features, context) for part, features in observed(goal).items()
        }
        change = trained.pop("parameter_change")
        return AttackResult(reconstructions=reconstructions, parameter_change=change, notes={**notes, **trained})

    def _train(
        self, leak: Leak, context: AttackContext, ridge: RidgeMap
    ) -> tuple[ResidualDecoder, tuple[Tensor, Tensor], dict[str, float]]:
        public, device = context.public, context.device
        queries = torch.cat(list(training_queries(public.train, self.copies)))
        fresh = is_stochastic(leak, public.val)
        features = leak.observe(queries).features.flatten(1)
        val_features, val_images = leak.observe(public.val).features.flatten(1), public.val.images
        scale = features.mean(0), features.std(0).clamp_min(1e-6)
        decoder = ResidualDecoder(features.shape[1], public.train.shape, self.width).to(device)
        start = {name: value.detach().clone() for name, value in decoder.state_dict().items()}
        optimizer = torch.optim.Adam(decoder.parameters(), lr=self.lr)
        best, best_error, best_epoch, stale = (
            start,
            _error(decoder, scale, ridge, val_features, val_images, context),
            0,
            0,
        )
        epoch = 0
        steps = math.ceil(len(queries) / self.batch_size)
        with context.progress.task(context.label, self.epochs * steps) as advance:
            while epoch < self.epochs and stale < self.patience:
                if fresh and epoch:
                    features = leak.observe(queries).features.flatten(1)
                guesses = _guess(ridge, features, public.train.shape)
                decoder.train()
                for number, index in enumerate(torch.randperm(len(queries)).split(self.batch_size)):
                    for group in optimizer.param_groups:
                        group["lr"] = self.lr * _schedule(epoch + number / steps, self.epochs)
                    inputs = ((features[index] - scale[0]) / scale[1]).to(device)
                    loss = F.mse_loss(decoder(inputs, guesses[index].to(device)), queries[index].to(device))
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    advance(1)
                epoch, stale = epoch + 1, stale + 1
                error = _error(decoder, scale, ridge, val_features, val_images, context)
                if not math.isfinite(error):
                    raise TrainingError(f"{context.label}: the decoder's error is not finite in epoch {epoch}.")
                if error < best_error:
                    best_error, best_epoch, stale = error, epoch, 0
                    best = {name: value.detach().clone() for name, value in decoder.state_dict().items()}
        moved = _distance(decoder.state_dict(), start)
        decoder.load_state_dict(best)
        return (
            decoder,
            scale,
            {
                "parameter_change": moved,
                "epochs": float(epoch),
                "best_epoch": float(best_epoch),
                "attacker_val_mse": best_error,
            },
        )


def _schedule(epoch: float, epochs: int) -> float:
    """Linear warm-up over the first epoch, then a cosine to zero."""
    warm = min(1.0, epoch + 1e-2)
    return warm * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _guess(ridge: RidgeMap, features: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return ridge(features).float().clamp(0, 1).view(-1, *shape)


@torch.no_grad()
def _apply(
    decoder: ResidualDecoder,
    scale: tuple[Tensor, Tensor],
    ridge: RidgeMap,
    features: Tensor,
    context: AttackContext,
) -> Tensor:
    decoder.eval()
    device, shape = context.device, context.public.train.shape
    return torch.cat(
        [
            decoder(((chunk - scale[0]) / scale[1]).to(device), _guess(ridge, chunk, shape).to(device))
            .clamp(0, 1)
            .cpu()
            for chunk in features.split(512)
        ]
    )


def _error(
    decoder: ResidualDecoder,
    scale: tuple[Tensor, Tensor],
    ridge: RidgeMap,
    features: Tensor,
    images: Tensor,
    context: AttackContext,
) -> float:
    return float(F.mse_loss(_apply(decoder, scale, ridge, features, context), images))


def _distance(state: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    moved = sum(float((state[name] - value).square().sum()) for name, value in start.items())
    size = sum(float(value.square().sum()) for value in start.values())
    return math.sqrt(moved / max(size, 1e-12))
