"""Foundation: errors, settings, seeds, files, staged models."""
