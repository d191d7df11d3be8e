"""Priors from NVIDIA's StyleGAN2-ADA and StyleGAN3."""
