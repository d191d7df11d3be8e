"""The one loop that trains a target, whatever its defense."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sparseguard.errors import TrainingError
from sparseguard.progress import Progress
from sparseguard.seeds import derive
from sparseguard.settings import settings
from sparseguard.stages import StagedModel
from sparseguard.targets.checkpoint import load_checkpoint, save_checkpoint
from sparseguard.targets.codes import FirstLayer, Keep
from sparseguard.types import ImageSet, Phase, Step

REVISION = 2
IN_MEMORY = Keep()


@settings
class Fit:
    """How targets are trained, the same for every defense.

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


@runtime_checkable
class Trainee(Protocol):
    """The hooks of a defense that this loop calls (see `sparseguard.defenses.base.Defense`)."""

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Part the epochs."""
        ...

    def wrap(self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Any) -> tuple[Any, Any, Any]:
        """Exchange model, optimizer or batches."""
        ...

    def transform(
        self, images: Tensor, labels: Tensor, *, state: Mapping[str, Tensor], epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change a batch."""
        ...

    def loss(self, step: Step) -> Tensor:
        """Return a batch's loss."""
        ...

    def after_step(self, model: StagedModel) -> None:
        """Act after an optimizer step."""
        ...


@dataclass(kw_only=True)
class Fitted:
    """How far training came.

    Args:
        epoch: epochs done.
        best_epoch: the one with the lowest held-out loss, counted from 1.
        best_loss: that loss.
        stale: epochs since then.
        history: per epoch the training loss, and loss and accuracy on the held-out tenth.
        codes: of the first sparse layer: ``computed once``, or why they were not; empty where there is no such layer.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    codes: str = ""

    def note(
        self, train_loss: float, held_out_loss: float, accuracy: float, label: str, *, in_last_phase: bool
    ) -> None:
        """Take down an epoch; ``stale`` is 0 afterwards when its weights are to be kept."""
        if not (math.isfinite(train_loss) and math.isfinite(held_out_loss)):
            raise TrainingError(f"{label}, epoch {self.epoch + 1}: the loss is not finite. Try a lower fit.lr.")
        self.epoch += 1
        self.stale += 1
        if held_out_loss < self.best_loss or not in_last_phase:
            self.best_epoch, self.stale = self.epoch, 0
            self.best_loss = held_out_loss if in_last_phase else math.inf
        self.history.append({"train_loss": train_loss, "held_out_loss": held_out_loss, "held_out_accuracy": accuracy})


class Served(tuple[Tensor, Tensor]):
    """A batch ``(images, labels)`` that remembers which rows of the training images it holds.

    A loader made by `Defense.wrap` may pass it on. Batches it makes itself need not remember.
    """

    rows: Tensor
    _version: int

    def __new__(cls, images: Tensor, labels: Tensor, rows: Tensor) -> Served:
        """Make a pair and note the rows."""
        made = super().__new__(cls, (images, labels))
        made.rows, made._version = rows, images._version
        return made

    @property
    def written_to(self) -> bool:
        """Whether the images were changed in place since."""
        return self[0]._version != self._version

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied, or sent by a loader's worker; a batch that was changed arrives as a plain pair."""
        return (tuple, (tuple(self),)) if self.written_to else (Served, (*self, self.rows))


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Serves whole batches, so that loading costs one indexing a batch."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images.batch(torch.tensor([index]))[0], self.images.labels[index]

    def __getitems__(self, indices: list[int]) -> Served:
        index = torch.tensor(indices)
        return Served(self.images.batch(index), self.images.labels[index], index)


def _as_served(batch: Any) -> Any:
    return batch


def train(
    model: StagedModel,
    defense: Trainee,
    state: Mapping[str, Tensor],
    private: ImageSet,
    fit: Fit,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    label: str,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    keep: Keep = IN_MEMORY,
) -> Fitted:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Every random draw follows from ``seed`` and the epoch, so a run resumed from its checkpoint ends with the same
    weights as one that was never interrupted.

    A first sparse layer that does not learn is run once an image; its codes are kept and used in every epoch, wherever
    the images are the ones it was run on.

    Args:
        model: built from the defense's blueprint.
        defense: whose hooks are called.
        state: what its `prepare` learned.
        private: the private images; a seeded tenth is held out for early stopping.
        fit: settings.
        seed: of shuffling and of random layers.
        device: where to train.
        progress: told after every batch.
        label: the task's name in it, and in errors.
        checkpoint: file to resume from, and to write at the end of epochs.
        checkpoint_seconds: least time between two checkpoints.
        keep: where the first sparse layer's codes are kept, and how many.

    Raises:
        TrainingError: when a loss is not finite, or a layer learned that says it does not.
        StoreError: when the checkpoint cannot be read or written.
    """
    model.to(device)
    held_out, used = _hold_out(private, seed)
    generator = torch.Generator()
    loader = _loader(used, fit.batch_size, generator)
    phases = [phase for phase in defense.phases(fit.epochs) for _ in range(phase.epochs)]
    trained, optimizer, batches = defense.wrap(model, _optimizer(model, fit), loader)
    run, best = Fitted(), _copy(model)
    if checkpoint is not None and checkpoint.exists():
        best, meta = load_checkpoint(checkpoint, model, optimizer)
        run = Fitted(**meta["run"])
    first = FirstLayer(model, private, keep, device=device, progress=progress, label=label)
    first.outcome = first.outcome or run.codes
    if trained is not model:
        first.switch_off("the defense trains another model in its place")
    saved = time.monotonic()
    with progress.task(label, len(phases) * len(batches)) as advance, torch.random.fork_rng():
        advance(run.epoch * len(batches))
        while run.epoch < len(phases) and not (fit.patience and run.stale >= fit.patience):
            phase = phases[run.epoch]
            epoch_seed = derive(purpose="epoch", seed=seed, epoch=run.epoch)
            generator.manual_seed(epoch_seed)
            torch.manual_seed(epoch_seed)
            for group in optimizer.param_groups:
                group["lr"] = _rate(fit, run.epoch, len(phases))
            total = torch.zeros((), device=device)
            try:
                trained.train()
                for batch in batches:
                    given, labels = (part.to(device) for part in batch)
                    version = given._version
                    images, labels = defense.transform(given, labels, state=state, epoch=run.epoch, generator=generator)
                    same = images is given and images._version == version and not images.requires_grad
                    known = _known(first, used, batch, same)
                    loss = _loss(trained, defense, state, images, labels, run.epoch, phase.name, known)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    defense.after_step(model)
                    total += loss.detach() * len(images)
                    advance(1)
                first.require_unchanged()
                held_out_loss, accuracy = _evaluate(model, held_out, device, first)
            except ArithmeticError as error:
                raise TrainingError(f"{label}, epoch {run.epoch + 1}: {error}") from error
            run.codes = first.outcome
            run.note(float(total) / len(used), held_out_loss, accuracy, label, in_last_phase=phase is phases[-1])
            if run.stale == 0:
                best = _copy(model)
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(checkpoint, model, optimizer, best, {"run": vars(run)})
                saved = time.monotonic()
    model.load_state_dict(best)
    return run


def _loss(
    trained: Any,
    defense: Trainee,
    state: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    epoch: int,
    phase: str,
    known: Mapping[str, Tensor],
) -> Tensor:
    outputs = trained.outputs(images, known) if known else trained.outputs(images)
    logits = list(outputs.values())[-1]
    return defense.loss(
        Step(images=images, labels=labels, outputs=outputs, logits=logits, state=state, epoch=epoch, phase=phase)
    )


def _known(first: FirstLayer, used: ImageSet, batch: Any, same: bool) -> dict[str, Tensor]:
    """Return the first layer's codes of a batch whose images are ``same`` after the defense's `transform`."""
    if not isinstance(batch, Served):
        first.run_because("the defense serves batches of its own")
        return {}
    if not same or batch.written_to:
        first.run_because("the defense changes the images (augmentation)")
        return {}
    return first.known(used, batch.rows)


def _loader(images: ImageSet, batch_size: int, generator: torch.Generator) -> DataLoader[tuple[Tensor, Tensor]]:
    size = min(batch_size, len(images))
    return DataLoader(
        _Batches(images),
        batch_size=size,
        shuffle=True,
        drop_last=len(images) % size == 1,  # batch normalization cannot train on a single image
        generator=generator,
        collate_fn=_as_served,
    )


@torch.no_grad()
def _evaluate(model: StagedModel, images: ImageSet, device: torch.device, first: FirstLayer) -> tuple[float, float]:
    model.eval()
    total, right = torch.zeros((), device=device), torch.zeros((), device=device)
    for index in torch.arange(len(images)).split(512):
        labels = images.labels[index].to(device)
        outputs = model.outputs(images.batch(index).to(device), first.known(images, index))
        logits = list(outputs.values())[-1]
        total += F.cross_entropy(logits, labels, reduction="sum")
        right += (logits.argmax(1) == labels).sum()
    return float(total) / len(images), float(right) / len(images)


def _hold_out(private: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    order = torch.randperm(len(private), generator=torch.Generator().manual_seed(derive(purpose="hold-out", seed=seed)))
    count = max(1, len(private) // 10)
    return private.select(order[:count]), private.select(order[count:])


def _optimizer(model: nn.Module, fit: Fit) -> torch.optim.Optimizer:
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": fit.weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]
    if fit.optimizer == "adam":
        return torch.optim.Adam(groups, lr=fit.lr)
    return torch.optim.SGD(groups, lr=fit.lr, momentum=fit.momentum)


def _rate(fit: Fit, epoch: int, epochs: int) -> float:
    if fit.schedule == "constant":
        return fit.lr
    return fit.lr * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
