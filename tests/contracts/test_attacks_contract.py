"""What every attack promises, asked of all of them."""

import pytest
import torch
from torch import nn

from sparseguard.attacks import ATTACKS, Attack, AttackContext
from sparseguard.attacks.access import AccessError, ModelAccess
from sparseguard.attacks.base import NotApplicable
from sparseguard.core.config import describe, parse, settings
from sparseguard.core.errors import RecipeError, TrainingError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Noise, StagedModel
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import BACKBONES, state_hash
from sparseguard.types import FLOORS, AttackInput, AttackResult, AuxiliaryData, ImageSet, Knowledge
from support.priors import tiny_prior

CPU = torch.device("cpu")
QUICK = {
    "ridge": {"copies": 2},
    "local-ridge": {"copies": 2, "neighbors": [4, 8]},
    "ridge-mlp": {"copies": 2, "epochs": 1, "width": 8},
    "ridge-conv": {"copies": 2, "epochs": 1, "width": 4},
    "two-stage": {"copies": 2, "epochs": 1, "width": 4},
    "code-decoder": {"copies": 1, "epochs": 1, "width": 4},
    "gradient-inversion": {"steps": 4, "probe_steps": 2, "probe_images": 3, "tv": [0.0, 0.1], "prior_weight": [0.1]},
    "prior-inversion": {
        "prior": "tiny",
        "candidates": 6,
        "warm_steps": 1,
        "steps": 2,
        "layer_steps": 1,
        "probe_images": 2,
        "probe_steps": 2,
        "proximal_weight": [0.1],
    },
}
BLIND = [name for name, attack in ATTACKS.items() if attack.knowledge in FLOORS]


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return ImageSet(
        pixels=torch.rand(count, 1, 8, 8, generator=generator),
        labels=torch.randint(3, (count,), generator=generator),
        classes=("a", "b", "c"),
    )


def dense():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Linear(64, 40))
    return StagedModel({"stem": nn.Identity(), "first": first, "head": nn.Linear(40, 3)}).eval()


def sparse():
    torch.manual_seed(0)
    codes = SparseCode2d(1, 4, 3, lambd=0.2, steps=4)
    first = nn.Sequential(nn.Flatten(), nn.Linear(256, 40))
    return StagedModel({"codes": codes, "first": first, "head": nn.Linear(40, 3)}).eval()


def noisy():
    target = dense()
    target.append_to("first", Noise("gaussian", 0.1))
    return target.eval()


def spatial():
    torch.manual_seed(0)
    return StagedModel({"first": nn.Conv2d(1, 3, 3, padding=1), "head": nn.Flatten()}).eval()


def blocks():
    """Feature maps smaller than the image, rectified, behind batch normalization and pooling."""
    model = BACKBONES["conv"](width=8, channels=(3, 4)).blueprint(3).build((1, 8, 8), len)
    return StagedModel(
        {"stem": model.stages["input"], "block": model.stages["block1"], "first": model.stages["block2"]}
    ).eval()


TARGETS = {"dense": dense, "sparse": sparse, "noisy": noisy, "spatial": spatial, "blocks": blocks}
NEEDS = {"code-decoder": "sparse"}
"""Attacks that have something to offer against one kind of target only."""
CASES = [(name, kind) for name in ATTACKS for kind in TARGETS if NEEDS.get(name, kind) == kind]


def model(name="mean-image"):
    return TARGETS[NEEDS.get(name, "dense")]()


def leak_of(target, knowledge, **more):
    return ModelAccess(target, tap="t", stage="first", knowledge=knowledge, seed=0, device=CPU, released=target, **more)


def context(seed=0):
    auxiliary = AuxiliaryData(train=images(40, 1), val=images(12, 2))
    return AttackContext(
        auxiliary=auxiliary, seed=seed, device=CPU, progress=Silent(), label="toy attack", prior=tiny_prior((1, 8, 8))
    )


def goal_for(knowledge, target):
    goal = {}
    for part, count in (("private", 9), ("auxiliary_val", 12)):
        private = images(count, 7) if part == "private" else context().auxiliary.val
        seen = None if knowledge in FLOORS else leak_of(target, knowledge).observe(private)
        goal[part] = AttackInput(
            count=count, observation=seen, labels=None if knowledge is Knowledge.NOTHING else private.labels
        )
    return goal


def attack_of(name):
    return parse(ATTACKS[name], QUICK.get(name, {}), "[attack]")


def run(name, target, seed=0):
    attack = attack_of(name)
    leak = leak_of(target, attack.knowledge)
    return (*attack(leak, goal_for(attack.knowledge, target), context(seed)), leak)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_it_reconstructs_every_part_within_range_and_leaves_the_target_alone(name, kind):
    target = TARGETS[kind]()
    before = state_hash(target)
    result, outside, _ = run(name, target)
    assert {part: tuple(made.shape) for part, made in result.reconstructions.items()} == {
        "private": (9, 1, 8, 8),
        "auxiliary_val": (12, 1, 8, 8),
    }
    for made in result.reconstructions.values():
        assert made.dtype == torch.float32
        assert made.min() >= 0
        assert made.max() <= 1
    assert outside == 0
    assert result.parameter_change is None or result.parameter_change > 0
    assert state_hash(target) == before


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_gives_the_same_reconstructions(name):
    results = []
    for stir in (1, 2):
        target = model(name)
        torch.manual_seed(stir)  # the surroundings' randomness is not the attack's
        results.append(run(name, target, seed=3)[0].reconstructions)
    for part in results[0]:
        assert torch.equal(results[0][part], results[1][part])


@pytest.mark.parametrize("name", BLIND)
def test_a_blind_floor_never_queries(name):
    assert run(name, model())[2].queries == 0
    with pytest.raises(AccessError, match="may not query"):
        leak_of(model(), ATTACKS[name].knowledge).observe(images(2, 1))


@pytest.mark.parametrize("name", NEEDS)
def test_an_attack_says_so_where_it_has_nothing_to_offer(name):
    with pytest.raises(NotApplicable, match="sparse layer"):
        run(name, dense())


@pytest.mark.parametrize("level", [level for level in Knowledge if level is not Knowledge.WHITE_BOX])
def test_only_weights_opens_the_box(level):
    leak = leak_of(sparse(), level)
    with pytest.raises(AccessError, match="may not have the weights"):
        leak.copy_model()
    if level is Knowledge.GRAY_BOX:
        assert list(leak.copy_untrained_stages().stages) == ["codes"]
    else:
        with pytest.raises(AccessError, match="may not know the defense"):
            leak.copy_untrained_stages()


def test_a_white_box_is_a_copy_up_to_the_tap():
    target = sparse()
    box = leak_of(target, Knowledge.WHITE_BOX).copy_model()
    assert list(box.stages) == ["codes", "first"]
    assert not any(parameter.requires_grad for parameter in box.parameters())
    before = state_hash(target)
    with torch.no_grad():
        next(iter(box.parameters())).add_(1)
    assert state_hash(target) == before


def test_what_was_trained_is_not_part_of_the_specification():
    target = sparse()
    target.stages["codes"].hebbian = True
    assert list(leak_of(target, Knowledge.GRAY_BOX).copy_untrained_stages().stages) == []


def test_repeated_queries_are_averaged_and_counted():
    few = images(5, 1)
    once, often = leak_of(noisy(), Knowledge.BLACK_BOX), leak_of(noisy(), Knowledge.BLACK_BOX, repeats=64)
    clean = dense().forward_to(few.images, "first").detach()
    errors = [float((leak.observe(few).features - clean).square().mean()) for leak in (once, often)]
    assert errors[0] == pytest.approx(0.01, rel=0.3)
    assert errors[1] == pytest.approx(0.01 / 64, rel=0.3)
    assert (once.queries, often.queries) == (5, 5 * 64)


def test_shuffled_features_are_the_same_ones_in_another_order():
    few = images(20, 1)
    true, shuffled = (
        leak_of(dense(), Knowledge.BLACK_BOX, shuffled=how).observe(few).features for how in (False, True)
    )
    assert not torch.equal(true, shuffled)
    assert torch.equal(true.sort(0).values, shuffled.sort(0).values)


def test_queries_are_counted():
    leak = leak_of(model(), Knowledge.BLACK_BOX)
    leak.observe(images(5, 1))
    leak.observe(images(3, 1).images)
    assert leak.queries == 8


def test_a_leak_needs_a_model_in_evaluation_mode():
    with pytest.raises(AccessError, match="evaluation mode"):
        leak_of(model().train(), Knowledge.BLACK_BOX)


@pytest.mark.parametrize("name", ATTACKS)
def test_its_settings_survive_being_written_down(name):
    for piece in (ATTACKS[name](), attack_of(name)):
        assert parse(ATTACKS[name], describe(piece), "[attack]") == piece


@pytest.mark.parametrize("name", ATTACKS)
def test_an_unknown_key_is_refused(name):
    with pytest.raises(RecipeError, match="unknown key 'no_such_key'") as refusal:
        parse(ATTACKS[name], {"no_such_key": 1}, "[attack]")
    for key in describe(ATTACKS[name]()):
        assert key in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("ridge", {"copies": 0}),
        ("ridge", {"copies": 19}),
        ("ridge", {"copies": "2"}),
        ("ridge-conv", {"epochs": 0}),
        ("ridge-conv", {"lr": 0.0}),
        ("ridge-conv", {"batch_size": 1}),
        ("ridge-conv", {"width": 0}),
        ("ridge-conv", {"patience": 0}),
        ("ridge-conv", {"loss": "l3"}),
        ("ridge-mlp", {"depth": 0}),
        ("local-ridge", {"neighbors": []}),
        ("two-stage", {"mixes": -1}),
        ("code-decoder", {"copies": 0}),
        ("gradient-inversion", {"steps": 0}),
        ("gradient-inversion", {"tv": [-1.0]}),
        ("gradient-inversion", {"prior": []}),
    ],
)
def test_a_bad_setting_is_refused_by_name(name, bad):
    with pytest.raises(RecipeError, match=next(iter(bad))):
        parse(ATTACKS[name], bad, "[attack]")


@settings
class Toy(Attack):
    revision = 1
    summary = "answers with a constant"
    source = "test"
    knowledge = Knowledge.NOTHING
    value: float = 0.5
    missing: int = 0
    spoil: bool = False

    def run(self, leak, goal, context):
        made = {part: torch.full((a.count - self.missing, 1, 8, 8), self.value) for part, a in goal.items()}
        if self.spoil:
            made["private"][0, 0, 0, 0] = torch.nan
        return AttackResult(reconstructions=made)


def call(toy, parts=("private",)):
    return toy(leak_of(model(), Knowledge.NOTHING), {part: AttackInput(count=4) for part in parts}, context())


def test_reconstructions_that_are_not_finite_are_refused():
    with pytest.raises(TrainingError, match=r"toy attack.*'private' are not finite"):
        call(Toy(spoil=True))


def test_reconstructions_of_another_shape_are_refused():
    with pytest.raises(TrainingError, match=r"'private' needs \(4, 1, 8, 8\).*got \(3, 1, 8, 8\)"):
        call(Toy(missing=1))


def test_values_out_of_range_are_clipped_and_told():
    result, outside = call(Toy(value=1.25))
    assert outside == pytest.approx(0.25)
    assert torch.equal(result.reconstructions["private"], torch.ones(4, 1, 8, 8))
    assert call(Toy(value=-0.5))[1] == pytest.approx(0.5)
    assert call(Toy())[1] == 0
