"""DP-SGD: one step by hand, what is spent, what is left on the model, what is refused."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseguard.core.checkpoint import load_checkpoint, save_checkpoint
from sparseguard.core.config import describe, parse
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Blueprint, Stage, StagedModel
from sparseguard.data import DATASETS
from sparseguard.defenses.augmentation.midre import Midre
from sparseguard.defenses.base import Budget, Context, Defense
from sparseguard.defenses.combined import Combined
from sparseguard.defenses.differential_privacy._accounting import compute_epsilon, find_noise_multiplier
from sparseguard.defenses.differential_privacy._opacus_steps import PoissonBatches
from sparseguard.defenses.differential_privacy.dp_sgd import DpSgd
from sparseguard.defenses.sparse_coding.sparse_standard import SparseStandard
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import BACKBONES, Fit, state_hash, train
from sparseguard.targets.training.loaders import hold_out, make_loader
from sparseguard.types import Phase

PRIVATE = DATASETS["fashion-mini"](private=100).load().private
USED = hold_out(PRIVATE, 1)[1]
CPU = torch.device("cpu")
FIT = Fit(epochs=3, batch_size=30, lr=0.01)
PLAIN = BACKBONES["linear-shallow"](width=12).blueprint(10)
CONV = Blueprint(
    stages=(
        Stage("stem", lambda _: nn.Identity()),
        Stage("conv", lambda s: nn.Sequential(nn.Conv2d(s[0], 4, 5, stride=3), nn.GroupNorm(2, 4), nn.ReLU())),
        Stage("head", lambda s: nn.Sequential(nn.Flatten(), nn.Linear(math.prod(s), 10))),
    ),
    taps={},
)


class LastChannelFirst(nn.Module):
    """What convolutions see behind layers that norm over channels, as in torchvision's ConvNeXt."""

    def forward(self, values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


PERMUTED = Blueprint(
    stages=(
        Stage("stem", lambda s: nn.Sequential(nn.Conv2d(s[0], 3, 1), LastChannelFirst())),
        Stage("conv", lambda s: nn.Sequential(nn.Conv2d(s[0], 4, 2, stride=2), nn.ReLU())),
        Stage("head", lambda s: nn.Sequential(nn.Flatten(), nn.Linear(math.prod(s), 10))),
    ),
    taps={},
)
each_model = pytest.mark.parametrize(
    "blueprint",
    [PLAIN, CONV, BACKBONES["row-linear"](width=6, narrow=4).blueprint(10), PERMUTED],
    ids=["dense", "convolutional", "on rows", "channels last"],
)


def built(blueprint: Blueprint = PLAIN) -> StagedModel:
    return blueprint.build(PRIVATE.shape, lambda stage: len(stage)).train()


def prepared(component: Defense, fit: Fit = FIT) -> dict[str, Tensor]:
    budget = Budget(images=len(USED), batch_size=fit.batch_size, epochs=fit.epochs)
    context = Context(private=PRIVATE, auxiliary=PRIVATE, blueprint=PLAIN, seed=0, budget=budget)
    return dict(component.prepare(context))


QUICK = DpSgd(noise_multiplier=1.0, accountant="rdp")
STATE = prepared(QUICK)


def fitted(
    component: Defense = QUICK, model: StagedModel | None = None, state: Any = None, **options: Any
) -> StagedModel:
    model = model or built()
    options = {"progress": Silent(), **options}
    train(model, component, STATE if state is None else state, PRIVATE, FIT, seed=1, device=CPU, label="t", **options)
    return model


def served(seed: int = 0) -> Any:
    return make_loader(USED, FIT.batch_size, torch.Generator().manual_seed(seed))


def hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks or module._backward_hooks)


def remains(model: nn.Module) -> set[str]:
    """What a model has that a fresh one lacks."""
    plain, weight = nn.Linear(1, 1), nn.Parameter(torch.zeros(1))
    names = {name for module in model.modules() for name in vars(module)} - set(vars(plain)) - {"p", "inplace"}
    hooks = {f"hook on {type(m).__name__}" for m in model.modules() if hooked(m)}
    return (
        hooks
        | {name for name in names if name in TRACES}
        | {n for p in model.parameters() for n in vars(p)} - set(vars(weight))
    )


TRACES = {"activations", "max_batch_len", "ft_compute_sample_grad", "autograd_grad_sample_hooks"}


@each_model
@pytest.mark.parametrize("noise", [0.0, 0.7])
@pytest.mark.parametrize("clip", [0.5, 1000.0])
def test_a_step_is_what_the_algorithm_says(blueprint: Blueprint, noise: float, clip: float) -> None:
    """Image by image: clipped over all parameters, summed, noised, divided by the expected size, put to SGD."""
    model, rate = built(blueprint), 0.3
    start = copy.deepcopy(model)
    state = {**STATE, "noise_multiplier": torch.tensor(noise)}
    sgd = torch.optim.SGD(model.parameters(), lr=rate)
    with DpSgd(clip=clip).wrap(model, sgd, served(), state) as (trained, optimizer, batches):
        assert trained is model
        images, labels = next(iter(batches))
        following = batches.noise.get_state()
        nn.functional.cross_entropy(trained(images), labels).backward()
        optimizer.step()
    expected = [torch.zeros_like(p) for p in start.parameters()]
    lengths = []
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(start(image[None]), label[None])
        gradients = torch.autograd.grad(loss, list(start.parameters()))
        length = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        lengths.append(length)
        for total, gradient in zip(expected, gradients, strict=True):
            total += gradient * min(1.0, clip / length)
    assert (max(lengths) > clip) == (clip == 0.5)
    source = torch.Generator()
    source.set_state(following)
    for parameter, before, total in zip(model.parameters(), start.parameters(), expected, strict=True):
        total += noise * clip * torch.randn(total.shape, generator=source)
        torch.testing.assert_close(parameter, before - rate * total / FIT.batch_size, rtol=1e-4, atol=1e-5)


def test_batches_are_poisson_samples() -> None:
    drawn = PoissonBatches(served(), CPU)
    assert len(drawn) == 3
    assert drawn.rate == pytest.approx(1 / 3)
    seen = torch.zeros(200, 3, len(USED))
    for seed in range(200):
        drawn.seeded.manual_seed(seed)
        batches = list(drawn)
        for step, batch in enumerate(batches):
            seen[seed, step, batch.rows] = 1  # type: ignore[attr-defined]
            assert torch.equal(batch[0], USED.batch(batch.rows))  # type: ignore[attr-defined]
    n = seen.numel()
    assert float(seen.mean()) == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / n))
    sizes = seen.sum(2).flatten()
    assert float(sizes.var()) == pytest.approx(len(USED) * 2 / 9, rel=0.25)
    for other in (seen[:, 0] * seen[:, 1], seen[:, :, 0] * seen[:, :, 1]):
        assert float(other.mean()) == pytest.approx(1 / 9, abs=0.03)


def test_sampling_and_noise_are_streams_of_their_own() -> None:
    """The loop seeds the loader's generator and torch's global one alike."""
    drawn = PoissonBatches(served(5), CPU)
    first = next(iter(drawn))
    noise = torch.rand(len(USED), generator=drawn.noise)
    shared = torch.rand(len(USED), generator=torch.Generator().manual_seed(5))
    rows = first.rows.tolist()  # type: ignore[attr-defined]
    for stream in (noise, shared):
        assert (stream < drawn.rate).nonzero().flatten().tolist() != rows
    assert not torch.equal(noise, shared)
    assert torch.equal(next(iter(drawn))[0], first[0])


@each_model
def test_an_empty_batch_is_a_step_of_noise_alone(blueprint: Blueprint) -> None:
    model = built(blueprint)
    start = [p.detach().clone() for p in model.parameters()]
    drawn = PoissonBatches(served(), CPU)
    drawn.expected = 1
    drawn.seeded.manual_seed(next(s for s in range(999) if _draws_nothing(drawn, s)))
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    with QUICK.wrap(model, sgd, served(), STATE) as (_, optimizer, batches):
        assert isinstance(batches, PoissonBatches)
        images, _ = next(batch for batch in drawn if len(batch[0]) == 0)
        batches.noise.manual_seed(3)
        list(model.outputs(images).values())[-1].sum().backward()
        optimizer.step()
    source = torch.Generator().manual_seed(3)
    for parameter, before in zip(model.parameters(), start, strict=True):
        noise = torch.randn(before.shape, generator=source)
        torch.testing.assert_close(parameter, before - noise / FIT.batch_size)


def _draws_nothing(drawn: PoissonBatches, seed: int) -> bool:
    drawn.seeded.manual_seed(seed)
    return any(len(images) == 0 for images, _ in drawn)


def test_a_training_with_empty_batches_goes_on() -> None:
    fit = Fit(epochs=2, batch_size=2)
    model = built()
    state = {**STATE, "sampling_rate": torch.tensor(2 / len(USED), dtype=torch.float64)}
    train(model, QUICK, state, PRIVATE, fit, seed=1, device=CPU, progress=Silent(), label="t")
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.filterwarnings("ignore:Optimal order is the")
@pytest.mark.parametrize("accountant", [pytest.param("prv", marks=pytest.mark.slow), "rdp"])
def test_what_is_spent_is_what_opacus_says(accountant: Any) -> None:
    from opacus.accountants import create_accountant
    from opacus.accountants.utils import get_noise_multiplier

    rate, steps, delta = 0.2, 60, 1e-5
    sigma = find_noise_multiplier(epsilon=8.0, rate=rate, steps=steps, delta=delta, accountant=accountant)
    theirs = create_accountant(accountant)
    theirs.history = [(sigma, rate, steps)]
    ours = compute_epsilon(noise_multiplier=sigma, rate=rate, steps=steps, delta=delta, accountant=accountant)
    assert ours == pytest.approx(theirs.get_epsilon(delta), rel=0.005)
    assert 7.9 < ours <= 8.0
    found = get_noise_multiplier(
        target_epsilon=8.0, target_delta=delta, sample_rate=rate, steps=steps, accountant=accountant
    )
    assert sigma == pytest.approx(found, rel=0.01)


def test_where_losses_cannot_be_summed_renyi_divergences_are() -> None:
    common = {"delta": 1e-5, "steps": 20}
    for sigma, rate in ((5.0, 1.0), (0.1, 0.3)):
        both = [compute_epsilon(noise_multiplier=sigma, rate=rate, accountant=a, **common) for a in ("prv", "rdp")]  # type: ignore[arg-type]
        assert both[0] == both[1]
    tight = compute_epsilon(noise_multiplier=1.0, rate=0.1, **common)  # type: ignore[arg-type]
    assert tight < compute_epsilon(noise_multiplier=1.0, rate=0.1, accountant="rdp", **common)  # type: ignore[arg-type]


def test_the_budget_says_what_there_is_to_account_for() -> None:
    component = DpSgd(epsilon=3.0, accountant="rdp")
    facts = component.facts(built(), PRIVATE.images[:2], prepared(component))
    assert facts["steps"] == 9
    assert facts["sampling_rate"] == pytest.approx(30 / 90)
    assert 2.95 < facts["epsilon"] <= 3.0
    assert facts["delta"] == 1e-5
    assert facts["rero_prior"] == pytest.approx(1 / 90)
    assert 1 / 90 < facts["rero_bound"] < math.exp(3) / 90
    louder = DpSgd(noise_multiplier=2 * facts["noise_multiplier"], accountant="rdp")
    assert louder.facts(built(), PRIVATE.images[:2], prepared(louder))["epsilon"] < facts["epsilon"]


def test_epsilon_or_noise_but_not_both() -> None:
    assert describe(DpSgd())["epsilon"] == 8.0
    assert parse(DpSgd, describe(DpSgd()), "[x]") == DpSgd(epsilon=8.0)
    assert DpSgd(noise_multiplier=1.0).epsilon is None
    assert parse(DpSgd, describe(QUICK), "[x]") == QUICK
    with pytest.raises(RecipeError, match="not both"):
        parse(DpSgd, {"epsilon": 8.0, "noise_multiplier": 1.0}, "[x]")


@each_model
def test_nothing_of_it_stays_on_the_model(blueprint: Blueprint) -> None:
    model = built(blueprint)
    keys = list(model.state_dict())
    fitted(model=model)
    assert remains(model) == set()
    assert list(model.state_dict()) == keys
    copied = copy.deepcopy(model)
    copied(PRIVATE.images[:2]).sum().backward()
    assert remains(copied) == set()


class StumbledError(Exception):
    """Stands for any error."""


def test_nothing_of_it_stays_after_an_error() -> None:
    model = built()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)

    def stumble() -> None:
        with QUICK.wrap(model, sgd, served(), STATE) as (trained, _, batches):
            images, labels = next(iter(batches))
            nn.functional.cross_entropy(trained(images), labels).backward()
            trained(images)
            assert remains(model)
            raise StumbledError

    with pytest.raises(StumbledError):
        stumble()
    assert remains(model) == set()
    assert all(p.grad is None for p in model.parameters())


class KilledError(Exception):
    """Stands for a kill between two epochs."""


class Interrupted(Silent):
    """Kills the training in its fifth step."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        seen = [0]

        def advance(steps: int) -> None:
            seen[0] += steps
            if seen[0] == 5:
                raise KilledError

        yield advance


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight, checkpoint = fitted(), tmp_path / "c.safetensors"
    with pytest.raises(KilledError):
        fitted(progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert checkpoint.exists()
    assert state_hash(fitted(checkpoint=checkpoint, checkpoint_seconds=0.0)) == state_hash(straight)


def test_its_optimizer_can_be_written_and_read_and_steered(tmp_path: Path) -> None:
    model = built()
    adam = torch.optim.Adam(model.parameters())
    with QUICK.wrap(model, adam, served(), STATE) as (trained, optimizer, batches):
        images, labels = next(iter(batches))
        nn.functional.cross_entropy(trained(images), labels).backward()
        optimizer.step()
        save_checkpoint(tmp_path / "c", model, {"optimizer": optimizer}, {}, {}, {})
        optimizer.param_groups[0]["lr"] = 0.5
        assert adam.param_groups[0]["lr"] == 0.5
    other = built()
    again = torch.optim.Adam(other.parameters())
    with QUICK.wrap(other, again, served(), STATE) as (_, optimizer, _):
        load_checkpoint(tmp_path / "c", other, {"optimizer": optimizer}, ())
    torch.testing.assert_close(again.state_dict()["state"], adam.state_dict()["state"])
    assert state_hash(other) == state_hash(model)


def test_a_sparse_layer_that_does_not_learn_is_run_once_an_image() -> None:
    sparse = SparseStandard(features=4, channels=3, steps=4)
    model = sparse.edit_blueprint(PLAIN, {}).build(PRIVATE.shape, lambda stage: len(stage))
    before = model.stages["codes"].fingerprint()  # type: ignore[operator, union-attr]
    component = Combined({"sparse-standard": sparse, "dp-sgd": QUICK})
    fitted(component, model, {f"dp-sgd/{name}": value for name, value in STATE.items()})
    assert model.stages["codes"].fingerprint() == before  # type: ignore[operator, union-attr]
    assert remains(model) == set()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            lambda c: nn.BatchNorm2d(c),
            r'BatchNorm2d mixes the images.*Set normalization = "group".*conv, or sca.*squeezenet1_1',
        ),
        (lambda c: nn.BatchNorm2d(c, affine=False), "BatchNorm2d mixes"),
        (lambda c: nn.InstanceNorm2d(c, track_running_stats=True), "stores means of the images"),
        (lambda c: SparseCode2d(c, 2, backprop=True), "set backprop = false"),
    ],
)
def test_layers_that_cannot_be_private_are_refused(layer: Callable[[int], nn.Module], reason: str) -> None:
    model = built(PLAIN.replace("stem", lambda shape: layer(shape[0])))
    with pytest.raises(RecipeError, match=f"stage 'stem': .*{reason}"):
        fitted(model=model)
    assert remains(model) == set()


def test_what_looks_at_private_images_otherwise_is_refused() -> None:
    with pytest.raises(RecipeError, match="dp-sgd refuses midre: it fills with the private images' mean color"):
        Combined({"midre": Midre(), "dp-sgd": QUICK})
    assert Combined({"midre": Midre(fill=0.5), "dp-sgd": QUICK}).chooses_epoch is False


class Adding(Defense):
    def transform(self, images: Any, labels: Any, *, state: Any, epoch: int, generator: Any) -> Any:
        return torch.cat([images, images]), torch.cat([labels, labels])


class Longer(Defense):
    def phases(self, epochs: int) -> tuple[Phase, ...]:
        return Phase(name="first", epochs=1), Phase(name="second", epochs=epochs)


@pytest.mark.parametrize(("other", "reason"), [(Adding(), "adds images"), (Longer(), "accounts for 3 epochs")])
def test_what_the_accountant_does_not_see_is_refused(other: Defense, reason: str) -> None:
    component = Combined({"other": other, "dp-sgd": QUICK})
    with pytest.raises(RecipeError, match=reason):
        fitted(component, state={f"dp-sgd/{name}": value for name, value in STATE.items()})


def test_another_batch_size_than_accounted_for_is_refused() -> None:
    with pytest.raises(RecipeError, match="another number of images"):
        fitted(state={**STATE, "sampling_rate": torch.tensor(0.1)})


def test_without_opacus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("opacus", *(name for name in sys.modules if name.startswith("opacus."))):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecipeError, match=r'pip install "sparseguard\[privacy\]"'):
        prepared(QUICK)
