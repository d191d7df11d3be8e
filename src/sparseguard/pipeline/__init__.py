"""Running recipes: fit each target once, attack it, score, and keep every finished stage."""

from sparseguard.pipeline.engines.inline import Outcome, run
from sparseguard.pipeline.recipe.recipe import Recipe, in_batches, load_recipe, parse_recipe

__all__ = ["Outcome", "Recipe", "in_batches", "load_recipe", "parse_recipe", "run"]
