"""The inversion of one sparse layer of a trained model: exact code and released code, true and estimated statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseguard.bounds._destandardize import PixelRange, image_statistics
from sparseguard.bounds.base import AuxiliaryData, Images, mean_psnr
from sparseguard.bounds.sparse_inversion import Inversion, best_steps, hidden_fraction, invert_code
from sparseguard.sparse import Problem, Solution, SparseCoding, Status, solve, standardize

EXACT_STEPS = 2000
EXACT_TOLERANCE = 1e-3
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Inverted:
    """Codes of a layer and what comes of them.

    Args:
        problem: what the layer solves, with its (standardized) inputs.
        code: ``(n, f, ...)``.
        kkt: ``(n,)``, how far each code is from a solution.
        inversion: the optimality-condition inversion.
    """

    problem: Problem
    code: Tensor
    kkt: Tensor
    inversion: Inversion

    @property
    def synthesis(self) -> Tensor:
        """What the code's atoms add up to."""
        return self.problem.dictionary.synthesis(self.code)

    def figures(self, prefix: str) -> dict[str, float]:
        """Return the figures that need no image."""
        inputs = self.problem.images
        missed = hidden_fraction(inputs, self.inversion.projection)
        return {
            f"{prefix}_hidden": float(missed.mean()),
            f"{prefix}_hidden_by_synthesis": float(hidden_fraction(inputs, self.synthesis).mean()),
            f"{prefix}_active": float((self.code != 0).float().mean()),
            f"{prefix}_kkt": float(self.kkt.amax()),
            f"{prefix}_misfit": float(self.inversion.misfit.mean()),
        }


@torch.no_grad()
def released_codes(layer: SparseCoding, inputs: Tensor, code: Tensor, steps: int) -> Inverted:
    """Invert codes as the layer released them.

    Args:
        layer: the layer.
        inputs: what went in.
        code: what came out.
        steps: where to stop, from `stable_steps`.
    """
    problem = _problem(layer, inputs)
    inversion = invert_code(problem.dictionary, code, problem.lambd, max_steps=steps)
    return Inverted(problem=problem, code=code, kkt=problem.kkt_residual(code), inversion=inversion)


def stable_steps(layer: SparseCoding, inputs: Tensor, code: Tensor) -> int:
    """Return the number of steps that inverts the attacker's own released codes best."""
    problem = _problem(layer, inputs)
    return best_steps(problem.dictionary, code, problem.lambd, problem.images)


@torch.no_grad()
def exact_codes(
    layer: SparseCoding, inputs: Tensor, start: Tensor, advance: Callable[[int], None]
) -> tuple[Inverted, float]:
    """Solve for the exact codes and invert them; also return the share of images solved to the tolerance.

    Args:
        layer: the layer.
        inputs: what went in.
        start: codes to start from.
        advance: is told of images done.
    """
    problem = _problem(layer, inputs)
    found = list[Solution]()
    for index in torch.arange(len(inputs)).split(BATCH):
        part = problem.select(index)
        found.append(solve(part, steps=EXACT_STEPS, tolerance=EXACT_TOLERANCE, start=start[index]))
        advance(len(index))
    code = torch.cat([part.code for part in found])
    solved = torch.cat([part.status == Status.SOLVED for part in found])
    inversion = invert_code(problem.dictionary, code, problem.lambd)
    inverted = Inverted(problem=problem, code=code, kkt=torch.cat([part.kkt for part in found]), inversion=inversion)
    return inverted, float(solved.float().mean())


def image_figures(
    prefix: str, found: Inverted, images: Images, auxiliary: Inverted, own: AuxiliaryData
) -> dict[str, float]:
    """Return the PSNR of images made of a first layer's codes.

    Args:
        prefix: what the figures' names start with.
        found: the evaluated images' codes.
        images: the evaluated images.
        public: the attacker's codes of its own images, on which it learns to estimate mean and contrast.
        own: these images.
    """
    mean, spread = image_statistics(images)
    figures = dict[str, float]()
    for name, ours, theirs in (
        ("synthesis", found.synthesis.cpu(), auxiliary.synthesis.cpu()),
        ("inversion", found.inversion.projection.cpu(), auxiliary.inversion.projection.cpu()),
    ):
        figures[f"{prefix}_{name}_true_statistics_psnr"] = mean_psnr(mean + spread * ours, images)
        figures[f"{prefix}_{name}_psnr"] = mean_psnr(PixelRange.fit(theirs, own)(ours), images)
    return figures


def reads_images(layer: SparseCoding, inputs: Tensor, images: Images) -> bool:
    """Return whether what the layer codes is the standardized image itself, so that its input leads to the image."""
    if not layer.standardize or inputs.shape != images.shape:
        return False
    return bool(torch.allclose(standardize(inputs), standardize(images), atol=1e-3))


def _problem(layer: SparseCoding, inputs: Tensor) -> Problem:
    lambd = layer.lambd if isinstance(layer.lambd, float) else inputs.new_tensor(layer.lambd)
    images = standardize(inputs) if layer.standardize else inputs
    dictionary = layer.operator(inputs)
    return Problem(images, dictionary, lambd, layer.nonnegative, layer.penalty).detach()
