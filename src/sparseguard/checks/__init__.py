"""Checks of the evaluation itself: what would make its numbers untrue."""

from __future__ import annotations

from sparseguard.checks.attacks import (
    at_its_floor,
    attack_did_not_learn,
    memorization,
    no_better_than_mean,
    not_finite,
    out_of_range,
    still_improving,
    unseen_leak_more,
    worse_than_ridge,
)
from sparseguard.checks.class_attacks import (
    confidence_not_raised,
    evaluators_fooled,
    evaluators_weak,
    loss_at_clamp,
    mode_collapse,
    prior_knows_classes,
    prior_overlap,
    prior_unknown,
    prior_unrelated,
)
from sparseguard.checks.controls import (
    gradient_cosine_low,
    hidden_gradients,
    more_data_helps,
    optimizer_stuck,
    repeats_no_better,
    shuffled_as_good,
)
from sparseguard.checks.evidence import Check, Evidence
from sparseguard.checks.target import (
    defense_inactive,
    duplicates_across_splits,
    target_at_majority,
    target_changed,
    target_not_converged,
)
from sparseguard.core.component_table import ComponentTable

REVISION = 4

_BUILTIN = {
    "target-changed": Check(
        raised_when="the hash of the target's parameters and buffers differs before and after the attacks",
        meaning="an attack wrote to the model; accuracy and leak belong to different models",
        find=target_changed,
    ),
    "target-at-majority": Check(
        raised_when="the target is not more accurate than always answering the most frequent class of test",
        meaning="the target learned nothing; a model that knows nothing is easy to defend",
        find=target_at_majority,
    ),
    "target-not-converged": Check(
        raised_when="the target's best held-out accuracy rose by more than 0.01 in the last fifth of its epochs, "
        "at least the last one",
        meaning="it would learn more, and a better trained one may leak otherwise; its accuracy understates the model",
        find=target_not_converged,
    ),
    "defense-inactive": Check(
        raised_when="a defense that adds noise gave the same answer twice, or its stages are not at work",
        meaning="the attack was run against an undefended model",
        find=defense_inactive,
    ),
    "duplicates-across-parts": Check(
        raised_when="a private image is also, pixel by pixel, in another part",
        meaning="an attacker may have it already, or test is no unseen data; the leak is overstated",
        find=duplicates_across_splits,
    ),
    "attacker-did-not-learn": Check(
        raised_when="an attacker that has parameters ended with the ones it started from",
        meaning="its reconstructions are those of an untrained network and say nothing about the defense",
        find=attack_did_not_learn,
    ),
    "still-improving": Check(
        raised_when="an attacker chosen for PSNR gained more than 0.1 dB on auxiliary_val in the last fifth of its "
        "epochs, at least the last one",
        meaning="its training was cut short; the row understates the leak",
        find=still_improving,
    ),
    "more-data-helps": Check(
        raised_when="with half of the attacker's images the attack loses more than 0.3 dB on private images",
        meaning="with twice the images it would find more; the row understates the leak",
        find=more_data_helps,
    ),
    "no-better-than-mean": Check(
        raised_when="a chosen attacker's mean PSNR on private images is not above the mean image's",
        meaning="no leak was measured; either the defense is perfect or the attack failed, and the record cannot tell",
        find=no_better_than_mean,
    ),
    "at-its-floor": Check(
        raised_when="an attacker chosen for PSNR is less than 0.1 dB above the best floor on private images",
        meaning="the score is saturated; defenses with this flag cannot be ranked among each other by it",
        find=at_its_floor,
    ),
    "worse-than-ridge": Check(
        raised_when="an attacker chosen for PSNR is below ridge on the private images",
        meaning="the choice on auxiliary_val did not carry over; the row understates the leak",
        find=worse_than_ridge,
    ),
    "shuffled-as-good": Check(
        raised_when="an attack that learned from other images' features is not surely worse on private images "
        "than the one with the right features",
        meaning="the features carry nothing the attack used, or the attack ignores them; its score is no leak",
        find=shuffled_as_good,
    ),
    "repeats-no-better": Check(
        raised_when="against a defense that adds noise, the attacker chosen with repeated queries is not surely better "
        "on private images than the one without",
        meaning="it was trained badly, or the noise is not fresh at every query, or too small to matter",
        find=repeats_no_better,
    ),
    "hidden-gradients": Check(
        raised_when="the attacker chosen with the weights is surely worse on the same private images than the one "
        "with outputs only, or its gradients are exactly zero",
        meaning="the defense hides gradients, or the search failed; more knowledge cannot leak less",
        find=hidden_gradients,
    ),
    "gradient-cosine-low": Check(
        raised_when="unrolled and implicit gradients through the sparse layers have a mean cosine below 0.5",
        meaning="a search by gradients follows a wrong direction; that it finds little says nothing",
        find=gradient_cosine_low,
    ),
    "optimizer-stuck": Check(
        raised_when="a search with the weights ended, in the median private image, further from the given features "
        "than 0.01 of their standard deviation and than the noise at the tap, and below 30 dB",
        meaning="it found neither an image with these features nor the right one; a better search may find more",
        find=optimizer_stuck,
    ),
    "memorization": Check(
        raised_when="an attacker chosen for PSNR is better on private than on test images, by more than 0.2 dB and "
        "more than 3 standard errors",
        meaning="the target remembers its training images; what leaks of them is not only how invertible it is",
        find=memorization,
    ),
    "unseen-leak-more": Check(
        raised_when="an attacker chosen for PSNR is better on test than on private images, by more than 0.2 dB and "
        "more than 3 standard errors",
        meaning="training set the private images' features apart; one who has the weights, or some of the private "
        "images, may find more than the row says",
        find=unseen_leak_more,
    ),
    "prior-overlap": Check(
        raised_when="an attack's prior was trained on images of the data set that no attacker has: of select or test",
        meaning="it knows images that should be never-seen ones; the comparison with unseen images is wrong",
        find=prior_overlap,
    ),
    "prior-unknown": Check(
        raised_when="an attack's prior has no list of the images it was trained on",
        meaning="they may be private ones; what it makes may be copies, and success shows no leak",
        find=prior_unknown,
    ),
    "prior-knows-classes": Check(
        raised_when="an attack's prior has seen a class under attack, or does not say which classes it has seen",
        meaning="that it makes images of the class shows no leak by itself; look at the comparison with chance",
        find=prior_knows_classes,
    ),
    "prior-unrelated": Check(
        raised_when="more than half of the prior's samples are further from the nearest private image, and from the "
        "nearest image of the attacker's, than 95 % of these are from each other, in an evaluator's features",
        meaning="the prior makes something else; that an attack with it fails says nothing about the defense",
        find=prior_unrelated,
    ),
    "confidence-not-raised": Check(
        raised_when="the target is no surer of the answer's best image than of the best candidate, averaged over "
        "classes, and less than 0.99 sure",
        meaning="the search by gradients did not work; they may be hidden, or the rate wrong",
        find=confidence_not_raised,
    ),
    "mode-collapse": Check(
        raised_when="the images of some class differ from each other less than a tenth of how private ones do",
        meaning="one image was returned many times; scores of sets mean little, and variation is understated",
        find=mode_collapse,
    ),
    "loss-at-clamp": Check(
        raised_when="at the last step the Poincaré loss of more than a tenth of the images was at its clamp",
        meaning="no gradient reaches them there; choose another loss",
        find=loss_at_clamp,
    ),
    "evaluators-fooled": Check(
        raised_when="an evaluator's attack accuracy on noise the target is sure of, or on images of another class, is "
        "surely more than 0.1 above one in as many as classes are attacked",
        meaning="it takes patterns for the class; attack accuracy by it is not about what images show",
        find=evaluators_fooled,
    ),
    "evaluators-weak": Check(
        raised_when="an evaluator is less accurate on test than the target, by more than the target's standard error",
        meaning="it knows the classes less well than the model under attack; attack accuracy by it is understated",
        find=evaluators_weak,
    ),
    "out-of-range": Check(
        raised_when="an attack returned values outside [0, 1]",
        meaning="they were clipped before scoring; the attack should bound its output itself",
        find=out_of_range,
    ),
    "not-finite": Check(
        raised_when="a score is not finite",
        meaning="the score means nothing",
        find=not_finite,
    ),
}

CHECKS: ComponentTable[Check] = ComponentTable("sparseguard.checks", Check, _BUILTIN)


def find_flags(evidence: Evidence) -> dict[str, str]:
    """Return the message of every check that raises, by its name."""
    messages = {name: check.find(evidence) for name, check in CHECKS.items()}
    return {name: message for name, message in messages.items() if message is not None}


__all__ = ["CHECKS", "REVISION", "Check", "Evidence", "find_flags"]
