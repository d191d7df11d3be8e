"""Tasks of a case: train, observe, attack, score, record."""
