"""Running recipes: fit each target once, attack it, score, and keep every finished stage."""

from sparseguard.bench.recipe import Recipe, in_batches, load_recipe, parse_recipe
from sparseguard.bench.runner import Outcome, run

__all__ = ["Outcome", "Recipe", "in_batches", "load_recipe", "parse_recipe", "run"]
