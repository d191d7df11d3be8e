"""Dictionaries, images and problems for the tests of sparse coding, in float64."""

import torch
from hypothesis import strategies as st

from sparseguard.sparse import ConvDictionary, DenseDictionary, Problem, unit_norm

double = torch.float64


@st.composite
def dictionaries(draw):
    """Draw a float64 dictionary of any geometry that is promised to work."""
    h, w = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    padding = draw(st.sampled_from(["same", "valid"]))
    if padding == "same":
        kernel = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 3, 5]))
    else:
        kernel = draw(st.integers(1, min(h, 5))), draw(st.integers(1, min(w, 5)))
    features, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return make(features, channels, kernel, draw(st.integers(1, 4)), padding, (h, w), draw(st.integers(0, 99)))


@st.composite
def problems(draw, smallest=0.05):
    """Draw a problem of two images: any geometry, signed or not, one lambda or one a feature."""
    dictionary = draw(dictionaries())
    weight = st.floats(smallest, 1.5)
    features = len(dictionary.atoms)
    one_each = st.lists(weight, min_size=features, max_size=features)
    lambd = draw(st.one_of(weight, one_each.map(lambda values: torch.tensor(values, dtype=double))))
    images = draws(2, *image_shape(dictionary), seed=draw(st.integers(0, 99)))
    return Problem(images, dictionary, lambd, draw(st.booleans()))


def make(features, channels, kernel, stride, padding, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = unit_norm(torch.randn(features, channels, *kernel, generator=generator, dtype=double))
    return ConvDictionary(atoms, stride, padding, size)


def make_dense(features, length, seed=0):
    return DenseDictionary(unit_norm(draws(features, length, seed=seed)))


def draws(*shape, seed=1, dtype=double):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def image_shape(dictionary):
    if isinstance(dictionary, DenseDictionary):
        return (int(dictionary.atoms.shape[1]),)
    return (int(dictionary.atoms.shape[1]), *dictionary.size)


SMALL = [
    make(3, 1, (3, 3), 1, "same", (6, 6)),
    make(4, 2, (3, 3), 2, "same", (7, 6)),
    make(2, 1, (4, 3), 1, "valid", (6, 7)),
    make(5, 1, (3, 3), 3, "valid", (8, 8)),
]
