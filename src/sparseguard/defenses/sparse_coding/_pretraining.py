"""Dictionaries learned from auxiliary images before training of the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.defenses.base import Context, State
from sparseguard.sparse import SparseCode2d, learn_dictionary
from sparseguard.types import Images

Start = Literal["random", "pretrained"]
CHUNK = 128


def learn_atoms(
    pairs: Sequence[tuple[SparseCode2d, nn.Module]], context: Context, *, epochs: int, images: int
) -> dict[str, Tensor]:
    """Fit the dictionaries of consecutive layers to attacker-side images, one layer after the other.

    The first layer learns from the stem's input in the undefended model, every other layer from the codes of the layer
    before, normalized as at the start of the target's training, over all images at once.

    Args:
        pairs: the layers, with random atoms, and the normalization that follows each.
        context: only its auxiliary images are used.
        epochs: passes over the images for each layer.
        images: number of images at most, drawn at random.

    Returns:
        The atoms of each layer, as `load_atoms` takes them.
    """
    generator = torch.Generator().manual_seed(derive(purpose="dictionaries", seed=context.seed))
    chosen = torch.randperm(len(context.auxiliary), generator=generator)[:images]
    values = compute_stem_input(context, context.auxiliary.batch(chosen))
    atoms: dict[str, Tensor] = {}
    for number, (layer, norm) in enumerate(pairs, start=1):
        layer.to(context.device)
        label = f"{context.label}: dictionary {number}"
        learn_dictionary(
            layer,
            values,
            epochs=epochs,
            generator=generator,
            track=lambda numbers, label=label: _track(numbers, context.progress, label),  # type: ignore[misc]
        )
        atoms[_key(number)] = layer.dictionary.detach().cpu().clone()
        if number < len(pairs):
            with torch.no_grad():
                codes = torch.cat([layer(chunk.to(context.device)).cpu() for chunk in values.split(CHUNK)])
                values = norm.train()(codes)
    return atoms


def load_atoms(layer: SparseCode2d, state: State, number: int) -> SparseCode2d:
    """Load the atoms of the ``number``-th layer, counted from 1, into a layer and return it.

    Raises:
        RecipeError: when the state has none.
    """
    if _key(number) not in state:
        raise RecipeError(f"atoms = 'pretrained': the dictionary of sparse layer {number} was not learned in advance.")
    with torch.no_grad():
        layer.dictionary.copy_(state[_key(number)])
    return layer


@torch.no_grad()
def compute_stem_input(context: Context, images: Images) -> Images:
    """Return the input of the stem in the undefended model for ``images``."""
    names = context.blueprint.stage_names()
    front = replace(context.blueprint, stages=context.blueprint.stages[: names.index("stem")], taps={}, tap="")
    model = front.build(context.auxiliary.shape, lambda stage: derive(purpose="front", stage=stage, seed=context.seed))
    values: Tensor = model(images)
    return values


def _key(number: int) -> str:
    return f"atoms_{number}"


def _track(numbers: Sequence[int], progress: Progress, label: str) -> Iterator[int]:
    with progress.task(label, len(numbers)) as advance:
        for number in numbers:
            yield number
            advance(1)
