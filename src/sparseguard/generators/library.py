"""Loading of priors from their folders, by the kind on the card."""

from __future__ import annotations

from pathlib import Path

import torch

from sparseguard.core.atomic_io import read_tensors
from sparseguard.core.errors import DataError, StoreError, nearest
from sparseguard.generators.base import Prior
from sparseguard.generators.card import FINGERPRINT_BYTES, PriorCard
from sparseguard.generators.external.module_prior import ModulePrior
from sparseguard.generators.external.nvidia.prior import OfficialPrior
from sparseguard.generators.storage import CARD, TRAINED_ON, WEIGHTS, find_prior, read_card
from sparseguard.generators.stylegan.prior import StylePrior

KINDS: dict[str, type[Prior]] = {"style": StylePrior, "module": ModulePrior, "official": OfficialPrior}
"""Classes that load priors, by the kind on the card."""


def load_prior(source: str | Path, *, trust_code: bool = False) -> Prior:
    """Load a prior from a folder, or one that ships with the package by its name.

    No pickle is read. A prior of kind ``module`` or ``official`` is built by Python that its folder names.

    Args:
        source: folder or name.
        trust_code: run that Python. Set it for folders that you made or checked.

    Raises:
        DataError: when it cannot be found, read or built, its weights are another network's, or it would run code that
            is not trusted.

    Example:
        >>> import torch
        >>> from sparseguard.generators import load_prior
        >>> prior = load_prior("fashion-mini")
        >>> w = prior.mapping(prior.latents(2, torch.Generator().manual_seed(0)), truncation=0.7)
        >>> prior.synthesis(w).shape
        torch.Size([2, 1, 28, 28])
    """
    folder = find_prior(source)
    card = read_card(folder)
    try:
        tensors, _ = read_tensors(folder / WEIGHTS)
    except StoreError as error:
        raise DataError(str(error)) from None
    trained_on = tensors.pop(TRAINED_ON, None)
    if trained_on is not None and (
        trained_on.dtype != torch.uint8 or trained_on.ndim != 2 or trained_on.shape[1] != FINGERPRINT_BYTES
    ):
        raise DataError(f"{folder / WEIGHTS}: '{TRAINED_ON}' must be (n, {FINGERPRINT_BYTES}) uint8 fingerprints.")
    if card.kind not in KINDS:
        raise DataError(f"{folder / CARD}: unknown kind '{card.kind}'. {nearest(card.kind, KINDS)}")
    if KINDS[card.kind].runs_code and not trust_code:
        raise DataError(
            f"{folder}: loading this prior runs Python that its {CARD} names ({_list_code(card)}). If you made it, or "
            "checked it, say so: trust_prior = true in a recipe, --trust-code, or trust_code=True."
        )
    return KINDS[card.kind].load(folder, card, trained_on, tensors)


def _list_code(card: PriorCard) -> str:
    return ", ".join(str(card.construction[key]) for key in ("factory", "checkout") if key in card.construction)
