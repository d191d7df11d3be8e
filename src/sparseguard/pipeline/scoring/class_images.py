"""Images of class inversion: labeled images, the images of one attack, and shuffled patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparseguard.pipeline.scoring.evaluators import Evaluator


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledImages:
    """Images, each with the class it is scored for; evaluators' outputs are computed once."""

    images: Tensor
    labels: Tensor
    _features: dict[str, Tensor] = field(default_factory=dict)
    _logits: dict[str, Tensor] = field(default_factory=dict)

    def features(self, evaluator: Evaluator) -> Tensor:
        """Return the evaluator's features ``(n, d)``."""
        if evaluator.name not in self._features:
            self._features[evaluator.name] = evaluator.features(self.images)
        return self._features[evaluator.name]

    def logits(self, evaluator: Evaluator) -> Tensor:
        """Return the evaluator's logits."""
        if evaluator.name not in self._logits:
            self._logits[evaluator.name] = evaluator.logits(self.images)
        return self._logits[evaluator.name]

    def relabel(self, attacked: Sequence[int]) -> LabeledImages:
        """Return the same images, each labeled with the next of the attacked classes."""
        next_class = dict(zip(attacked, [*attacked[1:], attacked[0]], strict=True))
        labels = torch.tensor([next_class[int(label)] for label in self.labels])
        return LabeledImages(images=self.images, labels=labels, _features=self._features, _logits=self._logits)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackImages:
    """Images of one attack and the images they are compared with.

    Args:
        answer: the selected images.
        starts: as many candidates a class, the ones with the highest confidence before the search.
        optimized: all images before selection.
        chance: images without an attack, as many as the answer, of the same classes.
    """

    answer: LabeledImages
    starts: LabeledImages
    optimized: LabeledImages
    chance: LabeledImages


def shuffle_patches(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return ``(n, c, h, w)`` images with their patches of ``size`` by ``size`` pixels shuffled, image by image."""
    rows, columns = images.shape[2] // size, images.shape[3] // size
    result = images.clone()
    covered = result[:, :, : rows * size, : columns * size]
    patches = covered.unfold(2, size, size).unfold(3, size, size)  # (n, c, rows, columns, size, size)
    flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(len(images), rows * columns, *_patch(images, size))
    order = torch.rand(len(images), rows * columns, generator=generator).argsort(1)
    permuted = flat.gather(1, order.view(len(images), -1, 1, 1, 1).expand_as(flat))
    restored = permuted.view(len(images), rows, columns, *_patch(images, size)).permute(0, 3, 1, 4, 2, 5)
    covered.copy_(restored.reshape_as(covered))
    return result


def _patch(images: Tensor, size: int) -> tuple[int, int, int]:
    return images.shape[1], size, size


__all__ = ["AttackImages", "LabeledImages", "shuffle_patches"]
