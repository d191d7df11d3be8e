"""Scores of reconstructions, per image or of whole sets, each with its unit, range and direction stated."""

from sparseguard.core.component_table import ComponentTable
from sparseguard.metrics.base import Metric
from sparseguard.metrics.class_consistency import recognized
from sparseguard.metrics.distribution import SetScore, frechet_distance, kernel_distance, prdc, subset
from sparseguard.metrics.feature_networks import FashionNet, FeatureNetwork, Inception2015, TorchvisionNetwork
from sparseguard.metrics.fidelity import psnr, ssim
from sparseguard.metrics.lpips import Lpips
from sparseguard.metrics.reidentification import identified
from sparseguard.stats.bootstrap import (
    Difference,
    SeedSpread,
    bootstrap_interval,
    over_seeds,
    paired_difference,
)

REVISION = 1

METRICS: ComponentTable[Metric] = ComponentTable(
    "sparseguard.metrics",
    Metric,
    {
        "psnr": Metric(
            compute=lambda images, originals, pool, own: psnr(images, originals),  # noqa: ARG005
            unit="dB",
            summary="peak signal-to-noise ratio, data range 1, at most 100",
        ),
        "ssim": Metric(
            compute=lambda images, originals, pool, own: ssim(images, originals),  # noqa: ARG005
            unit="",
            summary="structural similarity, data range 1, Gaussian window of sigma 1.5",
        ),
        "id@1": Metric(
            compute=identified,
            unit="share",
            summary="whether the reconstruction is nearest to its own original among N private images",
        ),
    },
)

__all__ = [
    "METRICS",
    "REVISION",
    "Difference",
    "FashionNet",
    "FeatureNetwork",
    "Inception2015",
    "Lpips",
    "Metric",
    "SeedSpread",
    "SetScore",
    "TorchvisionNetwork",
    "bootstrap_interval",
    "frechet_distance",
    "identified",
    "kernel_distance",
    "over_seeds",
    "paired_difference",
    "prdc",
    "psnr",
    "recognized",
    "ssim",
    "subset",
]
