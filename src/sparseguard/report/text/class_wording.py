"""Sentences and number formats of class inversion."""

from __future__ import annotations

from collections.abc import Iterable

from sparseguard.record import PriorFacts
from sparseguard.report.analysis.aggregate import SeedMean
from sparseguard.report.analysis.class_report import ClassReport, Evaluator
from sparseguard.report.analysis.class_summary import ClassMeasure, ClassRow
from sparseguard.report.text.numbers import MISSING, format_mean, format_number

ACCURACY, DISTANCE, AUC = "attack accuracy@1", "feature distance", "AUC private or unseen"
PSNR, SSIM = "PSNR to nearest", "SSIM to nearest"
_FIGURES = {
    "learning_rate": "rate",
    "gradient_norm": "mean norm of the gradients at the start",
    "gradient_cosine_implicit": "cosine of gradients: unrolled, implicit",
    "gradient_cosine_straight_through": "cosine of gradients: unrolled, straight-through",
    "clamped_fraction": "fraction of images whose loss is at its clamp",
    "diversity": "how much images of a class differ, relative to private ones",
    "samples_far_from_private": "fraction of the prior's samples far from all private images",
    "samples_far_from_auxiliary": "fraction of the prior's samples far from all auxiliary images",
}
REFERENCES = {
    "chance": "as many images made without an attack: samples of the same prior, or, where it makes none without, "
    "what the searches started from; for attack accuracy the fraction a class gets on average",
    "other_class": "the attack's own images, each taken for the next of the attacked classes",
    "starts": "what the searches started from: with a prior, candidates the target is surest of, without gradients",
    "all_optimized": "all images that were searched for, before the attack selected its answer",
    "unseen": "for attack accuracy real never-seen images of the class, the most to expect; for the others the same "
    "rule with never-seen images in place of private ones",
    "shuffled_patches": "images of no class: patches of real images, shuffled",
}
LEGEND = (
    "Attack accuracy is the fraction of an attack's images that an evaluator, a network no attack has access to, puts "
    "into the attacked class. Compare it with chance, which is as many of the prior's samples made without an attack. "
    "High attack accuracy with a prior that was not trained on the classes shows what the model gives away of a class, "
    "not of a person. AUC 0.5 means that the attack's images say nothing about the training images themselves: they "
    "are no nearer to private images than to never-seen ones."
)


def format_class_title(report: ClassReport) -> str:
    """Return the heading of a comparison of class inversion."""
    return f"Class inversion: {report.title} · {report.dataset} · {report.backbone}"


def format_score(report: ClassReport, name: str, value: float | None) -> str:
    """Return a score's value with its metric's digits."""
    return format_number(value, report.metrics[name].digits if name in report.metrics else None, missing="n/a")


def format_fraction(value: SeedMean | None) -> str:
    """Return a mean of fractions with three digits."""
    return format_number(value.mean if value else None, 3, missing="n/a")


def format_score_mean(report: ClassReport, name: str, value: SeedMean | None) -> str:
    """Return the mean over seeds with its metric's digits."""
    return format_score(report, name, value.mean if value else None)


def join_scores(report: ClassReport, name: str, measure: ClassMeasure, *references: str) -> str:
    """Return a score and the same of other images, with slashes between."""
    values = [measure.value, *(measure.references.get(reference) for reference in references)]
    return " / ".join(format_score_mean(report, name, value) for value in values)


def find_score_name(report: ClassReport, label: str, network: str) -> str:
    """Return the name of the score with this label by this network; empty where there is none."""
    names = (name for name, metric in report.metrics.items() if (metric.label, metric.network) == (label, network))
    return next(names, "")


def list_image_scores(report: ClassReport) -> list[str]:
    """Return the names of scores of nearness of single images to private ones."""
    labels = (DISTANCE, PSNR, SSIM, AUC)
    return [name for name in _score_names(report) if report.metrics[name].label.startswith(labels)]


def list_set_scores(report: ClassReport) -> list[str]:
    """Return the names of scores of many images at once."""
    return [name for name in _score_names(report) if report.metrics[name].of_set]


def list_unavailable(rows: Iterable[ClassRow]) -> list[str]:
    """Return which scores are not available, and why."""
    lines = (
        f"{name} is not available: {reason}{'' if measure.value is None else ' (in some seeds)'}"
        for row in rows
        for name, measure in row.scores.items()
        for reason in measure.reasons
    )
    return list(dict.fromkeys(lines))


def describe_figure(name: str) -> str:
    """Return the meaning of a figure that an attack reports.

    Example:
        >>> describe_figure("learning_rate"), describe_figure("some_figure")
        ('rate', 'some figure')
    """
    return _FIGURES.get(name, name.replace("_", " "))


def describe_rules(row: ClassRow) -> str:
    """Return the rules by which gradients passed sparse layers; nothing where there are no sparse layers."""
    if not any(name.startswith("gradient_cosine") for name in row.diagnostics):
        return ""
    seeds = {rule: "" if row.seeds == 1 else f" ({count} of {row.seeds} seeds)" for rule, count in row.rules.items()}
    return ", ".join(f"{rule}{words}" for rule, words in seeds.items())


def describe_prior_knowledge(prior: str | None, known: Iterable[str], attacked: Iterable[str]) -> str:
    """Return whether a prior was trained on the attacked classes; nothing where it is not known to.

    Example:
        >>> describe_prior_knowledge("p", ["Bag"], ["Bag"]), describe_prior_knowledge("p", [], ["Bag"])
        ('knows the attacked classes', '')
        >>> describe_prior_knowledge("p", ["Bag"], ["Bag", "Coat"])
        'knows attacked classes: Bag'
    """
    classes = list(known)
    if prior is None or not classes:
        return ""
    whole = set(attacked) <= set(classes)
    return "knows the attacked classes" if whole else f"knows attacked classes: {', '.join(classes)}"


def describe_prior(prior: PriorFacts, attacked: Iterable[str]) -> dict[str, str]:
    """Return facts of a prior, a column of the table each."""
    overlap = "not known" if prior.overlap is None else "none"
    if prior.overlap:
        overlap = ", ".join(f"{count:,} of {split}" for split, count in prior.overlap.items())
    unknown = "not known" if prior.classes is None else "no"
    images = prior.training_images
    return {
        "trained on": prior.trained_on or "not known",
        "images": "not known" if images is None else f"{images:,}",
        "classes it was trained on": "not known" if prior.classes is None else ", ".join(prior.classes) or "none",
        "knows attacked classes": describe_prior_knowledge(prior.name, prior.known_classes, attacked) or unknown,
        "images shared with": overlap,
    }


def describe_evaluators(evaluators: Iterable[Evaluator]) -> str:
    """Return the accuracy of the evaluators, and their answers for images of no class."""
    clauses = [
        f"{each.name} recognizes {format_mean(each.accuracy, 3)} of the test images"
        + (
            f" and puts {format_mean(each.shuffled_patches, 3)} of images of shuffled patches into one attacked class"
            if each.shuffled_patches
            else ""
        )
        for each in evaluators
    ]
    return f"Evaluators: {'; '.join(clauses)}." if clauses else "No evaluators were recorded."


def describe_classes(report: ClassReport) -> str:
    """Return the attacked classes, and with how many images of each the answers were compared."""
    if not report.classes:
        return "Which classes were attacked was not recorded."
    sizes = " or ".join(f"{size:,}" for size in report.pools)
    return (
        f"Attacked classes: {', '.join(report.classes)}. Compared with {sizes} private images of each, "
        f"and as many never-seen ones."
    )


def describe_pairing(report: ClassReport) -> str:
    """Return the rule by which an image is compared with a private one."""
    return f"PSNR and SSIM to the {'; '.join(report.pairings) or f'nearest private image, by a rule {MISSING}'}."


def _score_names(report: ClassReport) -> list[str]:
    names = dict.fromkeys(name for row in report.measured for name in row.scores)
    return [name for name in names if name in report.metrics]
