"""Priors that are NVIDIA's networks, built by the classes in a checkout of their repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast, final

import pydantic
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.state_dicts import load_strictly
from sparseguard.core.user_code.isolated_import import check_sources, suppress_warnings
from sparseguard.generators.base import Prior
from sparseguard.generators.card import PriorCard
from sparseguard.generators.external.nvidia.checkout import ENVIRONMENT, Network, build, resolve_checkout
from sparseguard.generators.validation import OutputRange, rescale

BLOCKS = ("SynthesisLayer", "SynthesisBlock")
"""Classes of the synthesis' layers: StyleGAN3's and StyleGAN2's."""

REMEDY = f"Put it back, point {ENVIRONMENT} to a checkout with it, or import the prior again."


class OfficialConstruction(pydantic.BaseModel):
    """Arguments to build NVIDIA's networks.

    Args:
        checkout: folder of the checkout at import.
        sources: SHA-256 of those of its files that were imported, by their path in it.
        pickle: name of the pickle that was converted.
        pickle_sha256: its checksum.
        generator: how to build the generator.
        discriminator: how to build the discriminator; None where there is none.
        condition: the class of the images; None for a vector of zeros.
        output: the values of black and white.
        seen: the range of 99 of 100 values at import.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    checkout: str
    sources: dict[str, str]
    pickle: str
    pickle_sha256: str
    generator: Network
    discriminator: Network | None = None
    condition: int | None = None
    output: OutputRange = (-1.0, 1.0)
    seen: tuple[float, float] | None = None


@final
class OfficialPrior(Prior):
    """StyleGAN2-ADA or StyleGAN3.

    Synthesis uses ``noise_mode="const"`` and ``force_fp32=True``; truncation is that of the network's ``mapping``. No
    pickle is read and nothing is compiled. Loading runs the checkout's code: `load_prior` asks for consent. It
    refuses sources that changed since the import.
    """

    runs_code: ClassVar[bool] = True

    def __init__(
        self, card: PriorCard, trained_on: Tensor | None, generator: nn.Module, discriminator: nn.Module | None
    ) -> None:
        parts = {"generator": generator} | ({} if discriminator is None else {"discriminator": discriminator})
        super().__init__(card, trained_on, nn.ModuleDict(parts))
        self._construction = read_construction(card)
        self._net, self._critic = cast("Any", generator), cast("Any", discriminator)
        for part in () if discriminator is None else discriminator.modules():
            if isinstance(vars(part).get("group_size"), int):
                vars(part)["group_size"] = 1  # logits of an image must not depend on the rest of the batch
        self._check_sizes()

    @classmethod
    def load(cls, folder: Path, card: PriorCard, trained_on: Tensor | None, tensors: Mapping[str, Tensor]) -> Prior:
        """Build the networks with the checkout's classes and load their weights.

        The checkout is the one of the import, or the folder in ``SPARSEGUARD_CHECKOUT``.
        """
        construction = read_construction(card)
        checkout = resolve_checkout(construction.checkout)
        check_sources(checkout, construction.sources, REMEDY)
        generator, _ = build(construction.generator, checkout)
        discriminator = None if construction.discriminator is None else build(construction.discriminator, checkout)[0]
        prior = cls(card, trained_on, generator, discriminator)
        load_strictly(prior.generator, tensors, str(folder))
        return prior

    def mapping(
        self, z: Float[Tensor, "n z_dim"], *, truncation: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n num_ws w_dim"]:
        """Return the network's w, truncated by its own mean.

        Raises:
            RecipeError: for a truncation of a network without a mean w.
        """
        if truncation != 1 and not isinstance(getattr(self._net.mapping, "w_avg", None), Tensor):
            raise RecipeError(f"prior '{self.card.name}': it has no mean w; truncation must be 1.")
        c = self._condition(len(z), self._net.c_dim, z)
        with suppress_warnings():
            w: Tensor = self._net.mapping(z, c, truncation_psi=truncation, truncation_cutoff=cutoff)
        return w

    def synthesis(self, w: Float[Tensor, "n num_ws w_dim"]) -> Float[Tensor, "n c h w"]:
        """Return the images of w, the network's black at 0 and its white at 1."""
        with suppress_warnings():
            images: Tensor = self._net.synthesis(w, noise_mode="const", force_fp32=True)
        return rescale(images, self._construction.output)

    def realism(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"] | None:
        """Return the discriminator's logits, each image by itself: its minibatch statistics are of groups of one.

        The network was trained with groups of several, so logits are lower than it gives a varied batch.

        Raises:
            DataError: for images of another size than the discriminator takes.
        """
        if self._critic is None:
            return None
        if tuple(images.shape[1:]) != self.card.shape:
            raise DataError(
                f"prior '{self.card.name}': its discriminator takes images of {self.card.shape}, these are "
                f"{tuple(images.shape[1:])}."
            )
        low, high = self._construction.output
        c = self._condition(len(images), self._critic.c_dim, images)
        with suppress_warnings():
            logits: Tensor = self._critic(images * (high - low) + low, c, force_fp32=True)
        return logits.flatten()

    def layers(self) -> Sequence[nn.Module]:
        """Return StyleGAN3's synthesis layers, or StyleGAN2's blocks, which return features and a picture."""
        return tuple(part for part in self._net.synthesis.children() if type(part).__name__ in BLOCKS)

    def _condition(self, count: int, classes: int, like: Tensor) -> Tensor:
        c = like.new_zeros(count, classes)
        if self._construction.condition is not None and classes:
            c[:, self._construction.condition] = 1
        return c

    def _check_sizes(self) -> None:
        net, critic = self._net, self._critic
        sizes = {"num_ws": net.num_ws, "w_dim": net.w_dim, "latent": (net.z_dim,), "shape": _shape(net)}
        if critic is not None:
            sizes["shape of the discriminator's images"] = _shape(critic)
        for name, value in sizes.items():
            expected = getattr(self.card, name.split()[0])
            if value != expected:
                raise DataError(f"prior '{self.card.name}': {name} is {value} in the network, {expected} on the card.")


def read_construction(card: PriorCard) -> OfficialConstruction:
    """Return the arguments on the card to build the networks.

    Raises:
        DataError: when they are missing or wrong.
    """
    try:
        return OfficialConstruction.model_validate(card.construction)
    except pydantic.ValidationError as error:
        raise DataError(f"prior '{card.name}': its description does not say how to build it: {error}.") from None


def _shape(network: Any) -> tuple[int, int, int]:
    return network.img_channels, network.img_resolution, network.img_resolution
