"""Steps of DP-SGD: Poisson batches, and per-sample gradients by Opacus' hooks, which are removed afterwards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparseguard.core.errors import RecipeError
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses.differential_privacy._accounting import import_opacus

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
LEFTOVERS = ("activations", "max_batch_len")
"""Attributes of modules that Opacus does not remove."""

ADVICE = (
    'Set normalization = "group" where it comes from (the backbone conv, or sca, conv-control, relu-threshold), or '
    "choose a model of torchvision that has none, such as torchvision:squeezenet1_1 or torchvision:vgg11"
)


class PoissonBatches:
    """As many batches as a loader has; each contains every image with the same probability, independently.

    The seed of the loader's generator at the start of an epoch seeds all draws. Sampling and noise use separate
    streams, so that neither depends on other draws.

    Args:
        loader: source of the images; a batch has `batch_size` images on average.
        device: of the noise generator.
    """

    def __init__(self, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device) -> None:
        if loader.batch_size is None or loader.generator is None:
            raise ValueError("Poisson batches need a loader with a batch size and a generator.")
        self.images: Any = loader.dataset
        self.seeded, self.expected = loader.generator, loader.batch_size
        self.noise = torch.Generator(device)

    @property
    def rate(self) -> float:
        """Probability that an image is in a batch."""
        return self.expected / len(self.images)

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.expected)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = self.seeded.initial_seed()
        self.noise.manual_seed(derive(purpose="noise on gradients", seed=seed))
        sampling = torch.Generator().manual_seed(derive(purpose="Poisson sampling", seed=seed))
        sampler = import_opacus("utils.uniform_sampler").UniformWithReplacementSampler(
            num_samples=len(self.images), sample_rate=self.rate, generator=sampling, steps=len(self)
        )
        for indices in sampler:
            images, labels = batch = self.images.__getitems__(indices or [0])
            yield batch if indices else (images[:0], labels[:0])


@contextmanager
def make_private(
    model: StagedModel, optimizer: torch.optim.Optimizer, batches: PoissonBatches, noise_multiplier: float, clip: float
) -> Iterator[torch.optim.Optimizer]:
    """Yield an optimizer that clips per-sample gradients, sums them and adds noise before its step.

    Inside the context the model computes per-sample gradients; on exit Opacus' hooks and attributes are removed.

    Raises:
        RecipeError: when a layer has no per-sample gradients.
    """
    check_layers(model)
    hooks = [
        layer.register_forward_pre_hook(_make_contiguous) for layer in model.modules() if isinstance(layer, nn.Conv2d)
    ]
    wrapper = None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing when gradients are computed")
            wrapper = import_opacus("grad_sample").GradSampleModule(model, loss_reduction="mean", strict=True)
            yield import_opacus("optimizers").DPOptimizer(
                optimizer,
                noise_multiplier=noise_multiplier,
                max_grad_norm=clip,
                expected_batch_size=batches.expected,
                loss_reduction="mean",
                generator=batches.noise,
            )
    finally:
        for handle in hooks:
            handle.remove()
        if wrapper is not None:
            wrapper.to_standard_module()
        _remove_leftovers(model)


def check_layers(model: StagedModel) -> None:
    """Refuse layers that mix the images of a batch, or have buffers.

    Raises:
        RecipeError: naming the stage and the layer.
    """
    for name, stage in model.stages.items():
        for layer in stage.modules():
            learns = any(weight.requires_grad for weight in layer.parameters(recurse=False))
            if isinstance(layer, BATCH_NORMS):
                reason = f"mixes the images of a batch. {ADVICE}"
            elif isinstance(layer, INSTANCE_NORMS) and layer.track_running_stats:
                reason = "stores means of the images"
            elif learns and any(True for _ in layer.buffers()):
                reason = "learns and has buffers (a sparse layer: set backprop = false)"
            else:
                continue
            raise RecipeError(f"dp-sgd needs per-sample gradients; stage '{name}': {type(layer).__name__} {reason}.")


def _make_contiguous(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make a convolution's input contiguous; Opacus misreads other memory formats (1.6.0, unfold2d)."""
    return tuple(values.contiguous() for values in inputs)


def _remove_leftovers(model: StagedModel) -> None:
    for module in model.modules():
        for name in LEFTOVERS:
            vars(module).pop(name, None)
    for parameter in model.parameters():
        parameter.grad = None
        vars(parameter).pop("summed_grad", None)
