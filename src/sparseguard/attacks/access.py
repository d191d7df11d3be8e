"""Access of an attack to a released model: counted queries of one tap, and copies of what its knowledge includes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from sparseguard.core.errors import SparseguardError, TrainingError
from sparseguard.core.out_of_core import gather, select_rows, tap_limit
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import ImageSet, Knowledge, Observation, Released

REVISION = 2
BATCH = 256
DEFENSE_KNOWN = (Knowledge.GRAY_BOX, Knowledge.WHITE_BOX)


class AccessError(SparseguardError):
    """An attack asked for more than its knowledge includes."""


class ModelAccess:
    """An attack's only view of the target.

    Each call of `observe` draws fresh noise of the defense, reproducible from ``seed`` and the number of queries
    before it. The model runs in evaluation mode without gradients and stays out of reach; `copy_untrained_stages` and
    `copy_model` return copies.

    Args:
        model: the released model, or one that caches its answers; it must offer ``forward_to(images, stage)``.
        tap: the tap's name.
        stage: the stage whose output it is.
        knowledge: of the attack.
        seed: of the defense's noise.
        device: where the model is.
        repeats: how often each image is sent; the observation is the mean of the answers.
        shuffled: give each image the features of another, for the control that must learn nothing.
        released: the released model itself, for attacks that know more than its outputs.
    """

    def __init__(
        self,
        model: Released,
        *,
        tap: str,
        stage: str,
        knowledge: Knowledge,
        seed: int,
        device: torch.device,
        repeats: int = 1,
        shuffled: bool = False,
        released: StagedModel | None = None,
    ) -> None:
        if isinstance(model, nn.Module) and model.training:
            raise AccessError("access to a model needs it in evaluation mode.")
        self._model = model
        self._released = released
        self._stage = stage
        self._seed = seed
        self._device = device
        self.tap = tap
        self.knowledge = knowledge
        self.repeats = repeats
        self._shuffled = shuffled
        self.queries = 0

    @torch.no_grad()
    def observe(self, images: ImageSet | torch.Tensor) -> Observation:
        """Send images through the model and return the tap's features, on the CPU; on disk where they are large.

        Args:
            images: an image set, or ``(n, c, h, w)`` float32 in [0, 1].

        Raises:
            AccessError: for an attack that may not query the model.
            TrainingError: when the target's outputs are not finite.
        """
        if self.knowledge in (Knowledge.NOTHING, Knowledge.LABEL):
            raise AccessError(f"an attack of knowledge '{self.knowledge}' may not query the model.")
        with torch.random.fork_rng():
            torch.manual_seed(derive(purpose="observe", seed=self._seed, query=self.queries))
            features = gather(self._run_batches(images), len(images), tap_limit())
            order = torch.randperm(len(images)) if self._shuffled else None
        self.queries += len(images) * self.repeats
        if order is not None:
            features = select_rows(features, order, tap_limit())
        return Observation(features=features, tap=self.tap)

    def copy_untrained_stages(self) -> StagedModel:
        """Return a copy of the first stages, up to where training begins: the defense as it is specified.

        Raises:
            AccessError: for an attack that does not know the defense.
        """
        model = self._require(DEFENSE_KNOWN, "may not know the defense")
        return _copy_stages(model, model.list_untrained_stages())

    def copy_model(self) -> StagedModel:
        """Return a frozen, differentiable copy of the model from the image to the tap.

        Raises:
            AccessError: for an attack that does not have the weights.
        """
        model = self._require((Knowledge.WHITE_BOX,), "may not have the weights")
        names = list(model.stages)
        return _copy_stages(model, names[: names.index(self._stage) + 1])

    def _run_batches(self, images: ImageSet | torch.Tensor) -> Iterator[torch.Tensor]:
        for index in torch.arange(len(images)).split(BATCH):
            batch = images.batch(index) if isinstance(images, ImageSet) else images[index]
            yield self._run_batch(batch.to(self._device))

    def _run_batch(self, batch: torch.Tensor) -> torch.Tensor:
        try:
            total = self._model.forward_to(batch, self._stage)
            for _ in range(self.repeats - 1):
                total = total + self._model.forward_to(batch, self._stage)
        except ArithmeticError as error:
            raise TrainingError(f"the target failed on a query: {error}") from error
        return (total / self.repeats).cpu()

    def _require(self, allowed: Sequence[Knowledge], refusal: str) -> StagedModel:
        if self.knowledge not in allowed or self._released is None:
            raise AccessError(f"an attack of knowledge '{self.knowledge}' {refusal}.")
        return self._released


def _copy_stages(model: StagedModel, names: Sequence[str]) -> StagedModel:
    return copy.deepcopy(StagedModel({name: model.stages[name] for name in names})).eval().requires_grad_(False)
