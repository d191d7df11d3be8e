"""Priors as folders: ``prior.json`` beside ``weights.safetensors``, and those that ship with the package."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path

import pydantic
import safetensors
from torch import Tensor

from sparseguard.core.atomic_io import write_folder, write_tensors
from sparseguard.core.errors import DataError, StoreError, nearest
from sparseguard.generators.card import PriorCard

CARD, WEIGHTS, TRAINED_ON = "prior.json", "weights.safetensors", "trained_on"


def list_shipped_priors() -> dict[str, Path]:
    """Return the folders of the priors within the package by name."""
    folder = Path(str(importlib.resources.files("sparseguard.generators") / "pretrained"))
    return {entry.name: entry for entry in sorted(folder.iterdir()) if (entry / CARD).is_file()}


def find_prior(source: str | Path) -> Path:
    """Return the folder of a prior given by a path or by the name of one that ships with the package.

    Raises:
        DataError: when there is none.
    """
    if (Path(source) / CARD).is_file():
        return Path(source)
    shipped = list_shipped_priors()
    if str(source) in shipped:
        return shipped[str(source)]
    raise DataError(
        f"no prior '{source}': no folder with a {CARD}, and none ships by that name. {nearest(str(source), shipped)} "
        "Make one with `sparseguard prior train` or `sparseguard prior import`."
    )


def read_card(folder: Path) -> PriorCard:
    """Read a prior's description, without its weights.

    Raises:
        DataError: when it is no such description.
    """
    path = folder / CARD
    try:
        return PriorCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # pydantic's error is a ValueError
        reason = _first_issue(error) if isinstance(error, pydantic.ValidationError) else str(error)
        raise DataError(f"{path}: not the description of a prior: {reason}.") from None


def count_fingerprints(folder: Path) -> int | None:
    """Return how many images a prior says it was trained on, without reading its weights; None if unknown.

    Raises:
        DataError: when its weights cannot be read.
    """
    path = folder / WEIGHTS
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return int(file.get_slice(TRAINED_ON).get_shape()[0]) if TRAINED_ON in file.keys() else None  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None


def save_prior(
    folder: Path,
    card: PriorCard,
    trained_on: Tensor | None,
    tensors: Mapping[str, Tensor],
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a prior's folder, whole or not at all.

    Args:
        folder: the new folder; it must not exist.
        card: the prior's description.
        trained_on: fingerprints ``(n, 8)`` of the images it was trained on; None if unknown.
        tensors: its weights.
        beside: further files by name that nothing depends on, such as a picture of samples.

    Raises:
        StoreError: when the folder exists, or cannot be written.
    """
    if folder.exists():
        raise StoreError(f"{folder}: exists already. Choose another folder, or remove it.")
    extra = {} if trained_on is None else {TRAINED_ON: trained_on}

    def fill(aside: Path) -> None:
        write_tensors(aside / WEIGHTS, {**tensors, **extra}, {"prior": card.name})
        (aside / CARD).write_text(json.dumps(card.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        for name, content in (beside or {}).items():
            (aside / name).write_bytes(content)

    write_folder(folder, fill)


def hash_prior(source: str | Path) -> str:
    """Return the SHA-256 of a prior's description and weights, for keys and records."""
    folder = find_prior(source)
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read ({error.strerror}).") from None
    return digest.hexdigest()


def _first_issue(error: pydantic.ValidationError) -> str:
    issue = error.errors()[0]
    where = ".".join(str(part) for part in issue["loc"])
    return f"{where}: {issue['msg']}"
