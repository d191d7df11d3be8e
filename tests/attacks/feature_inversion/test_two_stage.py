import torch

from sparseguard.attacks.feature_inversion.ridge import Ridge
from sparseguard.attacks.feature_inversion.two_stage import TwoStage
from sparseguard.core.staged_model import StagedModel
from sparseguard.sparse import StandardizeImage
from support.attacks import attacked, error, full_range, linear


def test_mean_and_contrast_follow_from_the_pixel_range():
    """All images touch 0 and 1, so a tap that holds the standardized image whole holds everything."""
    target = StagedModel({"stem": StandardizeImage(), "first": linear(torch.eye(64)).stages["first"]}).eval()
    two, truth = attacked(TwoStage(copies=1, epochs=1, width=2), target, train=120, images=full_range)
    one, _ = attacked(Ridge(copies=1), target, train=120, images=full_range)
    reached = error(two.reconstructions["private"], truth["private"])
    assert reached < 1e-5  # 50 dB
    assert reached < 0.1 * error(one.reconstructions["private"], truth["private"])
