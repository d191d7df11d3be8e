"""The state of a training in progress, its steps and its checkpoint."""

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
from sparseguard.targets.training.code_cache.cache import FirstLayerCodes
from sparseguard.targets.training.flops import count_flops
from sparseguard.targets.training.history import TrainingHistory
from sparseguard.targets.training.hooks import TrainingHooks
from sparseguard.targets.training.loaders import IndexedBatch
from sparseguard.types import BatchContext, EpochContext, ImageSet

NETWORK, OPTIMIZER = "auxiliary_network", "auxiliary_network optimizer"
"""Names in the checkpoint of the auxiliary network's weights and of its optimizer's state."""


@dataclass(kw_only=True, eq=False)
class Training:
    """A training in progress.

    Args:
        model: the model that is released in the end.
        trained: the model that is trained: ``model`` itself, or the one that the defense wraps around it.
        defense: hooks of the defense.
        optimizer: of ``trained``.
        auxiliary_network: network that the defense trains with the target, if any.
        codes: codes of the first sparse layer.
        images: training images.
        state: tensors that the defense learned in `prepare`.
        tap_stage: the stage of the tap.
        epochs: number of epochs planned.
        device: where to compute.
        generator: of shuffling.
        learned: tensors that the defense learned at the start of epochs.
        history: epochs so far.
        best: weights of the best epoch so far.
    """

    model: StagedModel
    trained: Any
    defense: TrainingHooks
    optimizer: torch.optim.Optimizer
    auxiliary_network: Any
    codes: FirstLayerCodes
    images: ImageSet
    state: dict[str, Tensor]
    tap_stage: str
    epochs: int
    device: torch.device
    generator: torch.Generator
    learned: dict[str, Tensor] = field(default_factory=dict)
    history: TrainingHistory = field(default_factory=TrainingHistory)
    best: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Start from the model's weights."""
        self.best = copy_weights(self.model)

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        network = self.auxiliary_network.state_dict() if self.auxiliary_network else {}
        extra = {"learned": self.learned, NETWORK: network}
        optimizers = {"optimizer": self.optimizer}
        if self.auxiliary_network:
            optimizers[OPTIMIZER] = self.auxiliary_network.optimizer
        save_checkpoint(path, self.model, optimizers, self.best, extra, {"run": vars(self.history)})

    def resume(self, path: Path) -> None:
        """Continue from the checkpoint."""
        optimizers = {"optimizer": self.optimizer}
        if self.auxiliary_network:
            optimizers[OPTIMIZER] = self.auxiliary_network.optimizer
        self.best, extra, meta = load_checkpoint(path, self.model, optimizers, ("learned", NETWORK))
        self.history = TrainingHistory(**meta["run"])
        self.learned = {name: value.to(self.device) for name, value in extra["learned"].items()}
        if self.auxiliary_network:
            self.auxiliary_network.load_state_dict(extra[NETWORK])

    def start_epoch(self, phase: str, starts_phase: bool, seed: int) -> None:
        """Call the defense's `on_epoch_start`; its tensors join the state."""
        hook_seed = derive(purpose="before epoch", seed=seed, epoch=self.history.epoch)
        torch.manual_seed(hook_seed)
        self.model.eval()
        tensors = self.defense.on_epoch_start(
            EpochContext(
                model=self.model,
                images=self.images,
                state=self.defense_state,
                epoch=self.history.epoch,
                phase=phase,
                starts_phase=starts_phase,
                seed=hook_seed,
                device=self.device,
            )
        )
        self.learned |= {name: value.detach() for name, value in tensors.items()}

    def reseed(self, seed: int, rate: float) -> None:
        """Make the epoch's draws follow from the seed, and set its learning rate."""
        epoch_seed = derive(purpose="epoch", seed=seed, epoch=self.history.epoch)
        self.generator.manual_seed(epoch_seed)
        torch.manual_seed(epoch_seed)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def run_epoch(self, batches: Any, phase: str, advance: Callable[[int], None]) -> float:
        """Take every step of an epoch and return the sum of the losses over images."""
        total = torch.zeros((), device=self.device)
        self.trained.train()
        for batch in batches:
            if phase not in self.history.phase_flops:
                loss, self.history.phase_flops[phase] = count_flops(self.run_step, batch, phase)
            else:
                loss = self.run_step(batch, phase)
            total += loss
            advance(1)
        self.history.epoch_flops.append(self.history.phase_flops[phase])
        return float(total)

    def run_step(self, batch: Any, phase: str) -> Tensor:
        """Take one step and return the loss times the number of images."""
        own_images, labels = (tensor.to(self.device) for tensor in batch)
        version = own_images._version
        images, labels = self.defense.transform(
            own_images, labels, state=self.defense_state, epoch=self.history.epoch, generator=self.generator
        )
        same = images is own_images and images._version == version and not images.requires_grad
        codes = _find_codes(self.codes, self.images, batch, same)
        outputs = self.trained.outputs(images, codes) if codes else self.trained.outputs(images)
        context = BatchContext(
            images=images,
            labels=labels,
            outputs=outputs,
            logits=list(outputs.values())[-1],
            state=self.defense_state,
            epoch=self.history.epoch,
            phase=phase,
            own_count=len(own_images),
            elapsed_fraction=self.history.epoch / self.epochs,
            tap_stage=self.tap_stage,
            auxiliary_network=self.auxiliary_network,
            model=self.model,
        )
        if self.auxiliary_network:
            self.auxiliary_network.learn(context)
        loss = self.defense.loss(context)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.defense.on_step_end(self.model)
        return loss.detach() * len(own_images)

    @property
    def defense_state(self) -> dict[str, Tensor]:
        """Tensors that the defense learned so far."""
        return {**self.state, **self.learned}


def build_auxiliary_network(
    model: StagedModel, defense: TrainingHooks, images: ImageSet, tap_stage: str, seed: int, device: torch.device
) -> Any:
    """Return the network that ``defense`` trains with the model, its weights drawn from ``seed``; None without one."""
    examples = images.batch(torch.arange(min(2, len(images)))).to(device)
    torch.manual_seed(derive(purpose="companion", seed=seed))
    network = defense.build_auxiliary_network(model.eval(), tap_stage, examples)
    return None if network is None else network.to(device)


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _find_codes(first: FirstLayerCodes, images: ImageSet, batch: Any, same: bool) -> dict[str, Tensor]:
    """Return the first layer's codes of a batch whose images are ``same`` after the defense's `transform`."""
    if not isinstance(batch, IndexedBatch):
        first.report_run("the defense serves batches of its own")
        return {}
    if not same or batch.modified:
        first.report_run("the defense changes the images (augmentation)")
        return {}
    return first.codes_for(images, batch.rows)
