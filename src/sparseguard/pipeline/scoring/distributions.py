"""Scores of a whole set of reconstructions against its originals, in one network's features."""

from __future__ import annotations

import hashlib

from jaxtyping import Float
from torch import Tensor

from sparseguard.metrics.distribution import SetScore, frechet_distance, kernel_distance, prdc, subset
from sparseguard.metrics.feature_networks import FeatureNetwork

NAMES = ("FD", "KID", "precision", "recall", "density", "coverage")


def set_scores(
    reconstructions: Float[Tensor, "n c h w"],
    originals: Float[Tensor, "m c h w"],
    network: FeatureNetwork,
    cache: dict[str, Tensor] | None = None,
) -> dict[str, SetScore]:
    """Return Fréchet and kernel distance (lower is nearer), precision, recall, density and coverage.

    Names contain the network: ``FD(fashion-net)``, ``KID(fashion-net)``, ``precision(fashion-net)`` ...; with the
    published Inception weights they are ``FID``, ``KID`` ... Of more than 2,048 images a fixed 2,048 are used, of both
    sets the same indices when they are equally long. A score that cannot be computed has a reason in place of a value.

    Args:
        reconstructions: reconstructions, in [0, 1].
        originals: images to compare with, in [0, 1].
        network: whose features are compared.
        cache: the originals' features; they are computed once for a network and set of images.
    """
    shape = (originals.shape[1], originals.shape[2], originals.shape[3])
    if reason := network.refuses(shape):
        n = min(len(reconstructions), len(originals))
        return {network.label(name): SetScore(value=None, reason=reason, n=n) for name in NAMES}
    made = network.features(reconstructions[subset(len(reconstructions))])
    real = _cached_features(originals[subset(len(originals))], network, {} if cache is None else cache)
    scores = {"FD": frechet_distance(made, real, network.minimum), "KID": kernel_distance(made, real)}
    return {network.label(name): score for name, score in (scores | prdc(made, real)).items()}


def _cached_features(images: Tensor, network: FeatureNetwork, cache: dict[str, Tensor]) -> Tensor:
    digest = hashlib.sha256(f"{network.fingerprint} {tuple(images.shape)} {images.dtype}".encode())
    digest.update(images.detach().cpu().contiguous().numpy().tobytes())
    key = digest.hexdigest()
    if key not in cache:
        cache[key] = network.features(images)
    return cache[key]
