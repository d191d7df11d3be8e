"""Computation of all bounds of one released model."""

from __future__ import annotations

import torch

from sparseguard.bounds._layers import Activations, iterate_activations, list_layers
from sparseguard.bounds._noise_model import NoiseFacts, compute_clean_features
from sparseguard.bounds._sparse_inversion_model import (
    choose_stable_steps,
    codes_images,
    invert_exact_codes,
    invert_released_codes,
    measure_images,
)
from sparseguard.bounds.base import AuxiliaryImages, Bound, Decode, Meaning
from sparseguard.bounds.bayes_noise import compute_pool_bound
from sparseguard.bounds.layerwise import FITTED, LayerwiseSearch
from sparseguard.bounds.null_space import split_null_space
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import SparseCoding
from sparseguard.types import Images, ImageSet

EXACT_IMAGES = 64
"""Images whose codes are solved exactly."""

LAYERWISE = "layer-wise reconstruction"

BOUNDS: dict[str, Meaning] = {
    "optimality-inversion": Meaning(
        summary="the part of a sparse layer's input that its code determines, by the optimality condition",
        meaning="exact for exact codes: the input's part in the span of the active atoms is known to whoever has the "
        "code, without training. For codes that are no solution it is an estimate (see kkt and misfit). An attacker "
        "who also uses the inactive atoms, or a prior, may know more",
        applies="every sparse layer (l1) before the tap; in pixels for a layer that reads the image",
        source="optimality conditions of the lasso",
    ),
    LAYERWISE: Meaning(
        summary="best reconstruction known at every layer from the image to the tap",
        meaning="possible at least: an attacker at that layer gets this much; the true optimum cannot rise along the "
        "layers, so a rise exposes weak attackers before it",
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
        summary="the part of images that the affine first layers lose",
        meaning="the row-space part is exact for whoever has the weights, up to rounding times the condition number; "
        "the null-space part reaches no later layer, and is only estimated (affine estimate from auxiliary images)",
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
        tap_stage: the stage whose output the attacker sees; later ones are ignored.
        auxiliary: the attacker's images; decoders learn on these alone.
        private: the images evaluated.
        decode: the learned attacker of the layer-wise reconstruction, such as ridge regression.
        noise: the noise the model adds; None: it adds none.
        device: where the model is.
        seed: of noise drawn.
        progress: where layers and images done are reported.

    Raises:
        RecipeError: when the model has no such stage, or either set of images is empty.
        ValueError: for a model in training mode.
    """
    if len(auxiliary) == 0 or len(private) == 0:
        raise RecipeError("bounds need auxiliary and evaluated images, at least one of each.")
    layers = list_layers(model, tap_stage)
    known, images = auxiliary.images, private.images
    search, sparse = LayerwiseSearch(known, images, decode, device), list[Bound]()
    with progress.task(LAYERWISE, len(layers)) as advance:
        for activations in iterate_activations(layers, known, images, device=device, seed=seed):
            search.add_layer(activations)
            module = activations.layer.module
            if isinstance(module, SparseCoding):
                sparse.append(_inversion(activations, module, known, images, device, progress))
            advance(1)
    if not sparse:
        sparse = [_unavailable("optimality-inversion", tap_stage, "there is no sparse layer before the tap")]
    return [
        *sparse,
        _layerwise(search, tap_stage, len(images)),
        _noise_pool(model, noise, tap_stage, images, device, seed),
        _null_space(search, known, images, tap_stage),
    ]


def _inversion(
    activations: Activations,
    layer: SparseCoding,
    known: AuxiliaryImages,
    images: Images,
    device: torch.device,
    progress: Progress,
) -> Bound:
    name, where = "optimality-inversion", activations.layer.name
    if layer.penalty != "l1":
        return _unavailable(name, where, f"the condition is that of the l1 penalty, not of '{layer.penalty}'")
    count, own = min(EXACT_IMAGES, len(images)), min(EXACT_IMAGES, FITTED, len(known))
    inputs, code = activations.private_in[:count].to(device), activations.private_out[:count].to(device)
    auxiliary, auxiliary_code = activations.auxiliary_in[:own].to(device), activations.auxiliary_out[:own].to(device)
    first = codes_images(layer, activations.auxiliary_in, known)
    steps = choose_stable_steps(layer, auxiliary, auxiliary_code)
    released = invert_released_codes(layer, inputs, code, steps)
    with progress.task(f"exact codes of {where}", count + own * first) as advance:
        exact, solved = invert_exact_codes(layer, inputs, code, advance)
        values = {"exact_solved": solved, **exact.measure("exact"), **released.measure("released")}
        if first:
            auxiliary_exact, _ = invert_exact_codes(layer, auxiliary, auxiliary_code, advance)
            auxiliary_released = invert_released_codes(layer, auxiliary, auxiliary_code, steps)
            values |= measure_images("exact", exact, images[:count], auxiliary_exact, known[:own])
            values |= measure_images("released", released, images[:count], auxiliary_released, known[:own])
    return _available(name, where, values, count)


def _layerwise(search: LayerwiseSearch, tap_stage: str, n: int) -> Bound:
    result = search.result()
    values = {f"{layer.layer}_psnr": layer.psnr for layer in result.layers}
    values |= {f"{layer}_corrected_psnr": psnr for layer, psnr in result.corrected.items()}
    for layer in result.layers:
        if len(layer.methods) > 1:
            values |= {f"{layer.layer}_by_{method}_psnr": psnr for method, psnr in layer.methods.items()}
    values |= {f"{layer}_rise": rise for layer, rise in result.rises.items()}
    return _available(LAYERWISE, tap_stage, values, n)


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
    features = compute_clean_features(model, noise, images, device=device, seed=seed)
    if isinstance(features, str):
        return _unavailable(name, noise.stage, features)
    bound = compute_pool_bound(
        features,
        images,
        noise=noise.kind,
        scale=noise.scale,
        queries=noise.queries,
        seed=derive(purpose="noise pool", seed=seed),
    )
    values = {
        "mse": bound.mse,
        "mse_error": bound.mse_error,
        "mse_psnr": bound.psnr_of_mse,
        "posterior_mean_psnr": bound.mean_psnr,
        "id@1": bound.identified,
        "id@1_error": bound.identified_error,
        "draws": float(bound.draws),
        "queries": float(noise.queries),
    }
    return _available(name, noise.stage, values, bound.pool)


def _null_space(search: LayerwiseSearch, known: AuxiliaryImages, images: Images, tap_stage: str) -> Bound:
    name = "null-space"
    if search.affine_part is None:
        return _unavailable(name, tap_stage, "the first layer is not affine")
    where, mapping = search.affine_part
    split = split_null_space(mapping, known, images)
    from_mean, estimated = split.psnr(images)
    values = {
        "rank": float(mapping.rank),
        "dimension": float(mapping.rows.shape[1]),
        "condition": mapping.condition,
        "hidden": split.hidden,
        "null_from_mean_psnr": from_mean,
        "null_estimated_psnr": estimated,
    }
    return _available(name, where, values, len(images))


def _available(name: str, where: str, values: dict[str, float], n: int) -> Bound:
    return Bound(name=name, where=where, applies=True, reason=None, values=values, n=n, meaning=BOUNDS[name].meaning)


def _unavailable(name: str, where: str, reason: str) -> Bound:
    return Bound(name=name, where=where, applies=False, reason=reason, values={}, n=0, meaning=BOUNDS[name].meaning)
