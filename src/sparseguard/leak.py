"""What a released model gives away: one tap, seen through counted queries."""

from __future__ import annotations

import torch
from torch import nn

from sparseguard.errors import SparseguardError, TrainingError
from sparseguard.seeds import derive
from sparseguard.types import ImageSet, Knowledge, Observation, Released

REVISION = 1
BATCH = 256


class AccessError(SparseguardError):
    """An attack asked for more than its knowledge level gives."""


class Leak:
    """An attack's only view of the target.

    Each call of `observe` draws fresh randomness for whatever noise the defense adds, reproducible from ``seed`` and
    the number of queries before it. The model is run in evaluation mode without gradients and stays out of reach.

    Args:
        model: the released model; it must offer ``until(images, stage)``.
        tap: the tap's name.
        stage: the stage whose output it is.
        knowledge: the level of the attack that holds this leak.
        seed: of the defense's noise.
        device: where the model is.
    """

    def __init__(
        self, model: Released, *, tap: str, stage: str, knowledge: Knowledge, seed: int, device: torch.device
    ) -> None:
        if isinstance(model, nn.Module) and model.training:
            raise AccessError("a leak needs a model in evaluation mode.")
        self._model = model
        self._stage = stage
        self._seed = seed
        self._device = device
        self.tap = tap
        self.knowledge = knowledge
        self.queries = 0

    @torch.no_grad()
    def observe(self, images: ImageSet | torch.Tensor) -> Observation:
        """Send images through the model and return what the tap released, on the CPU.

        Args:
            images: an image set, or ``(n, c, h, w)`` float32 in [0, 1].

        Raises:
            AccessError: for an attack that is given no outputs.
            TrainingError: when the target's outputs are not finite.
        """
        if self.knowledge in (Knowledge.NOTHING, Knowledge.LABEL):
            raise AccessError(f"an attack of knowledge level '{self.knowledge}' may not query the model.")
        released = []
        with torch.random.fork_rng():
            torch.manual_seed(derive(purpose="observe", seed=self._seed, query=self.queries))
            for index in torch.arange(len(images)).split(BATCH):
                batch = images.batch(index) if isinstance(images, ImageSet) else images[index]
                try:
                    released.append(self._model.until(batch.to(self._device), self._stage).cpu())
                except ArithmeticError as error:
                    raise TrainingError(f"the target failed on a query: {error}") from error
        self.queries += len(images)
        return Observation(features=torch.cat(released), tap=self.tap)
