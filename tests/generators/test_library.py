"""Priors as folders: what is written is read again, what is damaged is refused, fingerprints tell images apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseguard.core.atomic_io import read_tensors, write_tensors
from sparseguard.core.errors import DataError, StoreError
from sparseguard.generators import (
    PriorCard,
    StyleFit,
    TrainedStyleGan,
    count_fingerprints,
    count_shared_images,
    describe_style_prior,
    find_prior,
    fingerprint_images,
    hash_prior,
    list_shipped_priors,
    load_prior,
    read_card,
    save_prior,
    style_prior_tensors,
)
from sparseguard.generators.stylegan.networks import StyleDiscriminator, StyleGenerator
from sparseguard.types import ImageSet

SHAPE = (1, 8, 8)


def image_set(pixels: Tensor) -> ImageSet:
    return ImageSet(pixels=pixels, labels=torch.zeros(len(pixels), dtype=torch.int64), classes=("a",))


def fitted(latent: int = 4) -> tuple[TrainedStyleGan, StyleFit]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGenerator(SHAPE, latent=latent, width=2, most=2, depth=2)
        generator.mean_w.normal_()
        critic = StyleDiscriminator(SHAPE, width=2, most=2)
    pair = TrainedStyleGan(generator=generator.eval(), discriminator=critic.eval(), history=[{"images": 1.0}])
    return pair, StyleFit(latent=latent, width=2, most=2, depth=2)


def seen(count: int = 5) -> ImageSet:
    return image_set((torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pair, fit = fitted()
    home = tmp_path / "prior"
    save_prior(
        home,
        describe_style_prior("toy", pair, fit, SHAPE),
        fingerprint_images(seen()),
        style_prior_tensors(pair),
        {"a.txt": b"words"},
    )
    return home


def rewrite(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "prior.json").read_text())
    (folder / "prior.json").write_text(json.dumps({**card, **changes}))


def test_what_is_saved_is_loaded(folder: Path) -> None:
    pair, fit = fitted()
    before = torch.random.get_rng_state()
    prior = load_prior(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert prior.card == read_card(folder) == describe_style_prior("toy", pair, fit, SHAPE)
    z = prior.latents(3, torch.Generator().manual_seed(0))
    images = prior.synthesis(prior.mapping(z))
    torch.testing.assert_close(images, pair.generator(z).detach())
    assert torch.equal(prior.realism(images), pair.discriminator(images))
    assert prior.trained_on is not None
    assert torch.equal(prior.trained_on, fingerprint_images(seen()))
    assert count_fingerprints(folder) == 5
    assert (folder / "a.txt").read_bytes() == b"words"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["prior"]


def test_half_precision_weights_are_computed_with_in_single(folder: Path) -> None:
    tensors, meta = read_tensors(folder / "weights.safetensors")
    half = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    write_tensors(folder / "weights.safetensors", half, meta)
    prior = load_prior(folder)
    images = prior.synthesis(prior.mapping(prior.latents(2, torch.Generator().manual_seed(0))))
    assert images.dtype == torch.float32


def test_what_was_seen_may_be_unknown(tmp_path: Path) -> None:
    pair, fit = fitted()
    save_prior(tmp_path / "p", describe_style_prior("toy", pair, fit, SHAPE), None, style_prior_tensors(pair))
    assert load_prior(tmp_path / "p").trained_on is None
    assert count_fingerprints(tmp_path / "p") is None


def test_a_generator_alone_will_do(tmp_path: Path) -> None:
    pair, fit = fitted()
    alone = {name: value for name, value in style_prior_tensors(pair).items() if name.startswith("generator.")}
    save_prior(tmp_path / "p", describe_style_prior("toy", pair, fit, SHAPE), None, alone)
    assert load_prior(tmp_path / "p").realism(torch.zeros(1, *SHAPE)) is None


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    pair, fit = fitted()
    before = hash_prior(folder)
    with pytest.raises(StoreError, match="exists already"):
        save_prior(folder, describe_style_prior("other", pair, fit, SHAPE), None, style_prior_tensors(pair))
    assert hash_prior(folder) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        save_prior(
            tmp_path / "file" / "p", describe_style_prior("toy", pair, fit, SHAPE), None, style_prior_tensors(pair)
        )


def test_the_fingerprint_is_of_card_and_weights(folder: Path) -> None:
    expected = hashlib.sha256((folder / "prior.json").read_bytes() + (folder / "weights.safetensors").read_bytes())
    assert hash_prior(folder) == expected.hexdigest()
    (folder / "weights.safetensors").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        hash_prior(folder)


def test_unknown_priors_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prior 'nowhere'"):
        find_prior("nowhere")
    with pytest.raises(DataError, match="no prior"):
        load_prior(tmp_path)
    for name, home in list_shipped_priors().items():
        assert find_prior(name) == home


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"\x80\x04" + content):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"weights\.safetensors"):
            load_prior(folder)
        with pytest.raises(DataError, match=r"weights\.safetensors"):
            count_fingerprints(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        load_prior(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    tensors, meta = read_tensors(path)
    first = "generator.start"
    for changed in (
        {name: value for name, value in tensors.items() if name != first},
        {**tensors, "generator.more": torch.zeros(1)},
        {**tensors, first: torch.zeros(1, 3, 4, 4)},
        {**tensors, **style_prior_tensors(fitted(latent=6)[0])},
    ):
        write_tensors(path, changed, meta)
        with pytest.raises(DataError, match="not those of the network described"):
            load_prior(folder)


@pytest.mark.parametrize("prints", [torch.zeros(3, 8), torch.zeros(3, 7, dtype=torch.uint8), torch.zeros(8).byte()])
def test_fingerprints_that_could_not_match_are_refused(prints: Tensor, folder: Path) -> None:
    path = folder / "weights.safetensors"
    tensors, meta = read_tensors(path)
    write_tensors(path, {**tensors, "trained_on": prints}, meta)
    with pytest.raises(DataError, match="fingerprints"):
        load_prior(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"name": ""},
        {"kind": "diffusion"},
        {"shape": [2, 8, 8]},
        {"shape": [1, 8]},
        {"shape": [1, 0, 8]},
        {"shape": [1, 16, 16]},
        {"shape": [1, 10**12, 10**12]},
        {"latent": []},
        {"latent": [5]},
        {"num_ws": 99},
        {"w_dim": 5},
        {"surprise": 1},
        {"construction": {}},
        {"construction": {"latent": 4, "width": 2, "most": 2}},
        {"construction": {"latent": 4, "width": "wide", "most": 2, "depth": 2}},
        {"construction": {"latent": 4, "width": -2, "most": 2, "depth": 2}},
        {"construction": {"latent": 4, "width": 0, "most": 2, "depth": 2}},
        {"construction": {"latent": 4, "width": 10**9, "most": 10**9, "depth": 2}},
        {"construction": {"latent": 4, "width": 10**30, "most": 2, "depth": 2}},
        {"construction": {"latent": 4, "width": 2, "most": 2, "depth": 10**6}},
    ],
    ids=str,
)
def test_bad_cards_are_refused(changes: dict[str, Any], folder: Path) -> None:
    rewrite(folder, **changes)
    with pytest.raises(DataError):
        load_prior(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version": 1}'])
def test_what_is_no_card_is_refused(content: bytes, folder: Path) -> None:
    (folder / "prior.json").write_bytes(content)
    with pytest.raises(DataError, match="not the description of a prior"):
        read_card(folder)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(sorted(PriorCard.model_fields)), value=PLAIN)
def test_any_value_is_accepted_or_explained(field: str, value: Any, folder: Path) -> None:
    card = (folder / "prior.json").read_text()
    rewrite(folder, **{field: value})
    try:
        prior = load_prior(folder)
    except DataError:
        pass
    else:
        assert getattr(prior.card, field) is not None or value is None
    finally:
        (folder / "prior.json").write_text(card)


@settings(max_examples=60, deadline=None)
@given(
    channels=st.sampled_from([1, 3]), side=st.integers(1, 256), num_ws=st.integers(0, 20),
    classes=st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple), trained_on=st.text(max_size=20),
)  # fmt: skip
def test_a_card_survives_the_journey(
    channels: Any, side: int, num_ws: int, classes: tuple[str, ...] | None, trained_on: str
) -> None:
    card = PriorCard(
        name="x", kind="module", shape=(channels, side, side + 1), latent=(3, 1, 1), num_ws=num_ws, w_dim=num_ws,
        classes=classes, trained_on=trained_on, source=("a", "b"), construction={"factory": "f"},
    )  # fmt: skip
    assert PriorCard.model_validate_json(json.dumps(card.model_dump(mode="json"))) == card


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=8))
def test_fingerprints_are_equal_for_equal_images_only(rows: list[list[int]]) -> None:
    images = image_set(torch.tensor(rows, dtype=torch.uint8).view(-1, 1, 2, 2))
    prints = fingerprint_images(images)
    assert prints.dtype == torch.uint8
    assert prints.shape == (len(rows), 8)
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            assert bool((prints[i] == prints[j]).all()) == (first == second)
    assert torch.equal(fingerprint_images(image_set(images.images)), prints)  # 8 bit or not
    tall = image_set(images.pixels.view(-1, 1, 4, 1))
    assert not (fingerprint_images(tall) == prints).all(1).any()  # the shape counts


@settings(max_examples=40, deadline=None)
@given(mine=st.lists(st.integers(0, 9), max_size=8), theirs=st.lists(st.integers(0, 9), max_size=8))
def test_shared_images_are_counted(mine: list[int], theirs: list[int]) -> None:
    def grey(levels: list[int]) -> ImageSet:
        return image_set(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 5))

    assert count_shared_images(fingerprint_images(grey(theirs)), grey(mine)) == sum(level in theirs for level in mine)
