"""Training of targets: one loop for every defense."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress
from sparseguard.core.staged_model import StagedModel
from sparseguard.targets.training.code_cache.cache import FirstLayerCodes
from sparseguard.targets.training.code_cache.disk import CodeCache
from sparseguard.targets.training.history import TrainingHistory
from sparseguard.targets.training.hooks import TrainingHooks
from sparseguard.targets.training.loaders import hold_out, make_loader
from sparseguard.targets.training.loop import Training, build_auxiliary_network, copy_weights
from sparseguard.types import ImageSet

REVISION = 3
IN_MEMORY = CodeCache()


@settings
class Fit:
    """Training hyperparameters, the same for every defense.

    Args:
        epochs: at most this many.
        batch_size: images a step.
        optimizer: ``adam`` or ``sgd``.
        lr: learning rate at the start.
        momentum: of ``sgd``.
        weight_decay: on the weights of dense and convolutional layers only; never on biases, norms or dictionaries.
        schedule: ``constant``, or ``cosine`` to zero over the epochs.
        patience: stop after this many epochs without a lower loss on the tenth of the private images held out for
            it; absent: train all epochs. The weights of the best epoch are kept in either case.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    patience: Annotated[int, Field(ge=1)] | None = 5


def train(
    model: StagedModel,
    defense: TrainingHooks,
    state: Mapping[str, Tensor],
    private: ImageSet,
    fit: Fit,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    label: str,
    tap_stage: str = "",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    code_cache: CodeCache = IN_MEMORY,
) -> TrainingHistory:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Every random draw follows from ``seed`` and the epoch, so a run resumed from its checkpoint ends with the same
    weights as one that was never interrupted.

    A first sparse layer that does not learn is run once an image. Every epoch uses the stored codes, wherever the
    images are the ones that the layer was run on.

    Args:
        model: built from the blueprint that the defense edited.
        defense: hooks of the defense.
        state: tensors that its `prepare` learned.
        private: the private images; a seeded tenth is held out for early stopping.
        fit: settings.
        seed: of shuffling and of random layers.
        device: where to train.
        progress: advanced after every batch.
        label: the task's name in ``progress`` and in errors.
        tap_stage: the stage of the tap, for defenses that act there.
        checkpoint: file to resume from, and to write at the end of epochs.
        checkpoint_seconds: least time between two checkpoints.
        code_cache: where the first sparse layer's codes are stored, and how many of them.

    Raises:
        TrainingError: when a loss is not finite, or a layer learned that says it does not.
        StoreError: when the checkpoint cannot be read or written.
    """
    model.to(device)
    held_out, images = hold_out(private, seed)
    generator = torch.Generator()
    phases = [phase for phase in defense.phases(fit.epochs) for _ in range(phase.epochs)]
    patience = fit.patience if defense.chooses_epoch else None
    with (
        torch.random.fork_rng(),
        defense.wrap(
            model, build_optimizer(model, fit), make_loader(images, fit.batch_size, generator), state
        ) as wrapped,
    ):
        trained, optimizer, batches = wrapped
        first = FirstLayerCodes(model, private, code_cache, device=device, progress=progress, label=label)
        if trained is not model:
            first.disable("the defense trains another model in its place")
        training = Training(
            model=model,
            trained=trained,
            defense=defense,
            optimizer=optimizer,
            auxiliary_network=build_auxiliary_network(model, defense, images, tap_stage, seed, device),
            codes=first,
            images=images,
            state=dict(state),
            tap_stage=tap_stage,
            epochs=len(phases),
            device=device,
            generator=generator,
        )
        if checkpoint is not None and checkpoint.exists():
            training.resume(checkpoint)
        history, saved = training.history, time.monotonic()
        first.outcome = first.outcome or history.codes
        with progress.task(label, len(phases) * len(batches)) as advance:
            advance(history.epoch * len(batches))
            while history.epoch < len(phases) and not (patience and history.stale >= patience):
                phase = phases[history.epoch]
                starts_phase = history.epoch == 0 or phases[history.epoch - 1] is not phase
                try:
                    training.start_epoch(phase.name, starts_phase, seed)
                    training.reseed(seed, _schedule_rate(fit, history.epoch, len(phases)))
                    loss = training.run_epoch(batches, phase.name, advance)
                    first.require_unchanged()
                    held_out_loss, accuracy = _evaluate(model, held_out, device, first)
                except ArithmeticError as error:
                    raise TrainingError(f"{label}, epoch {history.epoch + 1}: {error}") from error
                history.codes = first.outcome
                chooses = defense.chooses_epoch and phase is phases[-1]
                history.add_epoch(loss / len(images), held_out_loss, accuracy, label, in_last_phase=chooses)
                if history.stale == 0:
                    training.best = copy_weights(model)
                if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                    training.save(checkpoint)
                    saved = time.monotonic()
    model.load_state_dict(training.best)
    return history


@torch.no_grad()
def _evaluate(
    model: StagedModel, images: ImageSet, device: torch.device, first: FirstLayerCodes
) -> tuple[float, float]:
    model.eval()
    total, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for index in torch.arange(len(images)).split(512):
        labels = images.labels[index].to(device)
        outputs = model.outputs(images.batch(index).to(device), first.codes_for(images, index))
        logits = list(outputs.values())[-1]
        total += F.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    return float(total) / len(images), float(correct) / len(images)


def build_optimizer(model: nn.Module, fit: Fit) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable parameters; weight decay on dense and convolution weights only."""
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) in decayed], "weight_decay": fit.weight_decay},
        {"params": [p for p in trainable if id(p) not in decayed], "weight_decay": 0.0},
    ]
    if fit.optimizer == "adam":
        return torch.optim.Adam(groups, lr=fit.lr)
    return torch.optim.SGD(groups, lr=fit.lr, momentum=fit.momentum)


def _schedule_rate(fit: Fit, epoch: int, epochs: int) -> float:
    if fit.schedule == "constant":
        return fit.lr
    return fit.lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
