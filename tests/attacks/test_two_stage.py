import torch
from toys import attacked, error, full_range, linear

from sparseguard.attacks.ridge import Ridge
from sparseguard.attacks.two_stage import TwoStage
from sparseguard.sparse import StandardizeImage
from sparseguard.stages import StagedModel


def test_mean_and_contrast_come_back_from_the_pixel_range():
    """All images touch 0 and 1, so a tap that holds the standardized image whole holds everything."""
    target = StagedModel({"stem": StandardizeImage(), "first": linear(torch.eye(64)).stages["first"]}).eval()
    two, truth = attacked(TwoStage(copies=1, epochs=1, width=2), target, train=120, images=full_range)
    one, _ = attacked(Ridge(copies=1), target, train=120, images=full_range)
    reached = error(two.reconstructions["private"], truth["private"])
    assert reached < 1e-5  # 50 dB
    assert reached < 0.1 * error(one.reconstructions["private"], truth["private"])
