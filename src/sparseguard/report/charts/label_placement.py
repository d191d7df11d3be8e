"""Placement of labels beside the points of a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LETTER, LINE, RADIUS = 6.5, 15.0, 6.0
LETTERS = 28
DISTANCES = (0.0, 12.0, 24.0, 38.0, 54.0, 72.0, 92.0, 114.0, 138.0, 164.0, 192.0)
DIRECTIONS = ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.1, 1.0), (1.0, -0.5), (1.0, -1.0))
"""Right and below first: beyond a frontier of more accuracy and less leak there are no points."""
UNWANTED = 150.0
"""Cost of a label above or to the left, in pixels further away."""

Position = tuple[float, float]
Box = tuple[float, float, float, float]
Boxes = Float[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Label:
    """A label beside its point; where it stands further off, ``leader`` is a line from the point to it."""

    x: float
    y: float
    words: str
    leader: tuple[float, float, float, float] | None


def place_labels(
    labels: Sequence[tuple[Position, str]], markers: Sequence[Position], edges: Box, occupied: Sequence[Box] = ()
) -> list[Label]:
    """Place labels one after the other, each where it covers least of the others and is nearest to its point.

    Args:
        labels: points and their labels.
        markers: all points.
        edges: left, top, right and bottom; labels stay within them.
        occupied: boxes of other words.
    """
    others = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in markers]
    boxed: list[Box] = list(occupied)
    lines: list[Position] = []
    placed = []
    for point, label in labels:
        words = label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}…"
        boxes, away = _around(point, LETTER * len(words), edges)
        ends = np.clip(np.asarray(point), boxes[:, :2] + (0.0, 2.0), boxes[:, 2:] - (0.0, 2.0))
        ways = np.asarray(point) + (ends - point)[:, None] * np.linspace(0.15, 0.95, 9)[:, None]
        cost = away + 4 * compute_overlaps(boxes, _stack([*others, *boxed])).sum(axis=1)
        cost += 80 * _within(ways.reshape(-1, 2), _stack(boxed)).sum(axis=1).reshape(len(boxes), -1).sum(axis=1)
        cost += 80 * _within(np.asarray(lines, dtype=np.float64).reshape(-1, 2), boxes).sum(axis=0)
        best = int(np.argmin(cost))
        left, top, right, bottom = (float(end) for end in boxes[best])
        boxed.append((left, top, right, bottom))
        far = float(np.hypot(*(ends[best] - point))) > 2 * RADIUS
        if far:
            lines += [(float(x), float(y)) for x, y in ways[best]]
        leader = (*point, float(ends[best, 0]), float(ends[best, 1])) if far else None
        placed.append(Label(left, bottom - 4.0, words, leader))
    return placed


def compute_overlaps(first: Boxes, second: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Return the area of the overlap of each box of the first with each of the second.

    Example:
        >>> boxes = np.array([[3.0, 2.0, 9.0, 9.0], [4.0, 0.0, 5.0, 1.0]])
        >>> compute_overlaps(np.array([[0.0, 0.0, 4.0, 4.0]]), boxes).tolist()
        [[2.0, 0.0]]
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray(np.clip(high - low, 0.0, None).prod(axis=2))


def _around(point: Position, width: float, edges: Box) -> tuple[Boxes, Float[np.ndarray, " n"]]:
    """Return boxes around a point, moved inside the edges, and the cost of each."""
    x, y = point
    boxes, away = [], []
    for distance in DISTANCES:
        reach = RADIUS + 3.0 + distance
        for right, down in DIRECTIONS:
            top = y + down * reach - LINE / 2 * (1 - down)
            for left, further in ((x + right * reach, 0.0), (x - right * reach - width, UNWANTED)):
                inside = (
                    max(edges[0], min(left, edges[2] - width)),
                    max(edges[1], min(top, edges[3] - LINE)),
                )
                boxes.append((*inside, inside[0] + width, inside[1] + LINE))
                away.append(distance + further + (UNWANTED / 2 if down < 0 else 0.0))
    return np.asarray(boxes), np.asarray(away)


def _stack(boxes: Sequence[Box]) -> Boxes:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _within(points: Float[np.ndarray, "k 2"], boxes: Boxes) -> Float[np.ndarray, "k n"]:
    inside = (points[:, None] >= boxes[None, :, :2]) & (points[:, None] <= boxes[None, :, 2:])
    return np.asarray(inside.all(axis=2), dtype=np.float64)
