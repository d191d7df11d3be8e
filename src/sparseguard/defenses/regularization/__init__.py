"""Defenses that add a term to the training loss."""
