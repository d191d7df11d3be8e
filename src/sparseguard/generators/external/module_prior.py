"""Priors built by a user's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.core.errors import DataError
from sparseguard.core.state_dicts import load_strictly
from sparseguard.core.user_code.import_factory import call_factory
from sparseguard.generators.base import Prior
from sparseguard.generators.card import PriorCard
from sparseguard.generators.validation import OutputRange, rescale


class ModuleConstruction(pydantic.BaseModel):
    """Arguments to build a user's network.

    Args:
        factory: ``/path/to/file.py:function`` or ``package.module:function``.
        arguments: keywords of the function.
        sources: SHA-256 of the factory's sources, by name.
        output: the values of black and white.
        seen: the range of 99 of 100 values at import.
        flat_w: whether the network's w is ``(n, w_dim)`` instead of ``(n, num_ws, w_dim)``.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    factory: str
    arguments: dict[str, Any]
    sources: dict[str, str]
    output: OutputRange
    seen: tuple[float, float] | None = None
    flat_w: bool = False


class MeanAndNetwork(nn.Module):
    """A user's network and the mean of its w, ``(num_ws, w_dim)``; None for a network of z only."""

    mean_w: Tensor | None

    def __init__(self, network: nn.Module, mean_w: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean_w", mean_w)
        for part in network.modules():
            if isinstance(getattr(part, "inplace", None), bool):
                vars(part)["inplace"] = False  # else it would overwrite the features that `Prior.features` returns

    @property
    def map(self) -> Callable[[Tensor], Tensor]:
        """The network's map from z to w."""
        return cast("Callable[[Tensor], Tensor]", self.network.mapping)

    @property
    def render(self) -> Callable[[Tensor], Tensor]:
        """The network's map from w, or z without W, to its images."""
        return cast("Callable[[Tensor], Tensor]", self.network if self.mean_w is None else self.network.synthesis)


@final
class ModulePrior(Prior):
    """A user's generator: ``mapping(z)`` and ``synthesis(w)``, or only z to images.

    Loading it runs its code, with the arguments on its card: `load_prior` asks for consent.

    Truncation moves w towards the mean of 10,000 w taken at import (``mean_w`` beside the weights); without W it
    shrinks z. A w of ``(n, w_dim)`` is a layer of its own, ``num_ws`` being 1.
    """

    runs_code: ClassVar[bool] = True

    def __init__(self, card: PriorCard, trained_on: Tensor | None, generator: MeanAndNetwork) -> None:
        super().__init__(card, trained_on, generator)
        self._net, self._construction = generator, read_construction(card)

    @classmethod
    def load(cls, folder: Path, card: PriorCard, trained_on: Tensor | None, tensors: Mapping[str, Tensor]) -> Prior:
        """Run the factory, load the weights, and compare the sizes with the card's."""
        construction = read_construction(card)
        with torch.random.fork_rng():  # building draws weights
            network, _ = call_factory(construction.factory, construction.arguments, construction.sources)
        generator = MeanAndNetwork(network, torch.zeros(card.num_ws, card.w_dim) if card.num_ws else None)
        load_strictly(generator, tensors, str(folder))
        prior = cls(card, trained_on, generator)
        prior.check_sizes(str(folder))
        return prior

    @torch.no_grad()
    def check_sizes(self, where: str) -> None:
        """Compare the network's outputs for one z with the card.

        Raises:
            DataError: naming the size that differs.
        """
        z = self.latents(1, torch.Generator().manual_seed(0))
        w = self.mapping(z)
        expected = (1, self.card.num_ws, self.card.w_dim) if self.has_w else tuple(z.shape)
        if tuple(w.shape) != expected:
            raise DataError(f"{where}: the network's w is {tuple(w.shape)}, its description says {expected}.")
        images = self.synthesis(w)
        if tuple(images.shape) != (1, *self.card.shape):
            raise DataError(f"{where}: the network's images are {tuple(images.shape[1:])}, not {self.card.shape}.")

    def mapping(
        self, z: Float[Tensor, "n ..."], *, truncation: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n ..."]:
        """Return w, moved towards its mean in the first ``cutoff`` layers; z times ``truncation`` without W."""
        mean = self._net.mean_w
        if mean is None:
            return z * truncation
        w = self._net.map(z)
        w = w.unsqueeze(1) if self._construction.flat_w else w
        if w.ndim != 3 or w.shape[1:] != mean.shape:
            raise DataError(
                f"prior '{self.card.name}': the network's w is {tuple(w.shape[1:])}, its description says "
                f"{tuple(mean.shape)} (num_ws, w_dim)."
            )
        early = torch.arange(self.card.num_ws, device=w.device) < (self.card.num_ws if cutoff is None else cutoff)
        return torch.where(early.view(1, -1, 1), mean + truncation * (w - mean), w)

    def synthesis(self, w: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Return the images of w, the network's black at 0 and its white at 1."""
        return rescale(self._net.render(w.squeeze(1) if self._construction.flat_w else w), self._construction.output)

    def layers(self) -> Sequence[nn.Module]:
        """Return the parts of the synthesis when it is an `nn.Sequential`, or holds nothing but one; else nothing."""
        rendering = self._net.render
        return _sequence(rendering) if isinstance(rendering, nn.Module) else ()


def read_construction(card: PriorCard) -> ModuleConstruction:
    """Return the arguments on the card to build the network.

    Raises:
        DataError: when they are missing or wrong.
    """
    try:
        return ModuleConstruction.model_validate(card.construction)
    except pydantic.ValidationError as error:
        raise DataError(f"prior '{card.name}': its description does not say how to build it: {error}.") from None


def _sequence(module: nn.Module) -> Sequence[nn.Module]:
    parts = list(module.children())
    if isinstance(module, nn.Sequential):
        run = list(module)
        return tuple(part for part in parts if sum(part is other for other in run) == 1)
    return _sequence(parts[0]) if len(parts) == 1 else ()
