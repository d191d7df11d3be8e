"""Ridge regression, corrected for each image by a regression on the nearest of the attacker's queries."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, flatten_features
from sparseguard.attacks.feature_inversion._query_augmentation import training_queries
from sparseguard.attacks.feature_inversion.ridge import MAX_SYSTEM
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import standardize_rows
from sparseguard.numerics.ridge import fit_ridge
from sparseguard.numerics.standardization import feature_statistics
from sparseguard.types import AttackInputs, AttackResult, Images, ImageSet, Knowledge

PENALTIES = tuple(10.0**exponent for exponent in range(-3, 3))
"""Penalties tried, relative to the mean variance of the neighbors."""

CHUNK = 16


def local_residual(
    gram: Float[Tensor, "*b k k"],
    cross: Float[Tensor, "*b k"],
    residuals: Float[Tensor, "*b k p"],
    penalty: float,
) -> Float[Tensor, "*b p"]:
    r"""Predict the residual at one query from its neighbors by kernel ridge regression on centered data.

    With the neighbors' inner products :math:`K` and those with the query :math:`c`, both centered on the neighbors'
    mean, it is :math:`\bar r + c^\top (K + \alpha \tfrac{\mathrm{tr} K}{k} I)^{-1} (r - \bar r)`.

    Args:
        gram: inner products of the neighbors' features.
        cross: inner products of the query's features with theirs.
        residuals: of ridge, at the neighbors.
        penalty: alpha.
    """
    predicted: Tensor = (local_coefficients(gram, cross, penalty).unsqueeze(-2) @ residuals).squeeze(-2)
    return predicted


def local_coefficients(
    gram: Float[Tensor, "*b k k"], cross: Float[Tensor, "*b k"], penalty: float
) -> Float[Tensor, "*b k"]:
    """Return the weights of the neighbors' residuals in `local_residual`; they add up to 1."""
    rows = gram.mean(-1)
    total = rows.mean(-1, keepdim=True)
    centered = gram - rows.unsqueeze(-1) - rows.unsqueeze(-2) + total.unsqueeze(-1)
    query = (cross - cross.mean(-1, keepdim=True) - rows + total).unsqueeze(-1)
    size = centered.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
    system = centered + (penalty * size)[..., None, None] * torch.eye(
        gram.shape[-1], dtype=gram.dtype, device=gram.device
    )
    factor, failed = torch.linalg.cholesky_ex(system)
    solved = torch.linalg.solve(system, query) if failed.any() else torch.cholesky_solve(query, factor)
    weights = solved.squeeze(-1)
    return weights + (1 - weights.sum(-1, keepdim=True)) / gram.shape[-1]


@settings
class LocalRidge(Attack):
    """Look up each image's nearest queries in feature space and let a ridge regression on them alone correct ridge.

    Where the tap bends space (rectifiers, sparse codes), a map that is affine nearby fits better than one map for all.
    Number of neighbors and penalty are chosen on auxiliary_val.

    Args:
        copies: versions of each auxiliary image that are queried; fewer where that makes more than 8,192, and of
            images alone at most 8,192.
        mixes: further versions, made of the halves of two images.
        neighbors: numbers of neighbors tried.

    Source: ours; locally weighted regression, Cleveland 1979.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "ridge, corrected by ridge on each image's nearest queries"
    source: ClassVar[str] = "locally weighted regression"
    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    copies: Annotated[int, Field(ge=1, le=18)] = 4
    mixes: Annotated[int, Field(ge=0, le=8)] = 0
    neighbors: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (64, 256)

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Fit ridge, choose neighbors and penalty, correct."""
        auxiliary = context.auxiliary
        images = limit_queries(auxiliary.train, self.copies, self.mixes)
        features, val = access.observe(images).features.flatten(1), access.observe(auxiliary.val).features.flatten(1)
        truth = auxiliary.val.images.flatten(1)
        fit = fit_ridge(features, images.flatten(1), val, truth)
        ridge = fit.mapping
        mean, deviation = feature_statistics(features)
        predict_residual = _LocalRegression(
            standardize_rows(features, mean, deviation), images.flatten(1) - ridge(features).float()
        )

        def reconstruct(queries: Tensor, count: int, local: float) -> Tensor:
            residual = [predict_residual((chunk - mean) / deviation, count, local) for chunk in queries.split(CHUNK)]
            return (ridge(queries).float() + torch.cat(residual)).clamp(0, 1)

        scores = []
        counts = sorted({min(count, len(images)) for count in self.neighbors})
        with context.progress.task(context.label, len(counts) * len(PENALTIES)) as advance:
            for count in counts:
                for local in PENALTIES:
                    error = float((reconstruct(val, count, local) - truth).square().mean())
                    scores.append((error, count, local))
                    advance(1)
        error, count, local = min(scores)
        return AttackResult(
            reconstructions={
                split: reconstruct(queries, count, local).view(-1, *auxiliary.train.shape)
                for split, queries in flatten_features(inputs).items()
            },
            diagnostics={
                "penalty": fit.penalty,
                "queries": float(len(images)),
                "neighbors": float(count),
                "local_penalty": local,
                "auxiliary_val_mse": error,
            },
        )


def limit_queries(images: ImageSet, copies: int, mixes: int) -> Images:
    """Return as many whole versions of the images as stay within 8,192 queries; of the first one at most 8,192."""
    versions: list[Tensor] = []
    count = 0
    for version in training_queries(images, copies, mixes):
        if versions and count + len(version) > MAX_SYSTEM:
            break
        versions.append(version)
        count += len(version)
    return torch.cat(versions)[:MAX_SYSTEM]


class _LocalRegression:
    """Prediction of ridge's residual from the nearest of a pool of queries."""

    def __init__(self, pool: Float[Tensor, "m d"], residuals: Float[Tensor, "m p"]) -> None:
        self.pool, self.residuals = pool, residuals
        self.gram = pool @ pool.T
        self.norms = self.gram.diagonal()

    def __call__(self, queries: Float[Tensor, "n d"], count: int, penalty: float) -> Float[Tensor, "n p"]:
        cross = queries @ self.pool.T  # (chunk, m)
        index: Int[Tensor, "n k"] = (self.norms - 2 * cross).topk(count, dim=1, largest=False).indices
        gram = self.gram[index.unsqueeze(2), index.unsqueeze(1)].double()  # (chunk, k, k)
        coefficients = local_coefficients(gram, cross.gather(1, index).double(), penalty).float()
        return torch.zeros_like(cross).scatter(1, index, coefficients) @ self.residuals
