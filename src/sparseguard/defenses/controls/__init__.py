"""Controls: what parts of a defense do alone."""
