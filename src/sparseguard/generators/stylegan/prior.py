"""A prior trained by `train_style_gan`."""

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
from sparseguard.generators.stylegan.training import FittedStyle, StyleFit


class Construction(pydantic.BaseModel):
    """What is needed to build the networks."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)

    latent: Annotated[int, pydantic.Field(ge=1)]
    width: Annotated[int, pydantic.Field(ge=1)]
    most: Annotated[int, pydantic.Field(ge=1)]
    depth: Annotated[int, pydantic.Field(ge=1, le=100)]


@final
class StylePrior(Prior):
    """Our own style-based generator, with its discriminator."""

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
            made = Construction.model_validate(card.construction)
        except pydantic.ValidationError as error:
            raise DataError(f"{folder}: its description does not say how to build it: {error}.") from None
        with torch.device("meta"):  # neither memory nor random numbers for weights that are replaced
            generator, discriminator = _networks(folder, card, made, tensors)
        if (generator.num_ws, generator.latent, (generator.latent,)) != (card.num_ws, card.w_dim, card.latent):
            raise DataError(f"{folder}: its description contradicts itself on the sizes of z and w.")
        prior = cls(card, trained_on, generator, discriminator)
        try:
            prior.generator.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
        except RuntimeError as error:
            told = " ".join(str(error).split())[:300]
            raise DataError(f"{folder}: the weights are not those of the network described: {told}") from None
        return prior

    def mapping(
        self, z: Float[Tensor, "n latent"], *, truncation: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n num_ws latent"]:
        """Return the same w for every layer, drawn towards the mean w in the first ``cutoff`` layers."""
        w = self._net.mapping(z).unsqueeze(1).expand(-1, self.card.num_ws, -1)
        drawn = self._net.mean_w + truncation * (w - self._net.mean_w)
        early = torch.arange(self.card.num_ws, device=w.device) < (self.card.num_ws if cutoff is None else cutoff)
        return torch.where(early.view(1, -1, 1), drawn, w)

    def synthesis(self, w: Float[Tensor, "n num_ws latent"]) -> Float[Tensor, "n c h w"]:
        """Return the images of w."""
        return self._net.synthesis(w)

    def realism(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"] | None:
        """Return the discriminator's logits."""
        return None if self._discriminator is None else self._discriminator(images)

    def layers(self) -> Sequence[nn.Module]:
        """Return the synthesis blocks, each of which puts out a grid and a picture."""
        return list(self._net.blocks)


def _networks(
    folder: Path, card: PriorCard, made: Construction, tensors: Mapping[str, Tensor]
) -> tuple[StyleGenerator, StyleDiscriminator | None]:
    try:
        generator = StyleGenerator(card.shape, latent=made.latent, width=made.width, most=made.most, depth=made.depth)
        if not any(name.startswith("discriminator.") for name in tensors):
            return generator, None
        return generator, StyleDiscriminator(card.shape, width=made.width, most=made.most)
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond what torch can count
        raise DataError(f"{folder}: the network described cannot be built: {error}.") from None


def style_card(name: str, fitted: FittedStyle, fit: StyleFit, shape: tuple[int, int, int]) -> PriorCard:
    """Return the description of a trained pair, without what it was trained on."""
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


def style_tensors(fitted: FittedStyle) -> dict[str, Tensor]:
    """Return the weights of a trained pair as they are kept."""
    pair = nn.ModuleDict({"generator": fitted.generator, "discriminator": fitted.discriminator})
    return dict(pair.state_dict())
