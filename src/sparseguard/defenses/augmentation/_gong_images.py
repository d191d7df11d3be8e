"""Images that mislead an inversion: planted and inverted ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparseguard.generators import ConditionalGenerator
from sparseguard.types import ImageSet


def train_classifier(images: ImageSet, *, epochs: int, seed: int, device: torch.device) -> nn.Module:
    """Train a small dense classifier on auxiliary images and return it in evaluation mode."""
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


def draw_derangement(classes: Int[Tensor, " k"], generator: torch.Generator) -> Int[Tensor, " k"]:
    """Return a different class for each class, one to one: the next class in a random cycle."""
    order = torch.randperm(len(classes), generator=generator)
    targets = torch.empty_like(classes)
    targets[order] = classes[order.roll(-1)]
    return targets


@torch.no_grad()
def sample_typical_images(
    generator: ConditionalGenerator, classifier: nn.Module, label: int, count: int, draws: int, random: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Return, of ``draws * count`` images of a class, the ``count`` of which the classifier is surest."""
    classes = torch.full((draws * count,), label)
    images = generator.sample(classes, random)
    device = generator.embedding.weight.device
    confidence = torch.cat(
        [classifier(chunk.to(device) * 2 - 1).log_softmax(1)[:, label].cpu() for chunk in images.split(500)]
    )
    return images[confidence.topk(count).indices]


def invert_model(
    model: nn.Module,
    generator: ConditionalGenerator,
    labels: Int[Tensor, " n"],
    *,
    steps: int,
    rate: float,
    random: torch.Generator,
) -> Float[Tensor, "n c h w"]:
    """Return images of high confidence for these labels, by Adam on the generator's noise.

    Args:
        model: in evaluation mode; its gradients do not change.
        generator: of the images.
        labels: on the device of both.
        steps: of Adam.
        rate: its learning rate.
        random: of the initial noise.
    """
    images = []
    for chunk in labels.split(250):
        noise = generator.noise(len(chunk), random).requires_grad_()
        optimizer = torch.optim.Adam([noise], lr=rate)
        for _ in range(steps):
            loss = F.cross_entropy(model(generator(noise, chunk)), chunk, reduction="sum")
            (noise.grad,) = torch.autograd.grad(loss, noise)
            optimizer.step()
        with torch.no_grad():
            images.append(generator(noise, chunk))
    return torch.cat(images)


def compute_repulsion(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Tensor:
    """Return the mean of -log(1 - p) over the probabilities p of the labels, in nats."""
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return (logits.logsumexp(1) - others.logsumexp(1)).mean()
