"""Controls beside the attacks they belong to."""

import pytest

from sparseguard.report import compare_controls
from support import full_records as full
from support.report_forms import feature_groups


def controls(record):
    (group,) = feature_groups([record])
    return compare_controls(group)


def test_controls_stand_beside_the_attack_they_belong_to():
    record = full.record()
    (control,) = controls(record)
    assert (control.name, control.attacks, control.label) == ("ridge shuffled", ("ridge",), "black-box")
    assert control.conditions[0].startswith("shuffled features")
    found = control.measures["psnr"]["private"]
    assert found.attack.mean == pytest.approx(record.outcome.attack("ridge").scores["private"]["psnr"].mean)
    assert found.difference.mean == pytest.approx(found.control.mean - found.attack.mean)


def test_a_control_without_comparison_has_only_its_own_score():
    (control,) = controls(full.record(comparisons=[]))
    found = control.measures["psnr"]["private"]
    assert (control.attacks, found.attack, found.difference) == ((), None, None)
