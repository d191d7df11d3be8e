import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from sparseguard.attacks.feature_inversion.local_ridge import LocalRidge, local_residual
from sparseguard.attacks.feature_inversion.ridge import Ridge
from support.attacks import attacked, error, linear


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_the_local_correction_is_kernel_ridge_on_centered_neighbors(penalty):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 12, 5, generator=generator, dtype=torch.float64)
    query = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    residuals = torch.randn(3, 12, 7, generator=generator, dtype=torch.float64)
    gram, cross = features @ features.mT, (features @ query.unsqueeze(2)).squeeze(2)
    result = local_residual(gram, cross, residuals, penalty)
    for row in range(3):
        z, mean = features[row].numpy(), features[row].mean(0).numpy()
        alpha = penalty * float(((z - mean) ** 2).sum(1).mean())
        centre = residuals[row].mean(0).numpy()
        oracle = KernelRidge(alpha=alpha).fit(z - mean, residuals[row].numpy() - centre)
        expected = oracle.predict((query[row].numpy() - mean)[None])[0] + centre
        torch.testing.assert_close(result[row], torch.from_numpy(expected))


def test_it_beats_one_map_for_all_where_the_tap_is_nonlinear():
    torch.manual_seed(0)
    target = linear(torch.randn(24, 64))
    target.stages["first"].append(torch.nn.ReLU())
    errors = {}
    for attack in (Ridge(copies=2), LocalRidge(copies=2, neighbors=(8, 16, 32))):
        result, truth = attacked(attack, target, train=200)
        errors[type(attack)] = error(result.reconstructions["private"], truth["private"])
    assert errors[LocalRidge] < 0.9 * errors[Ridge]


def test_the_number_of_neighbors_is_bounded_by_the_queries():
    result, _ = attacked(LocalRidge(copies=1, neighbors=(500,)), linear(torch.eye(64)), train=20)
    assert result.diagnostics["neighbors"] == 20
