"""Scores of class inversion, each beside the same rule applied to other images."""

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
SHUFFLED = 500
"""Number of images of no class that evaluators classify."""
TOP = (1, 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledImages:
    """Images with the class each is scored for; evaluators' outputs are computed once."""

    images: Tensor
    labels: Tensor
    _features: dict[str, Tensor] = field(default_factory=dict)
    _logits: dict[str, Tensor] = field(default_factory=dict)

    def features(self, evaluator: Evaluator) -> Tensor:
        """Return the evaluator's features ``(n, d)``."""
        if evaluator.name not in self._features:
            self._features[evaluator.name] = evaluator.features(self.images)
        return self._features[evaluator.name]

    def logits(self, evaluator: Evaluator) -> Tensor:
        """Return the evaluator's logits."""
        if evaluator.name not in self._logits:
            self._logits[evaluator.name] = evaluator.logits(self.images)
        return self._logits[evaluator.name]

    def relabel(self, attacked: Sequence[int]) -> LabeledImages:
        """Return the same images, each labeled as the next of the attacked classes."""
        following = dict(zip(attacked, [*attacked[1:], attacked[0]], strict=True))
        labels = torch.tensor([following[int(label)] for label in self.labels])
        return LabeledImages(images=self.images, labels=labels, _features=self._features, _logits=self._logits)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackImages:
    """Images of one attack, and those they are compared with.

    Args:
        answer: the selected images.
        starts: as many candidates a class, those with the highest confidence before the search.
        optimized: all images before selection.
        chance: images without an attack, as many as the answer, of the same classes.
    """

    answer: LabeledImages
    starts: LabeledImages
    optimized: LabeledImages
    chance: LabeledImages


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
        attacked: Sequence[int],
        evaluators: Sequence[Evaluator],
        network: FeatureNetwork | None,
        real: dict[str, Tensor],
        neighbours: int = 1,
    ) -> None:
        self.neighbours = neighbours
        self.splits, self.attacked, self.evaluators, self.network, self.real = (
            splits,
            tuple(attacked),
            evaluators,
            network,
            real,
        )
        source = torch.Generator().manual_seed(derive(purpose="pools of a class"))
        private, unseen = (_of_classes(part, self.attacked) for part in (splits.private, splits.test))
        indices, others = balanced_indices(private.labels, unseen.labels, source)
        self.private, self.unseen = _label(private.select(indices)), _label(unseen.select(others))
        self.pool = min(int((self.private.labels == label).sum()) for label in self.attacked)
        self.seen = "evaluators learned on the test images of layout 'paper'" if splits.layout == "paper" else None

    @cached_property
    def shuffled(self) -> Tensor:
        """Images of no class: test images of all classes, their patches of 7 x 7 pixels shuffled."""
        source = torch.Generator().manual_seed(derive(purpose="foreign images"))
        order = torch.randperm(len(self.splits.test), generator=source)[:SHUFFLED]
        return shuffled_patches(self.splits.test.batch(order), PATCH, source)

    @cached_property
    def preferred_fractions(self) -> dict[str, float]:
        """Of each evaluator, the share of foreign images it puts into the attacked class it puts most into."""
        answers = {evaluator.name: evaluator.logits(self.shuffled).argmax(1) for evaluator in self.evaluators}
        return {
            name: max(float((answer == label).double().mean()) for label in self.attacked)
            for name, answer in answers.items()
        }

    def scores(self, made: AttackImages) -> dict[str, ClassScore]:
        """Return every score by name."""
        found: dict[str, ClassScore] = {}
        for evaluator in self.evaluators:
            for k in TOP:
                if k < len(self.splits.private.classes):
                    found[f"attack accuracy@{k} ({evaluator.name})"] = self._accuracy(made, evaluator, k)
        for evaluator in self.evaluators:
            nearest = "" if self.neighbours == 1 else f" to {self.neighbours}"
            name = f"feature distance{nearest} ({evaluator.name})"
            found[name] = self._compare(made, partial(self._distance, evaluator))
        pairing = self.evaluators[0].name
        found[f"PSNR to nearest ({pairing})"] = self._compare(made, lambda one, real: self._paired(one, real, psnr))
        found[f"SSIM to nearest ({pairing})"] = self._compare(made, lambda one, real: self._paired(one, real, ssim))
        for evaluator in self.evaluators:
            found[f"AUC private or unseen ({evaluator.name})"] = self._auc(made, evaluator)
        return found | self._sets(made)

    def describe(self, name: str) -> MetricDescription:
        """Return the description of one of the scores."""
        sets = {} if self.network is None else describe_set_metrics(map(self.network.label, SET_METRICS))
        return sets.get(name) or describe_class_metric(name)

    def agreement(self, made: AttackImages) -> EvaluatorAgreement:
        """Return how far the first two evaluators agree on which images are of their class."""
        first, second = (
            attack_accuracy(made.answer.logits(evaluator), made.answer.labels) for evaluator in self.evaluators[:2]
        )
        return EvaluatorAgreement(fraction=agreement(first, second), kappa=cohen_kappa(first, second))

    def class_accuracy(self, made: AttackImages, label: int) -> dict[str, float]:
        """Return each evaluator's attack accuracy @1 on one class."""
        own = made.answer.labels == label
        return {
            evaluator.name: float(
                attack_accuracy(made.answer.logits(evaluator)[own], made.answer.labels[own]).double().mean()
            )
            for evaluator in self.evaluators
        }

    def nearest(self, one: LabeledImages) -> Tensor:
        """Return the private images that ``one`` is compared with."""
        return self.private.images[self._pairs(one, self.private)]

    def _accuracy(self, made: AttackImages, evaluator: Evaluator, k: int) -> ClassScore:
        def share(one: LabeledImages) -> Tensor:
            return attack_accuracy(one.logits(evaluator), one.labels, k)

        def any_class(images: LabeledImages) -> float:
            """Return the mean over wanted classes of the share of images that are put into the class."""
            logits = images.logits(evaluator)
            shares = [attack_accuracy(logits, torch.full((len(logits),), label), k).mean() for label in self.attacked]
            return float(torch.stack(shares).double().mean())

        mean, low, high = class_mean_interval(share(made.answer), made.answer.labels)
        no_class = LabeledImages(images=self.shuffled, labels=torch.zeros(len(self.shuffled), dtype=torch.int64))
        return ClassScore(
            value=mean,
            ci95=(max(low, 0.0), min(high, 1.0)),
            n=len(made.answer.labels),
            chance=any_class(made.chance),
            other_class=self._other_class_mean(made, share),
            starts=float(share(made.starts).double().mean()),
            all_optimized=float(share(made.optimized).double().mean()),
            unseen=float(share(self.unseen).double().mean()) if self.seen is None else None,
            shuffled_patches=any_class(no_class),
        )

    def _compare(self, made: AttackImages, rule: Callable[[LabeledImages, LabeledImages], Tensor]) -> ClassScore:
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
        means["other_class"] = self._other_class_mean(made, lambda one: rule(one, self.private))
        return ClassScore.model_validate({"value": mean, "ci95": (low, high), "n": len(made.answer.labels), **means})

    def _other_class_mean(self, made: AttackImages, rule: Callable[[LabeledImages], Tensor]) -> float | None:
        """Return a rule's mean over the answer taken for other classes; None where there is one class only."""
        return float(rule(made.answer.relabel(self.attacked)).double().mean()) if len(self.attacked) > 1 else None

    def _distance(self, evaluator: Evaluator, one: LabeledImages, real: LabeledImages) -> Tensor:
        return feature_distance(
            one.features(evaluator), one.labels, real.features(evaluator), real.labels, self.neighbours
        )

    def _pairs(self, one: LabeledImages, real: LabeledImages) -> Tensor:
        evaluator = self.evaluators[0]
        return nearest_in_class(one.features(evaluator), one.labels, real.features(evaluator), real.labels)

    def _paired(self, one: LabeledImages, real: LabeledImages, metric: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return metric(one.images, real.images[self._pairs(one, real)])

    def _auc(self, made: AttackImages, evaluator: Evaluator) -> ClassScore:
        if self.seen is not None:
            return ClassScore(value=None, reason=self.seen, n=0)

        def told(one: LabeledImages) -> tuple[float, tuple[float, float], int]:
            found = private_auc(
                one.features(evaluator), one.labels,
                self.private.features(evaluator), self.private.labels,
                self.unseen.features(evaluator), self.unseen.labels,
            )  # fmt: skip
            return found.value, found.ci95, found.n_private + found.n_unseen

        value, interval, n = told(made.answer)
        return ClassScore(
            value=value,
            ci95=interval,
            n=n,
            chance=told(made.chance)[0],
            other_class=told(made.answer.relabel(self.attacked))[0] if len(self.attacked) > 1 else None,
            starts=told(made.starts)[0],
            all_optimized=told(made.optimized)[0],
        )

    def _sets(self, made: AttackImages) -> dict[str, ClassScore]:
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


def _of_classes(images: ImageSet, attacked: Sequence[int]) -> ImageSet:
    return images.select(torch.isin(images.labels, torch.tensor(attacked)).nonzero().squeeze(1))


def _label(images: ImageSet) -> LabeledImages:
    return LabeledImages(images=images.images, labels=images.labels)


__all__ = ["REVISION", "AttackImages", "ClassScores", "LabeledImages", "shuffled_patches"]
