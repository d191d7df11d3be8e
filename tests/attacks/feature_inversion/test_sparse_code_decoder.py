import pytest
import torch
from torch import nn

from sparseguard.attacks.feature_inversion.sparse_code_decoder import CodeDecoder
from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import SparseCode2d
from support.attacks import attacked, error, full_range, linear

QUICK = CodeDecoder(copies=2, epochs=16, width=8, batch_size=16, lr=3e-3, patience=16)


def coded(lambd):
    torch.manual_seed(0)
    codes = SparseCode2d(1, 4, 3, lambd=lambd, steps=200)
    return StagedModel({"codes": codes, "first": linear(torch.eye(256)).stages["first"]}).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def results():
    return {lambd: attacked(QUICK, coded(lambd), train=200, images=full_range) for lambd in (0.05, 0.6)}


@pytest.mark.slow
def test_codes_in_the_tap_are_decoded(results):
    result, _ = results[0.05]
    assert result.diagnostics["support recall"] > 0.6
    assert result.diagnostics["support precision"] > 0.8


def test_leak_falls_with_lambda(results):
    errors = [error(result.reconstructions["private"], truth["private"]) for result, truth in results.values()]
    assert errors[0] < errors[1]


def test_the_answer_is_the_best_path_to_the_image(results):
    for result, truth in results.values():
        ways = [value for name, value in result.diagnostics.items() if name.startswith("auxiliary_val_mse, ")]
        assert len(ways) == 3
        reached = error(result.reconstructions["auxiliary_val"], truth["auxiliary_val"])
        assert reached == pytest.approx(min(ways), rel=1e-4)


def test_a_standardizing_stage_before_the_layer_is_known_too():
    target = coded(0.1)
    scaled = StagedModel({"input": nn.Identity(), **target.stages}).eval()
    result, _ = attacked(CodeDecoder(copies=1, epochs=1, width=4), scaled)
    assert "support recall" in result.diagnostics
