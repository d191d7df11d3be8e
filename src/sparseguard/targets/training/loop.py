"""A training under way: what changes from step to step, and what is done in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.checkpoint import load_checkpoint, save_checkpoint
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.targets.training.code_cache.cache import FirstLayer
from sparseguard.targets.training.flops import counted
from sparseguard.targets.training.history import Fitted
from sparseguard.targets.training.hooks import Trainee
from sparseguard.targets.training.loaders import Served
from sparseguard.types import ImageSet, Moment, Step


@dataclass(kw_only=True, eq=False)
class Training:
    """A training under way.

    Args:
        model: what is released in the end.
        trained: what is trained; the model itself, or what the defense put in its place.
        defense: whose hooks are called.
        optimizer: of ``trained``.
        companion: what the defense trains beside it, if anything.
        first: the first sparse layer's codes.
        used: the images trained on.
        state: what the defense learned before.
        cut: the stage that leaks.
        epochs: how many there are to be.
        device: where to compute.
        generator: of shuffling.
        learned: what the defense learned before epochs.
        run: how far training came.
        best: the weights kept.
    """

    model: StagedModel
    trained: Any
    defense: Trainee
    optimizer: torch.optim.Optimizer
    companion: Any
    first: FirstLayer
    used: ImageSet
    state: dict[str, Tensor]
    cut: str
    epochs: int
    device: torch.device
    generator: torch.Generator
    learned: dict[str, Tensor] = field(default_factory=dict)
    run: Fitted = field(default_factory=Fitted)
    best: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Start from the weights there are."""
        self.best = copied(self.model)

    def save(self, path: Path) -> None:
        """Write all that changes."""
        beside = {"learned": self.learned, "companion": self.companion.state_dict() if self.companion else {}}
        optimizers = {"optimizer": self.optimizer}
        if self.companion:
            optimizers["companion optimizer"] = self.companion.optimizer
        save_checkpoint(path, self.model, optimizers, self.best, beside, {"run": vars(self.run)})

    def resume(self, path: Path) -> None:
        """Read it back."""
        optimizers = {"optimizer": self.optimizer}
        if self.companion:
            optimizers["companion optimizer"] = self.companion.optimizer
        self.best, beside, meta = load_checkpoint(path, self.model, optimizers, ("learned", "companion"))
        self.run = Fitted(**meta["run"])
        self.learned = {name: value.to(self.device) for name, value in beside["learned"].items()}
        if self.companion:
            self.companion.load_state_dict(beside["companion"])

    def look(self, phase: str, begins: bool, seed: int) -> None:
        """Let the defense look at the model before the epoch."""
        look_seed = derive(purpose="before epoch", seed=seed, epoch=self.run.epoch)
        torch.manual_seed(look_seed)
        self.model.eval()
        found = self.defense.before_epoch(
            Moment(
                model=self.model,
                images=self.used,
                state=self.known_state,
                epoch=self.run.epoch,
                phase=phase,
                begins=begins,
                seed=look_seed,
                device=self.device,
            )
        )
        self.learned |= {name: value.detach() for name, value in found.items()}

    def reseed(self, seed: int, rate: float) -> None:
        """Make the epoch's draws follow from the seed, and set its learning rate."""
        epoch_seed = derive(purpose="epoch", seed=seed, epoch=self.run.epoch)
        self.generator.manual_seed(epoch_seed)
        torch.manual_seed(epoch_seed)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def epoch(self, batches: Any, phase: str, advance: Callable[[int], None]) -> float:
        """Take every step of an epoch and return the sum of the losses over images."""
        total = torch.zeros((), device=self.device)
        self.trained.train()
        for batch in batches:
            if phase not in self.run.phase_flops:
                loss, self.run.phase_flops[phase] = counted(self.step, batch, phase)
            else:
                loss = self.step(batch, phase)
            total += loss
            advance(1)
        self.run.epoch_flops.append(self.run.phase_flops[phase])
        return float(total)

    def step(self, batch: Any, phase: str) -> Tensor:
        """Take one step and return the loss times the number of images."""
        given, labels = (part.to(self.device) for part in batch)
        version = given._version
        images, labels = self.defense.transform(
            given, labels, state=self.known_state, epoch=self.run.epoch, generator=self.generator
        )
        same = images is given and images._version == version and not images.requires_grad
        known = _known(self.first, self.used, batch, same)
        outputs = self.trained.outputs(images, known) if known else self.trained.outputs(images)
        step = Step(
            images=images,
            labels=labels,
            outputs=outputs,
            logits=list(outputs.values())[-1],
            state=self.known_state,
            epoch=self.run.epoch,
            phase=phase,
            given=len(given),
            share=self.run.epoch / self.epochs,
            cut=self.cut,
            companion=self.companion,
            model=self.model,
        )
        if self.companion:
            self.companion.learn(step)
        loss = self.defense.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.defense.after_step(self.model)
        return loss.detach() * len(given)

    @property
    def known_state(self) -> dict[str, Tensor]:
        """What the defense learned so far."""
        return {**self.state, **self.learned}


def companion_of(
    model: StagedModel, defense: Trainee, used: ImageSet, cut: str, seed: int, device: torch.device
) -> Any:
    """Return what ``defense`` trains beside the model, with weights drawn from ``seed``, or None."""
    few = used.batch(torch.arange(min(2, len(used)))).to(device)
    torch.manual_seed(derive(purpose="companion", seed=seed))
    companion = defense.companion(model.eval(), cut, few)
    return None if companion is None else companion.to(device)


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _known(first: FirstLayer, used: ImageSet, batch: Any, same: bool) -> dict[str, Tensor]:
    """Return the first layer's codes of a batch whose images are ``same`` after the defense's `transform`."""
    if not isinstance(batch, Served):
        first.run_because("the defense serves batches of its own")
        return {}
    if not same or batch.written_to:
        first.run_because("the defense changes the images (augmentation)")
        return {}
    return first.known(used, batch.rows)
