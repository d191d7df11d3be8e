"""Adversaries: what an attack knows and how many queries an image it has; their order, and what was chosen for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparseguard.record import FeatureInversionAttack, MetricDescription, Record

KNOWLEDGE = ("black-box", "gray-box", "white-box")


@dataclass(frozen=True)
class Adversary:
    """Knowledge of an attack, and its number of queries for each private image."""

    knowledge: str
    queries: int = 1

    @property
    def label(self) -> str:
        """The adversary in a few words.

        Example:
            >>> Adversary("black-box").label, Adversary("black-box", 16).label
            ('black-box', 'black-box, 16 queries')
        """
        return self.knowledge if self.queries == 1 else f"{self.knowledge}, {self.queries} queries"


BLACK_BOX = Adversary("black-box")


def list_adversaries(record: Record) -> list[Adversary]:
    """Return the adversaries for which a record has chosen attacks."""
    chosen = record.feature_inversion.chosen if record.feature_inversion else []
    return list(dict.fromkeys(Adversary(choice.knowledge, choice.queries) for choice in chosen))


def sort_adversaries(adversaries: Iterable[Adversary]) -> list[Adversary]:
    """Return different adversaries by what they know, then by their queries.

    Example:
        >>> [each.label for each in sort_adversaries([Adversary("white-box"), Adversary("black-box", 16), BLACK_BOX])]
        ['black-box', 'black-box, 16 queries', 'white-box']
    """

    def rank(adversary: Adversary) -> tuple[int, str, int]:
        known = adversary.knowledge in KNOWLEDGE
        return KNOWLEDGE.index(adversary.knowledge) if known else len(KNOWLEDGE), adversary.knowledge, adversary.queries

    return sorted(set(adversaries), key=rank)


def find_chosen_attack(record: Record, adversary: Adversary | None, metric: str) -> FeatureInversionAttack | None:
    """Return the attack chosen for an adversary and a metric; never a floor or a control."""
    if record.feature_inversion is None or adversary is None:
        return None
    attack = record.feature_inversion.choice(adversary.knowledge, adversary.queries, metric)
    return attack if attack and attack.eligible and not attack.floor else None


def select_main_metrics(records: Iterable[Record]) -> dict[str, MetricDescription]:
    """Return the metrics of the main tables: those that attacks are chosen by, else all metrics of single images."""
    fallback: dict[str, MetricDescription] = {}
    for record in records:
        outcome = record.feature_inversion
        if outcome is None:
            continue
        chosen = {choice.metric for choice in outcome.chosen}
        metrics = {name: metric for name, metric in outcome.metrics.items() if name in chosen}
        if metrics:
            return metrics
        fallback = fallback or {
            name: metric for name, metric in outcome.metrics.items() if not metric.of_set and metric.network is None
        }
    return fallback
