"""Sentences and number formats of attacks on classes."""

from __future__ import annotations

from collections.abc import Iterable

from sparseguard.record import PriorFacts
from sparseguard.report.analysis.aggregate import Spread
from sparseguard.report.analysis.class_sections import ClassSection, Judge
from sparseguard.report.analysis.class_summary import ClassMeasure, ClassRow
from sparseguard.report.text.wording import MISSING, number

ACCURACY, DISTANCE, AUC = "attack accuracy@1", "feature distance", "AUC private or unseen"
PSNR, SSIM = "PSNR to nearest", "SSIM to nearest"
_DIGITS = {"attack accuracy@": 3, "AUC ": 3, SSIM: 3, PSNR: 2}
_THREATS = {"plug-and-play": "Plug & Play"}
_COSINE = "gradient_cosine_"
_NOTES = {
    "learning_rate": "rate",
    "gradient_norm": "mean norm of the gradients at the start",
    "clamped_fraction": "share of images whose loss is at its clamp",
    "diversity": "how much images of a class differ, relative to private ones",
    "samples_far_from_private": "share of the prior's samples far from all private images",
    "samples_far_from_auxiliary": "share of the prior's samples far from all of the attacker's images",
}
COLUMNS = {
    "chance": "as many images made without an attack: samples of the same prior, or, where it makes none without, "
    "what the searches started from; for attack accuracy the share a class gets on average",
    "other_class": "the attack's own images, each taken for the next of the attacked classes",
    "starts": "what the searches started from: with a prior, candidates the target is surest of, without gradients",
    "all_optimized": "all images that were searched for, before the attack selected its answer",
    "unseen": "for attack accuracy real never-seen images of the class, the most to expect; for the others the same "
    "rule with never-seen images in place of private ones",
    "shuffled_patches": "images of no class: patches of real images, shuffled",
}
LEGEND = (
    "Attack accuracy is the share of an attack's images that an evaluator, a network no attack is shown, puts into the "
    "class they were made for. Compare it with chance, which is as many of the prior's samples made without an attack. "
    "High attack accuracy with a prior that has not seen the classes shows what the model gives away of a class, not "
    "of a person. AUC 0.5 means that the attack's images tell nothing about the training images themselves: they are "
    "no nearer to private images than to never-seen ones."
)


def title(section: ClassSection) -> str:
    """Return what a section is called."""
    threat = _THREATS.get(section.threat, section.threat)
    return f"Classes: {threat} · {section.dataset} · {section.backbone}"


def kind_of(name: str) -> tuple[str, str]:
    """Return what a score measures and by which network.

    Example:
        >>> kind_of("feature distance (pooling)"), kind_of("FD(fashion-net)"), kind_of("FID")
        (('feature distance', 'pooling'), ('FD', 'fashion-net'), ('FID', ''))
    """
    kind, _, network = name.removesuffix(")").partition("(")
    return kind.strip(), network


def figure_of(name: str, value: float | None) -> str:
    """Return a score's value in its format.

    Example:
        >>> figure_of("PSNR to nearest (pooling)", 12.345), figure_of("FD(net)", 123.456), figure_of("FID", None)
        ('12.35', '123.5', 'n/a')
    """
    if value is None:
        return "n/a"
    digits = next((digits for start, digits in _DIGITS.items() if name.startswith(start)), None)
    return f"{value:.4g}" if digits is None else number(value, digits)


def mean_of(name: str, value: Spread | None) -> str:
    """Return the mean over seeds in a score's format."""
    return figure_of(name, value.mean if value else None)


def slashed(name: str, measure: ClassMeasure, *variants: str) -> str:
    """Return a score and the same of other images, with slashes between."""
    return " / ".join([mean_of(name, measure.value), *(mean_of(name, measure.beside.get(one)) for one in variants)])


def names_of(rows: Iterable[ClassRow]) -> list[str]:
    """Return the names of all scores of rows."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def set_names(rows: Iterable[ClassRow]) -> list[str]:
    """Return the names of scores of many images at once."""
    own = (ACCURACY[:-1], DISTANCE, AUC, PSNR, SSIM)
    return [name for name in names_of(rows) if not name.startswith(own)]


def unavailable(rows: Iterable[ClassRow]) -> list[str]:
    """Return which scores are not available, and why."""
    found = (
        f"{name} is not available: {reason}{'' if measure.value is None else ' (in some seeds)'}"
        for row in rows
        for name, measure in row.scores.items()
        for reason in measure.reasons
    )
    return list(dict.fromkeys(found))


def note_words(name: str) -> str:
    """Return what a figure of an attack is.

    Example:
        >>> note_words("learning_rate"), note_words("gradient_cosine_implicit"), note_words("some_figure")
        ('rate', 'cosine of gradients: unrolled, implicit', 'some figure')
    """
    if name.startswith(_COSINE):
        return f"cosine of gradients: unrolled, {name.removeprefix(_COSINE).replace('_', '-')}"
    return _NOTES.get(name, name.replace("_", " "))


def rule_words(row: ClassRow) -> str:
    """Return by which rules gradients passed sparse layers; nothing where there are none, so no rules to compare."""
    if not any(name.startswith(_COSINE) for name in row.diagnostics):
        return ""
    seeds = {rule: "" if row.seeds == 1 else f" ({count} of {row.seeds} seeds)" for rule, count in row.rules.items()}
    return ", ".join(f"{rule}{words}" for rule, words in seeds.items())


def knows_words(prior: str | None, knows: Iterable[str], attacked: Iterable[str]) -> str:
    """Return whether a prior knows the attacked classes; nothing where it is not known to.

    Example:
        >>> knows_words("p", ["Bag"], ["Bag"]), knows_words("p", [], ["Bag"])
        ('knows the attacked classes', '')
        >>> knows_words("p", ["Bag"], ["Bag", "Coat"])
        'knows attacked classes: Bag'
    """
    known = list(knows)
    if prior is None or not known:
        return ""
    whole = set(attacked) <= set(known)
    return "knows the attacked classes" if whole else f"knows attacked classes: {', '.join(known)}"


def prior_words(prior: PriorFacts, attacked: Iterable[str]) -> dict[str, str]:
    """Return what is known of a prior, a column of the table each."""
    overlap = "not known" if prior.overlap is None else "none"
    if prior.overlap:
        overlap = ", ".join(f"{count:,} of {part}" for part, count in prior.overlap.items())
    unknown = "not known" if prior.classes is None else "no"
    return {
        "trained on": prior.trained_on or "not told",
        "images": "not known" if prior.training_images is None else f"{prior.training_images:,}",
        "classes it has seen": "not known" if prior.classes is None else ", ".join(prior.classes) or "none",
        "knows attacked classes": knows_words(prior.name, prior.known_classes, attacked) or unknown,
        "images shared with": overlap,
    }


def judge_sentence(judges: Iterable[Judge]) -> str:
    """Return how good the evaluators are, and what they make of images of no class."""
    told = [
        f"{one.name} recognizes {_spread(one.accuracy)} of the test images"
        + (f" and puts {_spread(one.foreign)} of foreign images into one attacked class" if one.foreign else "")
        for one in judges
    ]
    return f"Evaluators: {'; '.join(told)}." if told else "No evaluators were recorded."


def pool_sentence(section: ClassSection) -> str:
    """Return which classes were attacked, and how many images of each were compared with."""
    if not section.classes:
        return "Which classes were attacked was not recorded."
    sizes = " or ".join(f"{size:,}" for size in section.pools)
    return (
        f"Attacked classes: {', '.join(section.classes)}. Compared with {sizes} private images of each, "
        f"and as many never-seen ones."
    )


def pairing_sentence(section: ClassSection) -> str:
    """Return the rule by which an image is compared with a private one."""
    return f"PSNR and SSIM to the {'; '.join(section.pairings) or f'nearest private image, by a rule {MISSING}'}."


def agreement_words(row: ClassRow) -> str:
    """Return how far the evaluators agree.

    Example: share 0.9, kappa 0.8 is ``0.900 (kappa 0.800)``.
    """
    share, kappa = row.agreement.get("share"), row.agreement.get("kappa")
    if share is None:
        return "n/a"
    return f"{_spread(share)} (kappa {_spread(kappa) if kappa else 'not defined'})"


def _spread(value: Spread | None) -> str:
    if value is None:
        return MISSING
    return number(value.mean, 3) + ("" if value.std is None else f" ± {number(value.std, 3)}")
