import torch

from sparseguard.numerics.standardization import feature_statistics


def test_maps_are_standardized_by_channel_and_vectors_by_feature():
    values = torch.randn(50, 3, 4, 4) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1) + 2
    mean, deviation = feature_statistics(values)
    assert mean.shape == (1, 3, 1, 1)
    scaled = (values - mean) / deviation
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(3))
    assert feature_statistics(torch.randn(50, 7))[0].shape == (1, 7)
