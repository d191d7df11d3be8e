"""Classes that a class inversion attacks."""

from __future__ import annotations

from sparseguard.core.errors import RecipeError, nearest
from sparseguard.generators import find_prior, read_card
from sparseguard.pipeline.recipe.entries import Threat
from sparseguard.pipeline.recipe.recipe import Recipe


def select_classes(recipe: Recipe, threat: Threat, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes a threat attacks: those it names, or those that no prior of the recipe has seen.

    Where the priors together have seen all classes, it is those that at least one prior has not seen. Where each
    prior has seen all, or does not list its classes, it is all classes.

    Args:
        recipe: the recipe.
        threat: one of its threats; of a feature inversion, the result is empty.
        names: all classes of the data set.

    Raises:
        RecipeError: for a class the data set does not have.
    """
    if threat.goal != "class-inversion":
        return ()
    if threat.classes:
        for name in threat.classes:
            if name not in names:
                raise RecipeError(f"[[threats]] '{threat.name}': unknown class '{name}'. {nearest(name, names)}")
        return tuple(name for name in names if name in threat.classes)
    sources = [source for attack in recipe.class_attacks if (source := attack.component.prior_source())]
    listed = [read_card(find_prior(source)).classes for source in sources]
    seen = [set(names if classes is None else classes) for classes in listed]
    for known in (set[str]().union(*seen), set(names).intersection(*seen)):
        if unknown := tuple(name for name in names if name not in known):
            return unknown
    return names
