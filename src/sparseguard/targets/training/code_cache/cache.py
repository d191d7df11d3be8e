"""Codes of a first sparse layer that does not learn: computed once an image set instead of once an epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import torch
from torch import Tensor

from sparseguard.core.errors import StoreError, TrainingError
from sparseguard.core.progress import Progress
from sparseguard.core.staged_model import FixedCode, StagedModel
from sparseguard.targets.training.code_cache.csr import CompactCodes, TooLargeError
from sparseguard.targets.training.code_cache.disk import CodeCache
from sparseguard.types import ImageSet

FORMAT = 1
"""Raised when files mean something else, or codes are computed in another way."""

CHUNK = 256


def _first_fixed_code(model: StagedModel) -> tuple[str, FixedCode] | None:
    return next(((name, stage) for name, stage in model.stages.items() if isinstance(stage, FixedCode)), None)


class FirstLayerCodes:
    """Codes of the first sparse layer of a model in training, or why the layer is run instead.

    An image set's codes are computed, or read from the folder, at their first use.

    Args:
        model: in training; its first stage that is a `FixedCode`, if any, is the layer.
        images: all private images.
        code_cache: folder and limits.
        device: where the model is.
        progress: shows how far computing is, and why the layer is run.
        label: the training's name in ``progress``.

    Attributes:
        outcome: ``computed once``, or why the layer was run; empty for a model without such a layer.
    """

    def __init__(
        self,
        model: StagedModel,
        images: ImageSet,
        code_cache: CodeCache,
        *,
        device: torch.device,
        progress: Progress,
        label: str,
    ) -> None:
        self._model, self._cache, self._device = model, code_cache, device
        self._progress, self._label = progress, label
        self._images = len(images)
        self._codes: dict[ImageSet, CompactCodes] = {}
        self._said = set[str]()
        self.outcome = ""
        self._fingerprint, self._shape = "", tuple[int, ...]()
        self._layer = _first_fixed_code(model)
        if self._layer is not None:
            self._examine(*self._layer, images.batch(torch.arange(min(2, len(images)))).to(device))

    def codes_for(self, images: ImageSet, rows: Tensor) -> dict[str, Tensor]:
        """Return the codes of the images at ``rows`` by their stage's name, as `StagedModel.outputs` takes them.

        Empty when the layer is run instead.
        """
        if self._layer is None:
            return {}
        stage, _ = self._layer
        if images not in self._codes:
            try:
                self._codes[images] = self._load_or_compute(stage, images)
            except TooLargeError as error:
                self.disable(str(error))
                return {}
        self.outcome = self.outcome or "computed once"
        return {stage: self._codes[images].dense(rows).to(self._device)}

    def report_run(self, reason: str) -> None:
        """Record, and report once, why the layer is run on a batch although it does not learn."""
        if self._layer is None:
            return
        self.outcome = reason
        if reason not in self._said:
            self._progress.say(f"{self._label}: the first sparse layer is run in training: {reason}.")
            self._said.add(reason)

    def disable(self, reason: str) -> None:
        """Run the layer from now on, and report why."""
        self.report_run(reason)
        self._layer = None
        self._codes.clear()

    def require_unchanged(self) -> None:
        """Make sure that the codes in use are still the layer's.

        Raises:
            TrainingError: when the layer was changed although it says that it does not learn.
        """
        if self._layer is not None and self._codes and self._layer[1].fingerprint() != self._fingerprint:
            raise TrainingError(
                f"{self._label}: the stage '{self._layer[0]}' was changed in training, but says that it does not learn."
            )

    def _stages_before(self, stage: str) -> dict[str, torch.nn.Module]:
        names = list(self._model.stages)
        return {name: self._model.stages[name] for name in names[: names.index(stage)]}

    @torch.no_grad()
    def _examine(self, name: str, stage: FixedCode, examples: Tensor) -> None:
        if stage.learns:
            self.disable("it learns")
        elif not self._is_repeatable(name, examples):
            self.disable("what comes before it learns or is random")
        else:
            self._shape = tuple(self._model.forward_to(examples, name).shape[1:])
            self._fingerprint = stage.fingerprint()  # after a call, so that what the first call settles is settled

    def _is_repeatable(self, stage: str, examples: Tensor) -> bool:
        """Return whether the stages before the layer give equal images equal values all through training."""
        first = second = examples
        with torch.random.fork_rng():
            for module in self._stages_before(stage).values():
                if module.state_dict():
                    return False
                first, second = module.train()(first), module(second)
        return torch.equal(first, second)

    def _load_or_compute(self, stage: str, images: ImageSet) -> CompactCodes:
        before = [[name, repr(module)] for name, module in self._stages_before(stage).items()]
        parts = [FORMAT, before, self._fingerprint, images.fingerprint()]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        limit = self._cache.memory * len(images) // self._images
        codes = self._cache.load(key, len(images), self._shape)
        if codes is not None and codes.nbytes <= limit:
            return codes
        codes = CompactCodes.from_batches(self._run(stage, images), images=len(images), limit=limit)
        try:
            self._cache.save(key, codes)
        except StoreError as error:
            self._progress.say(f"{self._label}: the first sparse layer's codes stay in memory only. {error}")
        return codes

    @torch.no_grad()
    def _run(self, stage: str, images: ImageSet) -> Iterator[Tensor]:
        with self._progress.task(f"{self._label}: codes", len(images)) as advance:
            for index in torch.arange(len(images)).split(CHUNK):
                yield self._model.forward_to(images.batch(index).to(self._device), stage)
                advance(len(index))
