"""What an audit's records mean, in words a person can act on who has never heard of model inversion."""

from __future__ import annotations

from dataclasses import dataclass

from sparseguard.record import Attacker, Record

MANY, SOME = 0.5, 0.05
"""Shares of private images that are told apart from all others by their reconstructions."""
CLEAR, FAINT = 3.0, 1.0
"""dB above the best floor."""
ENOUGH = 20
"""An attack on fewer images is not asked how many it tells apart, if another one can be."""


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
    less, but above the floors. ``none found``: not above the floors, which is no proof that nothing leaks.
    """
    tap = record.case.tap
    if record.status != "ok" or record.target is None:
        why = record.failure.message if record.failure else "unknown"
        return Verdict(tap=tap, severity="not measured", sentences=(f"The attacks failed: {why}",))
    floors = [one for one in record.attackers if one.floor]
    names, tellers = ({choice[metric] for choice in record.chosen.values()} for metric in ("psnr", "id@1"))
    best = max((one for one in record.attackers if one.name in names), key=_psnr)
    chosen = [one for one in record.attackers if one.name in tellers]
    teller = max([one for one in chosen if _count(one) >= ENOUGH] or chosen, key=_told)
    floor = max(_psnr(one) for one in floors) if floors else 0.0
    gain, told = _psnr(best) - floor, _told(teller)
    chance = 1 / record.identification["private"]
    severity = _severity(gain, told, chance)
    of_those = "of them" if teller is best else f"of those by '{teller.name}' ({_count(teller):,} images)"
    found = (
        f"From what leaks at '{tap}', the attack '{best.name}' (it knows: {best.level}) remakes {_count(best):,} "
        f"private images with a PSNR of {_psnr(best):.1f} dB; "
        f"the best guess without the leak's help has {floor:.1f} dB. "
        f"{told:.0%} {of_those} are told apart from {record.identification['private']:,} private images "
        f"(chance: {chance:.2%})."
    )
    return Verdict(
        tap=tap, severity=severity, sentences=(_works(record), found, *ADVICE[severity], *_doubts(record, best))
    )


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


def _severity(gain: float, told: float, chance: float) -> str:
    if told > MANY or gain > CLEAR:
        return "severe"
    if told > max(SOME, 10 * chance) or gain > FAINT:
        return "partial"
    return "faint" if gain > 0 else "none found"


def _works(record: Record) -> str:
    target = record.target
    if target is None:
        return ""
    works = "works" if target.accuracy > target.majority_rate + 0.05 else "hardly works"
    return (
        f"The model {works} on these images: {target.accuracy:.1%} of {target.accuracy_n} held-out ones are classified "
        f"right, always answering the most frequent class would be {target.majority_rate:.1%}."
    )


def _doubts(record: Record, best: Attacker) -> tuple[str, ...]:
    doubts = [f"Mind the flag {flag.name}: {flag.message}" for flag in record.flags]
    test = best.scores.get("test")
    if test is not None and test["psnr"].mean > _psnr(best) - 0.5:
        doubts.append("Images it was never trained on come back as well: this is what the layer passes on, not memory.")
    return tuple(doubts)


def _psnr(attacker: Attacker) -> float:
    return attacker.scores["private"]["psnr"].mean


def _told(attacker: Attacker) -> float:
    return attacker.scores["private"]["id@1"].mean


def _count(attacker: Attacker) -> int:
    return attacker.scores["private"]["psnr"].n
