"""Training of the style-based generator: its losses, averages, resuming, and what it learns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparseguard.core.errors import StoreError, TrainingError
from sparseguard.core.progress import Silent
from sparseguard.generators import StyleFit, TrainedStyleGan, style_prior_tensors, train_style_gan
from sparseguard.generators.stylegan import training as style_gan
from sparseguard.generators.stylegan.training import MEASURED, MIXED, StyleGanTrainer
from sparseguard.types import ImageSet

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"batch_size": 4, "latent": 3, "width": 2, "most": 2, "depth": 2, "judge_every": 16}


def blobs(count: int = 12, side: int = 8) -> ImageSet:
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 1, side, side, generator=random)
    return ImageSet(pixels=pixels, labels=torch.zeros(count, dtype=torch.int64), classes=("blob",))


def fit(**options: Any) -> StyleFit:
    return StyleFit(**{**SMALL, **options})


def trained(images: ImageSet, settings: StyleFit, **options: Any) -> TrainedStyleGan:
    given: dict[str, Any] = {"flips": False, "seed": 0, "device": CPU, "progress": Silent(), "label": "toy"}
    return train_style_gan(images, settings, **{**given, **options})


def training(settings: StyleFit, side: int = 8, flips: bool = False) -> StyleGanTrainer:
    torch.manual_seed(0)
    return StyleGanTrainer(blobs(side=side), settings, flips=flips, seed=0, device=CPU, label="toy", distance=None)


def weights(fitted: TrainedStyleGan) -> dict[str, Tensor]:
    return style_prior_tensors(fitted)


class Stopped:
    """Progress of which one is interrupted after so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after + 1  # the first advance tells where the training stands

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(steps: int) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance

    def say(self, message: str) -> None: ...


def test_the_discriminator_has_the_gradients_of_the_formula() -> None:
    """Autograd's first derivative by the image; by the weights, differences of the loss as a whole."""
    gamma, every = 0.7, 3
    this = training(fit(adaptive=False, r1=gamma, r1_every=every), side=4)
    this.discriminator.double()
    random = torch.Generator().manual_seed(1)
    real, fakes = (torch.rand(4, 1, 4, 4, generator=random, dtype=torch.float64) for _ in range(2))
    this.make_fakes = lambda: fakes  # type: ignore[method-assign]
    net = copy.deepcopy(this.discriminator).train()

    def loss(penalized: bool) -> float:
        inputs = real.clone().requires_grad_()
        logits = net(inputs)
        value = -torch.sigmoid(logits).log().mean() - (1 - torch.sigmoid(net(fakes))).log().mean()
        if penalized:
            (slope,) = torch.autograd.grad(logits.sum(), inputs)
            value = value + every * gamma / 2 * torch.stack([one.square().sum() for one in slope]).mean()
        return float(value.detach())

    for penalized in (True, False):
        reference = copy.deepcopy(this.discriminator.state_dict())
        net.load_state_dict(reference)
        this.train_discriminator(real.clone(), penalized)
        assert float(this.losses[0]) == pytest.approx(loss(penalized=False), rel=1e-5)
        for (name, theirs), ours in zip(net.named_parameters(), this.discriminator.parameters(), strict=True):
            assert ours.grad is not None
            flat = theirs.data.view(-1)
            for place in {0, len(flat) // 2, len(flat) - 1}:
                at, step = float(flat[place]), 1e-6
                flat[place] = at + step
                above = loss(penalized)
                flat[place] = at - step
                below = loss(penalized)
                flat[place] = at
                slope = (above - below) / (2 * step)
                assert float(ours.grad.view(-1)[place]) == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def test_a_step_moves_every_weight_by_the_losses_of_the_formula() -> None:
    this = training(fit(adaptive=False))
    before = copy.deepcopy(this)
    torch.manual_seed(1)
    this.step()
    torch.manual_seed(1)
    real = before.images.images[torch.randint(12, (4,))]
    first = before.make_fakes()
    of_real, of_fakes = before.discriminator(real), before.discriminator(first.detach())
    binary = F.binary_cross_entropy_with_logits
    expected = binary(of_real, torch.ones(4)) + binary(of_fakes, torch.zeros(4))
    torch.testing.assert_close(this.losses[0], expected.detach())
    of_fakes = this.discriminator(before.make_fakes())  # the generator meets the discriminator after its step
    torch.testing.assert_close(this.losses[1], binary(of_fakes, torch.ones(4)).detach())
    for part in ("generator", "discriminator"):
        for (name, old), new in zip(before.nets[part].named_parameters(), this.nets[part].parameters(), strict=True):
            assert not torch.equal(old, new), name


@pytest.mark.parametrize("every", [1, 3])
def test_the_penalty_comes_every_few_steps(every: int) -> None:
    this = training(fit(r1_every=every))
    seen = []
    real = this.train_discriminator
    this.train_discriminator = lambda images, penalized: (seen.append(penalized), real(images, penalized))[1]  # type: ignore[method-assign,func-returns-value]
    for _ in range(6):
        this.step()
    assert seen == [step % every == 0 for step in range(6)]


def test_the_running_mean_is_the_recursion() -> None:
    this = training(fit(half_life=20))
    expected = [value.clone().double() for value in this.mean.parameters()]
    for step in range(1, 41):
        this.step()
        kept = min(0.5 ** (4 / 20), step / (step + 10))
        expected = [
            kept * old + (1 - kept) * new.detach().double()
            for old, new in zip(expected, this.generator.parameters(), strict=True)
        ]
    for mean, wanted in zip(this.mean.parameters(), expected, strict=True):
        torch.testing.assert_close(mean.double(), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(this.mean.mean_w, this.generator.mean_w)


def test_fakes_are_made_with_one_w_or_two() -> None:
    this = training(fit(batch_size=600))
    seen: list[Tensor] = []

    def kept(w: Tensor) -> Tensor:
        seen.append(w.detach())
        return torch.zeros(len(w), 1, 8, 8)

    this.generator.synthesis = kept  # type: ignore[method-assign,assignment]
    before = this.generator.mean_w.clone()
    this.make_fakes()
    changes = (seen[0][:, 1:] != seen[0][:, :-1]).any(2).sum(1)
    assert int(changes.max()) == 1
    assert float(changes.float().mean()) == pytest.approx(MIXED, abs=0.07)
    assert len(seen[0].unique(dim=0)) == 600
    assert not torch.equal(this.generator.mean_w, before)


def test_mirrors_are_shown_only_where_they_keep_the_class() -> None:
    real = blobs().images[:1].expand(400, -1, -1, -1)
    for flips in (False, True):
        this = training(fit(adaptive=False), flips=flips)
        shown = this.augment(real)
        mirrored = (shown == real.flip(3)).all((1, 2, 3)).float()
        assert float(mirrored.mean()) == pytest.approx(0.5 if flips else 0, abs=0.1 if flips else 0)
        assert ((shown == real).all((1, 2, 3)) | (mirrored > 0)).all()


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_what_was_killed_goes_on_as_if_it_was_not(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_gan, "SAVE_EVERY", 0.0)
    settings, path = fit(images=48, r1_every=2), tmp_path / "c.safetensors"

    def distance(fakes: Tensor) -> float:
        return float(fakes.mean())

    whole = trained(blobs(), settings, flips=True, distance=distance)
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        trained(blobs(), settings, flips=True, distance=distance, checkpoint=path, progress=Stopped(steps))
    assert torch.equal(torch.random.get_rng_state(), before)
    resumed = trained(blobs(), settings, flips=True, distance=distance, checkpoint=path)
    assert resumed.history == whole.history
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


@pytest.mark.parametrize("other", ["settings", "seed", "flips", "images"])
def test_the_checkpoint_of_another_training_is_refused(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style_gan, "SAVE_EVERY", 0.0)
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(blobs(), fit(images=48), checkpoint=path, progress=Stopped(3))
    changed: dict[str, Any] = {"seed": {"seed": 1}, "flips": {"flips": True}}.get(other, {})
    images = blobs(13) if other == "images" else blobs()
    settings = fit(images=48, lr=1e-3) if other == "settings" else fit(images=48)
    with pytest.raises(StoreError, match="another training"):
        trained(images, settings, checkpoint=path, **changed)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="damaged"):
        trained(blobs(), fit(images=8), checkpoint=path)


def test_everything_follows_from_the_seed() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (weights(trained(blobs(), fit(images=16), seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if name.endswith("weight"))


def test_the_distance_is_measured_on_clipped_fakes_at_its_times() -> None:
    shown: list[Tensor] = []

    def distance(fakes: Tensor) -> float:
        shown.append(fakes)
        return float(len(shown))

    fitted = trained(blobs(), fit(images=42, judge_every=16), distance=distance)
    assert [verdict["images"] for verdict in fitted.history] == [16, 32, 44]  # and at the end, after 11 whole batches
    assert [verdict["distance"] for verdict in fitted.history] == [1, 2, 3]
    for fakes in shown:
        assert fakes.shape == (MEASURED, 1, 8, 8)
        assert 0 <= float(fakes.min()) <= float(fakes.max()) <= 1
    assert not fitted.generator.training
    assert not any(
        value.requires_grad for value in (*fitted.generator.parameters(), *fitted.discriminator.parameters())
    )


def test_what_cannot_be_learned_is_a_failure() -> None:
    with pytest.raises(TrainingError, match="3 images are fewer than a batch of 4"):
        trained(blobs(3), fit(images=8))
    with pytest.raises(TrainingError, match="not finite"):
        trained(blobs(), fit(images=40, lr=1e30, judge_every=8))


@pytest.mark.parametrize("level", [0.15, pytest.param(0.8, marks=pytest.mark.slow)])
def test_images_of_one_grey_are_learned(level: float) -> None:
    pixels = torch.full((32, 1, 4, 4), level)
    images = ImageSet(pixels=pixels, labels=torch.zeros(32, dtype=torch.int64), classes=("grey",))
    settings = fit(images=1500, batch_size=8, width=4, latent=4, half_life=100, adaptive=False, r1_every=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fitted = trained(images, settings)
        fakes = fitted.generator(torch.randn(64, 4))
    assert abs(float(fakes.mean()) - level) < 0.05
    assert float((fakes - level).abs().mean()) < 0.1
