"""Recipes: their model, limits, loading, and resolved components."""
