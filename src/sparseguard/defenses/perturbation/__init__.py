"""Defenses that perturb the features: noise and quantization."""
