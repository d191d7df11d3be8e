"""Inversion of one sparse layer of a trained model: exact and released codes, true and estimated statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseguard.bounds._destandardize import PixelRange, image_statistics
from sparseguard.bounds.base import AuxiliaryImages, mean_psnr
from sparseguard.bounds.sparse_inversion import Inversion, choose_steps, hidden_fraction, invert_code
from sparseguard.sparse import Problem, Solution, SparseCoding, Status, solve, standardize
from sparseguard.types import Images

EXACT_STEPS = 2000
EXACT_TOLERANCE = 1e-3
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class InvertedCodes:
    """Codes of a layer and their inversion.

    Args:
        problem: that the layer solves, with its (standardized) inputs.
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
        """The sum of the code's atoms."""
        return self.problem.dictionary.synthesis(self.code)

    def measure(self, prefix: str) -> dict[str, float]:
        """Return the figures that need no image, by name."""
        inputs = self.problem.images
        hidden = hidden_fraction(inputs, self.inversion.projection)
        return {
            f"{prefix}_hidden": float(hidden.mean()),
            f"{prefix}_hidden_by_synthesis": float(hidden_fraction(inputs, self.synthesis).mean()),
            f"{prefix}_active": float((self.code != 0).float().mean()),
            f"{prefix}_kkt": float(self.kkt.amax()),
            f"{prefix}_misfit": float(self.inversion.residual.mean()),
        }


@torch.no_grad()
def invert_released_codes(layer: SparseCoding, inputs: Tensor, code: Tensor, steps: int) -> InvertedCodes:
    """Invert codes as the layer released them.

    Args:
        layer: the layer.
        inputs: of the layer.
        code: its output.
        steps: where to stop, from `choose_stable_steps`.
    """
    problem = _pose_problem(layer, inputs)
    inversion = invert_code(problem.dictionary, code, problem.lambd, max_steps=steps)
    return InvertedCodes(problem=problem, code=code, kkt=problem.kkt_residual(code), inversion=inversion)


def choose_stable_steps(layer: SparseCoding, inputs: Tensor, code: Tensor) -> int:
    """Return the number of steps that inverts the attacker's own released codes best."""
    problem = _pose_problem(layer, inputs)
    return choose_steps(problem.dictionary, code, problem.lambd, problem.images)


@torch.no_grad()
def invert_exact_codes(
    layer: SparseCoding, inputs: Tensor, start: Tensor, advance: Callable[[int], None]
) -> tuple[InvertedCodes, float]:
    """Solve for the exact codes and invert them; also return the fraction of images solved to the tolerance.

    Args:
        layer: the layer.
        inputs: of the layer.
        start: codes to start from.
        advance: called with the number of images done.
    """
    problem = _pose_problem(layer, inputs)
    solutions = list[Solution]()
    for index in torch.arange(len(inputs)).split(BATCH):
        batch = problem.select(index)
        solutions.append(solve(batch, steps=EXACT_STEPS, tolerance=EXACT_TOLERANCE, start=start[index]))
        advance(len(index))
    code = torch.cat([solution.code for solution in solutions])
    solved = torch.cat([solution.status == Status.SOLVED for solution in solutions])
    inversion = invert_code(problem.dictionary, code, problem.lambd)
    kkt = torch.cat([solution.kkt for solution in solutions])
    inverted = InvertedCodes(problem=problem, code=code, kkt=kkt, inversion=inversion)
    return inverted, float(solved.float().mean())


def measure_images(
    prefix: str, private: InvertedCodes, images: Images, auxiliary: InvertedCodes, own: AuxiliaryImages
) -> dict[str, float]:
    """Return the PSNR of images reconstructed from a first layer's codes, by name.

    Args:
        prefix: of the names.
        private: codes of the evaluated images.
        images: the evaluated images.
        auxiliary: codes of the attacker's images, which teach it to estimate mean and contrast.
        own: these images.
    """
    mean, deviation = image_statistics(images)
    figures = dict[str, float]()
    for name, ours, theirs in (
        ("synthesis", private.synthesis.cpu(), auxiliary.synthesis.cpu()),
        ("inversion", private.inversion.projection.cpu(), auxiliary.inversion.projection.cpu()),
    ):
        figures[f"{prefix}_{name}_true_statistics_psnr"] = mean_psnr(mean + deviation * ours, images)
        figures[f"{prefix}_{name}_psnr"] = mean_psnr(PixelRange.fit(theirs, own)(ours), images)
    return figures


def codes_images(layer: SparseCoding, inputs: Tensor, images: Images) -> bool:
    """Return whether the layer codes the standardized image itself."""
    if not layer.standardize or inputs.shape != images.shape:
        return False
    return bool(torch.allclose(standardize(inputs), standardize(images), atol=1e-3))


def _pose_problem(layer: SparseCoding, inputs: Tensor) -> Problem:
    lambd = layer.lambd if isinstance(layer.lambd, float) else inputs.new_tensor(layer.lambd)
    images = standardize(inputs) if layer.standardize else inputs
    dictionary = layer.operator(inputs)
    return Problem(images, dictionary, lambd, layer.nonnegative, layer.penalty).detach()
