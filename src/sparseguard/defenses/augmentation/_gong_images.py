"""The two kinds of images that mislead an inversion: planted and inverted ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparseguard.generators import ConditionalGenerator
from sparseguard.types import ImageSet


def public_classifier(images: ImageSet, *, epochs: int, seed: int, device: torch.device) -> nn.Module:
    """Train a small dense classifier on public images and return it in evaluation mode."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(images.pixels[:1].numel(), 128), nn.ReLU(), nn.Linear(128, len(images.classes))
        ).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(images)).split(64):
                logits = network(images.batch(index).to(device) * 2 - 1)
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(logits, images.labels[index].to(device)).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


def derangement(classes: Int[Tensor, " k"], generator: torch.Generator) -> Int[Tensor, " k"]:
    """Return a different class for each, all of them used: the next one in a random circle."""
    order = torch.randperm(len(classes), generator=generator)
    others = torch.empty_like(classes)
    others[order] = classes[order.roll(-1)]
    return others


@torch.no_grad()
def typical_images(
    generator: ConditionalGenerator, judge: nn.Module, label: int, count: int, draws: int, random: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Return, of ``draws * count`` images of a class, the ``count`` that the judge is surest of."""
    wanted = torch.full((draws * count,), label)
    images = generator.sample(wanted, random)
    device = generator.embedding.weight.device
    sure = torch.cat([judge(part.to(device) * 2 - 1).log_softmax(1)[:, label].cpu() for part in images.split(500)])
    return images[sure.topk(count).indices]


def inverted_images(
    victim: nn.Module,
    generator: ConditionalGenerator,
    labels: Int[Tensor, " n"],
    *,
    steps: int,
    rate: float,
    random: torch.Generator,
) -> Float[Tensor, "n c h w"]:
    """Return images of these labels that the victim is sure of: the generator's noise is optimised by Adam.

    Args:
        victim: in evaluation mode; its gradients are left alone.
        generator: whose images are searched.
        labels: on the device of both.
        steps: of Adam.
        rate: its learning rate.
        random: of the noise to start from.
    """
    found = []
    for part in labels.split(250):
        noise = generator.noise(len(part), random).requires_grad_()
        optimizer = torch.optim.Adam([noise], lr=rate)
        for _ in range(steps):
            unsure = F.cross_entropy(victim(generator(noise, part)), part, reduction="sum")
            (noise.grad,) = torch.autograd.grad(unsure, noise)
            optimizer.step()
        with torch.no_grad():
            found.append(generator(noise, part))
    return torch.cat(found)


def away_from_class(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Tensor:
    """Return the mean of -log(1 - p) over the probabilities p of the labels, in nats."""
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return (logits.logsumexp(1) - others.logsumexp(1)).mean()
