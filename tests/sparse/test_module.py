"""The sparse layers as citizens of torch: what they promise to checkpoints, precisions, compilers and optimizers."""

import copy
import inspect
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from safetensors.torch import load, save
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparseguard.sparse import (
    ConvDictionary,
    DenseDictionary,
    Detached,
    DivergedError,
    Fista,
    Implicit,
    Lca,
    NotConvergedError,
    NotConvergedWarning,
    OneStep,
    Problem,
    SparseCode2d,
    SparseCodeDense,
    Status,
    Unrolled,
    largest_eigenvalue,
    lipschitz_bound,
    solve,
    standardize,
    unit_norm,
)
from sparseguard.sparse._base_layer import CodingSettings

KINDS = ["conv", "dense"]
both = pytest.mark.parametrize("kind", KINDS)
FEATURES = {"conv": 6, "dense": 30}
SHAPE = {"conv": (2, 8, 8), "dense": (20,)}
CODE = {"conv": (6, 8, 8), "dense": (30,)}


def layer_of(kind, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    if kind == "conv":
        return SparseCode2d(2, 6, 3, generator=generator, **settings)
    return SparseCodeDense(20, 30, generator=generator, **settings)


def valid_of(kind, **settings):
    """Return a layer whose problem is the same for every method."""
    return layer_of(kind, **({"padding": "valid"} if kind == "conv" else {}), **settings)


def draws(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(kind, n=3, seed=1, dtype=torch.float32):
    return draws(n, *SHAPE[kind], seed=seed, dtype=dtype)


def norms(layer):
    return np.sqrt((layer.dictionary.detach().double().flatten(1).numpy() ** 2).sum(1))


def largest(layer, size=(8, 8)):
    """Return the Gram operator's largest eigenvalue, by dense algebra."""
    atoms = layer.dictionary.detach().double()
    if atoms.ndim == 2:
        matrix = atoms
    else:
        dictionary = ConvDictionary(atoms, layer.stride, layer.padding, size)
        units = torch.eye(int(np.prod(dictionary.code_shape)), dtype=torch.float64)
        matrix = dictionary.synthesis(units.view(len(units), *dictionary.code_shape)).flatten(1)
    small = matrix.T @ matrix if len(matrix) > matrix.shape[1] else matrix @ matrix.T
    return float(torch.linalg.eigvalsh(small)[-1])


def learn(layer, kind, updates=1, seed=100):
    """Let a layer learn locally."""
    layer.train()
    for number in range(updates):
        layer(inputs(kind, seed=seed + number))
        layer.apply_update()


# checkpoints


@both
def test_a_state_dict_brings_identical_codes(kind):
    source, target = layer_of(kind, seed=1), layer_of(kind, seed=2)
    images = inputs(kind)
    codes = source(images)
    target(inputs(kind, seed=5))
    target.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(target(images), codes)
    fresh = layer_of(kind, seed=3)
    fresh.load_state_dict(load(save(source.state_dict())), strict=True)  # through a file's bytes
    assert torch.equal(fresh(images), codes)


@both
def test_a_state_dict_saved_before_any_image_was_seen_brings_identical_codes(kind):
    images = inputs(kind)
    codes = layer_of(kind, seed=1)(images)
    for seen in (False, True):
        target = layer_of(kind, seed=2)
        if seen:
            target(inputs(kind, seed=5))
        target.load_state_dict(layer_of(kind, seed=1).state_dict(), strict=True)
        assert torch.equal(target(images), codes)


@both
def test_a_layer_can_be_reset_to_its_own_first_state(kind):
    layer = layer_of(kind)
    first = copy.deepcopy(layer.state_dict())
    images = inputs(kind)
    codes = layer(images)
    layer.load_state_dict(first)
    assert torch.equal(layer(images), codes)


@both
@pytest.mark.parametrize("rate", [0.05, 3.0])
def test_a_state_dict_saved_right_after_an_update_brings_the_codes_of_the_updated_dictionary(kind, rate):
    source, target = layer_of(kind, hebbian=True, rate=rate), layer_of(kind, seed=2)
    images = inputs(kind)
    learn(source, kind, updates=2)
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    source.eval()
    torch.testing.assert_close(target(images), source(images), rtol=1e-5, atol=1e-5)
    assert float(target.lipschitz) >= largest(target)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_state_dict_of_another_image_size_loads_and_brings_identical_codes(padding):
    source, target = layer_of("conv", seed=1, padding=padding), layer_of("conv", seed=2, padding=padding)
    images = inputs("conv")
    codes = source(images)
    target(draws(2, 2, 11, 6))
    target.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(target(images), codes)
    other = draws(2, 2, 6, 11)
    torch.testing.assert_close(target(other), source(other))


def test_codes_do_not_depend_on_the_image_sizes_seen_before():
    layer, fresh = layer_of("conv"), layer_of("conv")
    images = inputs("conv")
    for size in ((12, 12), (5, 9), (8, 8), (3, 3)):
        layer(draws(2, 2, *size))
    assert torch.equal(layer(images), fresh(images))


@both
def test_coding_leaves_atoms_of_norm_one_untouched(kind):
    layer = layer_of(kind, hebbian=True)
    learn(layer, kind)
    layer(inputs(kind))
    atoms, fingerprint = layer.dictionary.clone(), layer.fingerprint()
    for seed in range(3):
        layer(inputs(kind, seed=seed))
        assert torch.equal(layer.dictionary, atoms)
        assert layer.fingerprint() == fingerprint


@both
def test_a_state_of_double_precision_loads_into_a_layer_of_single_precision_which_then_learns_on(kind):
    source = layer_of(kind, hebbian=True).double()
    images = inputs(kind)
    codes = source(images)
    target = layer_of(kind, seed=2, hebbian=True)
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target(images), codes.float(), rtol=1e-3, atol=1e-3)
    target.apply_update()
    assert target(images).dtype == torch.float32


@both
def test_a_layer_used_in_inference_mode_can_be_loaded_copied_and_trained_afterwards(kind):
    layer, other = layer_of(kind, hebbian=True, backprop=True), layer_of(kind, seed=2)
    images = inputs(kind)
    with torch.inference_mode():
        codes = layer.eval()(images)
    torch.testing.assert_close(layer(images).detach(), codes, rtol=1e-5, atol=1e-5)
    layer.train()(images).sum().backward()
    layer.apply_update()
    twin = copy.deepcopy(layer)
    other(images)
    with torch.inference_mode():
        twin(images)
    twin.load_state_dict(other.state_dict())
    torch.testing.assert_close(twin(images).detach(), other(images), rtol=1e-5, atol=1e-5)


@both
@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_loaded_atoms_of_another_scale_are_renormalized(kind, scale):
    source, layer = layer_of(kind, seed=5), layer_of(kind, seed=6)
    images = inputs(kind)
    codes = source(images)
    state = source.state_dict()
    layer.load_state_dict({**state, "dictionary": state["dictionary"] * scale})
    torch.testing.assert_close(layer(images), codes, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)


@both
def test_a_deep_copy_learns_by_itself(kind):
    layer = layer_of(kind, hebbian=True, rate=1.0)
    images = inputs(kind)
    layer(images)
    twin = copy.deepcopy(layer)
    before = layer.dictionary.clone()
    twin.apply_update()  # what was gathered was copied too
    assert torch.equal(layer.dictionary, before)
    assert not torch.allclose(twin.dictionary, before)
    layer.apply_update()
    assert torch.equal(layer.dictionary, twin.dictionary)
    assert torch.equal(layer.eval()(images), twin.eval()(images))


@both
def test_training_and_evaluation_give_the_same_codes(kind):
    layer = layer_of(kind, hebbian=True, backprop=True)
    images = inputs(kind)
    assert torch.equal(layer.train()(images), layer.eval()(images))
    with torch.no_grad():
        assert torch.equal(layer(images), layer.train()(images))


@both
def test_the_fingerprint_tells_whether_layers_give_the_same_codes(kind):
    layer, loaded = layer_of(kind), layer_of(kind, seed=2)
    layer(inputs(kind))
    loaded.load_state_dict(layer.state_dict())
    assert copy.deepcopy(layer).fingerprint() == layer.fingerprint() == loaded.fingerprint()
    others = [layer_of(kind, **settings) for settings in ({"lambd": 0.25}, {"steps": 14}, {"method": Lca()})]
    for other in others:
        other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        loaded.dictionary[0, 0] += 1e-3
    prints = [each.fingerprint() for each in (layer, loaded, *others)]
    assert len(set(prints)) == len(prints)


@both
def test_a_layer_learns_when_training_can_change_its_codes(kind):
    assert not layer_of(kind).learns
    assert layer_of(kind, hebbian=True).learns
    assert layer_of(kind, backprop=True).learns


# compilers

COMPILED = """
import sys
import warnings

import torch
from torch import nn
from torch._dynamo.utils import counters

from sparseguard.sparse import SparseCode2d


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.before = nn.Conv2d(1, 2, 3, padding=1)
        self.code = SparseCode2d(2, 3, 3, generator=generator, lambd=0.1, hebbian=True, backprop=True)
        self.after = nn.Linear(75, 2)

    def forward(self, images):
        images = torch.relu(self.before(images))
        codes = self.code(images)
        return self.after(torch.tanh(codes).flatten(1))


def gradients(outputs, net):
    return torch.autograd.grad(outputs.square().sum(), list(net.parameters()))


torch.manual_seed(0)
net, images = Net(), torch.randn(4, 1, 5, 5)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    compiled = torch.compile(net, backend=sys.argv[1])
    for _ in range(2):
        found, expected = compiled(images), net(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(gradients(found, net), gradients(expected, net), strict=True):
            assert theirs.abs().sum() > 0
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        before = net.code.dictionary.detach().clone()
        net.code.apply_update()
        assert not torch.equal(before, net.code.dictionary)
assert counters["stats"]["unique_graphs"] >= 2, counters  # what is around the layer was compiled
assert not seen, [str(warning.message) for warning in seen]
print("same")
"""


def run_compiled(backend, folder):
    """Run in a process of its own: the compiler does not take the type checks that the tests install."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, backend],
        cwd=folder,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "same"


@pytest.mark.slow
def test_a_compiled_model_gives_the_outputs_and_gradients_of_the_model(tmp_path):
    run_compiled("aot_eager", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="needs a C++ compiler")
def test_the_default_compiler_gives_the_outputs_and_gradients_of_the_model(tmp_path):
    run_compiled("inductor", tmp_path)


# precisions and memory formats


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_and_gradients_under_autocast_are_those_without(kind, dtype):
    layer = layer_of(kind, backprop=True)
    images = inputs(kind).to(dtype).requires_grad_()
    plain = images.detach().float().requires_grad_()
    expected = layer(plain)
    weight = draws(*expected.shape, seed=4)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), [plain, layer.dictionary])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = layer(images)
    assert codes.dtype == torch.float32
    assert torch.equal(codes, expected)
    for inside in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            found = torch.autograd.grad((codes * weight).sum(), [images, layer.dictionary], retain_graph=True)
        assert torch.equal(found[0], expected_gradients[0].to(dtype))
        assert torch.equal(found[1], expected_gradients[1])


@pytest.mark.parametrize("gradient", [Implicit(kkt=1.0), OneStep(), Unrolled(twice=True)])
def test_gradients_taken_under_autocast_are_those_without(gradient):
    layer = layer_of("conv", backprop=True, gradient=gradient, steps=200)
    images = inputs("conv").requires_grad_()
    codes = layer(images)
    weight = draws(*codes.shape, seed=4)
    expected = torch.autograd.grad((codes * weight).sum(), [images, layer.dictionary], retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad((codes * weight).sum(), [images, layer.dictionary])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# export


@both
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("method", [Fista(), Lca(tau=10)])
def test_an_exported_layer_gives_the_codes_of_the_layer(kind, seen, method):
    layer = layer_of(kind, method=method).eval()
    with torch.no_grad():
        layer.dictionary.mul_(3)  # not yet normalized, unless it has seen images
    if seen:
        layer(inputs(kind))
    dynamic = ({0: torch.export.Dim("n", min=2)},)
    program = torch.export.export(layer, (inputs(kind),), dynamic_shapes=dynamic, strict=False)
    one, other = (inputs(kind, n=5, seed=9).requires_grad_() for _ in range(2))
    codes, expected = program.module()(one), layer(other)
    torch.testing.assert_close(codes, expected, atol=1e-5, rtol=1e-4)
    weight = draws(*codes.shape, seed=4)
    of_one, of_other = (
        torch.autograd.grad((made * weight).sum(), at)[0] for made, at in ((codes, one), (expected, other))
    )
    torch.testing.assert_close(of_one, of_other, atol=1e-4, rtol=1e-3)


def test_a_layer_with_a_tolerance_is_not_exported():
    with pytest.raises(ValueError, match="export one without"):
        torch.export.export(layer_of("conv", tolerance=1e-3).eval(), (inputs("conv"),), strict=False)


@both
@pytest.mark.parametrize("method", [Fista(), Lca(tau=10)])
def test_what_a_solution_tells_under_autocast_is_what_it_tells_without(kind, method):
    layer = layer_of(kind, method=method)
    images = inputs(kind)
    names = ("drive", "potentials", "reconstruction", "connectivity", "kkt")
    plain = layer.solution(images)
    expected = [getattr(plain, name) for name in names]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.solution(images)
        told = [getattr(found, name) for name in names]
    for name, value, other in zip(names, told, expected, strict=True):
        assert value.dtype == torch.float32, name
        assert torch.equal(value, other), name


@pytest.mark.parametrize("settings", [{}, {"method": Lca()}, {"stride": 2}, {"padding": "valid"}])
def test_the_memory_format_of_the_images_does_not_matter(settings):
    expected, codes, atoms, slopes = None, [], [], []
    for arrange in (
        lambda images: images,
        lambda images: images.to(memory_format=torch.channels_last),
        lambda images: images.mT.contiguous().mT,
    ):
        layer = layer_of("conv", hebbian=True, backprop=True, rate=1.0, **settings)
        images = arrange(inputs("conv")).requires_grad_()
        code = layer(images)
        expected = draws(*code.shape, seed=4) if expected is None else expected
        (code * expected).sum().backward()
        layer.apply_update()
        codes.append(code.detach()), atoms.append(layer.dictionary.detach()), slopes.append(images.grad)
    for other in (1, 2):
        torch.testing.assert_close(codes[other], codes[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(atoms[other], atoms[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(slopes[other], slopes[0], rtol=1e-4, atol=1e-4)


@both
def test_one_image_repeated_without_a_copy_is_coded_like_any_other(kind):
    layer, image = layer_of(kind), inputs(kind, n=1)
    repeated = layer(image.expand(3, *image.shape[1:]))
    torch.testing.assert_close(repeated, layer(image).expand_as(repeated), rtol=1e-5, atol=1e-5)


@both
def test_a_layer_of_double_precision_takes_images_of_any_precision(kind):
    single, double = layer_of(kind), layer_of(kind).double()
    images = inputs(kind)
    expected = double(images.double())
    assert expected.dtype == torch.float64
    assert torch.equal(double(images), expected)
    torch.testing.assert_close(single(images).double(), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(single(images.double().half()), single(images.half().float()))
    gradient = torch.autograd.grad(double(images.requires_grad_()).sum(), images)[0]
    assert gradient.dtype == torch.float32
    assert gradient.abs().sum() > 0


@both
def test_changing_the_precision_of_a_layer_that_has_seen_images_keeps_its_codes(kind):
    layer = layer_of(kind, hebbian=True)
    images = inputs(kind)
    codes = layer(images)
    layer.double()
    torch.testing.assert_close(layer(images).float(), codes, rtol=1e-3, atol=1e-3)
    layer.apply_update()
    assert layer.float()(images).dtype == torch.float32


# no waiting for the device


class Looks(TorchDispatchMode):
    """Counts operations that make a CUDA device's queue run empty, and notes where tensors are created."""

    WAITS = frozenset(
        ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_consecutive")
    )

    def __init__(self):
        super().__init__()
        self.count, self.devices = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        self.count += name in self.WAITS or masks
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.devices.add(value.device.type)
        return result


def looks(layer, images):
    """Return how often a forward and how often its backward wait, and the waits of a forward without a graph."""
    layer(images)  # the dictionary is followed
    images = images.clone().requires_grad_()
    with Looks() as forward:
        code = layer(images)
    with Looks() as backward:
        code.sum().backward()
    with Looks() as plain, torch.no_grad():
        layer(images)
    return forward.count, backward.count, plain.count


@both
@pytest.mark.parametrize("settings", [{}, {"method": Lca()}, {"gradient": Unrolled(segment=4)}, {"nonnegative": False}])
def test_no_solver_step_waits_for_the_device(kind, settings):
    few = looks(layer_of(kind, steps=5, hebbian=True, backprop=True, **settings), inputs(kind))
    many = looks(layer_of(kind, steps=50, hebbian=True, backprop=True, **settings), inputs(kind))
    assert many == few
    assert few[1] == 0


def test_the_count_of_waits_sees_those_of_a_tolerance():
    settings = {"tolerance": 1e-9, "check_every": 1, "gradient": Detached()}
    counts = []
    for steps in (5, 50):
        layer = layer_of("conv", steps=steps, **settings)
        layer(inputs("conv"))
        with Looks() as found:
            layer(inputs("conv"))
        counts.append(found.count)
    assert counts[1] >= counts[0] + 45


@both
@pytest.mark.parametrize("method", [Fista(), Fista(inertia=None), Lca()])
@pytest.mark.parametrize("gradient", [Unrolled(), Unrolled(segment=2), Unrolled(twice=True), OneStep(), Detached()])
@pytest.mark.parametrize("per_feature", [False, True])
def test_a_problem_stays_on_its_device_and_is_solved_without_looking_at_a_value(kind, method, gradient, per_feature):
    shape = (6, 2, 3, 3) if kind == "conv" else (30, 20)
    atoms = torch.empty(shape, device="meta", requires_grad=True)  # whoever looks at a value there gets an error
    dictionary = ConvDictionary(atoms, 1, "same", (8, 8)) if kind == "conv" else DenseDictionary(atoms)
    lambd = torch.empty(FEATURES[kind], device="meta") if per_feature else 0.5
    images = torch.empty(3, *SHAPE[kind], device="meta", requires_grad=True)
    problem = Problem(images, dictionary, lambd)
    with Looks() as seen:
        found = solve(problem, method, steps=4, gradient=gradient, lipschitz=torch.empty((), device="meta"))
        if found.code.requires_grad:
            found.code.sum().backward()
            assert images.grad.shape == images.shape
            assert atoms.grad.shape == atoms.shape
    assert found.code.shape == (3, *CODE[kind])
    assert found.kkt.shape == found.energy.shape == (3,)
    assert found.code.requires_grad != isinstance(gradient, Detached)
    assert seen.devices == {"meta"}
    assert seen.count == 0


# small batches and images

EVERY_WAY = [
    {},
    {"method": Lca(tau=10)},
    {"nonnegative": False},
    {"gradient": Unrolled(segment=2)},
    {"gradient": Unrolled(twice=True)},
    {"gradient": OneStep()},
    {"gradient": Implicit(kkt=10.0)},
    {"tolerance": 1e-2, "steps": 200},
    {"method": Lca(tau=10), "penalty": "l0"},
]


@both
@pytest.mark.parametrize("settings", EVERY_WAY)
def test_an_empty_batch_goes_forward_and_backward_and_teaches_nothing(kind, settings):
    layer = layer_of(kind, hebbian=True, backprop=True, rate=1.0, **settings)
    images = inputs(kind, n=0).requires_grad_()
    found = layer.solution(images)
    assert found.code.shape == (0, *CODE[kind])
    assert found.kkt.shape == found.energy.shape == found.status.shape == (0,)
    found.code.sum().backward()
    assert images.grad.shape == images.shape
    assert layer.dictionary.grad is None or not layer.dictionary.grad.any()
    before = layer.dictionary.detach().clone()
    layer.apply_update()
    torch.testing.assert_close(layer.dictionary.detach(), before)


@both
@pytest.mark.parametrize("settings", EVERY_WAY)
def test_a_batch_of_one_goes_forward_and_backward_and_teaches(kind, settings):
    layer = valid_of(kind, hebbian=True, backprop=True, rate=1.0, **settings)
    images = inputs(kind, n=1).requires_grad_()
    code = layer(images)
    (code * draws(*code.shape, seed=4)).sum().backward()
    for slope in (images.grad, layer.dictionary.grad):
        assert torch.isfinite(slope).all()
        assert slope.abs().sum() > 0
    before = layer.dictionary.detach().clone()
    layer.apply_update()
    assert not torch.allclose(layer.dictionary.detach(), before)
    assert layer(images).isfinite().all()


@both
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, -3.3, 200.3])
def test_a_constant_input_has_an_empty_code_and_teaches_nothing(kind, value):
    layer = layer_of(kind, hebbian=True, rate=1.0)
    images = torch.full((2, *SHAPE[kind]), value).requires_grad_()
    code = layer(images)
    assert not code.any()
    code.sum().backward()
    assert torch.isfinite(images.grad).all()
    before = layer.dictionary.detach().clone()
    layer.apply_update()
    torch.testing.assert_close(layer.dictionary.detach(), before)


@pytest.mark.parametrize("method", [Fista(), Lca(tau=2)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_code_of_a_single_pixel_is_known(method, padding):
    layer = SparseCode2d(1, 1, 1, padding=padding, lambd=0.25, standardize=False, steps=60, method=method)
    with torch.no_grad():
        layer.dictionary.fill_(1)
    code = layer(torch.tensor([2.0, 0.5, 0.2, -1.0]).view(4, 1, 1, 1))
    torch.testing.assert_close(code.flatten(), torch.tensor([1.75, 0.25, 0.0, 0.0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_single_pixel_of_two_channels_goes_forward_and_backward_and_teaches(kernel_size):
    layer = SparseCode2d(
        2, 4, kernel_size, generator=torch.Generator().manual_seed(0), lambd=0.1, hebbian=True, backprop=True
    )
    images = draws(3, 2, 1, 1).requires_grad_()
    code = layer(images)
    assert code.shape == (3, 4, 1, 1)
    code.sum().backward()
    assert torch.isfinite(images.grad).all()
    assert layer.dictionary.grad.abs().sum() > 0
    layer.apply_update()
    np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)


# settings

OTHER_THAN_DEFAULT = {
    "lambd": 0.125,
    "nonnegative": False,
    "penalty": "l0",
    "standardize": False,
    "method": Lca(tau=7),
    "steps": 9,
    "tolerance": 0.0625,
    "check_every": 3,
    "gradient": Implicit(max_steps=77, otherwise=OneStep()),
    "hebbian": True,
    "backprop": True,
    "rate": 0.375,
}


@both
def test_repr_tells_every_setting(kind):
    assert OTHER_THAN_DEFAULT.keys() == CodingSettings.__annotations__.keys()
    own = {"stride": 2, "padding": "valid", "kernel_size": 4} if kind == "conv" else {}
    named = inspect.signature(SparseCode2d if kind == "conv" else SparseCodeDense).parameters
    assert named.keys() - own.keys() == {"generator", "settings", "features"} | {
        "in_channels" if kind == "conv" else "in_features"
    }
    sizes = (2, 6) if kind == "conv" else (20, 30)
    build = SparseCode2d if kind == "conv" else SparseCodeDense
    text = repr(build(*sizes, **own, **OTHER_THAN_DEFAULT))
    assert text.startswith(f"{build.__name__}({sizes[0]}, {sizes[1]}, ")
    for name, value in {**own, **OTHER_THAN_DEFAULT}.items():
        assert f"{name}={value!r}" in text
    per_feature = tuple(float(number) for number in range(sizes[1]))
    assert f"lambd={per_feature}" in repr(build(*sizes, lambd=per_feature))


def test_a_repr_without_the_generator_builds_the_layer_again():
    layer = layer_of("conv", **OTHER_THAN_DEFAULT)
    names = {"SparseCode2d": SparseCode2d, "Lca": Lca, "Implicit": Implicit, "OneStep": OneStep}
    again = eval(repr(layer), names)
    assert repr(again) == repr(layer)
    again.load_state_dict(layer.state_dict())
    assert again.fingerprint() == layer.fingerprint()


@both
@pytest.mark.parametrize("settings", [{}, {"method": Lca(tau=10)}, {"nonnegative": False}])
def test_equal_lambdas_for_every_feature_are_one_lambda(kind, settings):
    count = FEATURES[kind]
    images = [inputs(kind).requires_grad_() for _ in range(2)]
    single = layer_of(kind, lambd=0.3, **settings)(images[0])
    several = layer_of(kind, lambd=[0.3] * count, **settings)(images[1])
    assert single.any()
    torch.testing.assert_close(several, single, rtol=1e-5, atol=1e-5)
    weight = draws(*single.shape, seed=4)
    for code in (single, several):
        (code * weight).sum().backward()
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize("settings", [{}, {"method": Lca(tau=10)}, {"method": Lca(tau=10), "penalty": "l0"}])
def test_a_feature_of_huge_lambda_stays_silent_and_the_others_code_as_if_it_were_not_there(kind, settings):
    count = FEATURES[kind]
    lambdas = [0.2 + 0.01 * number for number in range(count)]
    lambdas[1] = 1e6
    layer = valid_of(kind, lambd=lambdas, steps=300, **settings)
    images = inputs(kind)
    found = layer.solution(images)
    assert not found.code[:, 1].any()
    rest = [number for number in range(count) if number != 1]
    assert all(found.code[:, number].any() for number in rest) or kind == "dense"
    fewer = Problem(
        standardize(images),
        found.problem.dictionary.with_atoms(layer.dictionary.detach()[rest]),
        torch.tensor(lambdas)[rest],
        penalty=settings.get("penalty", "l1"),
    )
    expected = solve(fewer, settings.get("method"), steps=300)
    torch.testing.assert_close(found.code[:, rest], expected.code, rtol=1e-3, atol=1e-3)


@both
@pytest.mark.parametrize("count", [0, 1, 5, 31])
def test_a_wrong_number_of_lambdas_is_refused(kind, count):
    with pytest.raises(ValueError, match=f"one for each of {FEATURES[kind]} features"):
        layer_of(kind, lambd=[0.1] * count)


@both
@pytest.mark.parametrize("method", [Fista(), Lca(tau=10)])
def test_signed_codes_have_both_signs_and_turn_with_the_images(kind, method):
    layer = layer_of(kind, nonnegative=False, lambd=0.2, method=method, steps=40)
    images = inputs(kind)
    found = layer.solution(images)
    assert (found.code > 0.1).any()
    assert (found.code < -0.1).any()
    torch.testing.assert_close(layer(-images), -found.code, rtol=1e-4, atol=1e-4)
    nonnegative = layer_of(kind, lambd=0.2, method=method, steps=40).solution(images)
    assert (nonnegative.code >= 0).all()
    if isinstance(method, Fista):
        assert (found.energy < nonnegative.energy).all()  # twice the freedom


@both
@pytest.mark.parametrize("nonnegative", [True, False])
def test_the_locally_competitive_algorithm_solves_l0(kind, nonnegative):
    settings = {"lambd": 0.6, "nonnegative": nonnegative, "method": Lca(tau=20), "steps": 1500}
    hard = valid_of(kind, penalty="l0", **settings).solution(inputs(kind))
    assert hard.code.any()
    assert hard.code[hard.code != 0].abs().min() > 0.6  # the hard threshold leaves nothing between
    assert (hard.code < 0).any() != nonnegative
    assert hard.kkt.max() < 1e-3
    expected = hard.residual.square().flatten(1).sum(1) / 2 + 0.6**2 / 2 * (hard.code != 0).flatten(1).sum(1)
    torch.testing.assert_close(hard.energy, expected)


@both
def test_fista_refuses_l0_when_the_layer_is_built(kind):
    with pytest.raises(ValueError, match="Lca"):
        layer_of(kind, penalty="l0")
    with pytest.raises(ValueError, match="Lca"):
        layer_of(kind, penalty="l0", method=Fista(relaxation=1.0))


@both
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "features"),
        ({"steps": 0}, "steps"),
        ({"check_every": 0}, "check_every"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"rate": float("nan")}, "rate"),
        ({"lambd": -0.1}, "lambd"),
        ({"lambd": [0.1, float("nan")], "features": 2}, "lambd"),
    ],
)
def test_bad_settings_are_refused_by_name(kind, settings, message):
    settings = {"features": 4, **settings}
    with pytest.raises(ValueError, match=message):
        SparseCode2d(1, settings.pop("features"), **settings) if kind == "conv" else SparseCodeDense(
            5, settings.pop("features"), **settings
        )


@both
def test_both_methods_come_to_the_same_codes_where_they_share_an_optimum(kind):
    images = inputs(kind)
    fista = valid_of(kind, steps=500).solution(images)
    lca = valid_of(kind, method=Lca(tau=20), steps=1500).solution(images)
    assert fista.kkt.max() < 1e-4
    assert lca.kkt.max() < 1e-3
    torch.testing.assert_close(lca.energy, fista.energy, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize(
    "settings",
    [{"steps": 3000}, {"method": Lca(tau=10), "steps": 2000, "check_every": 50}, {"lambd": 0.1, "steps": 3000}],
)
def test_with_a_tolerance_every_image_is_solved_by_itself(kind, settings):
    layer = valid_of(kind, tolerance=1e-3, **settings)
    images = inputs(kind, n=5) * torch.linspace(0.1, 2, 5).view(-1, *(1,) * len(SHAPE[kind]))
    layer.standardize = False
    found = layer.solution(images)
    assert found.status.tolist() == [Status.SOLVED] * 5
    assert found.kkt.max() <= 1e-3 + 1e-6  # rounding
    every = settings.get("check_every", 10)
    assert all(steps % every == 0 for steps in found.steps.tolist())
    assert len(found.steps.unique()) > 1
    for number in range(5):
        alone = layer.solution(images[number : number + 1])
        torch.testing.assert_close(alone.code[0], found.code[number], rtol=1e-4, atol=1e-4)
        assert alone.steps[0] == found.steps[number]


@both
def test_images_that_do_not_meet_the_tolerance_in_time_are_told(kind):
    found = layer_of(kind, tolerance=1e-7, steps=7, lambd=0.1).solution(inputs(kind))
    assert found.status.tolist() == [Status.MAX_STEPS] * 3
    assert found.steps.tolist() == [7] * 3
    assert found.kkt.min() > 1e-7
    fixed = layer_of(kind, steps=7, lambd=0.1).solution(inputs(kind))
    assert fixed.status.tolist() == [Status.FIXED_STEPS] * 3
    torch.testing.assert_close(found.code, fixed.code)


# gradients


def gradient_of(kind, gradient, **settings):
    layer = valid_of(kind, backprop=True, gradient=gradient, standardize=False, **settings).double()
    images = inputs(kind, dtype=torch.float64).requires_grad_()
    code = layer(images)
    return torch.cat(
        [
            slope.flatten()
            for slope in torch.autograd.grad(
                (code * draws(*code.shape, seed=4, dtype=torch.float64)).sum(), [images, layer.dictionary]
            )
        ]
    )


@both
def test_every_gradient_works_in_the_layer_and_the_exact_ones_agree(kind):
    settings = {"tolerance": 1e-9, "steps": 5000, "lambd": 0.8}
    exact = gradient_of(kind, Unrolled(), **settings)
    assert exact.abs().max() > 0
    for gradient in (Unrolled(segment=7), Unrolled(twice=True), Implicit(residual=1e-8)):
        torch.testing.assert_close(gradient_of(kind, gradient, **settings), exact, rtol=1e-4, atol=1e-5)
    cheap = gradient_of(kind, OneStep(), **settings)
    assert torch.cosine_similarity(cheap, exact, dim=0) > 0.3
    assert not torch.allclose(cheap, exact, rtol=1e-2)


@both
def test_a_gradient_never_changes_the_codes(kind):
    images = inputs(kind)
    expected = layer_of(kind)(images)
    for gradient in (Unrolled(), Unrolled(segment=4), Unrolled(twice=True), OneStep(), Detached(), Implicit(kkt=10.0)):
        layer = layer_of(kind, gradient=gradient, backprop=True)
        torch.testing.assert_close(layer(images.clone().requires_grad_()).detach(), expected, rtol=1e-5, atol=1e-5)


@both
def test_detached_gives_no_gradient(kind):
    layer = layer_of(kind, gradient=Detached(), backprop=True)
    assert not layer(inputs(kind).requires_grad_()).requires_grad


@both
def test_without_backprop_only_the_images_take_a_gradient(kind):
    layer = layer_of(kind)
    images = inputs(kind)
    assert not layer(images).requires_grad
    layer(images.requires_grad_()).sum().backward()
    assert images.grad.abs().sum() > 0
    assert layer.dictionary.grad is None


@both
def test_the_implicit_gradient_asks_for_solved_codes(kind):
    images = inputs(kind).requires_grad_()
    with pytest.raises(NotConvergedError, match="run more steps"):
        layer_of(kind, steps=3, lambd=0.1, gradient=Implicit())(images)
    layer = layer_of(kind, steps=3, lambd=0.1, gradient=Implicit(otherwise=OneStep()))
    with pytest.warns(NotConvergedWarning, match="another gradient"):
        code = layer(images)
    (slope,) = torch.autograd.grad(code.sum(), images)
    (expected,) = torch.autograd.grad(layer_of(kind, steps=3, lambd=0.1, gradient=OneStep())(images).sum(), images)
    torch.testing.assert_close(slope, expected)


@both
@pytest.mark.parametrize("build", [lambda p: torch.optim.SGD(p, lr=0.05), lambda p: torch.optim.Adam(p, lr=0.02)])
def test_an_optimizer_trains_the_dictionary_itself(kind, build):
    layer = layer_of(kind, backprop=True, lambd=0.2)
    assert [name for name, _ in layer.named_parameters()] == ["dictionary"]
    optimizer, images = build(layer.parameters()), inputs(kind, n=4)
    energies = []
    for _ in range(25):
        found = layer.solution(images)
        np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)
        energies.append(float(found.energy.mean()))
        misfit = standardize(images) - found.problem.dictionary.with_atoms(layer.dictionary).synthesis(found.code)
        loss = misfit.square().sum() / 2 + 0.2 * found.code.sum()
        optimizer.zero_grad()
        (loss / 4).backward()
        optimizer.step()
    assert energies[-1] < 0.95 * energies[0]


@both
def test_two_batches_may_share_one_backward(kind):
    first, second = inputs(kind), inputs(kind, seed=8)
    sums = []
    for batches in ([first, second], [torch.cat([first, second])]):
        layer = layer_of(kind, backprop=True).double()
        codes = [layer(batch.double()) for batch in batches]
        torch.stack([code.square().sum() for code in codes]).sum().backward()
        sums.append(layer.dictionary.grad)
    torch.testing.assert_close(*sums)


@pytest.mark.parametrize("backprop", [True, False])
def test_images_of_two_sizes_may_share_one_backward(backprop):
    small, large = draws(2, 2, 6, 6).requires_grad_(), draws(2, 2, 8, 8).requires_grad_()
    layer = layer_of("conv", backprop=backprop)
    (layer(small).square().sum() + layer(large).square().sum()).backward()
    for images in (small, large):
        alone = images.detach().clone().requires_grad_()
        layer_of("conv")(alone).square().sum().backward()
        torch.testing.assert_close(images.grad, alone.grad, rtol=1e-3, atol=1e-4)


# solutions


@both
@pytest.mark.parametrize("method", [Fista(), Lca(tau=10)])
def test_a_warm_start_goes_on_from_the_code_given(kind, method):
    images = inputs(kind)
    long = valid_of(kind, steps=600, lambd=0.2, method=method)(images)
    given_code, layer = long.clone(), valid_of(kind, steps=3, lambd=0.2, method=method)
    warm, cold = layer.solution(images, start=given_code), layer.solution(images)
    assert torch.equal(given_code, long)  # not written into
    torch.testing.assert_close(warm.code, long, rtol=1e-2, atol=1e-2)
    assert (warm.kkt < 0.1 * cold.kkt).all()
    assert (warm.energy < cold.energy).all()
    with pytest.raises(ValueError, match="start must have the shape of the codes"):
        layer.solution(images, start=given_code[:, 1:])


@both
@pytest.mark.parametrize("settings", [{}, {"gradient": Unrolled(twice=True)}, {"method": Lca(tau=10)}])
def test_a_warm_start_is_a_constant_to_the_gradient(kind, settings):
    layer = layer_of(kind, backprop=True, **settings)
    images = inputs(kind)
    first = layer(images)
    second = layer.solution(images, start=first).code
    (expected,) = torch.autograd.grad(second.sum(), layer.dictionary, retain_graph=True)
    (found,) = torch.autograd.grad(layer.solution(images, start=first.detach()).code.sum(), layer.dictionary)
    assert torch.equal(found, expected)
    assert torch.autograd.grad(second.sum(), first, allow_unused=True) == (None,)


@both
@pytest.mark.parametrize("method", [Fista(), Lca(tau=10)])
@pytest.mark.parametrize("standardized", [True, False])
def test_what_a_solution_tells_fits_together(kind, method, standardized):
    layer = layer_of(kind, method=method, lambd=0.3, backprop=True, standardize=standardized)
    images = inputs(kind)
    found = layer.solution(images)
    seen = standardize(images) if standardized else images
    dictionary = found.problem.dictionary
    code = found.code.detach()
    assert found.code.requires_grad
    assert torch.equal(layer(images), found.code)
    torch.testing.assert_close(found.reconstruction + found.residual, seen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.reconstruction, dictionary.synthesis(code), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.drive, dictionary.analysis(seen), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found.energy, found.residual.square().flatten(1).sum(1) / 2 + 0.3 * code.flatten(1).sum(1)
    )
    assert found.energy.shape == found.kkt.shape == found.status.shape == found.steps.shape == (3,)
    assert found.steps.tolist() == [layer.steps] * 3
    if isinstance(method, Lca):
        assert torch.equal(torch.relu(found.potentials - 0.3), code)
        settled = code + dictionary.analysis(found.residual)
    else:
        settled = found.potentials
        torch.testing.assert_close(settled, code + dictionary.analysis(found.residual), rtol=1e-5, atol=1e-5)
    expected = (code - torch.relu(settled - 0.3)).abs().flatten(1).amax(1)
    torch.testing.assert_close(found.kkt, expected, rtol=1e-4, atol=1e-5)
    for name in ("drive", "potentials", "reconstruction", "residual", "connectivity", "energy", "kkt"):
        assert not getattr(found, name).requires_grad, name


@both
def test_connectivity_holds_the_inner_products_of_atoms_but_not_each_one_s_own(kind):
    layer = layer_of(kind)
    found = layer.solution(inputs(kind))
    atoms = layer.dictionary.detach()
    products = atoms.flatten(1) @ atoms.flatten(1).T
    products.fill_diagonal_(0)
    if kind == "dense":
        torch.testing.assert_close(found.connectivity, products)
    else:
        assert found.connectivity.shape == (6, 6, 5, 5)
        torch.testing.assert_close(found.connectivity[:, :, 2, 2], products)
        assert found.connectivity.diagonal()[:2].abs().sum() > 0  # an atom competes with itself elsewhere


@both
def test_at_rest_the_potentials_are_drive_minus_competition(kind):
    found = valid_of(kind, method=Lca(tau=10), steps=3000).solution(inputs(kind))
    competition = found.problem.dictionary.inhibition(found.code, found.connectivity)
    torch.testing.assert_close(found.potentials, found.drive - competition, rtol=1e-3, atol=1e-3)


@both
@pytest.mark.parametrize("settings", [{}, {"method": Lca(tau=10)}, {"tolerance": 1e-2, "steps": 40, "check_every": 5}])
def test_a_trace_records_every_step_and_changes_nothing(kind, settings):
    layer = layer_of(kind, backprop=True, **settings)
    images = inputs(kind)
    found, plain = layer.solution(images, trace=True), layer.solution(images)
    assert plain.trace is None
    torch.testing.assert_close(found.code, plain.code)
    rows = int(found.steps.max())
    for values in (found.trace.energy, found.trace.active, found.trace.residual):
        assert values.shape == (rows, 3)
        assert not values.requires_grad
    code = found.code.detach()
    torch.testing.assert_close(found.trace.energy[-1], found.energy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.trace.active[-1], (code != 0).float().flatten(1).mean(1))
    torch.testing.assert_close(
        found.trace.residual[-1], torch.linalg.vector_norm(found.residual.flatten(1), dim=1), rtol=1e-4, atol=1e-4
    )
    early = layer_of(kind, **{**settings, "tolerance": None, "steps": 4}).solution(images)
    torch.testing.assert_close(found.trace.energy[3], early.energy, rtol=1e-4, atol=1e-4)


@both
def test_what_a_solution_tells_stays_true_when_the_dictionary_learns_on(kind):
    layer = layer_of(kind, hebbian=True, rate=5.0, lambd=0.2)
    images = inputs(kind)
    early, late = layer.solution(images), layer.solution(images)
    layer.statistics = None
    expected = {name: getattr(early, name).clone() for name in ("drive", "potentials", "connectivity", "kkt")}
    learn(layer, kind)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(late, name), value, msg=name)


# local learning


@both
def test_nothing_is_gathered_in_evaluation_or_unless_asked(kind):
    for layer in (layer_of(kind, hebbian=True, rate=3.0).eval(), layer_of(kind, rate=3.0).train()):
        layer(inputs(kind))
        before = layer.dictionary.detach().clone()
        layer.apply_update()
        torch.testing.assert_close(layer.dictionary.detach(), before)


def test_the_dense_update_is_the_sum_over_inputs_of_coefficient_times_residual():
    layer = layer_of("dense", hebbian=True, rate=0.5, standardize=False, lambd=0.1).double()
    layer.eval()(inputs("dense", seed=9))
    layer.train()
    sums, active = np.zeros((30, 20)), np.zeros(30)
    for seed in (1, 2, 3):
        found = layer.solution(inputs("dense", seed=seed))
        for code, residual in zip(found.code.numpy(), found.residual.numpy(), strict=True):
            for feature in range(30):
                sums[feature] += code[feature] * residual
                active[feature] += code[feature] > 0
    raw = layer.dictionary.detach().numpy() + 0.5 * sums / (active + 1)[:, None]
    layer.apply_update()
    expected = raw / np.sqrt((raw**2).sum(1, keepdims=True))
    assert active.max() > 2
    np.testing.assert_allclose(layer.dictionary.numpy(), expected, atol=1e-10)


@both
def test_gathering_needs_no_graph_and_leaves_the_images_behind(kind):
    layers = [layer_of(kind, hebbian=True, backprop=True, rate=1.0) for _ in range(2)]
    for number, layer in enumerate(layers):
        with torch.set_grad_enabled(number == 0):
            layer(inputs(kind))
        assert (
            sum(part.numel() for part in vars(layer.statistics).values()) == layer.dictionary.numel() + FEATURES[kind]
        )
        layer.apply_update()
    torch.testing.assert_close(layers[0].dictionary, layers[1].dictionary)


@both
def test_local_learning_lowers_the_energy(kind):
    layer = layer_of(kind, hebbian=True, rate=0.5, lambd=0.2, steps=40)
    images = inputs(kind, n=4)
    before = layer.eval().solution(images).energy.mean()
    layer.train()
    for _ in range(20):
        layer(images)
        layer.apply_update()
    assert layer.eval().solution(images).energy.mean() < 0.95 * before


@both
@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_the_step_size_holds_through_many_updates(kind, rate):
    # the images turn to another theme every twenty updates, and the atoms after them
    layer = layer_of(kind, hebbian=True, rate=rate, lambd=0.1)
    for number in range(60):
        theme = inputs(kind, n=1, seed=7 + number // 20)
        images = theme + 0.3 * inputs(kind, n=4, seed=1000 + number)
        found = layer.solution(images)
        assert found.code.any(), "the layer is dead"
        np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)
        assert float(layer.lipschitz) >= largest(layer), f"update {number}"
        layer.apply_update()


@both
def test_the_step_size_holds_when_all_atoms_drift_the_same_way(kind):
    layer = layer_of(kind)
    images = inputs(kind)
    for number in range(40):
        layer(images)
        assert float(layer.lipschitz) >= largest(layer), f"move {number}"
        goal = unit_norm(draws(1, *layer.dictionary.shape[1:], seed=50 + number // 20))
        with torch.no_grad():
            layer.dictionary.add_(0.08 * unit_norm(goal - layer.dictionary))


# refusals


def refuses(layer, images, message):
    """Check that the layer refuses images and is none the worse for it."""
    good = draws(2, 2, 8, 8) if isinstance(layer, SparseCode2d) else draws(2, 20)
    before = layer(good)
    with pytest.raises(ValueError, match=message):  # as users see it, without the type checker
        inspect.unwrap(type(layer).operator)(layer, images)
    with pytest.raises((ValueError, TypeCheckError)):
        layer(images)
    assert torch.equal(layer(good), before)


few = given_settings(max_examples=10, deadline=None, derandomize=True)
CONV, DENSE = layer_of("conv"), layer_of("dense")
VALID = SparseCode2d(2, 3, 5, padding="valid")
shapes = st.lists(st.integers(0, 9), min_size=0, max_size=6)


@few
@given(shapes.filter(lambda shape: len(shape) != 4 or shape[1] != 2))
def test_images_of_another_shape_or_channel_count_are_refused(shape):
    refuses(CONV, torch.zeros(shape), "expected images")


@few
@given(shapes.filter(lambda shape: len(shape) != 2 or shape[1] != 20))
def test_vectors_of_another_length_are_refused(shape):
    refuses(DENSE, torch.zeros(shape), "expected inputs")


@few
@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))
def test_with_valid_padding_images_need_room_for_an_atom(n, h, w):
    images = draws(n, 2, h, w)
    if min(h, w) < 5:
        refuses(VALID, images, "smaller than an atom")
    else:
        assert VALID(images).shape == (n, 3, h - 4, w - 4)


@both
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("settings", [{}, {"method": Lca()}, {"tolerance": 1e-3}, {"standardize": False}])
def test_an_input_that_is_not_finite_is_refused_and_teaches_nothing(kind, bad, settings):
    layer = layer_of(kind, hebbian=True, **settings)
    images = inputs(kind)
    images[1].view(-1)[3] = bad
    with pytest.raises(DivergedError, match="1 of 3 images"):
        layer(images)
    before = layer.dictionary.detach().clone()
    layer.apply_update()
    torch.testing.assert_close(layer.dictionary.detach(), before)
    assert layer(inputs(kind)).isfinite().all()


@both
def test_atoms_that_are_not_finite_are_refused(kind):
    layer = layer_of(kind)
    with torch.no_grad():
        layer.dictionary.view(-1)[3] = float("nan")
    with pytest.raises(DivergedError):
        layer(inputs(kind))


@both
def test_the_bound_is_above_the_largest_eigenvalue_and_not_far(kind):
    layer = layer_of(kind).double()
    layer(inputs(kind))
    bound = lipschitz_bound(layer.operator(inputs(kind)))
    assert largest(layer) <= float(bound) <= 1.2 * largest(layer)
    assert float(layer.lipschitz) == float(bound)


def test_the_bound_holds_for_an_atom_that_peaks_between_round_frequencies():
    atom = [[0.5698, 0.2058, -0.5508], [-0.3089, -0.0674, -0.0343], [-0.2600, -0.2713, 0.2952]]
    atoms = unit_norm(torch.tensor(atom, dtype=torch.float64).view(1, 1, 3, 3))
    dictionary = ConvDictionary(atoms, 1, "valid", (64, 64))
    eigenvalue, _ = largest_eigenvalue(dictionary, draws(1, *dictionary.code_shape, dtype=torch.float64), 500)
    assert float(eigenvalue) <= float(lipschitz_bound(dictionary))


def test_the_step_size_of_many_channels_fits_larger_images_than_the_first():
    layer = SparseCode2d(65, 70, 3, lambd=0.05, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.dictionary.add_(0.3 * draws(1, 65, 1, 1))  # atoms that are alike need short steps
    layer(draws(1, 65, 1, 1))
    eigenvalue, _ = largest_eigenvalue(layer.operator(torch.empty(1, 65, 10, 10)), draws(1, 70, 10, 10), 50)
    found = layer.solution(draws(1, 65, 10, 10))
    assert float(layer.lipschitz) >= float(eigenvalue)
    assert found.code.any()


@both
def test_a_model_with_the_layer_learns_its_task(kind):
    torch.manual_seed(0)
    size = int(np.prod(CODE[kind]))
    model = nn.Sequential(layer_of(kind, backprop=True, hebbian=True), nn.Flatten(), nn.Linear(size, 2))
    images, labels = inputs(kind, n=8), torch.arange(8) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model[0].apply_update()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
