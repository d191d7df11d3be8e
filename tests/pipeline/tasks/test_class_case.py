import json

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sparseguard.attacks import ATTACKS
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.data import DATASETS
from sparseguard.data.datasets.fashion_mnist import CLASSES
from sparseguard.metrics import psnr
from sparseguard.pipeline import limit_batch_size, load_recipe, parse_recipe, run
from sparseguard.pipeline.plan.cases import plan_cases
from sparseguard.pipeline.plan.classes import select_classes
from sparseguard.pipeline.scoring.class_images import AttackImages, LabeledImages, shuffle_patches
from sparseguard.pipeline.scoring.classes import ClassScores
from sparseguard.pipeline.scoring.evaluators import BUDGET, Evaluator
from sparseguard.record import read_pictures, read_record
from sparseguard.types import Knowledge
from support.priors import tiny_folder

SIZES = {"private": 120, "auxiliary": 100, "auxiliary_val": 50, "test": 60}
KNOWN = CLASSES[:5]


@pytest.fixture
def splits():
    return DATASETS["fashion-mini"](**SIZES).load()


@pytest.fixture
def recipe(tmp_path, splits, monkeypatch):
    monkeypatch.setitem(BUDGET, "steps", 40)
    prior = tiny_folder(tmp_path / "prior", known=splits.auxiliary, classes=KNOWN)
    return {
        "name": "classes",
        "data": {"name": "fashion-mini", **SIZES},
        "training": {"epochs": 2, "batch_size": 32},
        "defenses": ["none"],
        "threats": [{"name": "plug-and-play", "backbone": {"name": "linear-shallow", "width": 32}}],
        "attacks": [
            {"name": "plug-and-play", "prior": prior, "candidates": 40, "optimized": 6, "selected": 4, "steps": 4},
            {"name": "pixel-inversion", "images": 4, "steps": 4},
        ],
        "scoring": {"network": "fashion-net"},
    }


def test_a_case_is_attacked_scored_and_recorded(recipe, tmp_path, splits):
    out = tmp_path / "run"
    outcome = run(parse_recipe(recipe), out)
    (record,) = outcome.records
    assert record.status == "ok"
    assert record.outcome.classes == list(CLASSES[5:])
    assert record.outcome.pool == 6  # 60 test images of ten classes
    assert set(record.evaluators) == {"pooling", "striding"}
    attack, control = record.class_attacks
    assert (attack.control, control.control) == (False, True)
    assert attack.prior.overlap == {"auxiliary": 100}
    assert attack.prior.known_classes == []
    assert set(attack.classes) == set(CLASSES[5:])
    for attacker in record.class_attacks:
        for name, score in attacker.scores.items():
            assert (score.value is None) == (score.reason is not None), name
        accuracy = attacker.scores["attack accuracy@1 (pooling)"]
        assert 0 <= accuracy.ci95[0] <= accuracy.value <= accuracy.ci95[1] <= 1
        assert accuracy.n == 20
    assert attack.scores["FD(fashion-net)"].reason is not None  # 20 images are too few for 64 dimensions
    assert record.target.state_hash == record.target.state_hash_after
    pictures = read_pictures(out / "records" / f"{record.case.slug}.safetensors")
    assert pictures.classes["plug-and-play"].shape == (5, 4, 1, 28, 28)
    assert set(pictures.classes) >= {"private", "plug-and-play/starts", "plug-and-play/nearest", "plug-and-play/chance"}
    assert run(parse_recipe(recipe), out).computed == 0
    path = out / "records" / f"{record.case.slug}.json"
    assert read_record(path) == record
    assert not list((out / "attacks").glob("*.kept"))
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in a record"))


def test_an_interrupted_attack_goes_on_and_ends_the_same(recipe, tmp_path, monkeypatch):
    from sparseguard.pipeline.tasks import attack_classes as class_attacking

    whole = run(parse_recipe(recipe), tmp_path / "whole").records[0]
    save, saved = class_attacking.FolderStorage.save, []

    def interrupted(self, name, tensors):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(name)
        save(self, name, tensors)

    recipe["attacks"][0]["batch_size"] = 6
    with monkeypatch.context() as patch:
        patch.setattr(class_attacking.FolderStorage, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(parse_recipe(recipe), tmp_path / "killed")
    assert saved[1:] == ["class-5", "class-6"]
    resumed = run(parse_recipe(recipe), tmp_path / "killed").records[0]
    for first, second in zip(whole.class_attacks, resumed.class_attacks, strict=True):
        for name, facts in first.classes.items():
            assert facts.confidence == pytest.approx(second.classes[name].confidence, abs=0.02)


def test_a_prior_that_saw_private_images_is_refused_before_anything_is_run(recipe, tmp_path, splits):
    some = splits.private.select(torch.arange(7))
    recipe["attacks"][0]["prior"] = tiny_folder(tmp_path / "leaky", known=some, classes=KNOWN)
    with pytest.raises(DataError, match="was trained on 7 of the private images"):
        run(parse_recipe(recipe), tmp_path / "run")
    assert not (tmp_path / "run" / "targets").exists()


@pytest.mark.parametrize(
    ("known", "classes", "flags"),
    [
        pytest.param(None, KNOWN, {"prior-unknown"}, marks=pytest.mark.slow),
        ("test", KNOWN, {"prior-overlap"}),
        ("auxiliary", CLASSES, {"prior-knows-classes"}),
        pytest.param("auxiliary", None, {"prior-knows-classes"}, marks=pytest.mark.slow),
    ],
)
def test_what_a_prior_should_not_have_seen_is_flagged(recipe, tmp_path, splits, known, classes, flags):
    images = None if known is None else splits.by_name()[known]
    recipe["attacks"] = recipe["attacks"][:1]
    recipe["attacks"][0]["prior"] = tiny_folder(tmp_path / "other", known=images, classes=classes)
    (record,) = run(parse_recipe(recipe), tmp_path / "run").records
    raised = {flag.name for flag in record.flags}
    assert flags <= raised
    assert not ({"prior-unknown", "prior-overlap", "prior-knows-classes"} - flags) & raised
    assert "prior-unrelated" in raised  # random weights make nothing like clothes


def test_the_prior_is_part_of_the_attacks_key(recipe, tmp_path, splits):
    first = plan_cases(parse_recipe(recipe), splits)[0]
    recipe["attacks"][0]["prior"] = tiny_folder(tmp_path / "same", known=splits.auxiliary_val, classes=KNOWN)
    second = plan_cases(parse_recipe(recipe), splits)[0]
    assert first.target_key == second.target_key
    assert first.attack_keys["plug-and-play"] != second.attack_keys["plug-and-play"]
    assert first.attack_keys["pixel-inversion"] == second.attack_keys["pixel-inversion"]


def test_attacks_on_single_images_are_given_priors_too(recipe, tmp_path, splits):
    folder = recipe["attacks"][0]["prior"]
    few = {"candidates": 4, "warm_steps": 1, "steps": 1, "layer_steps": 1, "probe_images": 2, "probe_steps": 1}
    inversion = {"name": "prior-inversion", **few, "conditions": {"max_images": 4}}
    recipe["threats"] = [{"name": "split", "backbone": {"name": "linear-shallow", "width": 32}}]
    recipe["attacks"] = [
        {"name": "ridge", "copies": 1},
        {**inversion, "prior": folder},
        {**inversion, "label": "unnamed"},
    ]
    (record,) = run(parse_recipe(recipe), tmp_path / "run").records
    assert record.outcome.attack("prior-inversion").prior.overlap == {"auxiliary": 100}
    assert record.outcome.attack("ridge").prior is None
    assert "no prior is named" in record.skipped["unnamed"]
    assert record.class_attacks == []
    recipe["attacks"][1]["prior"] = tiny_folder(tmp_path / "leaky", known=splits.private, classes=None)
    with pytest.raises(DataError, match="of the private images"):
        run(parse_recipe(recipe), tmp_path / "run")


def attack(prior, **more):
    return {"name": "plug-and-play", "prior": prior, **more}


def test_the_attacked_classes_are_those_no_prior_has_seen(recipe, tmp_path):
    folders = {
        name: tiny_folder(tmp_path / name, known=None, classes=classes)
        for name, classes in {
            "first": CLASSES[:5],
            "second": CLASSES[3:8],
            "third": CLASSES[5:],
            "all": CLASSES,
        }.items()
    }

    def attacked(*names, **threat):
        table = {**recipe, "attacks": [attack(folders[name], label=name) for name in names]}
        table["threats"] = [{"name": "plug-and-play", **threat}]
        parsed = parse_recipe(table)
        return select_classes(parsed, parsed.threats[0], CLASSES)

    assert attacked("first") == CLASSES[5:]
    assert attacked("first", "second") == CLASSES[8:]
    assert attacked("first", "third") == CLASSES  # together they have seen all, no class has been seen by both
    assert attacked("first", "all") == CLASSES[5:]
    assert attacked("all") == CLASSES
    assert attacked("first", classes=["Shirt", "Dress"]) == ("Dress", "Shirt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attacks": ["plug-and-play"]}, "needs a prior"),
        ({"attacks": ["pixel-inversion"]}, "needs a class inversion"),
        ({"attacks": [attack("x", preset="nothing")]}, "unknown preset 'nothing'"),
        ({"attacks": [attack("x", conditions={"queries": 2})]}, "unknown key 'conditions'"),
        ({"attacks": [attack("x"), "ridge"]}, "'ridge' fits no threat of this recipe"),
        ({"threats": ["split"]}, "needs at least one black-box attack"),
        ({"threats": [{"name": "plug-and-play", "classes": ["Hat"]}]}, "unknown class 'Hat'"),
        ({"threats": [{"name": "plug-and-play", "classes": "Shirt"}]}, "Input should be a valid array"),
        ({"threats": [{"name": "plug-and-play", "classes": ["Shirt", "Shirt"]}]}, "appears twice"),
        ({"threats": [{"name": "plug-and-play", "tap": "first_linear"}]}, "Input should be 'logits'"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(recipe, change, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**recipe, **change})


def test_a_preset_gives_settings_and_others_stand_beside_it(recipe):
    recipe["attacks"] = [attack("x", preset="celeba-ffhq", steps=3)]
    component = parse_recipe(recipe).class_attacks[0].component
    assert (component.candidates, component.optimized, component.steps) == (5000, 200, 3)


def test_batches_are_bounded_for_all_searches_by_gradients(recipe, tiny):
    parsed = limit_batch_size(parse_recipe(recipe), 3)
    assert [one.component.batch_size for one in parsed.class_attacks] == [3, 3]
    searches = ["ridge", *(name for name, component in ATTACKS.items() if component.knowledge == Knowledge.WHITE_BOX)]
    parsed = limit_batch_size(parse_recipe({**tiny, "attacks": searches}), 2)
    assert parsed.attacks[0].component == ATTACKS["ridge"]()
    assert {one.component.batch_size for one in parsed.attacks[1:]} == {2}
    with pytest.raises(RecipeError, match="no memory to bound"):
        limit_batch_size(parse_recipe(tiny), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 40}, "larger than the prior's images"),
        ({"cutoff": 30}, "layers that take a w"),
        ({"discriminator": 0.1}, "no discriminator"),
    ],
)
def test_settings_that_do_not_fit_the_prior_are_refused_before_anything_is_run(recipe, tmp_path, change, message):
    recipe["attacks"][0] |= change
    with pytest.raises(RecipeError, match=message):
        run(parse_recipe(recipe), tmp_path / "run")
    assert not (tmp_path / "run" / "targets").exists()


def test_classes_without_images_to_compare_with_are_refused_before_anything_is_run(recipe, tmp_path):
    recipe["scoring"]["neighbors"] = 7  # six test images of each class
    with pytest.raises(DataError, match="class 'Sandal' has 6 images in test, scores need at least 7"):
        run(parse_recipe(recipe), tmp_path / "run")
    assert not (tmp_path / "run" / "targets").exists()


def test_one_class_and_one_image_can_be_attacked(recipe, tmp_path):
    recipe["threats"][0]["classes"] = ["Shirt"]
    recipe["attacks"] = [{**recipe["attacks"][0], "selected": 1}]
    (record,) = run(parse_recipe(recipe), tmp_path / "run").records
    (attacker,) = record.class_attacks
    assert attacker.diagnostics.diversity is None
    assert attacker.scores["attack accuracy@1 (pooling)"].other_class is None


def test_starts_are_the_candidates_the_target_is_surest_of(recipe, tmp_path, monkeypatch):
    from sparseguard.pipeline.tasks import class_case as class_measuring

    seen = []
    collect = class_measuring.collect_images

    def watched(context, attack, goal, result):
        seen.append((result, collect(context, attack, goal, result)))
        return seen[-1][1]

    monkeypatch.setattr(class_measuring, "collect_images", watched)
    run(parse_recipe(recipe), tmp_path / "run")
    result, parts = seen[0]
    for label in range(5, 10):
        own = result.labels == label
        best = result.start_confidence[own].sort(descending=True).values[:4]
        shown = parts.starts.images[parts.starts.labels == label]
        told = [float(result.start_confidence[own][(result.starts[own] == image).all((1, 2, 3))][0]) for image in shown]
        assert told == pytest.approx(best.tolist())


@pytest.mark.slow
def test_in_layout_paper_no_image_is_unseen(recipe, tmp_path, splits):
    recipe["data"] = {"name": "fashion-mini", "layout": "paper", **SIZES}
    paper = DATASETS["fashion-mini"](layout="paper", **SIZES).load()
    recipe["attacks"] = recipe["attacks"][:1]
    recipe["attacks"][0]["prior"] = tiny_folder(tmp_path / "own", known=paper.auxiliary_val, classes=KNOWN)
    (record,) = run(parse_recipe(recipe), tmp_path / "run").records
    scores = record.class_attacks[0].scores
    assert "layout 'paper'" in scores["AUC private or unseen (pooling)"].reason
    assert all(score.unseen is None for score in scores.values())


def test_the_shipped_recipe_can_be_read():
    recipe = load_recipe("recipes/plug-and-play-fashion.toml")
    assert select_classes(recipe, recipe.threats[0], CLASSES) == (
        "Trouser",
        "Pullover",
        "Sandal",
        "Shirt",
        "Ankle boot",
    )


def evaluator(splits, seed=0):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 20), torch.nn.Linear(20, 10)).eval()
    return Evaluator(name=f"judge{seed}", module=module, accuracy=1.0)


def some(count, wanted, seed):
    source = torch.Generator().manual_seed(seed)
    images = torch.rand(count * len(wanted), 1, 28, 28, generator=source)
    return LabeledImages(images=images, labels=torch.tensor(wanted).repeat_interleave(count))


def test_scores_follow_their_rules(splits):
    judge, wanted = evaluator(splits), (2, 7)
    scores = ClassScores(splits, wanted, [judge, evaluator(splits, 1)], None, {})
    made = AttackImages(
        answer=some(3, wanted, 0), starts=some(3, wanted, 1), optimized=some(5, wanted, 2), chance=some(3, wanted, 3)
    )
    found = scores.scores(made)

    def right(one, label=None):
        return (judge.module(one.images).argmax(1) == (one.labels if label is None else label)).double().mean()

    accuracy = found["attack accuracy@1 (judge0)"]
    assert accuracy.value == pytest.approx(float(right(made.answer)))
    assert accuracy.starts == pytest.approx(float(right(made.starts)))
    assert accuracy.all_optimized == pytest.approx(float(right(made.optimized)))
    assert accuracy.chance == pytest.approx(float(sum(right(made.chance, label) for label in wanted) / 2))
    swapped = LabeledImages(
        images=made.answer.images, labels=made.answer.labels.flip(0)
    )  # of two classes, the other one
    assert accuracy.other_class == pytest.approx(float(right(swapped)))

    places = []
    for image, label in zip(made.answer.images, made.answer.labels, strict=True):
        own = scores.private.images[scores.private.labels == label]
        space = judge.module[:-1]
        nearest = NearestNeighbors(n_neighbors=1).fit(space(own).detach().numpy())
        places.append(own[int(nearest.kneighbors(space(image[None]).detach().numpy())[1].item())])
    expected = float(psnr(made.answer.images, torch.stack(places)).double().mean())
    assert found["PSNR to nearest (judge0)"].value == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(scores.nearest(made.answer), torch.stack(places))


def test_pools_are_of_equal_size_and_of_the_attacked_classes_only(splits):
    scores = ClassScores(splits, (1, 4), [evaluator(splits)], None, {})
    assert len(scores.private.labels) == len(scores.unseen.labels) == 12
    assert torch.equal(scores.private.labels.bincount(), scores.unseen.labels.bincount())


def test_private_images_themselves_are_told_from_unseen_ones(splits):
    judge, wanted = evaluator(splits), (2, 7)
    scores = ClassScores(splits, wanted, [judge, evaluator(splits, 1)], None, {})
    copies = LabeledImages(images=scores.private.images, labels=scores.private.labels)
    found = scores.scores(AttackImages(answer=copies, starts=copies, optimized=copies, chance=some(6, wanted, 1)))
    assert found["AUC private or unseen (judge0)"].value == 1
    assert found["feature distance (judge0)"].value == pytest.approx(0, abs=1e-9)
    assert found["feature distance (judge0)"].unseen > 0
    assert found["PSNR to nearest (judge0)"].value == 100


def test_shuffled_patches_are_the_same_patches_elsewhere():
    images = torch.arange(2 * 9.0).view(2, 1, 3, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)
    shuffled = shuffle_patches(images, 4, torch.Generator().manual_seed(0))
    for before, after in zip(images, shuffled, strict=True):
        assert after.flatten().sort().values.tolist() == before.flatten().sort().values.tolist()
        patches = after[0].unfold(0, 4, 4).unfold(1, 4, 4).reshape(9, 16)
        assert (patches == patches[:, :1]).all()
    assert not (images == shuffled).all()
    odd = torch.rand(1, 1, 10, 10)
    assert (shuffle_patches(odd, 4, torch.Generator())[..., 8:] == odd[..., 8:]).all()  # a rest too small stays
