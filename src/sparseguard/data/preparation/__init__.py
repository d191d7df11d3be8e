"""Preparation of large data sets: decoded once, memory-mapped from then on."""
