"""Titles and sentences of threats, for records and reports."""

from __future__ import annotations

from sparseguard.pipeline.recipe.entries import Threat
from sparseguard.record import ThreatDescription

_SENTENCES = {
    "end-to-end": "The attacker sees the output of the last hidden layer and wants each private image back.",
    "split": "The attacker sees the output of the first linear layer, as the server does in split inference, "
    "and wants each private image back.",
    "plug-and-play": "The attacker has the weights and searches a generator for images of each class.",
}
_TITLES = {"plug-and-play": "Plug & Play"}


def describe_threat(threat: Threat) -> ThreatDescription:
    """Return a threat's goal, title and sentence; a threat of another name is that of an audit."""
    audited = f"The attacker sees what the model puts out at '{threat.tap}' and wants each private image back."
    return ThreatDescription(
        goal=threat.goal,
        title=_TITLES.get(threat.name, threat.name),
        sentence=_SENTENCES.get(threat.name, audited),
    )
