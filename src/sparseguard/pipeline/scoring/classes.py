"""Scores of class inversion, each with the same metric on reference images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from sparseguard.pipeline.scoring.class_images import AttackImages, LabeledImages, shuffle_patches
from sparseguard.pipeline.scoring.descriptions import describe_class_metric, describe_set_metrics
from sparseguard.pipeline.scoring.distributions import NAMES as SET_METRICS
from sparseguard.pipeline.scoring.distributions import set_scores
from sparseguard.pipeline.scoring.evaluators import Evaluator
from sparseguard.record import ClassScore, EvaluatorAgreement, MetricDescription
from sparseguard.types import ImageSet, Splits

REVISION = 3
PATCH = 7
SHUFFLED = 500
"""Number of images with shuffled patches that evaluators classify."""
TOP = (1, 5)


class ClassScores:
    """Scores the attacks of one case.

    Args:
        splits: the images.
        attacked: indices of the attacked classes.
        evaluators: evaluators; the features of the first pair images.
        network: feature network of the set scores; None: no set scores.
        real: cache of real images' features, shared between cases.
        neighbors: number of private images that a feature distance is averaged over.
    """

    def __init__(
        self,
        splits: Splits,
        attacked: Sequence[int],
        evaluators: Sequence[Evaluator],
        network: FeatureNetwork | None,
        real: dict[str, Tensor],
        neighbors: int = 1,
    ) -> None:
        self.neighbors = neighbors
        self.splits, self.attacked, self.evaluators, self.network, self.real = (
            splits,
            tuple(attacked),
            evaluators,
            network,
            real,
        )
        generator = torch.Generator().manual_seed(derive(purpose="pools of a class"))
        private, unseen = (_select_classes(split, self.attacked) for split in (splits.private, splits.test))
        private_indices, unseen_indices = balanced_indices(private.labels, unseen.labels, generator)
        self.private, self.unseen = _label(private.select(private_indices)), _label(unseen.select(unseen_indices))
        self.pool = min(int((self.private.labels == label).sum()) for label in self.attacked)
        learned_test = splits.layout == "paper"
        self.unseen_unavailable = "evaluators learned on the test images of layout 'paper'" if learned_test else None

    @cached_property
    def shuffled(self) -> Tensor:
        """Images of no class: test images of all classes with shuffled patches of 7 x 7 pixels."""
        generator = torch.Generator().manual_seed(derive(purpose="foreign images"))
        order = torch.randperm(len(self.splits.test), generator=generator)[:SHUFFLED]
        return shuffle_patches(self.splits.test.batch(order), PATCH, generator)

    @cached_property
    def preferred_fractions(self) -> dict[str, float]:
        """Largest fraction of the shuffled images that an evaluator assigns to one attacked class, by evaluator."""
        predictions = {evaluator.name: evaluator.logits(self.shuffled).argmax(1) for evaluator in self.evaluators}
        return {
            name: max(float((predicted == label).double().mean()) for label in self.attacked)
            for name, predicted in predictions.items()
        }

    def scores(self, images: AttackImages) -> dict[str, ClassScore]:
        """Return every score by name."""
        scores: dict[str, ClassScore] = {}
        for evaluator in self.evaluators:
            for k in TOP:
                if k < len(self.splits.private.classes):
                    scores[f"attack accuracy@{k} ({evaluator.name})"] = self._accuracy(images, evaluator, k)
        for evaluator in self.evaluators:
            nearest = "" if self.neighbors == 1 else f" to {self.neighbors}"
            name = f"feature distance{nearest} ({evaluator.name})"
            scores[name] = self._compare(images, partial(self._distance, evaluator))
        pairing = self.evaluators[0].name
        scores[f"PSNR to nearest ({pairing})"] = self._compare(
            images, lambda subset, real: self._compare_nearest(subset, real, psnr)
        )
        scores[f"SSIM to nearest ({pairing})"] = self._compare(
            images, lambda subset, real: self._compare_nearest(subset, real, ssim)
        )
        for evaluator in self.evaluators:
            scores[f"AUC private or unseen ({evaluator.name})"] = self._auc(images, evaluator)
        return scores | self._sets(images)

    def describe(self, name: str) -> MetricDescription:
        """Return the description of one of the scores."""
        sets = {} if self.network is None else describe_set_metrics(map(self.network.label, SET_METRICS))
        return sets.get(name) or describe_class_metric(name)

    def agreement(self, images: AttackImages) -> EvaluatorAgreement:
        """Return how often the first two evaluators agree that an image is of its class."""
        first, second = (
            attack_accuracy(images.answer.logits(evaluator), images.answer.labels) for evaluator in self.evaluators[:2]
        )
        return EvaluatorAgreement(fraction=agreement(first, second), kappa=cohen_kappa(first, second))

    def class_accuracy(self, images: AttackImages, label: int) -> dict[str, float]:
        """Return each evaluator's attack accuracy @1 on one class."""
        own = images.answer.labels == label
        return {
            evaluator.name: float(
                attack_accuracy(images.answer.logits(evaluator)[own], images.answer.labels[own]).double().mean()
            )
            for evaluator in self.evaluators
        }

    def nearest(self, images: LabeledImages) -> Tensor:
        """Return the nearest private image of each image, in the features of the first evaluator."""
        return self.private.images[self._pair(images, self.private)]

    def _accuracy(self, images: AttackImages, evaluator: Evaluator, k: int) -> ClassScore:
        def hits(subset: LabeledImages) -> Tensor:
            return attack_accuracy(subset.logits(evaluator), subset.labels, k)

        def any_class(subset: LabeledImages) -> float:
            """Return the mean over attacked classes of the fraction of images assigned to the class."""
            logits = subset.logits(evaluator)
            fractions = [
                attack_accuracy(logits, torch.full((len(logits),), label), k).mean() for label in self.attacked
            ]
            return float(torch.stack(fractions).double().mean())

        mean, low, high = class_mean_interval(hits(images.answer), images.answer.labels)
        no_class = LabeledImages(images=self.shuffled, labels=torch.zeros(len(self.shuffled), dtype=torch.int64))
        return ClassScore(
            value=mean,
            ci95=(max(low, 0.0), min(high, 1.0)),
            n=len(images.answer.labels),
            chance=any_class(images.chance),
            other_class=self._other_class_mean(images, hits),
            starts=float(hits(images.starts).double().mean()),
            all_optimized=float(hits(images.optimized).double().mean()),
            unseen=float(hits(self.unseen).double().mean()) if self.unseen_unavailable is None else None,
            shuffled_patches=any_class(no_class),
        )

    def _compare(self, images: AttackImages, metric: Callable[[LabeledImages, LabeledImages], Tensor]) -> ClassScore:
        mean, low, high = class_mean_interval(metric(images.answer, self.private), images.answer.labels)
        means: dict[str, float | None] = {
            name: float(metric(subset, real).double().mean())
            for name, subset, real in (
                ("chance", images.chance, self.private),
                ("starts", images.starts, self.private),
                ("all_optimized", images.optimized, self.private),
                ("unseen", images.answer, self.unseen),
            )
            if name != "unseen" or self.unseen_unavailable is None
        }
        means["other_class"] = self._other_class_mean(images, lambda subset: metric(subset, self.private))
        return ClassScore.model_validate({"value": mean, "ci95": (low, high), "n": len(images.answer.labels), **means})

    def _other_class_mean(self, images: AttackImages, metric: Callable[[LabeledImages], Tensor]) -> float | None:
        """Return the mean of a metric over the answer relabeled with other classes; None with a single class."""
        return float(metric(images.answer.relabel(self.attacked)).double().mean()) if len(self.attacked) > 1 else None

    def _distance(self, evaluator: Evaluator, images: LabeledImages, real: LabeledImages) -> Tensor:
        return feature_distance(
            images.features(evaluator), images.labels, real.features(evaluator), real.labels, self.neighbors
        )

    def _pair(self, images: LabeledImages, real: LabeledImages) -> Tensor:
        evaluator = self.evaluators[0]
        return nearest_in_class(images.features(evaluator), images.labels, real.features(evaluator), real.labels)

    def _compare_nearest(
        self, images: LabeledImages, real: LabeledImages, metric: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        return metric(images.images, real.images[self._pair(images, real)])

    def _auc(self, images: AttackImages, evaluator: Evaluator) -> ClassScore:
        if self.unseen_unavailable is not None:
            return ClassScore(value=None, reason=self.unseen_unavailable, n=0)

        def measure(subset: LabeledImages) -> tuple[float, tuple[float, float], int]:
            auc = private_auc(
                subset.features(evaluator), subset.labels,
                self.private.features(evaluator), self.private.labels,
                self.unseen.features(evaluator), self.unseen.labels,
            )  # fmt: skip
            return auc.value, auc.ci95, auc.n_private + auc.n_unseen

        value, interval, n = measure(images.answer)
        return ClassScore(
            value=value,
            ci95=interval,
            n=n,
            chance=measure(images.chance)[0],
            other_class=measure(images.answer.relabel(self.attacked))[0] if len(self.attacked) > 1 else None,
            starts=measure(images.starts)[0],
            all_optimized=measure(images.optimized)[0],
        )

    def _sets(self, images: AttackImages) -> dict[str, ClassScore]:
        network = self.network
        if network is None:
            return {}
        variants = {
            name: set_scores(subset.images, real.images, network, self.real)
            for name, subset, real in (
                ("value", images.answer, self.private),
                ("chance", images.chance, self.private),
                ("starts", images.starts, self.private),
                ("unseen", images.answer, self.unseen),
            )
            if name != "unseen" or self.unseen_unavailable is None
        }
        return {
            name: ClassScore.model_validate(
                {
                    **{variant: scores[name].value for variant, scores in variants.items()},
                    "reason": score.reason,
                    "n": score.n,
                }
            )
            for name, score in variants["value"].items()
        }


def _select_classes(images: ImageSet, attacked: Sequence[int]) -> ImageSet:
    return images.select(torch.isin(images.labels, torch.tensor(attacked)).nonzero().squeeze(1))


def _label(images: ImageSet) -> LabeledImages:
    return LabeledImages(images=images.images, labels=images.labels)


__all__ = ["REVISION", "ClassScores"]
