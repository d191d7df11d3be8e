"""Ridge regression, corrected by a regression of its own for each image on the nearest of the attacker's queries."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext, observed
from sparseguard.attacks.feature_inversion._query_augmentation import training_queries
from sparseguard.attacks.feature_inversion._train_decoder import standardizing
from sparseguard.attacks.feature_inversion.ridge import MAX_SYSTEM, fit_ridge
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import standardized
from sparseguard.types import AttackResult, Goal, Images, ImageSet, Knowledge

PENALTIES = tuple(10.0**exponent for exponent in range(-3, 3))
"""Penalties tried, relative to the mean variance of the neighbours."""

CHUNK = 16


def local_residual(
    gram: Float[Tensor, "*b k k"],
    cross: Float[Tensor, "*b k"],
    residuals: Float[Tensor, "*b k p"],
    penalty: float,
) -> Float[Tensor, "*b p"]:
    r"""Predict the residual at one query from its neighbours by kernel ridge regression on centred data.

    With the neighbours' inner products :math:`K` and those with the query :math:`c`, both centred on the neighbours'
    mean, it is :math:`\bar r + c^\top (K + \alpha \tfrac{\mathrm{tr} K}{k} I)^{-1} (r - \bar r)`.

    Args:
        gram: inner products of the neighbours' features.
        cross: inner products of the query's features with theirs.
        residuals: what ridge left over at the neighbours.
        penalty: alpha.
    """
    predicted: Tensor = (local_coefficients(gram, cross, penalty).unsqueeze(-2) @ residuals).squeeze(-2)
    return predicted


def local_coefficients(
    gram: Float[Tensor, "*b k k"], cross: Float[Tensor, "*b k"], penalty: float
) -> Float[Tensor, "*b k"]:
    """Return what each neighbour's residual counts in `local_residual`; they add up to 1."""
    rows = gram.mean(-1)
    whole = rows.mean(-1, keepdim=True)
    centred = gram - rows.unsqueeze(-1) - rows.unsqueeze(-2) + whole.unsqueeze(-1)
    seen = (cross - cross.mean(-1, keepdim=True) - rows + whole).unsqueeze(-1)
    size = centred.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
    system = centred + (penalty * size)[..., None, None] * torch.eye(
        gram.shape[-1], dtype=gram.dtype, device=gram.device
    )
    factor, failed = torch.linalg.cholesky_ex(system)
    solved = torch.linalg.solve(system, seen) if failed.any() else torch.cholesky_solve(seen, factor)
    weights = solved.squeeze(-1)
    return weights + (1 - weights.sum(-1, keepdim=True)) / gram.shape[-1]


@settings
class LocalRidge(Attack):
    """Look up each image's nearest queries in feature space and let a ridge regression on them alone correct ridge.

    Where the tap bends space (rectifiers, sparse codes), a map that is affine nearby fits better than one map for all.
    Number of neighbours and penalty are chosen on attacker-val.

    Args:
        copies: versions of each attacker image that are queried; fewer where that makes more than 8,192, and of
            images alone at most 8,192.
        mixes: further versions, made of the halves of two images.
        neighbours: numbers of neighbours tried.

    Source: ours; locally weighted regression, Cleveland 1979.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "ridge, corrected by ridge on each image's nearest queries"
    source: ClassVar[str] = "locally weighted regression"
    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    copies: Annotated[int, Field(ge=1, le=18)] = 4
    mixes: Annotated[int, Field(ge=0, le=8)] = 0
    neighbours: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (64, 256)

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Fit ridge, choose neighbours and penalty, correct."""
        auxiliary = context.auxiliary
        images = bounded_queries(auxiliary.train, self.copies, self.mixes)
        features, val = leak.observe(images).features.flatten(1), leak.observe(auxiliary.val).features.flatten(1)
        truth = auxiliary.val.images.flatten(1)
        ridge, penalty, _ = fit_ridge(features, images.flatten(1), val, truth)
        mean, spread = standardizing(features)
        near = _Neighbours(standardized(features, mean, spread), images.flatten(1) - ridge(features).float())

        def corrected(seen: Tensor, count: int, local: float) -> Tensor:
            residual = [near((chunk - mean) / spread, count, local) for chunk in seen.split(CHUNK)]
            return (ridge(seen).float() + torch.cat(residual)).clamp(0, 1)

        scored = []
        counts = sorted({min(count, len(images)) for count in self.neighbours})
        with context.progress.task(context.label, len(counts) * len(PENALTIES)) as advance:
            for count in counts:
                for local in PENALTIES:
                    error = float((corrected(val, count, local) - truth).square().mean())
                    scored.append((error, count, local))
                    advance(1)
        error, count, local = min(scored)
        return AttackResult(
            reconstructions={
                part: corrected(seen, count, local).view(-1, *auxiliary.train.shape)
                for part, seen in observed(goal).items()
            },
            notes={
                "penalty": penalty,
                "queries": float(len(images)),
                "neighbours": float(count),
                "local_penalty": local,
                "auxiliary_val_mse": error,
            },
        )


def bounded_queries(images: ImageSet, copies: int, mixes: int) -> Images:
    """Return as many whole versions of the images as stay within 8,192 queries, at least one, cut there."""
    versions: list[Tensor] = []
    count = 0
    for version in training_queries(images, copies, mixes):
        if versions and count + len(version) > MAX_SYSTEM:
            break
        versions.append(version)
        count += len(version)
    return torch.cat(versions)[:MAX_SYSTEM]


class _Neighbours:
    def __init__(self, pool: Float[Tensor, "m d"], residuals: Float[Tensor, "m p"]) -> None:
        self.pool, self.residuals = pool, residuals
        self.gram = pool @ pool.T
        self.norms = self.gram.diagonal()

    def __call__(self, seen: Float[Tensor, "n d"], count: int, penalty: float) -> Float[Tensor, "n p"]:
        cross = seen @ self.pool.T  # (chunk, m)
        index: Int[Tensor, "n k"] = (self.norms - 2 * cross).topk(count, dim=1, largest=False).indices
        gram = self.gram[index.unsqueeze(2), index.unsqueeze(1)].double()  # (chunk, k, k)
        coefficients = local_coefficients(gram, cross.gather(1, index).double(), penalty).float()
        return torch.zeros_like(cross).scatter(1, index, coefficients) @ self.residuals
