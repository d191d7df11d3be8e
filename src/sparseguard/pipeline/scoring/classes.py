"""Scores of images made by attacks on classes, each beside what the same rule says of other images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from sparseguard.core.seeding import derive
from sparseguard.metrics import FeatureNetwork, psnr, ssim
from sparseguard.metrics.model_inversion import (
    agreement,
    attack_accuracy,
    balanced_indices,
    class_mean_interval,
    cohen_kappa,
    feature_distance,
    nearest_in_class,
    private_auc,
)
from sparseguard.pipeline.scoring.descriptions import describe_class_metric, describe_set_metrics
from sparseguard.pipeline.scoring.distributions import NAMES as SET_METRICS
from sparseguard.pipeline.scoring.distributions import set_scores
from sparseguard.pipeline.scoring.evaluators import Evaluator
from sparseguard.record import ClassScore, EvaluatorAgreement, MetricDescription
from sparseguard.types import ImageSet, Splits

REVISION = 2
PATCH = 7
FOREIGN = 500
"""Images of no class that evaluators are shown."""
TOP = (1, 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Images and the class each is taken for; evaluators' answers are computed once."""

    images: Tensor
    labels: Tensor
    _features: dict[str, Tensor] = field(default_factory=dict)
    _logits: dict[str, Tensor] = field(default_factory=dict)

    def features(self, judge: Evaluator) -> Tensor:
        """Return the evaluator's features ``(n, d)``."""
        if judge.name not in self._features:
            self._features[judge.name] = judge.features(self.images)
        return self._features[judge.name]

    def logits(self, judge: Evaluator) -> Tensor:
        """Return the evaluator's logits."""
        if judge.name not in self._logits:
            self._logits[judge.name] = judge.logits(self.images)
        return self._logits[judge.name]

    def relabelled(self, wanted: Sequence[int]) -> Labelled:
        """Return the same images, each taken for the next of the wanted classes."""
        following = dict(zip(wanted, [*wanted[1:], wanted[0]], strict=True))
        labels = torch.tensor([following[int(label)] for label in self.labels])
        return Labelled(images=self.images, labels=labels, _features=self._features, _logits=self._logits)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What an attack made, and what it is compared with.

    Args:
        answer: the images it answered with.
        starts: as many candidates a class, those the target is surest of before any search.
        optimized: all it searched for.
        chance: images made without an attack, as many as the answer, of the same classes.
    """

    answer: Labelled
    starts: Labelled
    optimized: Labelled
    chance: Labelled


class ClassScores:
    """Scores the attacks of one case.

    Args:
        splits: the images.
        wanted: indices of the attacked classes.
        judges: evaluators; the first one's features pair images.
        network: whose features sets are compared in; None: such scores are left out.
        real: keeps features of real images from case to case.
        neighbours: how many private images a feature distance is a mean over.
    """

    def __init__(
        self,
        splits: Splits,
        wanted: Sequence[int],
        judges: Sequence[Evaluator],
        network: FeatureNetwork | None,
        real: dict[str, Tensor],
        neighbours: int = 1,
    ) -> None:
        self.neighbours = neighbours
        self.splits, self.wanted, self.judges, self.network, self.real = splits, tuple(wanted), judges, network, real
        source = torch.Generator().manual_seed(derive(purpose="pools of a class"))
        private, unseen = (_of_classes(part, self.wanted) for part in (splits.private, splits.test))
        places, others = balanced_indices(private.labels, unseen.labels, source)
        self.private, self.unseen = _labelled(private.select(places)), _labelled(unseen.select(others))
        self.pool = min(int((self.private.labels == label).sum()) for label in self.wanted)
        self.seen = "evaluators learned on the test images of layout 'paper'" if splits.layout == "paper" else None

    @cached_property
    def foreign(self) -> Tensor:
        """Images of no class: test images of all classes, their patches of 7 x 7 pixels shuffled."""
        source = torch.Generator().manual_seed(derive(purpose="foreign images"))
        order = torch.randperm(len(self.splits.test), generator=source)[:FOREIGN]
        return shuffled_patches(self.splits.test.batch(order), PATCH, source)

    @cached_property
    def preferred(self) -> dict[str, float]:
        """Of each evaluator, the share of foreign images it puts into the attacked class it puts most into."""
        answers = {judge.name: judge.logits(self.foreign).argmax(1) for judge in self.judges}
        return {
            name: max(float((answer == label).double().mean()) for label in self.wanted)
            for name, answer in answers.items()
        }

    def scores(self, made: Made) -> dict[str, ClassScore]:
        """Return every score by name."""
        found: dict[str, ClassScore] = {}
        for judge in self.judges:
            for k in TOP:
                if k < len(self.splits.private.classes):
                    found[f"attack accuracy@{k} ({judge.name})"] = self._accuracy(made, judge, k)
        for judge in self.judges:
            nearest = "" if self.neighbours == 1 else f" to {self.neighbours}"
            name = f"feature distance{nearest} ({judge.name})"
            found[name] = self._beside(made, partial(self._distance, judge))
        pairing = self.judges[0].name
        found[f"PSNR to nearest ({pairing})"] = self._beside(made, lambda one, real: self._paired(one, real, psnr))
        found[f"SSIM to nearest ({pairing})"] = self._beside(made, lambda one, real: self._paired(one, real, ssim))
        for judge in self.judges:
            found[f"AUC private or unseen ({judge.name})"] = self._auc(made, judge)
        return found | self._sets(made)

    def describe(self, name: str) -> MetricDescription:
        """Return the description of one of the scores."""
        sets = {} if self.network is None else describe_set_metrics(map(self.network.label, SET_METRICS))
        return sets.get(name) or describe_class_metric(name)

    def agreement(self, made: Made) -> EvaluatorAgreement:
        """Return how far the first two evaluators agree on which images are of their class."""
        first, second = (attack_accuracy(made.answer.logits(judge), made.answer.labels) for judge in self.judges[:2])
        return EvaluatorAgreement(fraction=agreement(first, second), kappa=cohen_kappa(first, second))

    def class_accuracy(self, made: Made, label: int) -> dict[str, float]:
        """Return each evaluator's attack accuracy @1 on one class."""
        own = made.answer.labels == label
        return {
            judge.name: float(attack_accuracy(made.answer.logits(judge)[own], made.answer.labels[own]).double().mean())
            for judge in self.judges
        }

    def nearest(self, one: Labelled) -> Tensor:
        """Return the private images that ``one`` is compared with."""
        return self.private.images[self._pairs(one, self.private)]

    def _accuracy(self, made: Made, judge: Evaluator, k: int) -> ClassScore:
        def share(one: Labelled) -> Tensor:
            return attack_accuracy(one.logits(judge), one.labels, k)

        def any_class(images: Labelled) -> float:
            """Return the mean over wanted classes of the share of images that are put into the class."""
            logits = images.logits(judge)
            shares = [attack_accuracy(logits, torch.full((len(logits),), label), k).mean() for label in self.wanted]
            return float(torch.stack(shares).double().mean())

        mean, low, high = class_mean_interval(share(made.answer), made.answer.labels)
        nowhere = Labelled(images=self.foreign, labels=torch.zeros(len(self.foreign), dtype=torch.int64))
        return ClassScore(
            value=mean,
            ci95=(max(low, 0.0), min(high, 1.0)),
            n=len(made.answer.labels),
            chance=any_class(made.chance),
            other_class=self._of_other(made, share),
            starts=float(share(made.starts).double().mean()),
            all_optimized=float(share(made.optimized).double().mean()),
            unseen=float(share(self.unseen).double().mean()) if self.seen is None else None,
            shuffled_patches=any_class(nowhere),
        )

    def _beside(self, made: Made, rule: Callable[[Labelled, Labelled], Tensor]) -> ClassScore:
        mean, low, high = class_mean_interval(rule(made.answer, self.private), made.answer.labels)
        means: dict[str, float | None] = {
            name: float(rule(one, real).double().mean())
            for name, one, real in (
                ("chance", made.chance, self.private),
                ("starts", made.starts, self.private),
                ("all_optimized", made.optimized, self.private),
                ("unseen", made.answer, self.unseen),
            )
            if name != "unseen" or self.seen is None
        }
        means["other_class"] = self._of_other(made, lambda one: rule(one, self.private))
        return ClassScore.model_validate({"value": mean, "ci95": (low, high), "n": len(made.answer.labels), **means})

    def _of_other(self, made: Made, rule: Callable[[Labelled], Tensor]) -> float | None:
        """Return a rule's mean over the answer taken for other classes; None where there is one class only."""
        return float(rule(made.answer.relabelled(self.wanted)).double().mean()) if len(self.wanted) > 1 else None

    def _distance(self, judge: Evaluator, one: Labelled, real: Labelled) -> Tensor:
        return feature_distance(one.features(judge), one.labels, real.features(judge), real.labels, self.neighbours)

    def _pairs(self, one: Labelled, real: Labelled) -> Tensor:
        judge = self.judges[0]
        return nearest_in_class(one.features(judge), one.labels, real.features(judge), real.labels)

    def _paired(self, one: Labelled, real: Labelled, metric: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return metric(one.images, real.images[self._pairs(one, real)])

    def _auc(self, made: Made, judge: Evaluator) -> ClassScore:
        if self.seen is not None:
            return ClassScore(value=None, reason=self.seen, n=0)

        def told(one: Labelled) -> tuple[float, tuple[float, float], int]:
            found = private_auc(
                one.features(judge), one.labels,
                self.private.features(judge), self.private.labels,
                self.unseen.features(judge), self.unseen.labels,
            )  # fmt: skip
            return found.value, found.ci95, found.n_private + found.n_unseen

        value, interval, n = told(made.answer)
        return ClassScore(
            value=value,
            ci95=interval,
            n=n,
            chance=told(made.chance)[0],
            other_class=told(made.answer.relabelled(self.wanted))[0] if len(self.wanted) > 1 else None,
            starts=told(made.starts)[0],
            all_optimized=told(made.optimized)[0],
        )

    def _sets(self, made: Made) -> dict[str, ClassScore]:
        network = self.network
        if network is None:
            return {}
        found = {
            name: set_scores(one.images, real.images, network, self.real)
            for name, one, real in (
                ("value", made.answer, self.private),
                ("chance", made.chance, self.private),
                ("starts", made.starts, self.private),
                ("unseen", made.answer, self.unseen),
            )
            if name != "unseen" or self.seen is None
        }
        return {
            name: ClassScore.model_validate(
                {
                    **{variant: scores[name].value for variant, scores in found.items()},
                    "reason": one.reason,
                    "n": one.n,
                }
            )
            for name, one in found["value"].items()
        }


def shuffled_patches(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return ``(n, c, h, w)`` images whose patches of ``size`` pixels a side changed places, in each otherwise."""
    rows, columns = images.shape[2] // size, images.shape[3] // size
    out = images.clone()
    whole = out[:, :, : rows * size, : columns * size]
    patches = whole.unfold(2, size, size).unfold(3, size, size)  # (n, c, rows, columns, size, size)
    flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(len(images), rows * columns, *_patch(images, size))
    order = torch.rand(len(images), rows * columns, generator=generator).argsort(1)
    moved = flat.gather(1, order.view(len(images), -1, 1, 1, 1).expand_as(flat))
    back = moved.view(len(images), rows, columns, *_patch(images, size)).permute(0, 3, 1, 4, 2, 5)
    whole.copy_(back.reshape_as(whole))
    return out


def _patch(images: Tensor, size: int) -> tuple[int, int, int]:
    return images.shape[1], size, size


def _of_classes(images: ImageSet, wanted: Sequence[int]) -> ImageSet:
    return images.select(torch.isin(images.labels, torch.tensor(wanted)).nonzero().squeeze(1))


def _labelled(images: ImageSet) -> Labelled:
    return Labelled(images=images.images, labels=images.labels)


__all__ = ["REVISION", "ClassScores", "Labelled", "Made", "shuffled_patches"]
