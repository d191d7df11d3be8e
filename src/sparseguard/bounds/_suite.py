"""All bounds of one released model."""

from __future__ import annotations

import torch

from sparseguard.bounds._layers import Passed, list_layers, passed
from sparseguard.bounds._noise_model import NoiseFacts, clean_features
from sparseguard.bounds._sparse_inversion_model import (
    exact_codes,
    image_figures,
    reads_images,
    released_codes,
    stable_steps,
)
from sparseguard.bounds.base import AuxiliaryData, Bound, Decode, Images, Meaning
from sparseguard.bounds.bayes_noise import pool_bound
from sparseguard.bounds.layerwise import FITTED, Descent
from sparseguard.bounds.null_space import null_space
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import SparseCoding
from sparseguard.types import ImageSet

EXACT_IMAGES = 64
"""Images whose codes are solved exactly."""

BOUNDS: dict[str, Meaning] = {
    "optimality-inversion": Meaning(
        summary="what a sparse layer's code says about its input, from the optimality condition",
        meaning="exact for exact codes: the input's part in the span of the active atoms is known to whoever has the "
        "code, without training. For codes that are no solution it is an estimate (see kkt and misfit). An attacker "
        "who also uses the inactive atoms, or a prior, may know more",
        applies="every sparse layer (l1) before the tap; in pixels for a layer that reads the image",
        source="optimality conditions of the lasso",
    ),
    "waterfall": Meaning(
        summary="best reconstruction found at every wall from the image to the tap",
        meaning="possible at least: an attacker at that wall gets this much; the true optimum cannot rise along it, so "
        "a rise exposes weak attackers upstream",
        applies="every model",
        source="data processing inequality",
    ),
    "noise-pool": Meaning(
        summary="least mean squared error through the noise, prior uniform on the evaluated images",
        meaning="lower bound on every attacker's mean squared error averaged over these images, and upper bound on "
        "identification among them; computed at the first noised stage, so it holds at every later tap",
        applies="additive Gaussian or Laplace noise at the end of a stage, at or before the tap",
        source="Bayes estimator; data processing inequality",
    ),
    "null-space": Meaning(
        summary="what the affine beginning of the network does not see",
        meaning="the row-space part is exact for whoever has the weights, up to rounding times the condition number; "
        "the null-space part reaches no later wall, and is only guessed (affine guess from public images)",
        applies="models that begin with an affine map",
        source="linear algebra",
    ),
}
"""The bounds by name."""


def compute_bounds(
    model: StagedModel,
    *,
    tap_stage: str,
    auxiliary: ImageSet,
    private: ImageSet,
    decode: Decode,
    noise: NoiseFacts | None,
    device: torch.device,
    seed: int,
    progress: Progress,
) -> list[Bound]:
    """Return every bound of a released model at one tap; one that does not apply says why.

    Args:
        model: the released model, in evaluation mode.
        tap_stage: the stage whose output leaks; nothing behind it is looked at.
        public: the attacker's images; everything learned is learned on these.
        private: the images evaluated.
        decode: the learned attacker of the waterfall, such as ridge regression.
        noise: the noise the model adds; None: it adds none.
        device: where the model is.
        seed: of noise drawn.
        progress: is told of walls and images done.

    Raises:
        RecipeError: when the model has no such stage, or either set of images is empty.
        ValueError: for a model in training mode.
    """
    if len(auxiliary) == 0 or len(private) == 0:
        raise RecipeError("bounds need public and evaluated images, at least one of each.")
    walls = list_layers(model, tap_stage)
    known, images = auxiliary.images, private.images
    descent, sparse = Descent(known, images, decode, device), list[Bound]()
    with progress.task("waterfall", len(walls)) as advance:
        for here in passed(walls, known, images, device=device, seed=seed):
            descent.pass_wall(here)
            if isinstance(here.wall.module, SparseCoding):
                sparse.append(_inversion(here, here.wall.module, known, images, device, progress))
            advance(1)
    if not sparse:
        sparse = [_unavailable("optimality-inversion", tap_stage, "there is no sparse layer before the tap")]
    return [
        *sparse,
        _waterfall(descent, tap_stage, len(images)),
        _noise_pool(model, noise, tap_stage, images, device, seed),
        _null_space(descent, known, images, tap_stage),
    ]


def _inversion(
    here: Passed, layer: SparseCoding, known: AuxiliaryData, images: Images, device: torch.device, progress: Progress
) -> Bound:
    name, where = "optimality-inversion", here.wall.name
    if layer.penalty != "l1":
        return _unavailable(name, where, f"the condition is that of the l1 penalty, not of '{layer.penalty}'")
    count, own = min(EXACT_IMAGES, len(images)), min(EXACT_IMAGES, FITTED, len(known))
    inputs, code = here.private_in[:count].to(device), here.private_out[:count].to(device)
    auxiliary, public_code = here.public_in[:own].to(device), here.public_out[:own].to(device)
    first = reads_images(layer, here.public_in, known)
    steps = stable_steps(layer, auxiliary, public_code)
    released = released_codes(layer, inputs, code, steps)
    with progress.task(f"exact codes of {where}", count + own * first) as advance:
        exact, solved = exact_codes(layer, inputs, code, advance)
        values = {"exact_solved": solved, **exact.figures("exact"), **released.figures("released")}
        if first:
            public_exact, _ = exact_codes(layer, auxiliary, public_code, advance)
            public_released = released_codes(layer, auxiliary, public_code, steps)
            values |= image_figures("exact", exact, images[:count], public_exact, known[:own])
            values |= image_figures("released", released, images[:count], public_released, known[:own])
    return _available(name, where, values, count)


def _waterfall(descent: Descent, tap_stage: str, n: int) -> Bound:
    waterfall = descent.waterfall()
    values = {f"{level.wall}_psnr": level.psnr for level in waterfall.levels}
    values |= {f"{wall}_corrected_psnr": psnr for wall, psnr in waterfall.corrected.items()}
    for level in waterfall.levels:
        if len(level.tried) > 1:
            values |= {f"{level.wall}_by_{by}_psnr": psnr for by, psnr in level.tried.items()}
    values |= {f"{wall}_rise": rise for wall, rise in waterfall.rises.items()}
    return _available("waterfall", tap_stage, values, n)


def _noise_pool(
    model: StagedModel, noise: NoiseFacts | None, tap_stage: str, images: Images, device: torch.device, seed: int
) -> Bound:
    name, order = "noise-pool", list(model.stages)
    if noise is None:
        return _unavailable(name, tap_stage, "the model adds no noise")
    if noise.stage not in order:
        return _unavailable(name, tap_stage, f"the model has no stage '{noise.stage}'")
    if order.index(noise.stage) > order.index(tap_stage):
        return _unavailable(name, tap_stage, f"noise first acts at '{noise.stage}', behind the tap")
    features = clean_features(model, noise, images, device=device, seed=seed)
    if isinstance(features, str):
        return _unavailable(name, noise.stage, features)
    found = pool_bound(
        features,
        images,
        noise=noise.kind,
        scale=noise.scale,
        queries=noise.queries,
        seed=derive(purpose="noise pool", seed=seed),
    )
    values = {
        "mse": found.mse,
        "mse_error": found.mse_error,
        "mse_psnr": found.psnr_of_mse,
        "posterior_mean_psnr": found.mean_psnr,
        "id@1": found.identified,
        "id@1_error": found.identified_error,
        "draws": float(found.draws),
        "queries": float(noise.queries),
    }
    return _available(name, noise.stage, values, found.pool)


def _null_space(descent: Descent, known: AuxiliaryData, images: Images, tap_stage: str) -> Bound:
    name = "null-space"
    if descent.beginning is None:
        return _unavailable(name, tap_stage, "the first wall is not affine")
    where, mapping = descent.beginning
    found = null_space(mapping, known, images)
    from_mean, estimated = found.psnr(images)
    values = {
        "rank": float(mapping.rank),
        "dimension": float(mapping.rows.shape[1]),
        "condition": mapping.condition,
        "hidden": found.hidden,
        "null_from_mean_psnr": from_mean,
        "null_estimated_psnr": estimated,
    }
    return _available(name, where, values, len(images))


def _available(name: str, where: str, values: dict[str, float], n: int) -> Bound:
    return Bound(name=name, where=where, applies=True, reason=None, values=values, n=n, meaning=BOUNDS[name].meaning)


def _unavailable(name: str, where: str, reason: str) -> Bound:
    return Bound(name=name, where=where, applies=False, reason=reason, values={}, n=0, meaning=BOUNDS[name].meaning)
