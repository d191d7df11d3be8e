"""Running recipes: fit each target once, attack it, score, and keep every finished stage."""

from sparseguard.pipeline.engines.inline import Outcome, run
from sparseguard.pipeline.recipe.loading import load_recipe, parse_recipe
from sparseguard.pipeline.recipe.recipe import Recipe, limit_batch_size
from sparseguard.pipeline.stored_targets import load_target

__all__ = ["Outcome", "Recipe", "limit_batch_size", "load_recipe", "load_target", "parse_recipe", "run"]
