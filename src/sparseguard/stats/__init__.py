"""Statistics of scores: bootstrap, Student's t, area under the ROC curve, non-inferiority. No torch."""

from sparseguard.stats.bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    bootstrap_intervals,
    paired_difference,
)
from sparseguard.stats.mean_intervals import SeedSummary, normal_interval, summarize_seeds, t_half_width
from sparseguard.stats.noninferiority import SIGNIFICANCE, NonInferiority, noninferiority_test
from sparseguard.stats.roc import auc, mean_auc_interval

__all__ = [
    "SIGNIFICANCE",
    "Interval",
    "NonInferiority",
    "PairedDifference",
    "SeedSummary",
    "auc",
    "bootstrap_interval",
    "bootstrap_intervals",
    "mean_auc_interval",
    "noninferiority_test",
    "normal_interval",
    "paired_difference",
    "summarize_seeds",
    "t_half_width",
]
