"""Learning of a dictionary from images, before other training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from sparseguard.sparse._base_layer import SparseCoding, require_positive
from sparseguard.sparse._dictionary import Atoms, Images, unit_norm
from sparseguard.sparse._hebbian import HebbianStatistics, hebbian_update
from sparseguard.sparse._solution import Solution

Track = Callable[[Sequence[int]], Iterable[int]]

LAST_RATE = 0.01
"""Rate of the last update, in units of the first's."""


@dataclass(frozen=True)
class LearningEpoch:
    """Means over one pass over the images, each batch before its update.

    Args:
        energy: mean energy of an image.
        active: fraction of the coefficients that are not zero.
        residual: Euclidean norm of all residuals, divided by that of all inputs (standardized, if the layer does so).
        dead: number of atoms that were never active.
    """

    energy: float
    active: float
    residual: float
    dead: int


@torch.no_grad()
def learn_dictionary(
    layer: SparseCoding,
    images: Images,
    *,
    epochs: int = 5,
    batch_size: int = 50,
    rate: float = 0.2,
    redraw: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> tuple[LearningEpoch, ...]:
    r"""Fit a layer's dictionary to images by the local update, after every batch.

    .. math:: W_f \leftarrow W_f + \frac{\eta}{m} \, \frac{\mathrm{corr}_f}{\mathrm{active}_f + 1}, \qquad
              \text{then unit norm}

    with m the mean square of the batch's active coefficients, so that a rate fits images of any scale. The rate falls
    geometrically to a hundredth. Codes are the layer's own: its lambda, solver and number of steps. Nothing but the
    dictionary (and the step size that follows it) changes in the layer; when the call is interrupted, the dictionary
    is that of the last complete update.

    Args:
        layer: a `SparseCode2d` or `SparseCodeDense`.
        images: ``(n, ...)`` in the shape that the layer takes, on any device. For a defense, auxiliary images.
        epochs: passes over the images.
        batch_size: images between two updates.
        rate: eta of the first update.
        redraw: replace, after each pass but the last, the atoms that were never active by random patches of the last
            batch's residuals. The update cannot move them.
        generator: of the processor, for the order of the images and the redrawing; absent: torch's global one.
        track: shows the progress; gets the numbers of the updates and must yield them, as `rich.progress.track` does.

    Returns:
        One entry for every finished pass.

    Raises:
        ValueError: for no images, images that the layer does not accept or that are not finite, or a setting out of
            range.

    Source: the paper's local update (section 3), run alone; scale, schedule and redrawing are ours.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import SparseCode2d, learn_dictionary
        >>> generator = torch.Generator().manual_seed(0)
        >>> layer = SparseCode2d(1, 4, kernel_size=3, generator=generator)
        >>> images = torch.linspace(0, 1, 144).view(1, 1, 12, 12).expand(20, 1, 12, 12)
        >>> first, *_, last = learn_dictionary(layer, images, batch_size=5, generator=generator)
        >>> last.energy < first.energy
        True
    """
    _check_inputs(layer, images, epochs, batch_size, rate)
    was_training = layer.training
    layer.eval()  # in training mode the layer may collect statistics for its own updates
    try:
        return _learn(layer, images, epochs, batch_size, rate, redraw, generator, track or iter)
    finally:
        layer.train(was_training)


def _learn(
    layer: SparseCoding,
    images: Images,
    epochs: int,
    batch_size: int,
    rate: float,
    redraw: bool,
    generator: torch.Generator | None,
    track: Track,
) -> tuple[LearningEpoch, ...]:
    atoms, history = layer.dictionary, list[LearningEpoch]()
    batches = -(-len(images) // batch_size)
    order, sums = torch.empty(0, dtype=torch.int64), _EpochSums(atoms)
    for number in track(range(epochs * batches)):
        if number % batches == 0:
            order, sums = torch.randperm(len(images), generator=generator), _EpochSums(atoms)
        start = number % batches * batch_size
        batch = images[order[start : start + batch_size].to(images.device)]
        solution = layer.solution(batch.to(atoms.device))
        statistics = HebbianStatistics.from_batch(solution.code, solution.residual, solution.problem.dictionary)
        sums.add(solution, statistics)
        scale = float(solution.code.square().sum() / statistics.active.sum().clamp_min(1))
        step = rate * LAST_RATE ** (number / (epochs * batches)) / max(scale, torch.finfo(atoms.dtype).tiny)
        updated = hebbian_update(atoms, statistics.correlation, statistics.active, step)
        if (number + 1) % batches == 0:
            history.append(sums.summary())
            if redraw and number + 1 < epochs * batches:
                updated = _redraw_atoms(updated, sums.active == 0, solution, generator)
        layer.dictionary.copy_(updated)
    return tuple(history)


def _redraw_atoms(
    atoms: Atoms, dead: Bool[Tensor, " f"], solution: Solution, generator: torch.Generator | None
) -> Atoms:
    """Replace dead atoms by patches of residuals, at random positions of random images."""
    code = torch.zeros_like(solution.code)
    n, f = code.shape[:2]
    flat = code.view(n, f, -1)
    number = torch.randint(n, (f,), generator=generator)
    position = torch.randint(flat.shape[2], (f,), generator=generator)
    flat[number, torch.arange(f), position] = 1
    patches = unit_norm(solution.problem.dictionary.correlate(code, solution.residual))
    usable = dead & patches.flatten(1).any(1)
    return torch.where(usable.view(-1, *(1,) * (atoms.ndim - 1)), patches, atoms)


class _EpochSums:
    """Sums over the batches of one pass."""

    def __init__(self, atoms: Atoms) -> None:
        self.active = atoms.new_zeros(len(atoms))
        self.images = self.coefficients = 0
        self.energy = self.residual = self.inputs = 0.0

    def add(self, solution: Solution, statistics: HebbianStatistics) -> None:
        self.active += statistics.active
        self.images += len(solution.code)
        self.coefficients += solution.code.numel()
        self.energy += float(solution.energy.sum())
        self.residual += float(solution.residual.square().sum())
        self.inputs += float(solution.problem.images.square().sum())

    def summary(self) -> LearningEpoch:
        return LearningEpoch(
            energy=self.energy / self.images,
            active=float(self.active.sum()) / self.coefficients,
            residual=(self.residual / self.inputs) ** 0.5 if self.inputs else 0.0,
            dead=int((self.active == 0).sum()),
        )


def _check_inputs(layer: SparseCoding, images: Images, epochs: int, batch_size: int, rate: float) -> None:
    require_positive(epochs=epochs, batch_size=batch_size)
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate must be above 0 and finite, got {rate}.")
    layer.operator(images)
    if len(images) == 0:
        raise ValueError("images must not be empty: the dictionary cannot be learned without images.")
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"images must be finite: {bad} of {len(images)} are not.")
