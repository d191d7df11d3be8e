"""The paper's figures, to be printed beside a measurement: claims, never targets."""

from __future__ import annotations

import csv
import functools
import importlib.resources

from sparseguard.record.schema import Claim


def find_claim(attack: str, dataset: str | None, defense: str, lambd: float | None) -> Claim | None:
    """Return what the paper's tables say for an attack, a dataset and a defense, or None where they say nothing.

    Upper and lower case, spaces, hyphens and underscores in the dataset's name are not told apart; ``lambd`` counts
    for the defense ``sca`` only.

    Example:
        >>> find_claim("split", "medical-mnist", "sca", 0.5).psnr
        12.27
        >>> find_claim("split", "fashion-mini", "sca", 0.5) is None
        True
    """
    if dataset is None:
        return None
    label = f"sca-{lambd:g}" if defense == "sca" and lambd is not None else defense
    return _claims().get((attack, _plain(dataset), label))


def _plain(dataset: str) -> str:
    return "".join(letter for letter in dataset.casefold() if letter.isalnum())


@functools.cache
def _claims() -> dict[tuple[str, str, str], Claim]:
    text = importlib.resources.files("sparseguard.record").joinpath("claims.csv").read_text(encoding="utf-8")
    return {
        (line["attack"], _plain(line["dataset"]), line["defense"]): Claim(
            source=f"Table {line['table']}",
            psnr=float(line["psnr_db"]),
            ssim=float(line["ssim"]),
            fid=float(line["fid"]),
            accuracy=float(line["accuracy"]),
        )
        for line in csv.DictReader(text.splitlines())
    }
