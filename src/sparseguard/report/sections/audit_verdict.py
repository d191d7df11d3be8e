"""Section with an audit's verdict, in words a person can act on who has never heard of model inversion."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sparseguard.record import FeatureInversionAttack, FeatureInversionOutcome, Record
from sparseguard.report.analysis.names import AUDIT_LAYOUT
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section

MANY, SOME = 0.5, 0.05
"""Fractions of private images that are re-identified by their reconstructions."""
CLEAR, FAINT = 3.0, 1.0
"""dB above the best floor."""
ENOUGH = 20
"""An attack on fewer images does not decide the fraction that is re-identified, if another one can."""
FEW = 300
"""Attacks that learn from fewer images are called weak."""

ADVICE = {
    "severe": (
        "Treat whoever sees this output as someone who has the images.",
        "Do not release it; or protect it (`sparseguard.protect`, added noise, fewer dimensions) and audit again.",
    ),
    "partial": (
        "Regions of the images, or some of the images, can be reconstructed.",
        "Release it only to people who may see the images, or protect it and audit again.",
    ),
    "faint": ("These attacks, with this many auxiliary images, reconstruct little beyond what anybody could guess.",),
    "none found": (
        "These attacks found nothing beyond a guess. That is no proof: a stronger attack, or an attacker with more "
        "images, may find something.",
    ),
}

TEMPLATE = """\
{% for verdict in verdicts %}
<p><strong>{{ verdict.tap }}: {{ verdict.severity }}</strong></p>
<ul>{% for sentence in verdict.sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% endfor %}
"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One tap's verdict.

    Args:
        tap: its name.
        severity: ``severe``, ``partial``, ``faint``, ``none found`` or ``not measured``.
        sentences: the finding, its meaning, and what to do.
    """

    tap: str
    severity: str
    sentences: tuple[str, ...]


class AuditVerdicts(Section[list[Verdict]]):
    """The verdicts on the taps of an audit."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("verdicts",)

    def collect(self, group: RecordGroup) -> list[Verdict] | None:
        """Return a verdict for each record of an audit."""
        audits = [record for record in group.records if record.data.layout == AUDIT_LAYOUT]
        return [verdict(record) for record in audits] or None

    def html(self, data: list[Verdict]) -> str:
        """Return the verdicts as lists of sentences."""
        return render_html(TEMPLATE, verdicts=data)

    def json(self, data: list[Verdict]) -> dict[str, list[Any]]:
        """Return ``verdicts``."""
        return {"verdicts": [asdict(each) for each in data]}


def verdict(record: Record) -> Verdict:
    """Return the meaning of one record of an audit.

    ``severe``: more than half of the private images are re-identified by their reconstructions, or these are 3 dB and
    more above the best guess without the features. ``partial``: more than one in twenty, or 1 dB. ``faint``: less, but
    above the floors. ``none found``: not above the floors, which is no proof that nothing leaks. A fraction that chance
    reaches once in forty times does not count.
    """
    tap, outcome = record.case.tap, record.feature_inversion
    if record.status != "ok" or outcome is None or record.target is None:
        reason = record.failure.message if record.failure else "unknown"
        return Verdict(tap=tap, severity="not measured", sentences=(f"The attacks failed: {reason}",))
    floors = [attack for attack in outcome.attacks if attack.floor]
    if not floors:
        reason = "No floor, such as 'mean-image', was run beside the attacks: nothing shows how much the features add."
        return Verdict(tap=tap, severity="not measured", sentences=(_describe_target(record), reason))
    best = max(_chosen(outcome, "psnr"), key=lambda attack: _psnr_of_all(attack, outcome))
    identifying = _chosen(outcome, "id@1")
    enough = [attack for attack in identifying if _count(attack) >= ENOUGH]
    identifier = max(enough or identifying, key=_identified)
    floor, identified = max(map(_psnr, floors)), _identified(identifier)
    candidates = record.data.reidentification_pools["private"]
    severity = _severity(_psnr_of_all(best, outcome) - floor, identified, 1 / candidates, _count(identifier))
    subject = "of them" if identifier is best else f"of those by '{identifier.name}' ({_images(_count(identifier))})"
    identification = (
        f"{identified:.0%} {subject} are re-identified among {candidates:,} private images "
        f"(chance: {1 / candidates:.2%})."
        if candidates > 1
        else "Whether it can be re-identified is not known with one image."
    )
    finding = (
        f"From the features at '{tap}', the {best.knowledge} attack '{best.name}' reconstructs "
        f"{_images(_count(best), 'private ')} with a PSNR of {_psnr(best):.1f} dB{_describe_reference(best, outcome)}; "
        f"the best guess without the features has {floor:.1f} dB. {identification}"
    )
    return Verdict(
        tap=tap,
        severity=severity,
        sentences=(_describe_target(record), finding, *ADVICE[severity], *_doubts(record, outcome, best, severity)),
    )


def _chosen(outcome: FeatureInversionOutcome, metric: str) -> list[FeatureInversionAttack]:
    names = {choice.attack for choice in outcome.chosen if choice.metric == metric}
    return [attack for attack in outcome.attacks if attack.name in names]


def _images(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}image{'' if count == 1 else 's'}"


def _severity(gain: float, identified: float, chance: float, count: int) -> str:
    luck = chance + 2 * math.sqrt(chance * (1 - chance) / count)
    if identified > max(MANY, luck) or gain > CLEAR:
        return "severe"
    if identified > max(SOME, 10 * chance, luck) or gain > FAINT:
        return "partial"
    return "faint" if gain > 0 else "none found"


def _describe_target(record: Record) -> str:
    target = record.target
    if target is None:
        return ""
    works = target.accuracy > target.majority_rate + 0.05
    sentence = (
        f"The model {'works' if works else 'hardly works'} on these images: it classifies {target.accuracy:.1%} of "
        f"{target.accuracy_n} held-out ones right; always answering the most frequent class would reach "
        f"{target.majority_rate:.1%}."
    )
    advice = "Check the preparation of the images and the order of the classes before anything else."
    return sentence if works else f"{sentence} {advice}"


def _doubts(
    record: Record, outcome: FeatureInversionOutcome, best: FeatureInversionAttack, severity: str
) -> tuple[str, ...]:
    doubts = [f"Mind the flag {flag.name}: {flag.message}" for flag in record.flags]
    doubts += [f"The attack '{name}' was not run: {reason}." for name, reason in outcome.skipped.items()]
    sizes = record.data.sizes
    if (auxiliary := sizes.get("auxiliary", FEW)) < FEW:
        doubts.append(f"The attacks learned from {auxiliary} images only; an attacker with more images finds more.")
    if (private := sizes.get("private", ENOUGH)) < ENOUGH:
        doubts.append(f"Means over {_images(private, 'private ')} say little of others.")
    test = best.scores.get("test")
    if severity in ("severe", "partial") and test is not None and test["psnr"].mean > _psnr(best) - 0.5:
        doubts.append(
            "Images the model was never trained on are reconstructed as well: this is what the layer passes on, not "
            "memorization."
        )
    return tuple(doubts)


def _psnr(attack: FeatureInversionAttack) -> float:
    return attack.scores["private"]["psnr"].mean


def _psnr_of_all(attack: FeatureInversionAttack, outcome: FeatureInversionOutcome) -> float:
    """Return the mean PSNR on all private images, as far as it is known; floors have means over all."""
    reference, difference = _reference(attack, outcome)
    return _psnr(reference) + difference


def _describe_reference(attack: FeatureInversionAttack, outcome: FeatureInversionOutcome) -> str:
    reference, difference = _reference(attack, outcome)
    if reference is attack:
        return ""
    return (
        f" ({difference:+.1f} dB to '{reference.name}' on the same images, which has {_psnr(reference):.1f} dB on all "
        "of them)"
    )


def _reference(
    attack: FeatureInversionAttack, outcome: FeatureInversionOutcome
) -> tuple[FeatureInversionAttack, float]:
    """Return an attack on all images, and the difference to it on the same ones; itself where it is on all."""
    references = (
        (outcome.attack(comparison.second), comparison.mean)
        for comparison in outcome.comparisons
        if (comparison.kind, comparison.metric, comparison.split) == ("knowledge", "psnr", "private")
        and comparison.first == attack.name
        and attack.indices
    )
    return next(((each, mean) for each, mean in references if not each.indices), (attack, 0.0))


def _identified(attack: FeatureInversionAttack) -> float:
    return attack.scores["private"]["id@1"].mean


def _count(attack: FeatureInversionAttack) -> int:
    return attack.scores["private"]["psnr"].n
