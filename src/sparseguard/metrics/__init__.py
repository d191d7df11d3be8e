"""Scores of reconstructions, per image or of whole sets, each with its unit, range and direction stated."""

from sparseguard.core.component_table import ComponentTable
from sparseguard.metrics.base import Metric
from sparseguard.metrics.distribution import SetScore, frechet_distance, kernel_distance, prdc, subset
from sparseguard.metrics.feature_networks import FashionNet, FeatureNetwork, Inception2015, TorchvisionNetwork
from sparseguard.metrics.fidelity import PSNR, SSIM, psnr, ssim
from sparseguard.metrics.lpips import Lpips
from sparseguard.metrics.reidentification import REIDENTIFICATION, reidentification_at_1
from sparseguard.metrics.semantic import class_consistency

REVISION = 1

METRICS: ComponentTable[Metric] = ComponentTable(
    "sparseguard.metrics",
    Metric,
    {
        "psnr": PSNR,
        "ssim": SSIM,
        "id@1": REIDENTIFICATION,
    },
)

__all__ = [
    "METRICS",
    "REVISION",
    "FashionNet",
    "FeatureNetwork",
    "Inception2015",
    "Lpips",
    "Metric",
    "SetScore",
    "TorchvisionNetwork",
    "class_consistency",
    "frechet_distance",
    "kernel_distance",
    "prdc",
    "psnr",
    "reidentification_at_1",
    "ssim",
    "subset",
]
