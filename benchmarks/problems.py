"""The sparse-coding problems that the benchmarks solve, on real images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor

from sparseguard.data import DATASETS
from sparseguard.sparse import ConvDictionary, Problem, random_atoms, solve, standardize


@dataclass(frozen=True)
class Shape:
    """A problem's sizes; ``codes_of`` names the problem whose codes are its images."""

    channels: int
    features: int
    kernel: int
    size: int
    lambd: float
    batch: int = 32
    stride: int = 1
    codes_of: str | None = None


SHAPES = {
    "A": Shape(1, 16, 5, 28, 0.5),
    "B": Shape(16, 28, 5, 28, 0.5, codes_of="A"),
    "C": Shape(3, 16, 5, 32, 0.25),
    "D": Shape(16, 32, 5, 32, 0.25, codes_of="C"),
    "E": Shape(3, 64, 7, 32, 0.25, batch=4),
    "F": Shape(1, 64, 9, 64, 0.1, batch=4, stride=2),
}


def problem(name: str, padding: Literal["same", "valid"]) -> Problem:
    """Return a problem: standardized images, random atoms, always the same."""
    shape = SHAPES[name]
    atoms = random_atoms(
        shape.features, shape.channels, (shape.kernel, shape.kernel), torch.Generator().manual_seed(ord(name))
    )
    dictionary = ConvDictionary(atoms, shape.stride, padding, (shape.size, shape.size))
    return Problem(standardize(_images(shape)), dictionary, shape.lambd)


def _images(shape: Shape) -> Tensor:
    if shape.codes_of is not None:
        codes = solve(problem(shape.codes_of, "same"), steps=30).code
        centred = codes - codes.mean((0, 2, 3), keepdim=True)
        return centred / codes.std((0, 2, 3), keepdim=True)
    if shape.channels == 1 and shape.size == 28:
        return clothes(shape.batch)
    return _photographs(shape)


def clothes(count: int) -> Tensor:
    """Return images of fashion-mini, ``(count, 1, 28, 28)``."""
    images = DATASETS["fashion-mini"]().load().private
    return images.batch(torch.arange(count))


def _photographs(shape: Shape) -> Tensor:
    """Cut squares from the two photographs that scikit-learn ships."""
    photographs = [torch.from_numpy(photo.copy()).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
    generator, cuts = torch.Generator().manual_seed(0), []
    for number in range(shape.batch):
        photo = F.avg_pool2d(photographs[number % len(photographs)], 2)
        top, left = (int(torch.randint(side - shape.size, (), generator=generator)) for side in photo.shape[1:])
        cut = photo[:, top : top + shape.size, left : left + shape.size]
        cuts.append(cut if shape.channels == 3 else cut.mean(0, keepdim=True))
    return torch.stack(cuts)


def to_double(problem: Problem) -> Problem:
    """Return the same problem in double precision."""
    atoms = problem.dictionary.with_atoms(problem.dictionary.atoms.double())
    return replace(problem, images=problem.images.double(), dictionary=atoms)
