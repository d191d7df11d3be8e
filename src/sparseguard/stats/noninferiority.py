"""Tango's non-inferiority test: is a defended model's accuracy within a margin of another's, on the same images?"""

from __future__ import annotations

import math
from dataclasses import dataclass

SIGNIFICANCE = 0.025
"""One-sided significance level: 1 of 40 variants that just lose the margin qualifies by chance."""


@dataclass(frozen=True)
class NonInferiority:
    """Result of Tango's test of a variant against the model it is compared with.

    ``lost`` and ``gained`` are the images that only the other, and only the variant, classifies right; they are not
    whole where they are means over seeds. ``drop`` is their difference relative to ``n``, ``p`` the probability of so
    small a drop or a smaller one where the true drop is the margin, and ``qualifies`` whether that is at most
    `SIGNIFICANCE`.
    """

    n: int
    lost: float
    gained: float
    margin: float
    drop: float
    z: float
    p: float
    qualifies: bool


def noninferiority_test(lost: float, gained: float, n: int, margin: float) -> NonInferiority:
    """Test that accuracy dropped by less than a margin, against that it dropped by the margin or more.

    Args:
        lost: images that the undefended model alone classifies right.
        gained: images that the defended model alone classifies right.
        n: images in all.
        margin: the drop in question, at least 0 and below 1.

    Example:
        >>> result = noninferiority_test(lost=12, gained=10, n=600, margin=0.05)
        >>> round(result.drop, 4), round(result.z, 2), result.qualifies
        (0.0033, -4.43, True)
    """
    z = tango_statistic(lost, gained, n, margin)
    p = 0.5 * math.erfc(-z / math.sqrt(2))
    return NonInferiority(n, lost, gained, margin, (lost - gained) / n, z, p, p <= SIGNIFICANCE)


def tango_statistic(lost: float, gained: float, n: int, margin: float) -> float:
    r"""Return the score statistic of a paired difference of proportions; it is standard normal at the margin.

    .. math:: z = \frac{b - c - n\Delta}{\sqrt{n(2\tilde q + \Delta(1 - \Delta))}}

    with :math:`b` lost, :math:`c` gained, and :math:`\tilde q` as in `constrained_probability`. At margin 0 this is
    McNemar's statistic, :math:`(b - c) / \sqrt{b + c}`.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17, 1998.

    Example:
        >>> tango_statistic(9, 0, 100, 0.0)
        3.0
    """
    variance = n * (2 * constrained_probability(lost, gained, n, margin) + margin * (1 - margin))
    return (lost - gained - n * margin) / math.sqrt(variance) if variance > 0 else 0.0


def constrained_probability(lost: float, gained: float, n: int, margin: float) -> float:
    r"""Return the most likely probability of a gained image where that of a lost one is larger by the margin.

    It is the positive root of :math:`2n q^2 - (b + c - (2n - b + c)\Delta) q - c\Delta(1 - \Delta)`.

    Example:
        >>> constrained_probability(6, 4, 100, 0.0)
        0.05
    """
    linear = lost + gained - margin * (2 * n - lost + gained)
    constant = gained * margin * (1 - margin)
    root = math.sqrt(max(linear * linear + 8 * n * constant, 0.0))
    if linear >= 0:
        return (linear + root) / (4 * n)
    return 2 * constant / (root - linear)
