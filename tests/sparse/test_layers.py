"""The sparse layer: codes, dictionary upkeep, local learning and gradients."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sparseguard.sparse import (
    ConvDictionary,
    DivergedError,
    Problem,
    SparseCode2d,
    StandardizeImage,
    hebbian_update,
    largest_eigenvalue,
    solve,
    standardize,
)


def layer_of(channels=1, features=4, kernel_size=3, seed=0, **settings):
    return SparseCode2d(channels, features, kernel_size, generator=torch.Generator().manual_seed(seed), **settings)


def draws(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def norms(layer):
    return np.sqrt((layer.dictionary.detach().double().numpy() ** 2).sum((1, 2, 3)))


def dense_eigenvalue(layer, size):
    """Return the Gram matrix's largest eigenvalue; its columns are the images of unit codes."""
    dictionary = ConvDictionary(layer.dictionary.detach().double(), layer.stride, layer.padding, size)
    count = int(np.prod(dictionary.code_shape))
    matrix = dictionary.synthesis(torch.eye(count, dtype=torch.float64).view(count, *dictionary.code_shape)).flatten(1)
    return float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1])


@pytest.mark.parametrize("size", [(9, 8), (8, 8)])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"padding": "valid"}, {"standardize": False}])
def test_a_code_does_not_depend_on_the_images_beside_it(settings, size):
    layer = layer_of(channels=2, **settings).eval()
    images = draws(5, 2, *size)
    together = layer(images)
    for index in range(5):
        torch.testing.assert_close(together[index], layer(images[index : index + 1])[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.flip(0), layer(images.flip(0)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({}, (4, 9, 7)), ({"stride": 2}, (4, 5, 4)), ({"padding": "valid"}, (4, 7, 5))],
)
def test_codes_are_nonnegative_and_of_the_promised_shape(settings, shape):
    code = layer_of(**settings)(draws(3, 1, 9, 7))
    assert code.shape == (3, *shape)
    assert (code >= 0).all()
    assert (code > 0).any()


def test_a_larger_lambda_gives_sparser_codes_and_an_overwhelming_one_zeros():
    images = draws(3, 1, 8, 8)
    shares = [float((layer_of(lambd=lambd, steps=60)(images) > 0).float().mean()) for lambd in (0.05, 0.5, 100.0)]
    assert shares[0] > shares[1] > shares[2] == 0


def test_the_first_layer_s_atoms_are_frozen_unless_asked():
    assert not layer_of().dictionary.requires_grad
    assert layer_of(backprop=True).dictionary.requires_grad


def test_atoms_keep_unit_norm_through_an_optimizer():
    layer = layer_of(backprop=True)
    images = draws(2, 1, 8, 8)
    optimizer = torch.optim.SGD(layer.parameters(), lr=5.0)
    layer(images).square().sum().backward()
    optimizer.step()
    assert np.abs(norms(layer) - 1).max() > 1e-3  # the step did leave the sphere
    layer(images)
    np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)


def test_atoms_keep_unit_norm_through_the_local_update():
    layer = layer_of(hebbian=True, rate=3.0)
    before = layer.dictionary.clone()
    layer(draws(3, 1, 8, 8))
    layer.apply_update()
    assert not torch.allclose(before, layer.dictionary)
    np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)
    after = layer.dictionary.clone()
    layer.apply_update()  # what was gathered is forgotten
    torch.testing.assert_close(layer.dictionary, after)


def test_atoms_loaded_at_another_scale_get_unit_norm():
    source, layer = layer_of(seed=5), layer_of(seed=6)
    layer.load_state_dict(
        {name: value * 7 if name == "dictionary" else value for name, value in source.state_dict().items()}
    )
    images = draws(2, 1, 8, 8)
    codes = layer(images)
    np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)
    torch.testing.assert_close(codes, source(images), rtol=1e-3, atol=1e-3)


def test_the_step_size_follows_wholly_new_atoms():
    layer = layer_of(features=6)
    images = draws(2, 1, 8, 8)
    layer(images)
    # all atoms alike and positive: the eigenvalue is far above that of random ones
    old = float(layer.lipschitz)
    with torch.no_grad():
        layer.dictionary.copy_(10 * torch.ones_like(layer.dictionary) + 0.1 * draws(*layer.dictionary.shape))
    layer(images)
    assert dense_eigenvalue(layer, (8, 8)) > 2 * old
    assert float(layer.lipschitz) >= dense_eigenvalue(layer, (8, 8))
    with torch.no_grad():
        layer.dictionary.copy_(10 * draws(*layer.dictionary.shape, seed=9))
    layer(images)
    np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)
    assert float(layer.lipschitz) >= dense_eigenvalue(layer, (8, 8))


@pytest.mark.parametrize("size", [(8, 8), (5, 11)])
def test_the_step_size_holds_for_every_image_size(size):
    layer = layer_of(features=6)
    layer(draws(2, 1, 12, 12))
    layer(draws(2, 1, *size))
    assert dense_eigenvalue(layer, size) <= float(layer.lipschitz) <= 1.2 * dense_eigenvalue(layer, size)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_input_that_is_not_finite_is_refused(bad):
    images = draws(3, 1, 8, 8)
    images[1, 0, 4, 4] = bad
    with pytest.raises(DivergedError, match="1 of 3 images"):
        layer_of()(images)


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
def test_correlate_sums_coefficient_times_patch(stride, padding):
    dictionary = ConvDictionary(draws(3, 2, 3, 3, dtype=torch.float64), stride, padding, (7, 6))
    code = draws(2, *dictionary.code_shape, dtype=torch.float64, seed=2).relu()
    residual = draws(2, 2, 7, 6, dtype=torch.float64, seed=3)
    np.testing.assert_allclose(
        dictionary.correlate(code, residual).numpy(), patch_sums(code, residual, stride, padding), atol=1e-12
    )


def patch_sums(code, residual, stride, padding):
    margin = 1 if padding == "same" else 0
    padded = np.pad(residual.numpy(), ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    n, f, p, q = code.shape
    expected = np.zeros((f, residual.shape[1], 3, 3))
    for i, a, y, x in np.ndindex(n, f, p, q):
        patch = padded[i, :, y * stride : y * stride + 3, x * stride : x * stride + 3]
        expected[a] += float(code[i, a, y, x]) * patch
    return expected


def test_the_hebbian_update_is_its_formula():
    atoms, correlation = draws(3, 1, 3, 3, dtype=torch.float64), draws(3, 1, 3, 3, dtype=torch.float64, seed=2)
    active = torch.tensor([0.0, 4.0, 9.0], dtype=torch.float64)
    updated = hebbian_update(atoms, correlation, active, 0.3)
    for atom, corr, count, new in zip(atoms, correlation, active.tolist(), updated, strict=True):
        raw = atom.numpy() + 0.3 * corr.numpy() / (count + 1)
        np.testing.assert_allclose(new.numpy(), raw / np.sqrt((raw**2).sum()), rtol=1e-12)


def test_the_layer_gathers_its_update_over_training_batches_only():
    layer = layer_of(hebbian=True, rate=0.5, standardize=False, lambd=0.1).double()
    first, second = draws(2, 1, 6, 6, dtype=torch.float64), draws(3, 1, 6, 6, dtype=torch.float64, seed=8)
    layer.eval()(draws(4, 1, 6, 6, dtype=torch.float64, seed=9))
    layer.train()
    sums, active = np.zeros((4, 1, 3, 3)), np.zeros(4)
    for batch in (first, second):
        found = layer.solution(batch)
        sums += patch_sums(found.code, found.residual, 1, "same")
        active += (found.code.numpy() > 0).sum((0, 2, 3))
    raw = layer.dictionary.detach().numpy() + 0.5 * sums / (active + 1).reshape(-1, 1, 1, 1)
    layer.apply_update()
    expected = raw / np.sqrt((raw**2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(layer.dictionary.numpy(), expected, atol=1e-10)


def test_local_learning_lowers_the_energy():
    layer = layer_of(features=8, hebbian=True, rate=0.5, lambd=0.2, steps=40)
    images = draws(4, 1, 8, 8)
    before = layer.eval().solution(images).energy.mean()
    layer.train()
    for _ in range(30):
        layer(images)
        layer.apply_update()
    assert layer.eval().solution(images).energy.mean() < before


@pytest.mark.parametrize("standardized", [True, False])
def test_gradients_in_the_input_are_exact(standardized):
    layer = layer_of(features=2, steps=4, lambd=0.1, standardize=standardized).double().eval()
    images = draws(1, 1, 4, 4, dtype=torch.float64).requires_grad_()
    layer(images)
    assert torch.autograd.gradcheck(layer, images)


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "valid")])
def test_gradients_in_the_dictionary_are_exact(stride, padding):
    layer = layer_of(features=2, steps=4, lambd=0.1, stride=stride, padding=padding, standardize=False, backprop=True)
    layer.double()
    images = draws(2, 1, 5, 5, dtype=torch.float64)
    code = layer(images)
    weight = draws(*code.shape, dtype=torch.float64, seed=4)
    (code * weight).sum().backward()

    def unrolled(atoms):
        problem = Problem(images, ConvDictionary(atoms, stride, padding, (5, 5)), 0.1)
        return solve(problem, lipschitz=layer.lipschitz, steps=4).code

    atoms = layer.dictionary.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(unrolled, atoms)
    (expected,) = torch.autograd.grad((unrolled(atoms) * weight).sum(), atoms)
    torch.testing.assert_close(layer.dictionary.grad, expected, rtol=1e-10, atol=1e-12)


def test_a_state_dict_brings_identical_codes():
    layer, other = layer_of(seed=1), layer_of(seed=2)
    images = draws(3, 1, 8, 8)
    codes = layer(images)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(images), codes)
    fresh = layer_of(seed=3)
    fresh.load_state_dict(layer_of(seed=1).state_dict())  # saved before any image was seen
    assert torch.equal(fresh(images), codes)


def test_a_deep_copy_gives_the_same_codes_and_shares_nothing():
    layer = layer_of()
    images = draws(2, 1, 8, 8)
    codes = layer(images)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(images), codes)
    with torch.no_grad():
        twin.dictionary.copy_(draws(*twin.dictionary.shape, seed=7))
    assert not torch.allclose(twin(images), codes, atol=0.1)
    np.testing.assert_allclose(norms(twin), 1, rtol=1e-5)
    assert torch.equal(layer(images), codes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "in_channels"),
        ({"features": 0}, "features"),
        ({"kernel_size": 0, "padding": "valid"}, "kernel_size"),
        ({"kernel_size": 4}, "odd"),
        ({"stride": 0}, "stride"),
        ({"steps": 0}, "steps"),
        ({"lambd": -0.1}, "lambd"),
        ({"lambd": float("nan")}, "lambd"),
        ({"rate": -1.0}, "rate"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        layer_of(**settings)


def test_images_with_other_channels_are_refused():
    with pytest.raises(ValueError, match="expected images"):
        layer_of()(torch.zeros(2, 3, 8, 8))


def test_images_smaller_than_an_atom_are_refused():
    with pytest.raises(ValueError, match="smaller than an atom"):
        layer_of(padding="valid", kernel_size=5)(torch.zeros(1, 1, 4, 8))


def test_repr_tells_the_settings():
    text = repr(layer_of(lambd=0.125, stride=2, padding="valid", steps=9))
    for part in ("lambd=0.125", "stride=2", "padding='valid'", "steps=9"):
        assert part in text


def test_standardize_gives_mean_zero_and_variance_one():
    images = draws(3, 2, 6, 5) * torch.tensor([0.1, 1.0, 30.0]).view(3, 1, 1, 1) + 4
    for image in standardize(images).double().numpy():
        assert image.mean() == pytest.approx(0, abs=1e-5)
        assert image.var() == pytest.approx(1, rel=1e-3)
    assert torch.equal(StandardizeImage()(images), standardize(images))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_image_becomes_zeros_and_has_an_empty_code(value):
    images = torch.full((2, 1, 8, 8), value)
    torch.testing.assert_close(standardize(images), torch.zeros_like(images), rtol=0, atol=1e-6)
    assert torch.equal(layer_of()(images), torch.zeros(2, 4, 8, 8))


def test_the_layer_trains_within_a_network():
    model = nn.Sequential(layer_of(backprop=True), nn.Flatten(), nn.Linear(4 * 36, 2))
    images, labels = draws(8, 1, 6, 6), torch.arange(8) % 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_power_iteration_survives_a_dictionary_of_zeros():
    dictionary = ConvDictionary(torch.zeros(2, 1, 3, 3), 1, "same", (5, 5))
    value, vector = largest_eigenvalue(dictionary, draws(1, *dictionary.code_shape), 3)
    assert float(value) == 0
    assert torch.isfinite(vector).all()


def test_wholly_new_atoms_at_another_scale_do_not_diverge():
    layer = layer_of(features=6)
    images = draws(2, 1, 8, 8)
    for seed in range(5):
        layer(images)
        with torch.no_grad():
            layer.dictionary.copy_(10 * draws(*layer.dictionary.shape, seed=seed))
        found = layer.solution(images)
        np.testing.assert_allclose(norms(layer), 1, rtol=1e-5)
        assert (found.energy <= standardize(images).square().flatten(1).sum(1) / 2).all()


def test_the_step_size_follows_small_changes_of_the_atoms():
    layer = layer_of(features=6)
    images = draws(2, 1, 8, 8)
    for seed in range(10):
        layer(images)
        with torch.no_grad():
            layer.dictionary.add_(0.02 * draws(*layer.dictionary.shape, seed=seed))
        layer(images)
        assert float(layer.lipschitz) >= dense_eigenvalue(layer, (8, 8))
