"""What the checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sparseguard.record import Attacker, ClassAttacker, Comparison, Leaked, TargetFacts


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All of a case that bears on whether its numbers are true.

    Args:
        target: facts of the target.
        leaked: facts of the tap.
        attackers: all attacks and floors of the case with their scores.
        chosen: level to metric to the attacker chosen on auxiliary_val.
        comparisons: attackers side by side.
        randomizes: whether the defense promises different answers to equal queries.
        inactive: why the defense is not at work, by its own account.
        duplicates: part to how many private images are also in it; only parts where there are any.
        class_attackers: attacks on classes with their scores.
        evaluators: networks that judge attacks on classes, and their accuracy on test.
    """

    target: TargetFacts
    leaked: Leaked
    attackers: list[Attacker]
    chosen: dict[str, dict[str, str]]
    comparisons: list[Comparison]
    randomizes: bool
    inactive: str | None
    duplicates: dict[str, int]
    class_attackers: Sequence[ClassAttacker] = ()
    evaluators: Mapping[str, float] = field(default_factory=dict)

    def reference(self, name: str) -> Attacker | None:
        """Return the first floor or attack that is this piece, on all images, each sent once, and is no control."""
        for attacker in self.attackers:
            plain = (attacker.competes or attacker.floor) and attacker.setting.get("repeats", 1) == 1
            if attacker.settings["name"] == name and plain and not attacker.index:
                return attacker
        return None

    def picked(self, metric: str) -> list[Attacker]:
        """Return the attackers chosen for ``metric`` at each level."""
        names = {choice[metric] for choice in self.chosen.values() if metric in choice}
        return [attacker for attacker in self.attackers if attacker.name in names]

    def picked_on_all(self, metric: str) -> list[Attacker]:
        """Return those of the picked that attacked all images, as floors do; means over others are of other images."""
        return [attacker for attacker in self.picked(metric) if not attacker.index]

    def white_boxes(self) -> list[Attacker]:
        """Return the attackers of single images that have the weights and may be chosen."""
        return [attacker for attacker in self.attackers if attacker.knowledge == "white-box" and attacker.competes]

    def class_attacks(self) -> list[ClassAttacker]:
        """Return the attacks on classes that are no controls."""
        return [attacker for attacker in self.class_attackers if not attacker.control]

    def notes_of_white_boxes(self) -> dict[str, dict[str, float]]:
        """Return the notes of all attackers that have the weights, by name."""
        of_classes = [attacker for attacker in self.class_attackers if attacker.knowledge == "white-box"]
        of_images = {attacker.name: attacker.notes for attacker in self.white_boxes()}
        return of_images | {attacker.name: attacker.notes for attacker in of_classes}

    def compared(self, kind: Literal["level", "control"]) -> list[tuple[Comparison, Attacker]]:
        """Return the comparisons of this kind by PSNR on private images, each with its first attacker."""
        attackers = {attacker.name: attacker for attacker in self.attackers}
        return [
            (comparison, attackers[comparison.first])
            for comparison in self.comparisons
            if (comparison.kind, comparison.metric, comparison.part) == (kind, "psnr", "private")
        ]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Args:
        raised_when: the condition, for the docs.
        meaning: what it means for the numbers, for the docs.
        find: from the evidence to a message, or None.
    """

    raised_when: str
    meaning: str
    find: Callable[[Evidence], str | None]


def psnr(attacker: Attacker, part: str = "private") -> float:
    """Return an attacker's mean PSNR in dB."""
    return attacker.scores[part]["psnr"].mean


def difference(comparison: Comparison) -> str:
    """Return a comparison in words."""
    low, high = comparison.ci95
    return (
        f"{comparison.first} minus {comparison.second}: {comparison.mean:+.2f} dB "
        f"(95 %: {low:+.2f} to {high:+.2f}, {comparison.n} images)"
    )


def late_gain(curve: Sequence[float]) -> float:
    """Return how far the best value so far rose in the last fifth of the epochs, at least one.

    Args:
        curve: the value before training and after every epoch.

    Example:
        >>> late_gain([0.0, 1.0, 3.0, 2.0, 4.0, 4.5])
        0.5
        >>> late_gain([0.0, 1.0, 3.0, 2.0, 2.0, 2.0])
        0.0
    """
    if len(curve) < 2:
        return 0.0
    last = max(1, (len(curve) - 1) // 5)
    return max(curve) - max(curve[:-last])


def joined(found: Iterable[str]) -> str | None:
    """Return what was found as one message, or None where nothing was."""
    return "; ".join(found) or None
