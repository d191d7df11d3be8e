import contextlib

import pytest
import torch
from torch import nn

from sparseguard.core.errors import DataError, RecipeError, TrainingError
from sparseguard.core.progress import Silent
from sparseguard.model_audit.hooked_model import HookedModel, TapOutput, check_taps, copy_frozen, count_calls
from sparseguard.model_audit.load_inputs import align_classes, load_model
from sparseguard.model_audit.preprocessing import Preprocessed
from sparseguard.targets import state_hash
from sparseguard.types import ImageSet


class Net(nn.Module):
    """A model with a shortcut around its body, so that it is no chain."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4 * 64 + 64, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return self.head(torch.cat([self.body(images).flatten(1), images.flatten(1)], 1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("tap", ["body", "body.0", "body.2", "head", "logits"])
def test_a_tap_is_what_the_module_puts_out_and_logits_are_the_models_own(net, tap):
    frozen = copy_frozen(net)
    hooked = HookedModel(frozen, tap)
    kept = []
    if tap == "logits":
        expected = frozen(IMAGES)
    else:
        handle = frozen.get_submodule(tap).register_forward_hook(lambda module, inputs, output: kept.append(output))
        logits = frozen(IMAGES)
        handle.remove()
        expected = kept[0]
        torch.testing.assert_close(hooked(IMAGES), logits)
    stage = next(iter(hooked.stages))
    torch.testing.assert_close(hooked.forward_to(IMAGES, stage), expected)
    torch.testing.assert_close(hooked.outputs(IMAGES)[stage], expected)
    assert hooks(frozen) == 0


def test_gradients_of_a_tap_reach_the_image(net):
    torch.manual_seed(1)
    tap = TapOutput(copy_frozen(net).double(), "body")
    images = IMAGES[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(tap, (images,))


def test_the_model_handed_over_is_left_as_it_was(net):
    net.train()
    net.body[1].eval()
    before, modes = state_hash(net), [module.training for module in net.modules()]
    frozen = copy_frozen(net)
    HookedModel(frozen, "body")(IMAGES)
    assert state_hash(net) == before
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Identity()
        self.second = nn.Identity()

    def forward(self, images):
        self.first(images)
        raise ValueError("broken on purpose")


def test_hooks_are_gone_after_an_error_too():
    broken = Broken()
    with pytest.raises(TrainingError, match=r"failed on images \(5, 1, 8, 8\) with ValueError: broken on purpose"):
        TapOutput(broken, "second")(IMAGES)
    assert hooks(broken) == 0


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, images):
        return self.lstm(images[:, 0])[0][:, -1]


def test_taps_that_cannot_be_read_are_refused(net):
    with pytest.raises(RecipeError, match=r"no module 'boddy'. Did you mean 'body'"):
        check_taps(net, ["boddy"], IMAGES[:2])
    with pytest.raises(TrainingError, match="does not run the tap 'unused'"):
        check_taps(net, ["unused"], IMAGES[:2])
    with pytest.raises(TrainingError, match="is a tuple, expected a tensor"):
        check_taps(Pair(), ["lstm"], IMAGES[:2])
    assert check_taps(net, ["body", "logits"], IMAGES[:2]) == {"body": (4, 8, 8), "logits": (3,)}


class Put(nn.Module):
    """A module that puts out what it is told to."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, images):
        return self.what(images)


class Beside(nn.Module):
    """A model with a module beside its body, whose output it does not use."""

    def __init__(self, what):
        super().__init__()
        self.values, self.head = Put(what), nn.Linear(64, 3)
        self.alias = self.values

    def forward(self, images):
        with contextlib.suppress(Exception):  # as a user's model may do
            self.values(images)
        return self.head(images.flatten(1))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda images: images.mean(), "has the shape .. for 2 images"),
        (lambda images: images.flatten(1).T, r"\(64, 2\) for 2 images, expected one row an image"),
        (lambda images: {"z": images}, "is a dict, expected a tensor. Name a module inside it"),
        (lambda images: torch.fft.fft(images), "complex"),
    ],
)
def test_outputs_without_a_row_an_image_are_refused(what, message):
    with pytest.raises(TrainingError, match=message):
        check_taps(Beside(what), ["values"], IMAGES[:2])


@pytest.mark.parametrize("tap", ["values", "alias"])
def test_a_models_own_handlers_and_names_do_not_hide_a_tap(tap):
    hooked = HookedModel(copy_frozen(Beside(lambda images: (images * 9).long())), tap)
    leaked = hooked.forward_to(IMAGES, f"tap {tap}")
    assert leaked.dtype == torch.float32
    torch.testing.assert_close(leaked, (IMAGES * 9).floor())


def test_a_shape_that_follows_the_images_is_refused():
    model = Beside(lambda images: images[:, :, : len(images)])
    (shape,) = check_taps(model, ["values"], IMAGES[:2]).values()
    with pytest.raises(TrainingError, match="attacks need one shape"):
        TapOutput(model, "values", shape)(IMAGES)


def test_how_often_a_module_is_run_is_counted(net):
    assert count_calls(net, "body.0", IMAGES) == 1
    twice = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    twice.append(twice[0])
    assert count_calls(twice, "3", IMAGES) == 2
    assert hooks(twice) == 0


def test_taps_are_named_as_in_the_users_own_model(net):
    wrapped = Preprocessed(net.eval(), [0.3], [0.2])
    assert check_taps(wrapped, ["body", "logits"], IMAGES[:2]) == {"body": (4, 8, 8), "logits": (3,)}
    torch.testing.assert_close(
        HookedModel(wrapped, "body").forward_to(IMAGES, "tap body"), net.body((IMAGES - 0.3) / 0.2)
    )
    with pytest.raises(RecipeError, match=r"Known: body, body\.0"):
        check_taps(wrapped, ["model.body"], IMAGES[:2])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_of_a_scripted_model_only_the_logits_are_seen(net):
    scripted = copy_frozen(torch.jit.script(net))
    torch.testing.assert_close(HookedModel(scripted, "logits")(IMAGES), copy_frozen(net)(IMAGES))
    with pytest.raises(RecipeError, match="scripted or traced model"):
        check_taps(scripted, ["body"], IMAGES[:2])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_with_kept_results_are_copied_and_compiled_ones_opened(net):
    net.kept = net(IMAGES)
    nn.utils.weight_norm(net.head)
    torch.testing.assert_close(copy_frozen(net)(IMAGES), net.eval()(IMAGES))
    assert net.kept.grad_fn is not None
    opened = copy_frozen(torch.compile(nn.Sequential(net)))
    assert check_taps(opened, ["0.body"], IMAGES[:2]) == {"0.body": (4, 8, 8)}


def test_what_cannot_be_copied_is_refused():
    class Stubborn(nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(DataError, match="cannot be copied"):
        copy_frozen(Stubborn())


def test_normalization_is_part_of_the_model(net):
    wrapped = Preprocessed(net.eval(), [0.3], [0.2])
    torch.testing.assert_close(wrapped(IMAGES), net((IMAGES - 0.3) / 0.2))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5, 0.5], [1.0], "2 and 1 values"),
        ([float("inf")], [1.0], "finite"),
        ([0.5], [0.0], "above 0"),
        ([0.5], [-1.0], "above 0"),
        ([0.5], [float("nan")], "above 0"),
    ],
)
def test_what_cannot_be_a_normalization_is_refused(net, mean, std, message):
    with pytest.raises(RecipeError, match=message):
        Preprocessed(net, mean, std)


def test_a_normalization_of_other_channels_is_refused(net):
    with pytest.raises(DataError, match="have 3 values, images have 1 channels"):
        Preprocessed(net, [0.5] * 3, [1.0] * 3)(IMAGES)


FACTORY = """
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""


def test_a_model_is_made_by_a_factory_and_gets_its_weights(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY)
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    model = load_model(f"{tmp_path / 'mine.py'}:make", tmp_path / "weights.pth", mean=[0.5], std=[2], progress=Silent())
    torch.testing.assert_close(model(IMAGES), own((IMAGES - 0.5) / 2))
    for prefix in ("module.", "_orig_mod.", "_orig_mod.module."):
        torch.save({f"{prefix}{name}": value for name, value in own.state_dict().items()}, tmp_path / "wrapped.pth")
        same = load_model(f"{tmp_path / 'mine.py'}:make", tmp_path / "wrapped.pth", progress=Silent())
        torch.testing.assert_close(same(IMAGES), own(IMAGES))
    torch.save({"other": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(DataError):
        load_model(f"{tmp_path / 'mine.py'}:make", tmp_path / "wrong.pth", progress=Silent())
    with pytest.raises(RecipeError, match="1 and 0 values"):
        load_model(f"{tmp_path / 'mine.py'}:make", None, mean=[0.5], progress=Silent())


def test_an_exported_program_has_the_modules_it_was_exported_from(net, tmp_path):
    net.eval()
    shapes = ({0: torch.export.Dim("n", min=1)},)
    torch.export.save(torch.export.export(net, (IMAGES,), dynamic_shapes=shapes), tmp_path / "net.pt2")
    loaded = copy_frozen(load_model(str(tmp_path / "net.pt2"), None, progress=Silent()))
    torch.testing.assert_close(loaded(IMAGES[:3]), net(IMAGES[:3]))
    torch.testing.assert_close(TapOutput(loaded, "body")(IMAGES[:3]), net.body(IMAGES[:3]))
    with pytest.raises(RecipeError, match="its own weights"):
        load_model(str(tmp_path / "net.pt2"), tmp_path / "w.pth", progress=Silent())
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(DataError, match="not a program"):
        load_model(str(tmp_path / "bad.pt2"), None, progress=Silent())


def of_classes(classes, labels):
    return ImageSet(pixels=torch.zeros(len(labels), 1, 2, 2), labels=torch.tensor(labels), classes=classes)


def test_labels_are_places_among_the_classes_of_both_sets_or_the_models_own():
    sets = [of_classes(("9", "10"), [0, 1]), of_classes(("8", "10"), [1, 0])]
    first, second = align_classes(sets)
    assert first.classes == second.classes == ("8", "9", "10")
    assert (first.labels.tolist(), second.labels.tolist()) == ([1, 2], [2, 0])
    first, second = align_classes(sets, ["10", "7", "8", "9"])
    assert (first.labels.tolist(), second.labels.tolist()) == ([3, 0], [0, 2])
    with pytest.raises(DataError, match="images of '9', not among 8, 10"):
        align_classes(sets, ["8", "10"])
    with pytest.raises(DataError, match="twice"):
        align_classes(sets, ["8", "9", "10", "8"])
