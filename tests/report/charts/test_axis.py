"""Axes of charts."""

import pytest

from sparseguard.report.charts.axis import fit_linear_axis, fit_logarithmic_axis


@pytest.mark.parametrize("values", [[3.0], [0.0], [1e-9, 2e-9], [-5.0, 40.0], [1e6, 1e6 + 1], [100.0] * 3])
def test_axes_include_their_values(values):
    axis = fit_linear_axis(values)
    assert all(-1e-6 <= axis.fraction(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 8
    if min(values) > 0:
        axis = fit_logarithmic_axis(values)
        assert all(-1e-6 <= axis.fraction(value) <= 1 + 1e-6 for value in values)
