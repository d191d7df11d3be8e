"""Scores of reconstructions, their summaries and comparisons."""
