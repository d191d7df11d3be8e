"""What a released model gives away: one tap, seen through counted queries, and what more an attack is told."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from sparseguard.core.errors import SparseguardError, TrainingError
from sparseguard.core.out_of_core import gathered, picked, taps_limit
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import ImageSet, Knowledge, Observation, Released

REVISION = 2
BATCH = 256
INFORMED = (Knowledge.GRAY_BOX, Knowledge.WHITE_BOX)


class AccessError(SparseguardError):
    """An attack asked for more than its knowledge level gives."""


class Leak:
    """An attack's only view of the target.

    Each call of `observe` draws fresh randomness for whatever noise the defense adds, reproducible from ``seed`` and
    the number of queries before it. The model is run in evaluation mode without gradients and stays out of reach;
    what `front` and `white_box` hand out are copies.

    Args:
        model: the released model, or one that answers for it; it must offer ``until(images, stage)``.
        tap: the tap's name.
        stage: the stage whose output it is.
        knowledge: the level of the attack that holds this leak.
        seed: of the defense's noise.
        device: where the model is.
        repeats: how often each image is sent; what is observed is the mean of the answers.
        shuffled: give each image another one's features, for the control that must learn nothing.
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
            raise AccessError("a leak needs a model in evaluation mode.")
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
        """Send images through the model and return what the tap released, on the CPU; on disk where it is large.

        Args:
            images: an image set, or ``(n, c, h, w)`` float32 in [0, 1].

        Raises:
            AccessError: for an attack that is given no outputs.
            TrainingError: when the target's outputs are not finite.
        """
        if self.knowledge in (Knowledge.NOTHING, Knowledge.LABEL):
            raise AccessError(f"an attack of knowledge level '{self.knowledge}' may not query the model.")
        with torch.random.fork_rng():
            torch.manual_seed(derive(purpose="observe", seed=self._seed, query=self.queries))
            released = gathered(self._answers(images), len(images), taps_limit())
            order = torch.randperm(len(images)) if self._shuffled else None
        self.queries += len(images) * self.repeats
        features = released if order is None else picked(released, order, taps_limit())
        return Observation(features=features, tap=self.tap)

    def front(self) -> StagedModel:
        """Return a copy of the stages from the image on that no training touched: the defense as it is specified.

        Raises:
            AccessError: for an attack that is not told the defense.
        """
        model = self._require(INFORMED, "may not know the defense")
        return _copied(model, model.untrained_front())

    def white_box(self) -> StagedModel:
        """Return a copy of the model from the image to the tap, frozen, to be differentiated.

        Raises:
            AccessError: for an attack that is not given the weights.
        """
        model = self._require((Knowledge.WHITE_BOX,), "may not have the weights")
        names = list(model.stages)
        return _copied(model, names[: names.index(self._stage) + 1])

    def _answers(self, images: ImageSet | torch.Tensor) -> Iterator[torch.Tensor]:
        for index in torch.arange(len(images)).split(BATCH):
            batch = images.batch(index) if isinstance(images, ImageSet) else images[index]
            yield self._answer(batch.to(self._device))

    def _answer(self, batch: torch.Tensor) -> torch.Tensor:
        try:
            total = self._model.forward_to(batch, self._stage)
            for _ in range(self.repeats - 1):
                total = total + self._model.forward_to(batch, self._stage)
        except ArithmeticError as error:
            raise TrainingError(f"the target failed on a query: {error}") from error
        return (total / self.repeats).cpu()

    def _require(self, levels: Sequence[Knowledge], what: str) -> StagedModel:
        if self.knowledge not in levels or self._released is None:
            raise AccessError(f"an attack of knowledge level '{self.knowledge}' {what}.")
        return self._released


def _copied(model: StagedModel, names: Sequence[str]) -> StagedModel:
    return copy.deepcopy(StagedModel({name: model.stages[name] for name in names})).eval().requires_grad_(False)
