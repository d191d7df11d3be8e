"""Checks of attacks on classes: the prior, the search, and those who judge."""

from __future__ import annotations

import math

from sparseguard.checks.evidence import Evidence, joined
from sparseguard.record import ClassAttacker, PriorFacts

ATTACKERS_OWN = ("auxiliary", "auxiliary_val")
SURE = 0.99
ALIKE = 0.1
"""Of the mean distance between private images of a class."""
CLAMPED = 0.1
FAR = 0.5
FOOLED = 0.1


def prior_overlap(evidence: Evidence) -> str | None:
    """Look for priors trained on images that nobody should have seen."""
    found = []
    for name, prior in _priors(evidence).items():
        shared = {part: n for part, n in (prior.overlap or {}).items() if part not in ATTACKERS_OWN}
        if shared:
            told = ", ".join(f"{n} of {part}" for part, n in shared.items())
            found.append(f"{name}: the prior '{prior.name}' was trained on images of the data set: {told}")
    return joined(found)


def prior_unknown(evidence: Evidence) -> str | None:
    """Look for priors of which nobody can say what they have seen."""
    return joined(
        f"{name}: what the prior '{prior.name}' was trained on is not known image by image"
        for name, prior in _priors(evidence).items()
        if prior.overlap is None
    )


def prior_knows_classes(evidence: Evidence) -> str | None:
    """Look for priors that have seen the classes under attack."""
    found = []
    for attacker in evidence.class_attacks():
        prior = attacker.prior
        if prior is not None and prior.classes is None:
            found.append(f"{attacker.name}: the prior '{prior.name}' does not say which classes it has seen")
        elif prior is not None and prior.knows:
            found.append(f"{attacker.name}: the prior '{prior.name}' has seen {', '.join(prior.knows)}")
    return joined(found)


def prior_unrelated(evidence: Evidence) -> str | None:
    """Look for priors whose samples are far from private and from public images."""
    found = []
    for attacker in evidence.class_attacks():
        private, auxiliary = (attacker.notes.get(f"samples_far_from_{part}", 0.0) for part in ("private", "public"))
        if min(private, auxiliary) > FAR:
            found.append(
                f"{attacker.name}: {private:.0%} of the prior's samples are far from all private images, "
                f"{auxiliary:.0%} from all of the attacker's"
            )
    return joined(found)


def confidence_not_raised(evidence: Evidence) -> str | None:
    """Compare the target's confidence in the best images of the answer with that in the best candidates."""
    found = []
    for attacker in evidence.class_attacks():
        facts = attacker.classes.values()
        final = sum(one.best for one in facts) / len(facts)
        start = sum(one.best_start for one in facts) / len(facts)
        if final <= start and final < SURE:
            found.append(
                f"{attacker.name}: confidence {final:.3f} of the best image, {start:.3f} of the best candidate"
            )
    return joined(found)


def mode_collapse(evidence: Evidence) -> str | None:
    """Look for answers that are one image many times."""
    return joined(
        f"{attacker.name}: images of a class differ {attacker.notes['diversity']:.3f} times as much as private ones"
        for attacker in evidence.class_attacks()
        if attacker.notes.get("diversity", 1.0) < ALIKE
    )


def loss_at_clamp(evidence: Evidence) -> str | None:
    """Look for searches that ended where the loss has no gradient."""
    return joined(
        f"{attacker.name}: the loss of {attacker.notes['at_clamp']:.0%} of the images is at its clamp"
        for attacker in evidence.class_attacks()
        if attacker.notes.get("at_clamp", 0.0) > CLAMPED
    )


def evaluators_fooled(evidence: Evidence) -> str | None:
    """Look at what evaluators make of images that show nothing, or another class."""
    return joined(message for attacker in evidence.class_attackers for message in _fooled(attacker))


def evaluators_weak(evidence: Evidence) -> str | None:
    """Compare evaluators with the target they judge."""
    if not evidence.class_attackers:
        return None
    target = evidence.target
    allowed = target.accuracy - math.sqrt(target.accuracy * (1 - target.accuracy) / target.accuracy_n)
    return joined(
        f"{name}: accuracy {accuracy:.3f}, the target's is {target.accuracy:.3f}"
        for name, accuracy in evidence.evaluators.items()
        if accuracy < allowed
    )


def _fooled(attacker: ClassAttacker) -> list[str]:
    limit = 1 / len(attacker.classes) + FOOLED
    found = []
    for name, score in attacker.scores.items():
        if not name.startswith("attack accuracy@1 "):
            continue
        what, share = "images of another class", score.other_class
        if attacker.control:
            what, share = "images without a prior", score.value
        if share is not None and share - 1.96 * math.sqrt(share * (1 - share) / max(score.n, 1)) > limit:
            found.append(f"{attacker.name}: {name} {share:.2f} of {what}, surely above {limit:.2f}")
    return found


def _priors(evidence: Evidence) -> dict[str, PriorFacts]:
    of_images = {attacker.name: attacker.prior for attacker in evidence.attackers}
    of_classes = {attacker.name: attacker.prior for attacker in evidence.class_attackers}
    return {name: prior for name, prior in (of_images | of_classes).items() if prior is not None}
