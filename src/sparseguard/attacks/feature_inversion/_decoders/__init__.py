"""Helpers of trained decoders: their base, networks and training."""
