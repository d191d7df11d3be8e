import pytest
import torch
from torch import nn

from sparseguard.defenses.low_rank import LowRank
from sparseguard.errors import RecipeError
from sparseguard.stages import Blueprint, Stage
from sparseguard.targets import BACKBONES


def built(rank, width=30, shape=(1, 8, 8)):
    blueprint = LowRank(rank=rank).place(BACKBONES["linear"](width=width).blueprint(3), {})
    return blueprint.build(shape, lambda _: 0)


@pytest.mark.parametrize("rank", [1, 5, 29])
def test_the_first_layer_is_linear_of_that_rank(rank):
    model = built(rank)
    with torch.no_grad():
        zero = model.until(torch.full((1, 1, 8, 8), 0.5), "first")  # the stage `input` maps 0.5 to 0
        pixels = torch.eye(64).view(64, 1, 8, 8) / 2 + 0.5
        matrix = model.until(pixels, "first") - zero
        both = model.until(pixels[:1] + pixels[1:2] - 0.5, "first") - zero
    assert int(torch.linalg.matrix_rank(matrix)) == rank
    torch.testing.assert_close(both[0], matrix[0] + matrix[1])
    assert torch.equal(zero[0], model.stages["first"][2].bias)


def test_a_rank_that_loses_nothing_is_refused():
    with pytest.raises(ValueError, match="rank 30 is no low rank for a layer 64 to 30"):
        built(30)


def test_a_backbone_without_a_dense_first_stage_is_refused():
    with pytest.raises(RecipeError, match="stage 'first'"):
        LowRank().place(Blueprint(stages=(Stage("stem", lambda _: nn.Identity()),), taps={}), {})
    conv = Blueprint(stages=(Stage("first", lambda _: nn.Conv2d(1, 2, 3)),), taps={})
    with pytest.raises(ValueError, match="one dense layer"):
        LowRank().place(conv, {}).build((1, 8, 8), lambda _: 0)
