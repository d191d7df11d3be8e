"""Import of NVIDIA's pickles as priors; a pickle is read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.user_code.isolated_import import sha256_of
from sparseguard.generators.card import PriorCard
from sparseguard.generators.external.nvidia.checkout import Network, check_checkout
from sparseguard.generators.external.nvidia.prior import OfficialConstruction, OfficialPrior
from sparseguard.generators.external.nvidia.unpickled import Unpickled, rebuild, unpickle
from sparseguard.generators.storage import save_prior
from sparseguard.generators.validation import check_images

OUTPUT = (-1.0, 1.0)
"""NVIDIA's values of black and white, checked on a few images."""


def import_official(
    folder: Path,
    *,
    pickle: Path,
    checkout: Path,
    trust_pickle: bool,
    name: str,
    trained_on: str = "unknown",
    classes: Sequence[str] | None = None,
    known: Tensor | None = None,
    condition: int | None = None,
) -> OfficialPrior:
    """Convert ``G_ema`` and ``D`` of a pickle into a prior in ``folder`` and return it.

    The pickle is read by the checkout's ``legacy.load_network_pkl``, which runs whatever code the pickle brings. The
    networks are then rebuilt by the checkout's own classes, and their outputs must agree to 1e-4. A discriminator that
    cannot be rebuilt is left out, and the card says why.

    Args:
        folder: the new folder; it must not exist.
        pickle: e.g. ``stylegan3-t-ffhqu-256x256.pkl``.
        checkout: a clone of the repository it was trained with.
        trust_pickle: consent that code in the pickle is run.
        name: of the prior, in tables.
        trained_on: one sentence on the images it was trained on.
        classes: names of their classes; None if unknown.
        known: fingerprints ``(n, 8)`` of these images; None if unknown.
        condition: the class of the images, for a network with classes; None for a vector of zeros.

    Raises:
        RecipeError: without ``trust_pickle``, for no such checkout or class.
        DataError: when the pickle cannot be read or its networks not be rebuilt, or its images cannot be used.
        StoreError: when the folder exists or cannot be written.
    """
    if not trust_pickle:
        raise RecipeError(
            f"{pickle}: reading this file runs code that is in it. If you trust where it came from, say so with "
            "--trust-pickle (trust_pickle=True). It is read once; the prior made of it needs no pickle."
        )
    checkout = check_checkout(checkout)
    if not pickle.is_file():
        raise DataError(f"{pickle}: there is no such file.")
    unpickled, critic = unpickle(pickle, checkout)
    _check_condition(condition, unpickled.sizes["c_dim"])
    generator, network, sources = rebuild(unpickled, checkout)
    discriminator, rebuilt, more = _rebuild_critic(critic, checkout)
    card = _card(unpickled, name, trained_on, classes, rebuilt)
    construction = OfficialConstruction(
        checkout=str(checkout),
        sources={**sources, **more},
        pickle=pickle.name,
        pickle_sha256=sha256_of(pickle),
        generator=network,
        discriminator=rebuilt if isinstance(rebuilt, Network) else None,
        condition=condition,
        output=OUTPUT,
    )
    card = _with_construction(card, construction)
    prior = OfficialPrior(card, known, generator, discriminator)
    measured = check_images(prior, OUTPUT)
    card = _with_construction(card, construction.model_copy(update={"seen": measured}))
    save_prior(folder, card, known, prior.generator.state_dict())
    return OfficialPrior(card, known, generator, discriminator)


def _rebuild_critic(critic: Unpickled | None, checkout: Path) -> tuple[nn.Module | None, Network | str, dict[str, str]]:
    """Return the discriminator, its construction or the reason why there is none, and its sources."""
    if critic is None:
        return None, "the pickle has none", {}
    try:
        return rebuild(critic, checkout)
    except DataError as error:
        return None, str(error), {}


def _card(
    unpickled: Unpickled, name: str, trained_on: str, classes: Sequence[str] | None, rebuilt: Network | str
) -> PriorCard:
    sizes = unpickled.sizes
    channels: Any = sizes["img_channels"]
    if channels not in (1, 3):
        raise DataError(f"prior '{name}': its images have {channels} channels; 1 or 3 can be used.")
    source = [
        f"Converted from NVIDIA's network {unpickled.name}; its images were equal to those of the pickle's to 1e-4."
    ]
    if isinstance(rebuilt, str):
        source.append(f"Without a discriminator: {rebuilt}.")
    return PriorCard(
        name=name,
        kind="official",
        shape=(channels, sizes["img_resolution"], sizes["img_resolution"]),
        latent=(sizes["z_dim"],),
        num_ws=sizes["num_ws"],
        w_dim=sizes["w_dim"],
        classes=None if classes is None else tuple(classes),
        trained_on=trained_on,
        source=tuple(source),
    )


def _with_construction(card: PriorCard, construction: OfficialConstruction) -> PriorCard:
    return card.model_copy(update={"construction": construction.model_dump(mode="json")})


def _check_condition(condition: int | None, classes: int) -> None:
    if condition is None or 0 <= condition < classes:
        return
    has = f"classes 0 to {classes - 1}" if classes else "no classes"
    raise RecipeError(f"condition: the network has {has} (got {condition}).")
