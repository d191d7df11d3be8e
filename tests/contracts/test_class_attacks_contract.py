"""What every attack on classes promises, asked of all of them."""

import pytest
import torch
from torch import nn

from sparseguard.attacks import CLASS_ATTACKS, ClassAttack, ClassContext
from sparseguard.attacks.access import AccessError, ModelAccess
from sparseguard.attacks.base import NoPartialResults
from sparseguard.core.config import describe, parse, settings
from sparseguard.core.errors import RecipeError, TrainingError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Noise, StagedModel
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import state_hash
from sparseguard.types import ClassResult, Knowledge, TargetClasses
from support.priors import tiny_prior

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)
GOAL = TargetClasses(indices=(0, 2), names=("a", "b", "c"), shape=SHAPE, flips_keep_class=True)
QUICK = {
    "plug-and-play": {
        "prior": "tiny", "candidates": 12, "optimized": 4, "selected": 2, "steps": 3, "transforms": 2,
        "probe_steps": 2, "probe_images": 3,
    },
    "pixel-inversion": {"images": 3, "steps": 4},
}  # fmt: skip


def dense():
    torch.manual_seed(0)
    return StagedModel({"stem": nn.Identity(), "head": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}).eval()


def sparse():
    torch.manual_seed(0)
    codes = SparseCode2d(1, 4, 3, lambd=0.2, steps=4)
    return StagedModel({"codes": codes, "head": nn.Sequential(nn.Flatten(), nn.Linear(256, 3))}).eval()


def noisy():
    target = dense()
    target.append_to("head", Noise("gaussian", 0.1))
    return target.eval()


TARGETS = {"dense": dense, "sparse": sparse, "noisy": noisy}
CASES = [(name, kind) for name in CLASS_ATTACKS for kind in TARGETS]


def leak_of(target, knowledge):
    return ModelAccess(target, tap="logits", stage="head", knowledge=knowledge, seed=0, device=CPU, released=target)


def context(seed=0):
    return ClassContext(
        prior=tiny_prior(SHAPE),
        seed=seed,
        device=CPU,
        progress=Silent(),
        label="toy attack",
        partial_results=NoPartialResults(),
    )


def run(name, target, seed=0):
    attack = CLASS_ATTACKS[name](**QUICK[name])
    return attack(leak_of(target, attack.knowledge), GOAL, context(seed))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_images_of_every_wanted_class_and_of_no_other_come_back(name, kind):
    result = run(name, TARGETS[kind]())
    n = len(result.images)
    assert result.images.shape == result.starts.shape == (n, *SHAPE)
    assert {int(label) for label in result.labels} == set(GOAL.indices)
    assert {int(label) for label in result.labels[result.selected]} == set(GOAL.indices)
    for values in (result.confidence, result.steady_confidence, result.start_confidence):
        assert values.shape == (n,)
        assert bool(((values >= 0) & (values <= 1 + 1e-6)).all())
    for images in (result.images, result.starts):
        assert 0 <= float(images.min()) <= float(images.max()) <= 1


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_equal_seeds_give_equal_images(name, kind):
    first, second, other = (run(name, TARGETS[kind](), seed) for seed in (0, 0, 1))
    assert (first.images == second.images).all()
    assert not (first.images == other.images).all()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_target_is_left_as_it_was(name, kind):
    target = TARGETS[kind]()
    before, states = state_hash(target), [module.training for module in target.modules()]
    run(name, target)
    assert state_hash(target) == before
    assert [module.training for module in target.modules()] == states
    assert all(parameter.grad is None for parameter in target.parameters())
    assert sum(isinstance(module, Noise) for module in target.modules()) == (kind == "noisy")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_random_state_is_left_to_others(name, kind):
    target = TARGETS[kind]()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(name, target)
    assert (torch.rand(3) == expected).all()


@pytest.mark.parametrize("name", CLASS_ATTACKS)
def test_less_than_the_weights_is_refused(name):
    attack = CLASS_ATTACKS[name](**QUICK[name])
    with pytest.raises(AccessError, match="may not have the weights"):
        attack(leak_of(dense(), Knowledge.BLACK_BOX), GOAL, context())


@pytest.mark.parametrize("name", CLASS_ATTACKS)
def test_settings_go_round(name):
    attack = CLASS_ATTACKS[name](**QUICK[name])
    assert parse(CLASS_ATTACKS[name], describe(attack), "here") == attack
    with pytest.raises(RecipeError, match="unknown key"):
        parse(CLASS_ATTACKS[name], {"nothing": 1}, "here")


@pytest.mark.parametrize("name", CLASS_ATTACKS)
def test_it_says_what_it_is(name):
    piece = CLASS_ATTACKS[name]
    assert piece.summary
    assert piece.source
    assert piece.revision >= 1
    assert piece.knowledge == Knowledge.WHITE_BOX
    for preset in piece.presets.values():
        piece(**preset)


@settings
class Broken(ClassAttack):
    """Answers with what it is told to."""

    revision = 1
    summary = "for tests"
    source = "none"
    knowledge = Knowledge.WHITE_BOX
    value: float = 0.5
    size: int = 8
    missing: bool = False

    def run(self, leak, goal, context):
        labels = torch.tensor([0] if self.missing else [0, 2])
        images = torch.full((len(labels), 1, self.size, self.size), self.value)
        ones = torch.ones(len(labels))
        return ClassResult(
            images=images, labels=labels, confidence=ones, steady_confidence=ones,
            selected=torch.ones(len(labels), dtype=torch.bool), starts=images, start_confidence=ones,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [({"size": 9}, "needs finite images"), ({"missing": True}, "made nothing for the classes")],
)
def test_a_result_that_means_nothing_is_never_scored(more, message):
    with pytest.raises(TrainingError, match=message):
        Broken(**more)(leak_of(dense(), Knowledge.WHITE_BOX), GOAL, context())


def test_images_are_clipped_to_their_range():
    result = Broken(value=1.5)(leak_of(dense(), Knowledge.WHITE_BOX), GOAL, context())
    assert float(result.images.max()) == 1
