import pytest
import torch
from torch import nn

from sparseguard.bench.given import model_of
from sparseguard.bench.hooked import HookedModel, Preprocessed, UpTo, check_taps, copied
from sparseguard.errors import DataError, RecipeError, TrainingError
from sparseguard.progress import Silent
from sparseguard.targets import state_hash


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
    frozen = copied(net)
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
    torch.testing.assert_close(hooked.until(IMAGES, stage), expected)
    torch.testing.assert_close(hooked.outputs(IMAGES)[stage], expected)
    assert hooks(frozen) == 0


def test_gradients_of_a_tap_reach_the_image(net):
    torch.manual_seed(1)
    tap = UpTo(copied(net).double(), "body")
    images = IMAGES[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(tap, (images,))


def test_the_model_handed_over_is_left_as_it_was(net):
    net.train()
    net.body[1].eval()
    before, modes = state_hash(net), [module.training for module in net.modules()]
    frozen = copied(net)
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
    with pytest.raises(ValueError, match="on purpose"):
        UpTo(broken, "second")(IMAGES)
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
    with pytest.raises(TrainingError, match="'unused' is not run"):
        check_taps(net, ["unused"], IMAGES[:2])
    with pytest.raises(TrainingError, match="puts out a tuple"):
        check_taps(Pair(), ["lstm"], IMAGES[:2])
    assert check_taps(net, ["body", "logits"], IMAGES[:2]) == {"body": (4, 8, 8), "logits": (3,)}


def test_what_cannot_be_copied_is_refused():
    class Stubborn(nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(DataError, match="cannot be copied"):
        copied(Stubborn())


def test_normalization_is_part_of_the_model(net):
    wrapped = Preprocessed(net.eval(), [0.3], [0.2])
    torch.testing.assert_close(wrapped(IMAGES), net((IMAGES - 0.3) / 0.2))


FACTORY = """
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""


def test_a_model_is_made_by_a_factory_and_gets_its_weights(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY)
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    model = model_of(f"{tmp_path / 'mine.py'}:make", tmp_path / "weights.pth", mean=[0.5], std=[2], progress=Silent())
    torch.testing.assert_close(model(IMAGES), own((IMAGES - 0.5) / 2))
    torch.save({"other": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(DataError):
        model_of(f"{tmp_path / 'mine.py'}:make", tmp_path / "wrong.pth", progress=Silent())
    with pytest.raises(RecipeError, match="1 and 0 values"):
        model_of(f"{tmp_path / 'mine.py'}:make", None, mean=[0.5], progress=Silent())


def test_an_exported_program_has_the_modules_it_was_exported_from(net, tmp_path):
    net.eval()
    shapes = ({0: torch.export.Dim("n", min=1)},)
    torch.export.save(torch.export.export(net, (IMAGES,), dynamic_shapes=shapes), tmp_path / "net.pt2")
    loaded = copied(model_of(str(tmp_path / "net.pt2"), None, progress=Silent()))
    torch.testing.assert_close(loaded(IMAGES[:3]), net(IMAGES[:3]))
    torch.testing.assert_close(UpTo(loaded, "body")(IMAGES[:3]), net.body(IMAGES[:3]))
    with pytest.raises(RecipeError, match="its own weights"):
        model_of(str(tmp_path / "net.pt2"), tmp_path / "w.pth", progress=Silent())
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(DataError, match="not a program"):
        model_of(str(tmp_path / "bad.pt2"), None, progress=Silent())
