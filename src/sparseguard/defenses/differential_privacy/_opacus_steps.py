"""Steps of DP-SGD: batches drawn at random, gradients of single images by Opacus' hooks, nothing of which stays."""

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
from sparseguard.defenses.differential_privacy._accounting import opacus

_ON_PARAMETERS = ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample", "_norm_sample")
_ON_MODULES = ("activations", "max_batch_len", "ft_compute_sample_grad", "autograd_grad_sample_hooks")

WITHOUT_BATCHES = (
    'Set normalization = "group" where it comes from (the backbone conv, or sca, conv-control, relu-threshold), or '
    "choose a model of torchvision that has none, such as torchvision:squeezenet1_1 or torchvision:vgg11"
)


class PoissonBatches:
    """As many batches as a loader has, each holding every image with the same probability, independently.

    Draws follow from the loader's generator as it is seeded when an epoch begins. Sampling and noise get streams of
    their own: a stream shared with each other, or with anything else that is drawn, would make them depend on it.

    Args:
        loader: of whose images to draw, by `batch_size` on average.
        device: where the noise is drawn.
    """

    def __init__(self, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device) -> None:
        if loader.batch_size is None or loader.generator is None:
            raise ValueError("batches are drawn in place of a loader with a batch size and a generator.")
        self.images: Any = loader.dataset
        self.seeded, self.expected = loader.generator, loader.batch_size
        self.noise = torch.Generator(device)

    @property
    def rate(self) -> float:
        """With which an image is in a batch."""
        return self.expected / len(self.images)

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.expected)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = self.seeded.initial_seed()
        self.noise.manual_seed(derive(purpose="noise on gradients", seed=seed))
        sampling = torch.Generator().manual_seed(derive(purpose="Poisson sampling", seed=seed))
        sampler = opacus("utils.uniform_sampler").UniformWithReplacementSampler(
            num_samples=len(self.images), sample_rate=self.rate, generator=sampling, steps=len(self)
        )
        for drawn in sampler:
            images, labels = batch = self.images.__getitems__(drawn or [0])
            yield batch if drawn else (images[:0], labels[:0])


@contextmanager
def private_steps(
    model: StagedModel, optimizer: torch.optim.Optimizer, batches: PoissonBatches, noise_multiplier: float, clip: float
) -> Iterator[torch.optim.Optimizer]:
    """Yield an optimizer that clips the gradients of single images, sums them and adds noise before it steps.

    The model computes those gradients for as long as this lasts; then all traces are removed from it.

    Raises:
        RecipeError: when a layer has no gradients of single images.
    """
    require_private(model)
    ordered = [layer.register_forward_pre_hook(_in_order) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing when gradients are computed")
            opacus("grad_sample").GradSampleModule(model, loss_reduction="mean", strict=True)
            yield opacus("optimizers").DPOptimizer(
                optimizer,
                noise_multiplier=noise_multiplier,
                max_grad_norm=clip,
                expected_batch_size=batches.expected,
                loss_reduction="mean",
                generator=batches.noise,
            )
    finally:
        for handle in ordered:
            handle.remove()
        _clean(model)


def require_private(model: StagedModel) -> None:
    """Refuse layers that mix the images of a batch, or keep values beside their weights.

    Raises:
        RecipeError: naming the stage and the layer.
    """
    for name, stage in model.stages.items():
        for layer in stage.modules():
            learns = any(weight.requires_grad for weight in layer.parameters(recurse=False))
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                reason = f"mixes the images of a batch. {WITHOUT_BATCHES}"
            elif isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
                reason = "keeps means of the images"
            elif learns and any(True for _ in layer.buffers()):
                reason = "learns and keeps values beside its weights (a sparse layer: set backprop = false)"
            else:
                continue
            raise RecipeError(
                f"dp-sgd needs the gradients of single images; stage '{name}': {type(layer).__name__} {reason}."
            )


def _in_order(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Lay out a convolution's input as Opacus takes for granted; it reads other layouts wrong (1.6.0, unfold2d)."""
    return tuple(values.contiguous() for values in inputs)


def _clean(model: StagedModel) -> None:
    for handle in getattr(model, "autograd_grad_sample_hooks", []):
        handle.remove()
    for module in model.modules():
        for name in _ON_MODULES:
            vars(module).pop(name, None)
    for parameter in model.parameters():
        parameter.grad = None
        for name in _ON_PARAMETERS:
            vars(parameter).pop(name, None)
