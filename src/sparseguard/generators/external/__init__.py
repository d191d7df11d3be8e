"""Priors from generators of other authors."""
