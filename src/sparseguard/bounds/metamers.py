"""Pairs of images with the same sparse code: a certificate that no attacker tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.numerics.psnr import mse_to_psnr
from sparseguard.sparse import Problem, solve, standardize


@dataclass(frozen=True, kw_only=True, eq=False)
class Metamer:
    """Two images and the one code they share.

    Args:
        image: ``(c, h, w)`` in [0, 1].
        other: ``(c, h, w)`` in [0, 1], with the same mean and standard deviation.
        kkt: how far the image's code is from solving the other's problem (see `Problem.kkt_residual`); near 0 the code
            is a global minimum for both.
        code_gap: largest difference between the two codes, each solved for itself.
    """

    image: Float[Tensor, "c h w"]
    other: Float[Tensor, "c h w"]
    kkt: float
    code_gap: float

    @property
    def mse(self) -> float:
        r"""Least mean squared error per pixel, averaged over the two, of any attacker that sees this code.

        Whatever it answers is at least half their distance away from one of them, so :math:`\|x - x'\|^2 / 4`.
        """
        return float((self.image - self.other).double().square().mean()) / 4

    @property
    def psnr(self) -> float:
        """The same in dB."""
        return float(mse_to_psnr(torch.tensor(self.mse, dtype=torch.float64)))


@torch.no_grad()
def find_metamer(
    image: Float[Tensor, "c h w"],
    problem: Problem,
    *,
    tries: int = 8,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> Metamer:
    r"""Look for an image as far away as possible whose exact sparse code is the same.

    With :math:`z = (x - m) / s` and the code's support S, :math:`z + d` has the same code if :math:`W_S^T d = 0` and
    no other atom's correlation with the residual passes lambda; :math:`m + s (z + d)` is an image if it stays in
    [0, 1], and is standardized to :math:`z + d` if :math:`\sum d = 0` and :math:`\|z + d\| = \|z\|`. All but the last
    are linear. So a linear program goes as far as it can along a random direction that points inwards, and convexity
    allows to go back along d to the point where the norm is that of z again.

    Args:
        image: in [0, 1].
        problem: the layer's problem for ``image`` alone: its standardized image, in float64, and an l1 penalty.
        tries: random directions; the farthest pair counts. The first is the reflection of the hidden part.
        tolerance: of the exact codes.
        seed: of the directions.

    Raises:
        ValueError: for a problem that is not that of the standardized image, or an l0 penalty.

    Source: ours; KKT conditions, linear programming (HiGHS, through scipy).
    """
    if problem.penalty != "l1":
        raise ValueError(f"metamers need the l1 penalty, got '{problem.penalty}'.")
    x = image.double()
    if problem.images.dtype != torch.float64 or not torch.allclose(problem.images[0], standardize(x[None])[0]):
        raise ValueError("the problem must hold the standardized image, in float64.")
    code = solve(problem, steps=100_000, tolerance=tolerance).code
    program = _Program(x, problem, code)
    hidden, generator = program.hidden_part(), torch.Generator().manual_seed(seed)
    best = torch.zeros_like(hidden)
    for number in range(tries):
        direction = -hidden if number == 0 else torch.randn(hidden.shape, generator=generator, dtype=torch.float64)
        move = program.maximize(direction, hidden)
        if move is not None and move.norm() > best.norm():
            best = move
    other = (x + program.deviation * best.view(x.shape)).clamp(0, 1)
    other_problem = Problem(standardize(other[None]), problem.dictionary, problem.lambd, problem.nonnegative)
    own = solve(other_problem, steps=100_000, tolerance=tolerance).code
    return Metamer(
        image=x,
        other=other,
        kkt=float(other_problem.kkt_residual(code)),
        code_gap=float((own - code).abs().amax()),
    )


class _Program:
    """Constraints of the linear program on d."""

    def __init__(self, image: Tensor, problem: Problem, code: Tensor) -> None:
        dictionary = problem.dictionary
        count = torch.Size(dictionary.code_shape).numel()
        units = torch.eye(count, dtype=torch.float64).view(count, *dictionary.code_shape)
        atoms = dictionary.synthesis(units).flatten(1)
        active = code.flatten() != 0
        self.z = problem.images.flatten()
        self.active = torch.cat([atoms[active], torch.ones(1, len(self.z), dtype=torch.float64)])
        residual = problem.residual(code).flatten()
        threshold = torch.as_tensor(problem.threshold, dtype=torch.float64).expand(dictionary.code_shape).flatten()
        inactive, margin = atoms[~active], threshold[~active]
        self.rows, self.limits = inactive, margin - inactive @ residual
        if not problem.nonnegative:
            self.rows = torch.cat([inactive, -inactive])
            self.limits = torch.cat([self.limits, margin + inactive @ residual])
        self.deviation = float((image - image.mean()).square().mean().sqrt())
        self.pixels = image.flatten()

    def hidden_part(self) -> Tensor:
        """Return the part of z that neither the active atoms nor the mean determine."""
        known: Tensor = torch.linalg.pinv(self.active) @ (self.active @ self.z)
        return self.z - known

    def maximize(self, direction: Tensor, hidden: Tensor) -> Tensor | None:
        """Return the d that goes farthest along a direction and keeps the norm of z, or None."""
        from scipy import optimize, sparse  # half a second, needed here only

        rows = torch.cat([self.rows, hidden.unsqueeze(0)])  # inwards: <d, hidden> <= 0
        limits = torch.cat([self.limits.clamp_min(0), torch.zeros(1, dtype=torch.float64)])
        bounds = torch.stack([-self.pixels, 1 - self.pixels], dim=1) / self.deviation
        solution = optimize.linprog(
            -direction.numpy(),
            A_ub=sparse.csr_matrix(rows.numpy()),
            b_ub=limits.numpy(),
            A_eq=sparse.csr_matrix(self.active.numpy()),
            b_eq=torch.zeros(len(self.active), dtype=torch.float64).numpy(),
            bounds=bounds.numpy(),
            method="highs",
        )
        if solution.status != 0:
            return None
        d: Tensor = torch.from_numpy(solution.x)
        fraction = -2 * float(d @ self.z) / max(float(d @ d), torch.finfo(torch.float64).tiny)
        move: Tensor = d * fraction
        return move if 0 < fraction <= 1 else None
