"""Numerical methods on tensors: ridge regression, nearest neighbors, dependence measures, supervised training."""
