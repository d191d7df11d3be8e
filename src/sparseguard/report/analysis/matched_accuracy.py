"""Defenses at matched accuracy: of each the setting that leaks least among those that keep the accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.core.errors import RecipeError
from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import Spread, spread
from sparseguard.report.analysis.coverage import NOT_RECORDED, choosing_parts, has, kept
from sparseguard.report.analysis.families import Grid, Setting, grids
from sparseguard.report.analysis.summary import Measure, Row
from sparseguard.report.analysis.threat_levels import BASE, chosen_at
from sparseguard.report.text.wording import CONTROLS, UNDEFENDED
from sparseguard.stats import NonInferiority, noninferiority_test

MAX_DROP = 0.05


@dataclass(frozen=True)
class Tried:
    """A setting that was tried: what it leaks where settings are chosen, and whether it keeps the accuracy there.

    ``leak`` is the PSNR on auxiliary_val of the attacker chosen at black-box, a mean over seeds. ``evidence`` is None
    where there is a ``reason``.
    """

    label: str
    seeds: int
    leak: float | None
    accuracy: Spread | None
    evidence: NonInferiority | None
    reason: str | None


@dataclass(frozen=True)
class Shown:
    """The setting that stands for its family.

    ``accuracy`` is on test, ``drop`` that of none minus it, on the seeds of both. ``measures`` and ``chosen`` are those
    of the attackers chosen at black-box, ``gains`` what attackers of other levels reach more, in PSNR on the same private
    images.
    """

    label: str
    seeds: int
    accuracy: Spread | None
    drop: Spread | None
    evidence: NonInferiority | None
    measures: dict[str, dict[str, Measure]]
    chosen: dict[str, tuple[str, ...]]
    gains: dict[str, float]


@dataclass(frozen=True)
class FamilyRow:
    """A defense: the settings tried, how many of them keep the accuracy, and the one picked.

    Where none is picked, ``reason`` says why, and ``best`` is the setting with the best accuracy on test.
    """

    family: str
    control: bool
    tried: tuple[Tried, ...]
    failed: int
    qualified: int
    pick: Shown | None
    best: Shown | None
    reason: str | None


@dataclass(frozen=True)
class Matched:
    """The defenses of one data set, backbone, threat and tap at matched accuracy, or why they cannot be matched.

    ``parts`` are those whose images tell whether a setting keeps the accuracy, ``n`` of them. ``too_few`` says that not
    even a setting that answers exactly as none does could be shown to. ``uneven`` are the smallest and the largest
    number of settings tried, where these differ.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    max_drop: float
    parts: tuple[str, ...]
    n: int | None
    too_few: bool
    uneven: tuple[int, int] | None
    rows: tuple[FamilyRow, ...]
    reason: str | None


def matched(records: Sequence[Record], rows: Sequence[Row], max_drop: float = MAX_DROP) -> list[Matched]:
    """Return the comparison at matched accuracy, one for each data set, backbone, threat and tap with a defense.

    Args:
        records: the cases.
        rows: their rows.
        max_drop: how much accuracy a setting may lose at most, between 0 and 1.

    Raises:
        RecipeError: when ``max_drop`` is not between 0 and 1.
    """
    if not 0 < max_drop < 1:
        raise RecipeError(f"--max-drop must be between 0 and 1, got {max_drop:g}.")
    return [_of_grid(grid, max_drop) for grid in grids(records, rows) if set(grid.families) - {UNDEFENDED}]


def _of_grid(grid: Grid, max_drop: float) -> Matched:
    base = next((one for one in grid.families.get(UNDEFENDED, ()) if one.measured), None)
    parts = choosing_parts(grid.records)
    reason = None
    if base is None:
        reason = f"there are no scores of {UNDEFENDED}"
    elif not any(has(record, part) for record in base.measured for part in parts):
        reason = NOT_RECORDED
    found: tuple[FamilyRow, ...] = ()
    if base is not None and reason is None:
        found = tuple(_row(name, members, base, parts, max_drop) for name, members in grid.families.items())
    counts = {len(row.tried) for row in found if row.family != UNDEFENDED and row.tried}
    sizes = [one.evidence.n for row in found for one in row.tried if one.evidence]
    n = min(sizes, default=None)
    return Matched(
        dataset=grid.dataset,
        backbone=grid.backbone,
        threat=grid.threat,
        tap=grid.tap,
        max_drop=max_drop,
        parts=parts,
        n=n,
        too_few=n is not None and not noninferiority_test(0.0, 0.0, n, max_drop).qualifies,
        uneven=(min(counts), max(counts)) if len(counts) > 1 else None,
        rows=found,
        reason=reason,
    )


def _row(name: str, members: Sequence[Setting], base: Setting, parts: Sequence[str], max_drop: float) -> FamilyRow:
    there = [one for one in members if one.measured]
    tried = [_tried(one, base, parts, max_drop) for one in there]
    able = [
        (one.leak, setting, one)
        for setting, one in zip(there, tried, strict=True)
        if one.leak is not None and one.evidence and one.evidence.qualifies
    ]
    qualified = sum(one.evidence is not None and one.evidence.qualifies for one in tried)
    pick = best = None
    if name == UNDEFENDED:
        pick, qualified = _shown(base, base, None), len(tried)
    elif able:
        _, setting, one = min(able, key=lambda entry: entry[0])
        pick = _shown(setting, base, one.evidence)
    elif known := [(one.accuracy.mean, at) for at, one in enumerate(tried) if one.accuracy]:
        _, at = max(known, key=lambda entry: entry[0])
        best = _shown(there[at], base, tried[at].evidence)
    return FamilyRow(
        family=name,
        control=name in CONTROLS,
        tried=tuple(tried),
        failed=len(members) - len(there),
        qualified=qualified,
        pick=pick,
        best=best,
        reason=None if pick else _why_not(tried, qualified),
    )


def _why_not(tried: Sequence[Tried], qualified: int) -> str:
    if not tried:
        return "every setting failed"
    if qualified:
        return f"no attacker was chosen at level {BASE}"
    reasons = dict.fromkeys(one.reason for one in tried if one.reason)
    return "; ".join(reasons) or "no setting tried is shown to keep the accuracy"


def _tried(setting: Setting, base: Setting, parts: Sequence[str], max_drop: float) -> Tried:
    found = kept(_pairs(setting, base), parts, max_drop)
    evidence, reason = (found, None) if isinstance(found, NonInferiority) else (None, found)
    return Tried(
        label=setting.label,
        seeds=len(setting.measured),
        leak=_leak(setting),
        accuracy=spread(record.target.accuracy for record in setting.measured if record.target),
        evidence=evidence,
        reason=reason,
    )


def _pairs(setting: Setting, base: Setting) -> list[tuple[Record, Record]]:
    others = {record.case.seed: record for record in base.measured}
    return [(record, others[record.case.seed]) for record in setting.measured if record.case.seed in others]


def _leak(setting: Setting) -> float | None:
    chosen = [(record, chosen_at(record, BASE, "psnr")) for record in setting.measured]
    scores = [one.scores.get("auxiliary_val", {}).get("psnr") for _, one in chosen if one]
    known = [score.mean for score in scores if score]
    return statistics.fmean(known) if known and len(known) == len(chosen) else None


def _shown(setting: Setting, base: Setting, evidence: NonInferiority | None) -> Shown:
    targets = [(own.target, other.target) for own, other in _pairs(setting, base)]
    row = setting.row
    gains = {}
    for one in setting.rows:
        private = one.measures.get("psnr", {}).get("private")
        if one.level and private and private.to_outputs:
            gains[one.level] = private.to_outputs.mean
    return Shown(
        label=setting.label,
        seeds=len(setting.measured),
        accuracy=spread(record.target.accuracy for record in setting.measured if record.target),
        drop=spread(theirs.accuracy - ours.accuracy for ours, theirs in targets if ours and theirs),
        evidence=evidence,
        measures=row.measures if row else {},
        chosen=row.chosen if row else {},
        gains=gains,
    )
