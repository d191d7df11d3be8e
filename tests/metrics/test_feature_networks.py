"""Feature networks: where their weights come from, what they do to images, and whose numbers they give."""

import math
import os
import re
from importlib import util
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from sparseguard.core.atomic_io import read_tensors
from sparseguard.core.errors import DataError
from sparseguard.data import DATASETS
from sparseguard.metrics import FashionNet, FeatureNetwork, Inception2015, Lpips, TorchvisionNetwork
from sparseguard.metrics import feature_networks as networks
from sparseguard.metrics.feature_networks import FASHION_FEATURES, FASHION_WEIGHTS, fashion_layers, read_weights
from sparseguard.pipeline.scoring.distributions import set_scores

MOBILENET = Path(os.environ.get("SPARSEGUARD_MOBILENET", "mobilenet_v2-b0353104.pth"))
"""torchvision's published weights, for the slow test; in the working folder, or where the variable says."""
needs_torchvision = pytest.mark.skipif(util.find_spec("torchvision") is None, reason="torchvision is not installed")


def draws(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mini():
    return DATASETS["fashion-mini"]().load()


def test_fashion_net_is_as_accurate_as_its_file_says(mini):
    weights, facts = read_tensors(FASHION_WEIGHTS)
    layers = fashion_layers()
    layers.load_state_dict(weights)
    images = mini.private.select(torch.arange(2000))
    with torch.no_grad():
        accuracy = (layers.eval()(images.images).argmax(1) == images.labels).double().mean().item()
    claimed = facts["accuracy_on_fashion_mini"]
    assert accuracy == pytest.approx(claimed, abs=4 * math.sqrt(claimed * (1 - claimed) / 2000))
    assert claimed > 0.9
    assert "none of them in fashion-mini" in facts["images"]
    assert FASHION_WEIGHTS.stat().st_size < 400_000


def test_fashion_nets_features_lead_to_its_classes(mini):
    images = mini.test.images[:70]
    network = FashionNet()
    weights, _ = read_tensors(FASHION_WEIGHTS)
    layers = fashion_layers()
    layers.load_state_dict(weights)
    with torch.no_grad():
        features = network.features(images)
        torch.testing.assert_close(layers.eval()[FASHION_FEATURES:](features), layers(images))
    assert features.shape == (70, network.dimension)
    assert network.minimum == network.dimension + 1
    assert network.features(images[:0]).shape == (0, 64)
    torch.testing.assert_close(network.features(images[3:4]), features[3:4])  # nothing depends on batch mates


def test_fashion_net_says_which_images_it_sees():
    with pytest.raises(DataError, match="grey images of 28 x 28, these are 3 x 32 x 32"):
        FashionNet().features(draws(2, 3, 32, 32))


class Pixels(FeatureNetwork):
    """The image itself, counting how often it is asked."""

    def __init__(self, name="pixels", weight=1.0):
        module = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(module.weight, weight)
        super().__init__(name=name, dimension=4, minimum=5, module=module)
        self.seen = 0

    def _embed(self, images):
        self.seen += len(images)
        return self.module(images).flatten(1)


def test_fingerprints_tell_networks_apart():
    assert Pixels().fingerprint == Pixels().fingerprint
    assert len({Pixels().fingerprint, Pixels(name="other").fingerprint, Pixels(weight=2.0).fingerprint}) == 3


def test_set_scores_have_the_networks_name_and_a_reason_where_there_is_no_value():
    scores = set_scores(draws(40, 1, 2, 2), draws(40, 1, 2, 2, seed=2), Pixels())
    assert list(scores) == [f"{name}(pixels)" for name in ("FD", "KID", "precision", "recall", "density", "coverage")]
    assert all(score.value is not None and score.n == 40 for score in scores.values())
    few = set_scores(draws(4, 1, 2, 2), draws(40, 1, 2, 2, seed=2), Pixels())
    assert few["FD(pixels)"].value is None
    assert "needs 5 images" in few["FD(pixels)"].reason
    assert few["KID(pixels)"].value is not None
    unseen = set_scores(draws(4, 3, 32, 32), draws(4, 3, 32, 32), FashionNet())
    assert {score.reason for score in unseen.values()} == {
        "fashion-net needs grey images of 28 x 28, these are 3 x 32 x 32"
    }


def test_the_originals_features_are_computed_once():
    network, cache = Pixels(), {}
    originals = draws(40, 1, 2, 2)
    first = set_scores(draws(40, 1, 2, 2, seed=2), originals, network, cache)
    assert network.seen == 80
    assert set_scores(draws(40, 1, 2, 2, seed=2), originals.clone(), network, cache) == first
    assert network.seen == 120
    set_scores(draws(40, 1, 2, 2, seed=2), originals.flip(0), network, cache)
    set_scores(draws(40, 1, 2, 2, seed=2), originals, Pixels(weight=2.0), cache)
    assert len(cache) == 3  # other images and other networks are remembered apart


def test_of_many_images_the_same_2048_are_used_on_both_sides():
    network = Pixels()
    originals = draws(3000, 1, 2, 2)
    scores = set_scores(originals, originals, network)
    assert network.seen == 2 * 2048
    assert scores["FD(pixels)"].n == 2048
    assert scores["FD(pixels)"].value == pytest.approx(0, abs=1e-9)


def test_blurrier_fashion_is_farther_and_never_above_a_copy(mini):
    images = mini.test.images[:300]
    network, cache = FashionNet(), {}
    by_blur = []
    for size in (1, 3, 5):
        blurred = F.avg_pool2d(images, size, stride=1, padding=size // 2)
        by_blur.append(set_scores(blurred, images, network, cache))
    distances = [scores["FD(fashion-net)"].value for scores in by_blur]
    assert distances[0] == pytest.approx(0, abs=1e-4)
    assert distances[0] < distances[1] < distances[2]
    assert by_blur[0]["precision(fashion-net)"].value == 1
    assert by_blur[2]["KID(fashion-net)"].value > by_blur[1]["KID(fashion-net)"].value


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory):
    """A small torchvision model's random weights, as safetensors."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.get_model("mobilenet_v3_small", weights=None).eval()
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v3_small.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return model, path


def test_torchvision_features_are_the_last_layers_input(squeezed):
    transforms = pytest.importorskip("torchvision.transforms")
    model, path = squeezed
    network = TorchvisionNetwork("mobilenet_v3_small", path)
    assert (network.dimension, network.minimum) == (1024, 1025)
    images = draws(3, 1, 28, 20)
    resized = F.interpolate(images.repeat(1, 3, 1, 1), (224, 224), mode="bilinear", antialias=True)
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        logits = model(normalize(resized))
        torch.testing.assert_close(model.classifier[-1](network.features(images)), logits, rtol=1e-4, atol=1e-5)
    assert network.label("FD") == "FD(mobilenet_v3_small)"


def test_torchvision_weights_may_lack_the_last_layer_and_nothing_else(squeezed, tmp_path):
    model, path = squeezed
    state = model.state_dict()
    headless = {name: value for name, value in state.items() if not name.startswith("classifier.3.")}
    safetensors.torch.save_file(headless, tmp_path / "headless.safetensors")
    images = draws(2, 3, 32, 32)
    expected = TorchvisionNetwork("mobilenet_v3_small", path).features(images)
    found = TorchvisionNetwork("mobilenet_v3_small", tmp_path / "headless.safetensors").features(images)
    assert torch.equal(expected, found)
    del headless["features.0.0.weight"]
    safetensors.torch.save_file(headless, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match=r"not the weights of mobilenet_v3_small.*features\.0\.0\.weight"):
        TorchvisionNetwork("mobilenet_v3_small", tmp_path / "wrong.safetensors")


@needs_torchvision
def test_torchvision_models_that_cannot_be_used_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"unknown torchvision model 'mobilnet_v2'\. Did you mean 'mobilenet_v2'"):
        TorchvisionNetwork("mobilnet_v2", tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no such file"):
        TorchvisionNetwork("mobilenet_v3_small", tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no dense layer"):
        TorchvisionNetwork("squeezenet1_1", tmp_path / "weights.safetensors")


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(networks.importlib, "import_module", missing)
    with pytest.raises(DataError, match=re.escape('pip install "sparseguard[metrics]"')):
        Inception2015()
    with pytest.raises(DataError, match=re.escape('pip install "sparseguard[download]"')):
        TorchvisionNetwork("mobilenet_v2", tmp_path / "weights.safetensors")


def test_a_pickle_is_not_opened_and_the_conversion_is_told(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"not a safetensors file.*safetensors\.torch\.save_file"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.slow
@needs_torchvision
@pytest.mark.skipif(not MOBILENET.exists(), reason=f"{MOBILENET} is not here")
def test_mobilenet_of_the_shared_folder_tells_blurred_from_sharp(tmp_path, mini):
    path = tmp_path / "mobilenet_v2.safetensors"
    safetensors.torch.save_file(torch.load(MOBILENET, weights_only=True), path)  # the documented conversion
    network = TorchvisionNetwork("mobilenet_v2", path)
    assert network.minimum == 1281
    images = mini.private.images[:200]
    assert network.features(images[:2]).shape == (2, 1280)
    blurred, more = (
        set_scores(F.avg_pool2d(images, size, stride=1, padding=size // 2), images, network) for size in (3, 5)
    )
    assert 0 < blurred["KID(mobilenet_v2)"].value < more["KID(mobilenet_v2)"].value
    assert blurred["recall(mobilenet_v2)"].value > more["recall(mobilenet_v2)"].value
    assert "needs 1,281 images of each kind, there are 200" in blurred["FD(mobilenet_v2)"].reason


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """One random state dict as both libraries read it; torch-fidelity's own file is a pickle."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    folder = tmp_path_factory.mktemp("inception")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        state = theirs.FeatureExtractorInceptionV3("random", ["2048"]).state_dict()
    for name, value in state.items():  # weights of a size that keeps a signal through 48 layers
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(value, nonlinearity="relu", generator=torch.Generator().manual_seed(len(name)))
    torch.save(state, folder / "random.pth")
    safetensors.torch.save_file(state, folder / "random.safetensors")
    return folder / "random.pth", folder / "random.safetensors"


@pytest.mark.slow
def test_fid_is_torch_fidelitys_on_one_random_state_dict(inception, monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity")
    pickled, converted = inception
    images = {seed: (255 * draws(12, 3, 32, 32, seed=seed)).round().to(torch.uint8) for seed in (1, 2)}
    images[2] //= 2

    class Served(torch.utils.data.Dataset):
        def __init__(self, seed):
            self.images = images[seed]

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index]

    theirs = fidelity.calculate_metrics(
        input1=Served(1), input2=Served(2), fid=True, kid=True, kid_subset_size=12, kid_subsets=1, cuda=False,
        batch_size=6, cache=False, verbose=False, save_cpu_ram=True, feature_extractor_weights_path=str(pickled),
    )  # fmt: skip
    network = Inception2015(converted)
    monkeypatch.setattr(network, "minimum", 2)
    ours = set_scores(images[2].float() / 255, images[1].float() / 255, network)
    assert ours["FD(inception-v3)"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours["KID(inception-v3)"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours["FD(inception-v3)"].value > 1e-3


def test_inception_sees_eight_bits_and_grey_thrice_and_asks_for_2048(inception):
    network = Inception2015(inception[1])
    images = draws(2, 1, 28, 28)
    rounded = (images * 255).round() / 255
    assert torch.equal(network.features(images), network.features(rounded.repeat(1, 3, 1, 1)))
    assert (network.dimension, network.minimum) == (2048, 2048)
    scores = set_scores(images, images, network)
    assert "needs 2,048 images" in scores["FD(inception-v3)"].reason


def test_only_the_published_weights_are_called_fid(inception, monkeypatch):
    pickled, converted = inception
    other = Inception2015(converted)
    assert (other.label("FD"), other.label("recall")) == ("FD(inception-v3)", "recall(inception-v3)")
    with pytest.raises(DataError, match="not a safetensors file"):
        Inception2015(pickled)  # an unknown pickle stays shut
    monkeypatch.setattr(networks, "INCEPTION_SHA256", networks.hashlib.sha256(pickled.read_bytes()).hexdigest())
    published = Inception2015(pickled)
    assert (published.label("FD"), published.label("KID"), published.label("recall")) == ("FID", "KID", "recall")
    assert torch.equal(published.features(draws(1, 3, 32, 32)), other.features(draws(1, 3, 32, 32)))


def test_inception_weights_that_cannot_be_had_are_explained(inception, monkeypatch, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Inception2015(tmp_path / "absent.pth")
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match="not the weights of inception-v3"):
        Inception2015(tmp_path / "wrong.safetensors")
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", unreachable)
    with pytest.raises(DataError, match=r"no network.*give the file's path"):
        Inception2015()


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.alexnet(weights=None, num_classes=2).eval()
    state = {name: value for name, value in model.state_dict().items() if name.startswith("features.")}
    path = tmp_path_factory.mktemp("lpips") / "alexnet.safetensors"
    safetensors.torch.save_file(state, path)
    return model, path


def slow_lpips(model, heads, first, second):
    """Zhang et al. 2018, equation 1, on the outputs of AlexNet's five ReLUs."""
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((2 * image - 1).permute(1, 2, 0) - mean) / deviation for image in (first, second))
    x, y = (image.permute(2, 0, 1).unsqueeze(0) for image in (x, y))
    total, block = 0.0, 0
    for layer in model.features:
        x, y = layer(x), layer(y)
        if isinstance(layer, nn.ReLU):
            unit = [part / part.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12) for part in (x, y)]
            total += float(((unit[0] - unit[1]).square() * heads[block].view(1, -1, 1, 1)).sum(1).mean())
            block += 1
    return total


def test_lpips_is_the_formula_on_the_backbone_given(alexnet):
    model, path = alexnet
    metric = Lpips(path)
    heads = [value for name, value in metric.metric.state_dict().items() if re.match(r"net\.lin\d", name)]
    first, second = draws(3, 3, 64, 80), draws(3, 3, 64, 80, seed=2)
    with torch.no_grad():
        expected = [slow_lpips(model, heads, x.clone(), y.clone()) for x, y in zip(first, second, strict=True)]
    assert metric(first, second).tolist() == pytest.approx(expected, rel=1e-2)  # they add 1e-8 under the root
    assert min(expected) > 0


def test_lpips_enlarges_small_images_and_repeats_grey(alexnet):
    metric = Lpips(alexnet[1])
    first, second = draws(2, 1, 28, 28), draws(2, 1, 28, 28, seed=2)
    enlarged = [F.interpolate(x.repeat(1, 3, 1, 1), (64, 64), mode="bilinear") for x in (first, second)]
    assert torch.equal(metric(first, second), metric(*enlarged))
    assert metric(first, first).tolist() == [0, 0]
    assert metric(first[:1], second[:1]).tolist() == pytest.approx(metric(first, second)[:1].tolist())
    assert metric(first[:0], second[:0]).shape == (0,)


@pytest.mark.parametrize(("backbone", "model"), [("vgg", "vgg16"), ("squeeze", "squeezenet1_1")])
def test_every_backbone_reads_torchvisions_file_and_downloads_nothing(backbone, model, monkeypatch, tmp_path):
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("downloads"))
    torch.manual_seed(0)
    state = models.get_model(model, weights=None).features.state_dict()
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    metric = Lpips(tmp_path / "weights.safetensors", backbone)
    loaded = list(metric.metric.net.net.parameters())
    assert len(loaded) == len(state)
    assert all(any(torch.equal(value, weight) for weight in loaded) for value in state.values())
    assert float(metric(draws(1, 3, 64, 64), draws(1, 3, 64, 64, seed=2))) > 0


def test_lpips_needs_its_own_backbone(alexnet):
    with pytest.raises(DataError, match="not the weights of LPIPS's 'vgg' backbone"):
        Lpips(alexnet[1], "vgg")
