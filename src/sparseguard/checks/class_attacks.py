"""Checks of class inversion: the prior, the search, and the evaluators."""

from __future__ import annotations

import math

from sparseguard.checks.evidence import Evidence, join
from sparseguard.record import ClassInversionAttack, PriorFacts

AUXILIARY = ("auxiliary", "auxiliary_val")
SURE = 0.99
ALIKE = 0.1
"""Of the mean distance between private images of a class."""
CLAMPED = 0.1
FAR = 0.5
FOOLED = 0.1


def prior_overlap(evidence: Evidence) -> str | None:
    """Look for priors trained on images that nobody should have seen."""
    messages = []
    for name, prior in _priors(evidence).items():
        shared = {split: n for split, n in (prior.overlap or {}).items() if split not in AUXILIARY}
        if shared:
            counts = ", ".join(f"{n} of {split}" for split, n in shared.items())
            messages.append(f"{name}: the prior '{prior.name}' was trained on images of the data set: {counts}")
    return join(messages)


def prior_unknown(evidence: Evidence) -> str | None:
    """Look for priors of which nobody can say what they have seen."""
    return join(
        f"{name}: what the prior '{prior.name}' was trained on is not known image by image"
        for name, prior in _priors(evidence).items()
        if prior.overlap is None
    )


def prior_knows_classes(evidence: Evidence) -> str | None:
    """Look for priors that have seen the classes under attack."""
    messages = []
    for attack in evidence.class_inversions():
        prior = attack.prior
        if prior is not None and prior.classes is None:
            messages.append(f"{attack.name}: the prior '{prior.name}' does not say which classes it has seen")
        elif prior is not None and prior.known_classes:
            messages.append(f"{attack.name}: the prior '{prior.name}' has seen {', '.join(prior.known_classes)}")
    return join(messages)


def prior_unrelated(evidence: Evidence) -> str | None:
    """Look for priors whose samples are far from private and from auxiliary images."""
    messages = []
    for attack in evidence.class_inversions():
        private, auxiliary = (
            fraction or 0.0
            for fraction in (
                attack.diagnostics.samples_far_from_private,
                attack.diagnostics.samples_far_from_auxiliary,
            )
        )
        if min(private, auxiliary) > FAR:
            messages.append(
                f"{attack.name}: {private:.0%} of the prior's samples are far from all private images, "
                f"{auxiliary:.0%} from all of the attacker's"
            )
    return join(messages)


def confidence_not_raised(evidence: Evidence) -> str | None:
    """Compare the target's confidence in the best images of the answer with that in the best candidates."""
    messages = []
    for attack in evidence.class_inversions():
        results = attack.classes.values()
        final = sum(result.best_confidence for result in results) / len(results)
        start = sum(result.best_start_confidence for result in results) / len(results)
        if final <= start and final < SURE:
            messages.append(
                f"{attack.name}: confidence {final:.3f} of the best image, {start:.3f} of the best candidate"
            )
    return join(messages)


def mode_collapse(evidence: Evidence) -> str | None:
    """Look for answers that are one image many times."""
    return join(
        f"{attack.name}: images of a class differ {diversity:.3f} times as much as private ones"
        for attack in evidence.class_inversions()
        if (diversity := attack.diagnostics.diversity) is not None and diversity < ALIKE
    )


def loss_at_clamp(evidence: Evidence) -> str | None:
    """Look for searches that ended where the loss has no gradient."""
    return join(
        f"{attack.name}: the loss of {clamped:.0%} of the images is at its clamp"
        for attack in evidence.class_inversions()
        if (clamped := attack.diagnostics.clamped_fraction or 0.0) > CLAMPED
    )


def evaluators_fooled(evidence: Evidence) -> str | None:
    """Look at what evaluators make of images that show nothing, or another class."""
    return join(message for attack in evidence.class_attacks for message in _fooled(attack))


def evaluators_weak(evidence: Evidence) -> str | None:
    """Compare the evaluators' accuracy with the target's."""
    if not evidence.class_attacks:
        return None
    target = evidence.target
    allowed = target.accuracy - math.sqrt(target.accuracy * (1 - target.accuracy) / target.accuracy_n)
    return join(
        f"{name}: accuracy {evaluator.accuracy:.3f}, the target's is {target.accuracy:.3f}"
        for name, evaluator in evidence.evaluators.items()
        if evaluator.accuracy < allowed
    )


def _fooled(attack: ClassInversionAttack) -> list[str]:
    limit = 1 / len(attack.classes) + FOOLED
    messages = []
    for name, score in attack.scores.items():
        if not name.startswith("attack accuracy@1 "):
            continue
        images, fraction = "images of another class", score.other_class
        if attack.control:
            images, fraction = "images without a prior", score.value
        if fraction is not None and fraction - 1.96 * math.sqrt(fraction * (1 - fraction) / max(score.n, 1)) > limit:
            messages.append(f"{attack.name}: {name} {fraction:.2f} of {images}, surely above {limit:.2f}")
    return messages


def _priors(evidence: Evidence) -> dict[str, PriorFacts]:
    of_images = {attack.name: attack.prior for attack in evidence.attacks}
    of_classes = {attack.name: attack.prior for attack in evidence.class_attacks}
    return {name: prior for name, prior in (of_images | of_classes).items() if prior is not None}
