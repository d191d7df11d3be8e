"""Networks whose features the scores of sets are computed on.

Weights are read from safetensors files, never from a pickle of unknown content. A torchvision ``.pth`` becomes one by

    import safetensors.torch, torch
    safetensors.torch.save_file(torch.load("weights.pth", weights_only=True), "weights.safetensors")
"""

from __future__ import annotations

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.core.atomic_io import read_tensors
from sparseguard.core.errors import DataError, nearest

BATCH = 64
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of ``weights-inception-2015-12-05-6726825d.pth``, the file torch-fidelity and pytorch-fid publish."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CONVERT = (
    "Convert it once: import safetensors.torch, torch; "
    'safetensors.torch.save_file(torch.load("weights.pth", weights_only=True), "weights.safetensors")'
)


class FeatureNetwork(ABC):
    """A frozen network that turns images into features.

    Args:
        name: in tables.
        dimension: of the features.
        minimum: number of images of each kind that a Fréchet distance in these features needs.
        module: put into eval mode and frozen.
        device: where it computes.
    """

    def __init__(
        self, *, name: str, dimension: int, minimum: int, module: nn.Module, device: torch.device | str = "cpu"
    ) -> None:
        self.name = name
        self.dimension = dimension
        self.minimum = minimum
        self.module = module.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.fingerprint = _fingerprint(f"{type(self).__name__} {name}", self.module.state_dict())

    def label(self, metric: str) -> str:
        """Return what a metric in these features is called: ``FD(fashion-net)``."""
        return f"{metric}({self.name})"

    def refuses(self, shape: tuple[int, int, int]) -> str | None:
        """Return why it cannot see images of ``(c, h, w)``, or None when it can."""
        return None if shape[0] in (1, 3) else f"{self.name} needs 1 or 3 channels, the images have {shape[0]}"

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of images in [0, 1], as float32 on the CPU.

        Raises:
            DataError: for images of a shape it cannot see.
        """
        reason = self.refuses((images.shape[1], images.shape[2], images.shape[3]))
        if reason is not None:
            raise DataError(f"{reason}.")
        batches = [self._embed(batch.to(self.device)).float().cpu() for batch in images.split(BATCH) if len(batch)]
        return torch.cat(batches) if batches else torch.zeros(0, self.dimension)

    @abstractmethod
    def _embed(self, images: Tensor) -> Tensor:
        """Return the features of one batch."""


def fashion_layers() -> nn.Sequential:
    """Return FashionNet's classifier, untrained; its first `FASHION_FEATURES` layers give the features."""
    blocks: list[nn.Module] = []
    for channels, width in ((1, 16), (16, 32), (32, 64)):  # 28 -> 14 -> 7 -> 3 pixels a side
        blocks += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))


FASHION_FEATURES = 14
FASHION_WEIGHTS = Path(__file__).with_name("fashion_net.safetensors")


class FashionNet(FeatureNetwork):
    """A small classifier of Fashion-MNIST that comes with the package; features are its 64 values before the last ReLU.

    It was trained on official training images that are not in fashion-mini (``scripts/make_fashion_net.py``); the
    file's header says how, and how accurate it is on fashion-mini. Distances in its features compare images of
    28 x 28 grey clothes with each other and mean nothing beyond. Of the data set fashion-mnist it has seen most images,
    private ones too.

    Args:
        device: where it computes.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        weights, _ = read_tensors(FASHION_WEIGHTS)
        layers = fashion_layers()
        layers.load_state_dict(weights)
        super().__init__(name="fashion-net", dimension=64, minimum=65, module=layers[:FASHION_FEATURES], device=device)

    def refuses(self, shape: tuple[int, int, int]) -> str | None:
        """Return why it cannot see images of ``(c, h, w)``, or None when it can."""
        if shape == (1, 28, 28):
            return None
        return f"{self.name} needs grey images of 28 x 28, these are {' x '.join(map(str, shape))}"

    def _embed(self, images: Tensor) -> Tensor:
        features: Tensor = self.module(images)
        return features


class TorchvisionNetwork(FeatureNetwork):
    """A torchvision classifier; features are what its last dense layer is given.

    Grey is repeated to three channels, images are resized to 224 x 224 (bilinear, antialiased, not keeping the aspect
    ratio) and normalized with ImageNet's mean and deviation.

    Args:
        model: torchvision's name of the model, such as ``mobilenet_v2``; also its name in tables.
        weights: a safetensors file of its state dict; the last layer may have any number of classes, or be absent.
        device: where it computes.

    Raises:
        DataError: when torchvision is not installed, the model is unknown or ends in no dense layer, or the weights
            are missing, unreadable or another model's.
    """

    def __init__(self, model: str, weights: Path, device: torch.device | str = "cpu") -> None:
        models = _optional("torchvision.models", "download", f"FD({model})")
        if model not in models.list_models():
            raise DataError(f"unknown torchvision model '{model}'. {nearest(model, models.list_models())}")
        network: nn.Module = models.get_model(model, weights=None)
        dense = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        if not dense:
            raise DataError(f"{model} ends in no dense layer, so it has no features of one vector an image.")
        dimension = int(network.get_submodule(dense[-1]).in_features)  # type: ignore[arg-type]
        network.set_submodule(dense[-1], nn.Identity())
        kept = {name: value for name, value in read_weights(weights).items() if not name.startswith(f"{dense[-1]}.")}
        try:
            network.load_state_dict(kept)
        except RuntimeError as error:
            raise DataError(f"{weights}: not the weights of {model}. {' '.join(str(error).split())[:300]}") from None
        super().__init__(name=model, dimension=dimension, minimum=dimension + 1, module=network, device=device)

    def _embed(self, images: Tensor) -> Tensor:
        resized = F.interpolate(_three_channels(images), (224, 224), mode="bilinear", antialias=True)
        mean, deviation = resized.new_tensor(IMAGENET).view(2, 3, 1, 1)
        features: Tensor = self.module((resized - mean) / deviation)
        return features


class Inception2015(FeatureNetwork):
    """The Inception-v3 of 2015-12-05 as torch-fidelity has it; the network of FID and KID.

    Grey is repeated to three channels, values are rounded to 8 bits, and torch-fidelity resizes to 299 x 299 as
    TensorFlow 1 did; its 2,048 pooled features are used. Of small images that are enlarged that much, compare values
    of one image size only. The names FID, KID ... are kept for the published weights; with others they are
    ``FD(inception-v3)`` and so on. A full-rank covariance would take 2,049 images; the customary 2,048 are asked for.

    Args:
        weights: the published ``weights-inception-2015-12-05-6726825d.pth``, known by its SHA-256, or a safetensors
            file of a state dict with the same keys; None lets torch-fidelity download the published file or find it in
            torch's cache.
        device: where it computes; about 0.3 s an image on a CPU.

    Raises:
        DataError: when torch-fidelity is not installed, the download fails, or the weights are missing, unreadable or
            another network's.

    Source: M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    NeurIPS 2017; A. Obukhov et al., torch-fidelity.
    """

    def __init__(self, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        theirs = _optional("torch_fidelity.feature_extractor_inceptionv3", "metrics", "FID")
        self.published = weights is None or _is_published(weights)
        if weights is None or self.published:
            try:
                network = theirs.FeatureExtractorInceptionV3("inception", ["2048"], weights)
            except (OSError, RuntimeError) as error:
                raise DataError(
                    f"FID: torch-fidelity could not get its weights ({error}). Without a network, give the file's path."
                ) from error
        else:
            state = read_weights(weights)
            # its constructor can only read a pickle or download; the latter's answer is given here instead
            with mock.patch.object(theirs, "load_state_dict_from_url", return_value=state):
                try:
                    network = theirs.FeatureExtractorInceptionV3("inception", ["2048"])
                except RuntimeError as error:
                    raise DataError(
                        f"{weights}: not the weights of inception-v3. {' '.join(str(error).split())[:300]}"
                    ) from None
        super().__init__(name="inception-v3", dimension=2048, minimum=2048, module=network, device=device)

    def label(self, metric: str) -> str:
        """Return ``FID`` for ``FD`` and the bare name of others, when the weights are the published ones."""
        if not self.published:
            return super().label(metric)
        return "FID" if metric == "FD" else metric

    def _embed(self, images: Tensor) -> Tensor:
        features: Tensor = self.module((_three_channels(images) * 255).round().to(torch.uint8))[0]
        return features


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        DataError: when the file is missing, or no safetensors file.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected weights as safetensors.")
    try:
        return dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: not a safetensors file ({error}). {CONVERT}") from None


def _optional(module: str, extra: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f'{what} needs {module.split(".")[0]}. Run: pip install "sparseguard[{extra}]"') from None


def _is_published(path: Path) -> bool:
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected Inception weights.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == INCEPTION_SHA256


def _three_channels(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)


def _fingerprint(name: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(name.encode())
    for key in sorted(state):
        digest.update(f"{key} {tuple(state[key].shape)}".encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
