"""Priors trained by `train_style_gan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.core.config import describe
from sparseguard.core.errors import DataError
from sparseguard.generators.base import Prior
from sparseguard.generators.card import PriorCard
from sparseguard.generators.stylegan.networks import StyleDiscriminator, StyleGenerator
from sparseguard.generators.stylegan.training import StyleFit, TrainedStyleGan


class Construction(pydantic.BaseModel):
    """Arguments to build the networks."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)

    latent: Annotated[int, pydantic.Field(ge=1)]
    width: Annotated[int, pydantic.Field(ge=1)]
    most: Annotated[int, pydantic.Field(ge=1)]
    depth: Annotated[int, pydantic.Field(ge=1, le=100)]


@final
class StylePrior(Prior):
    """A style-based generator of this package, with its discriminator."""

    networks: nn.ModuleDict

    def __init__(
        self,
        card: PriorCard,
        trained_on: Tensor | None,
        generator: StyleGenerator,
        discriminator: StyleDiscriminator | None,
    ) -> None:
        parts = {"generator": generator} | ({} if discriminator is None else {"discriminator": discriminator})
        super().__init__(card, trained_on, nn.ModuleDict(parts))
        self._net, self._discriminator = generator, discriminator

    @classmethod
    def load(cls, folder: Path, card: PriorCard, trained_on: Tensor | None, tensors: Mapping[str, Tensor]) -> Prior:
        """Build the networks and load their weights."""
        try:
            construction = Construction.model_validate(card.construction)
        except pydantic.ValidationError as error:
            raise DataError(f"{folder}: its description does not say how to build it: {error}.") from None
        with torch.device("meta"):  # neither memory nor random numbers for weights that are replaced
            generator, discriminator = _build_networks(folder, card, construction, tensors)
        if (generator.num_ws, generator.latent, (generator.latent,)) != (card.num_ws, card.w_dim, card.latent):
            raise DataError(f"{folder}: its description contradicts itself on the sizes of z and w.")
        prior = cls(card, trained_on, generator, discriminator)
        try:
            prior.generator.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"{folder}: the weights are not those of the network described: {reason}") from None
        return prior

    def mapping(
        self, z: Float[Tensor, "n latent"], *, truncation: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n num_ws latent"]:
        """Return the same w for every layer, moved towards the mean w in the first ``cutoff`` layers."""
        w = self._net.mapping(z).unsqueeze(1).expand(-1, self.card.num_ws, -1)
        truncated = self._net.mean_w + truncation * (w - self._net.mean_w)
        early = torch.arange(self.card.num_ws, device=w.device) < (self.card.num_ws if cutoff is None else cutoff)
        return torch.where(early.view(1, -1, 1), truncated, w)

    def synthesis(self, w: Float[Tensor, "n num_ws latent"]) -> Float[Tensor, "n c h w"]:
        """Return the images of w."""
        return self._net.synthesis(w)

    def realism(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"] | None:
        """Return the discriminator's logits."""
        return None if self._discriminator is None else self._discriminator(images)

    def layers(self) -> Sequence[nn.Module]:
        """Return the synthesis blocks, each of which returns a grid and a picture."""
        return list(self._net.blocks)


def _build_networks(
    folder: Path, card: PriorCard, construction: Construction, tensors: Mapping[str, Tensor]
) -> tuple[StyleGenerator, StyleDiscriminator | None]:
    try:
        generator = StyleGenerator(card.shape, **construction.model_dump())
        if not any(name.startswith("discriminator.") for name in tensors):
            return generator, None
        return generator, StyleDiscriminator(card.shape, width=construction.width, most=construction.most)
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond what torch can count
        raise DataError(f"{folder}: the network described cannot be built: {error}.") from None


def describe_style_prior(name: str, fitted: TrainedStyleGan, fit: StyleFit, shape: tuple[int, int, int]) -> PriorCard:
    """Return the description of a trained pair, without the images it was trained on."""
    latent = fitted.generator.latent
    return PriorCard(
        name=name,
        kind="style",
        shape=shape,
        latent=(latent,),
        num_ws=fitted.generator.num_ws,
        w_dim=latent,
        construction={**describe(fit), "history": fitted.history},
    )


def style_prior_tensors(fitted: TrainedStyleGan) -> dict[str, Tensor]:
    """Return the weights of a trained pair as they are stored."""
    pair = nn.ModuleDict({"generator": fitted.generator, "discriminator": fitted.discriminator})
    return dict(pair.state_dict())
