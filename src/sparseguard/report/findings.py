"""The findings of a run in a few plain sentences, each figure from the records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sparseguard.record import Record
from sparseguard.report.analysis.adversary import BLACK_BOX
from sparseguard.report.analysis.class_report import ClassReport, report_classes
from sparseguard.report.analysis.class_summary import ClassRow
from sparseguard.report.analysis.names import CONTROL_DEFENSES, UNDEFENDED
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.record_group import Kind, RecordGroup, group_records
from sparseguard.report.analysis.summary import Measure, Row
from sparseguard.report.text.class_wording import ACCURACY


def describe_findings(records: Sequence[Record], pictures: PicturesBySlug | None = None) -> list[str]:
    """Return what the records show: the leak without a defense, the defense that leaks least, flags and failures.

    A sentence whose figures are missing is left out.

    Args:
        records: the cases.
        pictures: what lies beside them, by ``record.case.slug``.
    """
    sentences = []
    for group in group_records(records, pictures):
        describe = _describe_features if group.kind is Kind.FEATURE_INVERSION else _describe_classes
        sentences += describe(group)
    return [*sentences, *_describe_checks(records)]


def _describe_features(group: RecordGroup) -> list[str]:
    rows = [(row, measure) for row in group.rows if row.adversary == BLACK_BOX and (measure := _psnr(row))]
    base = next(((row, measure) for row, measure in rows if row.defense == UNDEFENDED), None)
    title = group.records[0].threat.title
    sentences = [_describe_base(title, *base)] if base else []
    defended = [(row, measure) for row, measure in rows if row.defense not in (UNDEFENDED, *CONTROL_DEFENSES)]
    if base is None or not defended:
        return sentences
    row, measure = min(defended, key=lambda entry: _mean(entry[1]))
    subject = f"{row.defense} leaks least of {len(defended)} defenses" if len(defended) > 1 else f"with {row.defense}"
    if _mean(measure) < _mean(base[1]):
        sentences.append(f"{title}: {subject}: {_describe_score(row, measure)}{_describe_accuracy(row, base[0])}.")
    else:
        sentences.append(f"{title}: no defense leaks less than {UNDEFENDED}.")
    return sentences


def _describe_base(title: str, row: Row, measure: Measure) -> str:
    return f"{title}: without a defense, {_describe_score(row, measure)}."


def _describe_score(row: Row, measure: Measure) -> str:
    words = f"black-box attacks reconstruct private images with {_mean(measure):.1f} dB PSNR"
    if measure.floor is not None and measure.leak is not None:
        relation = "above" if measure.leak > 0 else "below"
        words += f", {abs(measure.leak):.1f} dB {relation} the best floor, which needs no inversion"
    identified, candidates = row.measures.get("id@1", {}).get("private"), row.identification.get("private")
    if identified and identified.score and candidates and candidates > 1:
        rate, chance = identified.score.mean, 1 / candidates
        words += f", and re-identify {rate:.0%} of them among {candidates:,} (chance: {chance:.2%})"
    return words


def _describe_accuracy(row: Row, base: Row) -> str:
    if row.accuracy is None or base.accuracy is None:
        return ""
    return f"; accuracy {row.accuracy.mean:.3f}, without a defense {base.accuracy.mean:.3f}"


def _psnr(row: Row) -> Measure | None:
    measure = row.measures.get("psnr", {}).get("private")
    return measure if measure and measure.score else None


def _mean(measure: Measure) -> float:
    return measure.score.mean if measure.score else float("nan")


def _describe_classes(group: RecordGroup) -> list[str]:
    report = report_classes(group)
    rows = [(row, rates) for row in report.measured if not row.control and (rates := _attack_accuracy(report, row))]
    base = [(row, rates) for row, rates in rows if row.defense == UNDEFENDED]
    if not base:
        return []
    row, rates = max(base, key=lambda entry: statistics.fmean(entry[1]))
    sentences = [f"{report.title}: without a defense, evaluators put {_describe_rates(row, rates)}."]
    others = [
        (other, its_rates)
        for other, its_rates in rows
        if other.attack == row.attack and other.defense not in (UNDEFENDED, *CONTROL_DEFENSES)
    ]
    if others:
        best, its_rates = min(others, key=lambda entry: statistics.fmean(entry[1]))
        if statistics.fmean(its_rates) < statistics.fmean(rates):
            sentences.append(f"{report.title}: with {best.defense}, the lowest, {_format_range(its_rates)}.")
        else:
            sentences.append(f"{report.title}: no defense lowers this.")
    return sentences


def _attack_accuracy(report: ClassReport, row: ClassRow) -> list[float]:
    """Return the attack accuracy by each evaluator."""
    names = (name for name, metric in report.metrics.items() if metric.label == ACCURACY and name in row.scores)
    return [value.mean for name in names if (value := row.scores[name].value)]


def _describe_rates(row: ClassRow, rates: Sequence[float]) -> str:
    return f"{_format_range(rates)} of the images that {row.attack} makes into the attacked class"


def _format_range(rates: Sequence[float]) -> str:
    ends = dict.fromkeys(f"{rate:.0%}" for rate in (min(rates), max(rates)))
    return " to ".join(ends)


def _describe_checks(records: Sequence[Record]) -> list[str]:
    flags = [flag for record in records for flag in record.flags]
    unexpected = sum(flag.expected is None for flag in flags)
    failed = sum(record.status == "failed" for record in records)
    words = "The checks of the evaluation raised no flag." if not flags else ""
    if flags:
        expectation = "the recipe expects all of them" if not unexpected else f"the recipe does not expect {unexpected}"
        words = f"The checks of the evaluation raised {len(flags)} flag{'s' if len(flags) > 1 else ''}; {expectation}."
    return [words, *([f"{failed} of {len(records)} cases failed."] if failed else [])]
