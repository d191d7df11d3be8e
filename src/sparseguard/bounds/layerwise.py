"""The waterfall: the best reconstruction found at every wall between the image and the tap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseguard.bounds._destandardize import PixelRange
from sparseguard.bounds._layers import Passed, Wall, invertible, runs
from sparseguard.bounds._sparse_inversion_model import reads_images, released_codes, stable_steps
from sparseguard.bounds.base import PSNR_CAP, AuxiliaryData, Decode, Images, mean_psnr
from sparseguard.bounds.null_space import AffineMap, affine_map, null_space
from sparseguard.sparse import SparseCoding, standardize

RISE = 0.1
"""Decibels by which a wall must lie above the one before it to count as a rise."""

FITTED = 128
"""Public images that the inversion's mean and contrast are learned on."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The best reconstruction found at one wall.

    Args:
        wall: the wall's name.
        psnr: mean over the evaluated images, in dB.
        by: what found it: ``identity``, ``affine``, ``decode``, ``range``, ``inversion``, or the wall before it, where
            the one between loses nothing.
        tried: what each of them reached.
    """

    wall: str
    psnr: float
    by: str
    tried: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """The levels from the image to the tap.

    What can be made of a wall's output can be made of its input. So the true optimum falls or stays, and a level above
    the one before it shows that the attackers at the earlier wall are too weak.

    Args:
        levels: in order, the image first.
    """

    levels: tuple[Level, ...]

    @property
    def rises(self) -> dict[str, float]:
        """By how many dB a wall lies above the one before it, where it is more than `RISE`."""
        pairs = zip(self.levels, self.levels[1:], strict=False)
        return {after.wall: after.psnr - before.psnr for before, after in pairs if after.psnr > before.psnr + RISE}

    @property
    def corrected(self) -> dict[str, float]:
        """Each wall's best level at or after it: what is known to be possible there, in dB."""
        best, found = float("-inf"), dict[str, float]()
        for level in reversed(self.levels):
            best = max(best, level.psnr)
            found[level.wall] = best
        return dict(reversed(found.items()))


class Descent:
    """Goes along the walls once and finds each one's level.

    At a wall that loses nothing (batch normalization) the level before it is carried on.

    Args:
        public: the attacker's images.
        private: the evaluated images; never shown to a decoder, but of the attackers tried at a wall the one that is
            best on them counts.
        decode: the learned attacker, such as ridge regression.
        device: where the model is.

    Attributes:
        levels: one a wall passed, the image first.
        beginning: the last wall that the network is affine up to, and what it is up to there.
    """

    def __init__(self, auxiliary: AuxiliaryData, private: Images, decode: Decode, device: torch.device) -> None:
        self._public, self._private, self._decode, self._device = auxiliary, private, decode, device
        self._walls = list[Wall]()
        self.beginning: tuple[str, AffineMap] | None = None
        self._bent = False
        self.levels: list[Level] = [Level(wall="image", psnr=PSNR_CAP, by="identity", tried={"identity": PSNR_CAP})]

    def waterfall(self) -> Waterfall:
        """Return what was found so far."""
        return Waterfall(levels=tuple(self.levels))

    def pass_wall(self, here: Passed) -> None:
        """Find the level behind a wall, and of its standardized input if it is a sparse layer with one."""
        module, name = here.wall.module, here.wall.name
        self._walls.append(here.wall)
        found = dict[str, float]()
        if isinstance(module, SparseCoding):
            first = reads_images(module, here.public_in, self._public)
            if first:
                self._add(f"{name}.standardized", self._standardized(here))
            if first and module.penalty == "l1":
                found["inversion"] = self._inverted(here, module)
        mapping = self._extended(name)
        if mapping is not None:
            found["affine"] = max(null_space(mapping, self._public, self._private).psnr(self._private))
        if invertible(module):
            found[self.levels[-1].by] = self.levels[-1].psnr
        elif mapping is None or not mapping.complete:
            found["decode"] = self._learned(here.public_out, here.private_out)
        self._add(name, found)

    def _add(self, wall: str, found: dict[str, float]) -> None:
        by = max(found, key=lambda name: found[name])
        self.levels.append(Level(wall=wall, psnr=found[by], by=by, tried=found))

    def _standardized(self, here: Passed) -> dict[str, float]:
        auxiliary, private = standardize(here.public_in), standardize(here.private_in)
        return {
            "decode": self._learned(auxiliary, private),
            "range": mean_psnr(PixelRange.fit(auxiliary, self._public)(private), self._private),
        }

    def _inverted(self, here: Passed, layer: SparseCoding) -> float:
        own, device = self._public[:FITTED], self._device
        inputs, code = here.public_in[:FITTED].to(device), here.public_out[:FITTED].to(device)
        steps = stable_steps(layer, inputs, code)
        auxiliary = released_codes(layer, inputs, code, steps).inversion.projection
        private = released_codes(layer, here.private_in.to(device), here.private_out.to(device), steps)
        estimate = PixelRange.fit(auxiliary.cpu(), own)
        return mean_psnr(estimate(private.inversion.projection.cpu()), self._private)

    def _extended(self, name: str) -> AffineMap | None:
        """Return the network's beginning up to here as a matrix, if that is what it is."""
        mapping = None if self._bent else affine_map(runs(self._walls, self._device), self._public[:FITTED])
        self._bent = mapping is None
        if mapping is not None:
            self.beginning = name, mapping
        return mapping

    def _learned(self, auxiliary: Tensor, private: Tensor) -> float:
        images = self._decode(auxiliary.flatten(1), self._public, private.flatten(1))
        return mean_psnr(images, self._private)
