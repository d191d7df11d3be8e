"""What an audit's records mean, in words a person can act on who has never heard of model inversion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparseguard.record import FeatureInversionAttack, Record
from sparseguard.report.analysis.threat_levels import level_of

MANY, SOME = 0.5, 0.05
"""Shares of private images that are told apart from all others by their reconstructions."""
CLEAR, FAINT = 3.0, 1.0
"""dB above the best floor."""
ENOUGH = 20
"""An attack on fewer images is not asked how many it tells apart, if another one can be."""

FEW = 300
"""Attackers that learn from fewer images are said to be weak."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One tap's verdict.

    Args:
        tap: its name.
        severity: ``severe``, ``partial``, ``faint``, ``none found`` or ``not measured``.
        sentences: what was found, what it means, what to do.
    """

    tap: str
    severity: str
    sentences: tuple[str, ...]


def verdict(record: Record) -> Verdict:
    """Return what one record of an audit means.

    ``severe``: more than half of the private images can be told from all others by what is made of them, or they come
    back 3 dB and more above the best guess without the leak. ``partial``: more than one in twenty, or 1 dB. ``faint``:
    less, but above the floors. ``none found``: not above the floors, which is no proof that nothing leaks. A
    share that chance reaches once in forty times does not count.
    """
    tap = record.case.tap
    outcome = record.feature_inversion
    if record.target is None or outcome is None:
        why = record.failure.message if record.failure else "unknown"
        return Verdict(tap=tap, severity="not measured", sentences=(f"The attacks failed: {why}",))
    floors = [one for one in record.attacks if one.floor]
    if not floors:
        why = "No guess without the leak was run beside the attacks, such as 'mean-image': nothing says what leaks."
        return Verdict(tap=tap, severity="not measured", sentences=(_works(record), why))
    names, tellers = (
        {choice.attack for choice in outcome.chosen if choice.metric == metric} for metric in ("psnr", "id@1")
    )
    best = max((one for one in record.attacks if one.name in names), key=lambda one: _of_all(one, record))
    chosen = [one for one in record.attacks if one.name in tellers]
    teller = max([one for one in chosen if _count(one) >= ENOUGH] or chosen, key=_told)
    floor, told, among = max(map(_psnr, floors)), _told(teller), record.data.reidentification_pools["private"]
    severity = _severity(_of_all(best, record) - floor, told, 1 / among, _count(teller))
    of_those = "of them" if teller is best else f"of those by '{teller.name}' ({_images(_count(teller))})"
    apart = (
        f"{told:.0%} {of_those} are told apart from {among:,} private images (chance: {1 / among:.2%})."
        if among > 1
        else "Whether it can be told apart from others is not known with one image."
    )
    found = (
        f"From what leaks at '{tap}', the attack '{best.name}' (it knows: {level_of(best)}) remakes "
        f"{_images(_count(best), 'private ')} with a PSNR of {_psnr(best):.1f} dB{_set_beside(best, record)}; "
        f"the best guess without the leak's help has {floor:.1f} dB. {apart}"
    )
    return Verdict(
        tap=tap,
        severity=severity,
        sentences=(_works(record), found, *ADVICE[severity], *_doubts(record, best, severity)),
    )


def _images(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}image{'' if count == 1 else 's'}"


ADVICE = {
    "severe": (
        "Treat whoever sees this output as someone who has the images.",
        "Do not release it; or protect it (`sparseguard.protect`, added noise, fewer dimensions) and audit again.",
    ),
    "partial": (
        "Parts of the images, or some of them, can be got back.",
        "Release it only to people who may see the images, or protect it and audit again.",
    ),
    "faint": (
        "Little beyond what anybody could guess came back, with these attacks and this many images of the attacker's.",
    ),
    "none found": (
        "These attacks found nothing beyond a guess. That is no proof: a stronger attack, or an attacker with more "
        "images, may find something.",
    ),
}


def _severity(gain: float, told: float, chance: float, count: int) -> str:
    by_luck = chance + 2 * math.sqrt(chance * (1 - chance) / count)
    if told > max(MANY, by_luck) or gain > CLEAR:
        return "severe"
    if told > max(SOME, 10 * chance, by_luck) or gain > FAINT:
        return "partial"
    return "faint" if gain > 0 else "none found"


def _works(record: Record) -> str:
    target = record.target
    if target is None:
        return ""
    works = target.accuracy > target.majority_rate + 0.05
    told = (
        f"The model {'works' if works else 'hardly works'} on these images: {target.accuracy:.1%} of "
        f"{target.accuracy_n} held-out ones are classified right, always answering the most frequent class would be "
        f"{target.majority_rate:.1%}."
    )
    return told if works else f"{told} Check how images are prepared and the order of the classes before anything else."


def _doubts(record: Record, best: FeatureInversionAttack, severity: str) -> tuple[str, ...]:
    doubts = [f"Mind the flag {flag.name}: {flag.message}" for flag in record.flags]
    doubts += [f"The attack '{name}' was not run: {reason}." for name, reason in record.skipped.items()]
    sizes = record.data.sizes
    if (learned := sizes.get("auxiliary", FEW)) < FEW:
        doubts.append(f"The attackers learned from {learned} images only; those who have more find more.")
    if (private := sizes.get("private", ENOUGH)) < ENOUGH:
        doubts.append(f"Means over {_images(private, 'private ')} say little of others.")
    test = best.scores.get("test")
    comes_back = severity in ("severe", "partial")
    if comes_back and test is not None and test["psnr"].mean > _psnr(best) - 0.5:
        doubts.append("Images it was never trained on come back as well: this is what the layer passes on, not memory.")
    return tuple(doubts)


def _psnr(attacker: FeatureInversionAttack) -> float:
    return attacker.scores["private"]["psnr"].mean


def _of_all(attacker: FeatureInversionAttack, record: Record) -> float:
    """Return the mean PSNR on all private images, as far as it is known; floors have means over all."""
    other, more = _beside(attacker, record)
    return _psnr(other) + more


def _set_beside(attacker: FeatureInversionAttack, record: Record) -> str:
    other, more = _beside(attacker, record)
    if other is attacker:
        return ""
    return f" ({more:+.1f} dB beside '{other.name}' on the same images, which has {_psnr(other):.1f} dB on all of them)"


def _beside(attacker: FeatureInversionAttack, record: Record) -> tuple[FeatureInversionAttack, float]:
    """Return who attacked all images, and an attacker's difference to it on the same ones; itself where it did."""
    others = (
        (next(one for one in record.attacks if one.name == comparison.second), comparison.mean)
        for comparison in record.comparisons
        if (comparison.kind, comparison.metric, comparison.split) == ("knowledge", "psnr", "private")
        and comparison.first == attacker.name
        and attacker.indices
    )
    return next(((other, more) for other, more in others if not other.indices), (attacker, 0.0))


def _told(attacker: FeatureInversionAttack) -> float:
    return attacker.scores["private"]["id@1"].mean


def _count(attacker: FeatureInversionAttack) -> int:
    return attacker.scores["private"]["psnr"].n
