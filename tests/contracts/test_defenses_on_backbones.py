"""Every defense on every backbone: it is built, trained and attacked, or refused with what to choose instead."""

import copy
import functools
import itertools
import math
from dataclasses import dataclass, field, replace

import pytest
import torch

from sparseguard.attacks.access import ModelAccess
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.defenses import DEFENSES, Budget, Context
from sparseguard.targets import BACKBONES, Fit, Target, train
from sparseguard.targets.backbones import torchvision as torchvision_model
from sparseguard.types import ImageSet, Knowledge
from support.defenses import make_quick, stage_seed

CPU = torch.device("cpu")
IMAGES = 8
CLASSES = ("a", "b", "c")
FASTER = {"dp-sgd": {"noise_multiplier": 1.0, "accountant": "rdp"}, "sca": {"steps": (3, 2)}, "gong++": {"steps": 2}}


@dataclass(frozen=True, eq=False)
class Case:
    """A small backbone and a tap."""

    backbone: str
    tap: str
    shape: tuple[int, ...] = (1, 8, 8)
    settings: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.settings.get('model', self.backbone)}-{self.tap}"

    @property
    def component(self):
        return BACKBONES[self.backbone](**self.settings)


def conv(tap, **more):
    return Case("conv", tap, settings={"width": 12, "channels": (4, 6), **more})


def rows(tap):
    return Case("row-linear", tap, settings={"width": 12, "narrow": 6})


def torchvision_case(model, tap):
    return Case("torchvision", tap, (3, 20, 20), {"model": model})


SQUEEZENET = torchvision_case("squeezenet1_1", "features.4")
FAST = [conv("block1"), rows("first_linear"), SQUEEZENET]
"""Together with `linear` and `linear-shallow` of the other contract tests, every backbone of the table."""
ALL = [
    *(conv(tap) for tap in ("block1", "block2", "first_linear", "first_linear.relu", "last_hidden", "logits")),
    *(rows(tap) for tap in ("first_linear", "last_hidden", "logits")),
    *(torchvision_case("squeezenet1_1", tap) for tap in ("features.4", "last_hidden", "logits")),
    *(torchvision_case("resnet18", tap) for tap in ("layer2", "last_hidden")),
    Case("linear", "logits", settings={"width": 12}),
    Case("linear-shallow", "logits", settings={"width": 12}),
]


def refusal(defense, case):
    """What a pair that makes no sense is refused with; None for the others."""
    torchvision, block = case.backbone == "torchvision", case.tap.startswith("block")
    squeezenet, batches = case.settings.get("model") == "squeezenet1_1", case.settings.get("model") == "resnet18"
    reasons = {
        "gaussian-noise": "none of them. Name some in" if torchvision else "comes before. Add" if block else None,
        "low-rank": "is missing. Choose the backbone" if torchvision else "comes before. Attack" if block else None,
        "dp-sgd": 'mixes the images of a batch. Set normalization = "group"' if case.backbone == "conv" else None,
        "downsample": "Choose another image size or backbone" if squeezenet else None,
    }
    return "choose a model of torchvision that has none" if batches and defense == "dp-sgd" else reasons.get(defense)


@functools.cache
def image_set(shape):
    pixels = torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(1))
    return ImageSet(pixels=pixels, labels=torch.arange(IMAGES) % len(CLASSES), classes=CLASSES)


def released(defense, case, **settings):
    """The defense, its target after one step, the loss of that step, and what the defense learned."""
    component = make_quick(defense, **{**FASTER.get(defense, {}), **settings})
    images = image_set(case.shape)
    plain = replace(case.component.blueprint(len(CLASSES)), tap=case.tap)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        budget = Budget(images=IMAGES - 1, batch_size=IMAGES - 1, epochs=1)
        state = component.prepare(Context(private=images, auxiliary=images, blueprint=plain, seed=0, budget=budget))
    blueprint = component.edit_blueprint(plain, state)
    model = blueprint.build(case.shape, stage_seed)
    run = train(
        model,
        component,
        state,
        images,
        Fit(epochs=1, batch_size=IMAGES, patience=None),
        seed=1,
        device=CPU,
        progress=Silent(),
        label="t",
        tap_stage=blueprint.resolve_tap(case.tap),
    )
    component.release(model)
    target = Target(model=model, taps=dict(blueprint.taps), epochs=1, best_epoch=1)
    return component, target, run.history[0], {**state}


@functools.cache
def shapes(case):
    """Of the undefended model's taps."""
    plain = case.component.blueprint(len(CLASSES))
    outputs = plain.build(case.shape, stage_seed).outputs(image_set(case.shape).images)
    return {tap: outputs[stage].shape for tap, stage in plain.taps.items()}


def observe_twice(target, case, seed=7):
    access = ModelAccess(
        target.model, tap=case.tap, stage=target.taps[case.tap], knowledge=Knowledge.BLACK_BOX, seed=seed, device=CPU
    )
    return [access.observe(image_set(case.shape)).features for _ in range(2)]


def require_at_work(defense, case, **settings):
    component, target, losses, state = released(defense, case, **settings)
    assert all(math.isfinite(value) for value in losses.values())
    images = image_set(case.shape).images
    with torch.no_grad():
        outputs = target.model.outputs(images)
    assert outputs[target.taps["logits"]].shape == (IMAGES, len(CLASSES))
    for tap, plain in shapes(case).items():
        features = outputs[target.taps[tap]]
        assert features.isfinite().all()
        assert (len(features), features.ndim) == (IMAGES, len(plain)), tap
    first, second = observe_twice(target, case)
    assert torch.equal(first, second) is not component.randomizes
    assert component.find_inactivity(target.model, images) is None
    assert all(math.isfinite(value) for value in component.facts(target.model, images, state).values())


def require(defense, case):
    reason = refusal(defense, case)
    if reason is None:
        require_at_work(defense, case)
        return
    with pytest.raises(RecipeError) as raised:
        released(defense, case)
    assert reason in str(raised.value)


@pytest.fixture
def quickly_drawn(monkeypatch):
    """Torchvision's models are drawn once and copied, instead of once a stage."""
    drawn = functools.cache(torchvision_model.build_model)
    monkeypatch.setattr(torchvision_model, "build_model", lambda name, classes: copy.deepcopy(drawn(name, classes)))


@pytest.mark.usefixtures("quickly_drawn")
@pytest.mark.parametrize(("defense", "case"), list(itertools.product(DEFENSES, FAST)), ids=str)
def test_it_is_trained_and_attacked_or_refused(defense, case):
    require(defense, case)


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_drawn")
@pytest.mark.parametrize(("defense", "case"), list(itertools.product(DEFENSES, ALL)), ids=str)
def test_it_is_trained_and_attacked_or_refused_at_every_kind_of_tap(defense, case):
    require(defense, case)


@pytest.mark.usefixtures("quickly_drawn")
@pytest.mark.parametrize(
    ("defense", "case", "settings"),
    [
        ("gaussian-noise", conv("block1"), {"stages": ("block1",)}),
        ("gaussian-noise", SQUEEZENET, {"stages": ("features_4",)}),
        ("gaussian-noise", conv("first_linear"), {}),
        ("low-rank", conv("first_linear"), {}),
        ("dp-sgd", conv("block1", normalization="group"), {}),
        ("mid", conv("logits"), {}),
        ("mid", rows("logits"), {}),
        ("mid", torchvision_case("squeezenet1_1", "logits"), {}),
    ],
    ids=str,
)
def test_what_a_refusal_names_works(defense, case, settings):
    require_at_work(defense, case, **settings)
