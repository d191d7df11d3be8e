"""Contract of priors: a frozen generator from latents to images, whose layers can be differentiated and replaced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.generators.card import PriorCard

PRIOR_REVISION = 1
"""Revision of the images that priors make of their weights."""

Parts = tuple[Tensor | None, ...]


class Prior(ABC):
    """A pretrained generator.

    ``mapping`` takes z to w, ``synthesis`` w to images in about [0, 1], not clipped. A generator of z only has the
    identity for mapping; its w is z.

    Args:
        card: its description.
        trained_on: fingerprints ``(n, 8)`` of the images it was trained on; None if unknown.
        generator: the networks, put into evaluation mode and frozen; moved by `to`.
    """

    runs_code: ClassVar[bool] = False
    """Whether loading it runs Python that its folder names."""

    def __init__(self, card: PriorCard, trained_on: Tensor | None, generator: nn.Module) -> None:
        self.card = card
        self.trained_on = trained_on
        self.generator = generator.eval().requires_grad_(False)
        self.device = torch.device("cpu")

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, card: PriorCard, trained_on: Tensor | None, tensors: Mapping[str, Tensor]) -> Prior:
        """Build the networks a card describes and give them their weights.

        Raises:
            DataError: when they cannot be built, or the weights are another network's.
        """

    @property
    def has_w(self) -> bool:
        """Whether there is a W to search; else the search is in z."""
        return self.card.num_ws > 0

    def to(self, device: torch.device) -> Prior:
        """Move the networks and return the prior."""
        self.generator.to(device)
        self.device = device
        return self

    @final
    def latents(self, count: int, generator: torch.Generator) -> Float[Tensor, "n ..."]:
        """Return z drawn from the standard normal distribution by ``generator``, on the prior's device."""
        z = torch.randn(count, *self.card.latent, generator=generator, device=generator.device)
        return z.to(self.device)

    @abstractmethod
    def mapping(
        self, z: Float[Tensor, "n ..."], *, truncation: float = 1.0, cutoff: int | None = None
    ) -> Float[Tensor, "n ..."]:
        """Return w ``(n, num_ws, w_dim)``, moved towards its mean by ``truncation`` in the first ``cutoff`` layers.

        Without W: z times ``truncation``, since the mean of z is 0.
        """

    @abstractmethod
    def synthesis(self, w: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Return the images of w."""

    def realism(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"] | None:  # noqa: ARG002
        """Return a discriminator's logits that the images are real; None where there is no discriminator."""
        return None

    def layers(self) -> Sequence[nn.Module]:
        """Return the layers of the synthesis in order, whose outputs can be replaced."""
        return ()

    @final
    def features(self, w: Float[Tensor, "n ..."], layer: int) -> Parts:
        """Return the output of ``layers()[layer]`` for w: one tensor, or several with None where there is none."""
        outputs: list[Parts] = []
        with _replace_output(self.layers()[layer], lambda output: outputs.append(_to_parts(output))):
            self.synthesis(w)
        return outputs[0]

    @final
    def finish(self, features: Parts, w: Float[Tensor, "n ..."], layer: int) -> Float[Tensor, "n c h w"]:
        """Return the images of w with the output of ``layers()[layer]`` replaced by ``features``."""

        def replace(output: Any) -> Any:
            return features[0] if isinstance(output, Tensor) else type(output)(features)

        with _replace_output(self.layers()[layer], replace):
            return self.synthesis(w)


@contextmanager
def _replace_output(layer: nn.Module, replace: Any) -> Iterator[None]:
    handle = layer.register_forward_hook(lambda _module, _inputs, output: replace(output))
    try:
        yield
    finally:
        handle.remove()


def _to_parts(output: Any) -> Parts:
    return (output,) if isinstance(output, Tensor) else tuple(output)
