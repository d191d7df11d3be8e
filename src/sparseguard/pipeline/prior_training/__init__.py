"""Training of priors on auxiliary data."""
