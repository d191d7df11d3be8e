from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, Stage
from sparseguard.defenses.controls.low_rank import LowRank
from sparseguard.targets import BACKBONES


def built(rank, width=30, shape=(1, 8, 8)):
    blueprint = LowRank(rank=rank).edit_blueprint(BACKBONES["linear"](width=width).blueprint(3), {})
    return blueprint.build(shape, lambda _: 0)


@pytest.mark.parametrize("rank", [1, 5, 29])
def test_the_first_layer_is_linear_of_that_rank(rank):
    model = built(rank)
    with torch.no_grad():
        zero = model.forward_to(torch.full((1, 1, 8, 8), 0.5), "first")  # the stage `input` maps 0.5 to 0
        pixels = torch.eye(64).view(64, 1, 8, 8) / 2 + 0.5
        matrix = model.forward_to(pixels, "first") - zero
        both = model.forward_to(pixels[:1] + pixels[1:2] - 0.5, "first") - zero
    assert int(torch.linalg.matrix_rank(matrix)) == rank
    torch.testing.assert_close(both[0], matrix[0] + matrix[1])
    assert torch.equal(zero[0], model.stages["first"][2].bias)


def test_a_rank_that_loses_nothing_is_refused():
    with pytest.raises(RecipeError, match="rank 30 is not low for a layer 64 to 30"):
        built(30)


def test_a_backbone_without_a_dense_first_stage_is_refused():
    with pytest.raises(RecipeError, match="stage 'first'"):
        LowRank().edit_blueprint(Blueprint(stages=(Stage("stem", lambda _: nn.Identity()),), taps={}), {})
    conv = Blueprint(stages=(Stage("first", lambda _: nn.Conv2d(1, 2, 3)),), taps={})
    with pytest.raises(RecipeError, match="one dense layer"):
        LowRank().edit_blueprint(conv, {}).build((1, 8, 8), lambda _: 0)


@torch.no_grad()
def test_on_rows_each_row_keeps_as_many_dimensions_as_the_rank():
    plain = BACKBONES["row-linear"](width=30).blueprint(3)
    model = LowRank(rank=5).edit_blueprint(plain, {}).build((1, 8, 8), lambda _: 0)
    zero = model.forward_to(torch.full((1, 1, 8, 8), 0.5), "first")
    pixels = torch.eye(64).view(64, 1, 8, 8) / 2 + 0.5
    blocks = (model.forward_to(pixels, "first") - zero).view(8, 8, 8, 30)  # row of the pixel, column, row of the output
    for row in range(8):
        assert int(torch.linalg.matrix_rank(blocks[row, :, row])) == 5
        torch.testing.assert_close(blocks[row, :, row], blocks[0, :, 0])
        assert blocks[row, :, [other for other in range(8) if other != row]].abs().max() < 1e-6
    assert model(pixels).shape == (64, 3)


def test_a_tap_in_front_of_it_is_refused():
    plain = replace(BACKBONES["conv"](channels=(4, 4)).blueprint(3), tap="block2")
    with pytest.raises(RecipeError, match="'block2' comes before"):
        LowRank().edit_blueprint(plain, {})
