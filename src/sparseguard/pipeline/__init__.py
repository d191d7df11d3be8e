"""Running recipes: fit each target once, attack it, score, and keep every finished stage."""

from sparseguard.pipeline.engines.inline import Outcome, run
from sparseguard.pipeline.recipe.loading import load_recipe, parse_recipe
from sparseguard.pipeline.recipe.recipe import Recipe, limit_batch_size

__all__ = ["Outcome", "Recipe", "limit_batch_size", "load_recipe", "parse_recipe", "run"]
