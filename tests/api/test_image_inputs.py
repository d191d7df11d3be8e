"""Forms of images that `sg.audit` and `sg.reconstruct` take."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sparseguard as sg
from sparseguard.core.errors import DataError
from sparseguard.model_audit.accept_images import share_classes, to_image_set

COUNT = 60
PIXELS = torch.randint(0, 256, (COUNT, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(COUNT) % 2


class Pictures(torch.utils.data.Dataset):
    """Pictures with labels and classes, as torchvision's data sets have them."""

    classes = ("cat", "dog")

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return Image.fromarray(PIXELS[index].permute(1, 2, 0).numpy()), int(LABELS[index])


@pytest.fixture
def folder(tmp_path):
    for index in range(COUNT):
        path = tmp_path / ("cat", "dog")[LABELS[index]] / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[index].permute(1, 2, 0).numpy()).save(path)
    return tmp_path


def forms(folder):
    import datasets
    from torchvision.datasets import ImageFolder

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Pictures()[index][0] for index in range(COUNT)], "label": LABELS.tolist()}
    return {
        "image set": sg.ImageSet(pixels=PIXELS, labels=LABELS, classes=("cat", "dog")),
        "dataset": Pictures(),
        "loader": DataLoader(TensorDataset(PIXELS, LABELS), batch_size=7),
        "tensors": (PIXELS, LABELS),
        "arrays": (PIXELS.numpy(), LABELS.numpy()),
        "floats": (PIXELS.double() / 255, LABELS.tolist()),
        "tensor dataset": TensorDataset(PIXELS, LABELS),
        "hugging face": datasets.Dataset.from_dict(rows, features=features),
        "image folder": ImageFolder(folder),
        "folder": folder,
        "name of a folder": str(folder),
    }


@pytest.mark.parametrize("form", [
    "image set", "dataset", "loader", "tensors", "arrays", "floats", "tensor dataset", "hugging face", "image folder",
    "folder", "name of a folder",
])  # fmt: skip
def test_every_form_gives_the_same_images_and_labels(folder, form):
    images = to_image_set(forms(folder)[form], "private")
    order = torch.argsort(images.labels, stable=True)
    expected = torch.argsort(LABELS, stable=True)
    torch.testing.assert_close(images.images[order], PIXELS[expected].float() / 255, atol=1e-6, rtol=0)
    assert torch.equal(images.labels[order], LABELS[expected])
    assert images.classes in (("cat", "dog"), ("0", "1"))


def test_images_without_labels_are_taken_and_an_audit_needs_them(tmp_path):
    assert len(to_image_set(PIXELS, "images")) == len(to_image_set(PIXELS.numpy(), "images")) == COUNT
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(DataError, match="held-out: the images have no labels"):
        sg.audit(model, (PIXELS, LABELS), PIXELS, taps=["1"], out=tmp_path)
    with pytest.raises(DataError, match="images: the images have no labels"):
        sg.reconstruct(model, PIXELS, auxiliary=(PIXELS, LABELS), tap="1", attack="class-mean")
    result = sg.reconstruct(model, PIXELS[:2], auxiliary=(PIXELS, LABELS), tap="1", copies=1)
    assert result.images.shape == (2, 3, 8, 8)


@pytest.mark.parametrize("source", [None, 3, object(), iter([1])])
def test_something_else_is_refused_by_name(source):
    with pytest.raises(DataError, match=r"held-out: expected an ImageSet, a Dataset, .* got a"):
        to_image_set(source, "held-out")


def test_classes_of_the_longer_list_are_shared_and_other_ones_are_not():
    few, many = (sg.ImageSet.from_arrays(PIXELS, LABELS % count) for count in (1, 2))
    assert [images.classes for images in share_classes(few, many)] == [("0", "1")] * 2
    other = sg.ImageSet(pixels=PIXELS, labels=LABELS, classes=("cat", "dog"))
    assert [images.classes for images in share_classes(few, other)] == [few.classes, other.classes]


def test_an_audit_of_arrays_equals_that_of_image_sets(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.Linear(20, 2))
    attacks = [{"name": "mean-image"}, {"name": "ridge", "copies": 1}]
    arrays = [(PIXELS[:20].numpy(), LABELS[:20].numpy()), (PIXELS[20:].numpy(), LABELS[20:].numpy())]
    sets = [sg.ImageSet.from_arrays(*pair) for pair in arrays]
    first, second = (
        sg.audit(model, *images, taps=["1"], attacks=attacks, out=tmp_path / name).records[0]
        for name, images in (("arrays", arrays), ("sets", sets))
    )
    assert first.key == second.key
    assert first.attacks == second.attacks
    assert np.isfinite(first.attacks[-1].scores["private"]["psnr"].mean)
