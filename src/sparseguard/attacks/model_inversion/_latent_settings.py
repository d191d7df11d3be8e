"""Settings of the search through a generator's latents, and what they say about latents and images."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.model_inversion._losses import LossName
from sparseguard.core.config import Count, NonNegative, Positive, PositiveFraction, settings
from sparseguard.generators import Prior


@settings
class LatentSettings:
    """Settings of the search, as `PlugAndPlay` explains them."""

    prior: str = ""
    trust_prior: bool = False
    candidates: Count = 2000
    optimized: Count = 20
    selected: Count = 10
    truncation: Positive = 0.5
    cutoff: Annotated[int, Field(ge=0)] | None = None
    space: Literal["w", "w+"] = "w"
    steps: Count = 50
    lr: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.005,)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.1, 0.1)
    loss: LossName = "poincare"
    discriminator: NonNegative = 0.0
    crop: Annotated[int, Field(ge=0)] = 0
    scale: tuple[PositiveFraction, PositiveFraction] = (0.9, 1.0)
    transforms: Count = 20
    final_scale: tuple[PositiveFraction, PositiveFraction] = (0.5, 0.9)
    final_ratio: tuple[Positive, Positive] = (0.8, 1.2)
    probe_images: Count = 8
    probe_steps: Count = 25
    batch_size: Count = 32

    @pydantic.model_validator(mode="after")
    def _fits(self) -> LatentSettings:
        if self.optimized > self.candidates:
            raise ValueError(f"optimized = {self.optimized} needs at least as many candidates, not {self.candidates}")
        if self.selected > self.optimized:
            raise ValueError(f"selected = {self.selected} needs at least as many optimized, not {self.optimized}")
        for low, high in (self.scale, self.final_scale, self.final_ratio):
            if low > high:
                raise ValueError(f"a range must begin with its lower end, got {(low, high)}")
        return self


def draw_w(attack: LatentSettings, prior: Prior, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Return w of z, truncated; in space ``w`` the first layer's alone."""
    w = prior.mapping(z, truncation=attack.truncation, cutoff=attack.cutoff)
    return w[:, :1] if prior.has_w and attack.space == "w" else w


def synthesize(prior: Prior, w: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
    """Return the prior's images of w, which every layer takes where there is one w only."""
    return prior.synthesis(w.expand(-1, prior.card.num_ws, -1) if prior.has_w else w)
