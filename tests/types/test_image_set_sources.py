"""Image sets from arrays, data sets, loaders and folders: every pixel and label is that of the source."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from sparseguard.core.errors import DataError
from sparseguard.types import ImageSet

COLORS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 2, 0, 0]


class Pictures(Dataset):
    """PIL images with labels, as torchvision's data sets give them."""

    classes = ("cat", "dog", "eel")

    def __init__(self, arrays=COLORS, transform=None):
        self.arrays, self.transform = arrays, transform

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, index):
        image = Image.fromarray(self.arrays[index])
        return (self.transform(image) if self.transform else image), LABELS[index]


class Stream(IterableDataset):
    def __iter__(self):
        yield from (
            (torch.from_numpy(image).permute(2, 0, 1), label) for image, label in zip(COLORS, LABELS, strict=True)
        )


def is_of_colors(images):
    return torch.equal(images.pixels, torch.from_numpy(COLORS).permute(0, 3, 1, 2)) and images.labels.tolist() == LABELS


@pytest.mark.parametrize(
    "arrays",
    [
        COLORS,
        list(COLORS),
        torch.from_numpy(COLORS),
        np.moveaxis(COLORS, 3, 1),
        torch.from_numpy(COLORS).permute(0, 3, 1, 2),
    ],
    ids=["array", "list of arrays", "tensor channels last", "array channels first", "tensor"],
)
def test_arrays_in_either_order_of_axes(arrays):
    images = ImageSet.from_arrays(arrays, LABELS)
    assert is_of_colors(images)
    assert images.classes == ("0", "1", "2")


def test_where_both_orders_fit_arrays_end_with_channels_and_tensors_begin_with_them():
    ambiguous = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    assert ImageSet.from_arrays(ambiguous).shape == (3, 3, 5)
    assert ImageSet.from_arrays(torch.from_numpy(ambiguous)).shape == (3, 5, 3)
    assert torch.equal(ImageSet.from_arrays(ambiguous).pixels[1, 2], torch.from_numpy(ambiguous[1, :, :, 2]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_grey_arrays_of_floats_are_float32_in_the_unit_range(dtype):
    grey = (COLORS[..., 0] / 255).astype(dtype)
    images = ImageSet.from_arrays(grey, torch.tensor(LABELS))
    assert images.shape == (1, 5, 4)
    assert images.pixels.dtype == torch.float32
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), grey.astype(np.float32))


def test_names_of_classes_are_sorted_or_given():
    names = [Pictures.classes[label] for label in LABELS]
    assert ImageSet.from_arrays(COLORS, names).labels.tolist() == LABELS
    given = ImageSet.from_arrays(COLORS, names, ("eel", "dog", "cat", "emu"))
    assert given.labels.tolist() == [2 - label for label in LABELS]
    assert given.classes == ("eel", "dog", "cat", "emu")
    assert ImageSet.from_arrays(COLORS, LABELS, Pictures.classes).classes == ("cat", "dog", "eel")


def test_images_without_labels_are_of_one_class():
    images = ImageSet.from_arrays(COLORS)
    assert images.labels.tolist() == [0] * 6
    assert images.classes == ("unlabeled",)
    assert ImageSet.from_arrays(COLORS, None, ["face"]).classes == ("face",)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (COLORS.astype(np.int64), None, None, "must be uint8, or floating point"),
        (COLORS / 1.0, None, None, r"must lie in \[0, 1\]"),
        (COLORS[..., :2], None, None, "need the shape"),
        (COLORS[0, 0], None, None, "need the shape"),
        (COLORS, LABELS[:5], None, "6 images need as many labels"),
        (COLORS, [0.5] * 6, None, "integers or names"),
        (COLORS, ["cat"] * 5 + ["cow"], ["cat"], "label 'cow' is none of the classes cat"),
        (COLORS, LABELS, ["cat", "dog"], r"labels must lie in 0\.\.1"),
        (COLORS, None, ["cat", "dog"], "have one class, got 2"),
    ],
)
def test_what_is_no_image_set_is_refused(images, labels, classes, message):
    with pytest.raises(DataError, match=message):
        ImageSet.from_arrays(images, labels, classes)


def test_a_data_set_of_pictures_keeps_pixels_labels_and_classes():
    images = ImageSet.from_dataset(Pictures())
    assert is_of_colors(images)
    assert images.classes == ("cat", "dog", "eel")
    subset = ImageSet.from_dataset(Subset(Pictures(), [4, 2]))
    assert subset.labels.tolist() == [0, 1]
    assert subset.classes == ("cat", "dog", "eel")
    assert torch.equal(subset.pixels[1], images.pixels[2])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_loader_of_tensors_in_batches(batch_size):
    tensors = TensorDataset(torch.from_numpy(COLORS).permute(0, 3, 1, 2).float() / 255, torch.tensor(LABELS))
    images = ImageSet.from_dataset(DataLoader(tensors, batch_size=batch_size))
    assert torch.equal((images.pixels * 255).round().byte(), torch.from_numpy(COLORS).permute(0, 3, 1, 2))
    assert images.labels.tolist() == LABELS
    assert len(ImageSet.from_dataset(DataLoader(tensors, batch_size=batch_size), max_images=3)) == 3


def test_a_stream_and_tensors_without_labels():
    assert is_of_colors(ImageSet.from_dataset(Stream()))
    assert ImageSet.from_dataset(Stream(), max_images=2).labels.tolist() == LABELS[:2]
    assert ImageSet.from_dataset(TensorDataset(torch.rand(3, 1, 2, 2))).classes == ("unlabeled",)


def test_rows_with_named_columns():
    rows = [{"id": index, "image": image, "label": label} for index, (image, label) in enumerate(Pictures())]
    assert is_of_colors(ImageSet.from_dataset(rows))
    named = [{"photo": row["image"], "label": Pictures.classes[row["label"]]} for row in rows]
    assert ImageSet.from_dataset(named).classes == ("cat", "dog", "eel")
    with pytest.raises(DataError, match="need a column 'image', the columns are 'text'"):
        ImageSet.from_dataset([{"text": "nothing"}])


def test_a_hugging_face_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [image for image, _ in Pictures()]
    features = datasets.Features({"label": datasets.ClassLabel(names=["a", "b", "c"]), "img": datasets.Image()})
    rows = datasets.Dataset.from_dict({"img": pictures, "label": LABELS}, features=features)
    images = ImageSet.from_dataset(rows)
    assert is_of_colors(images)
    assert images.classes == ("a", "b", "c")
    assert ImageSet.from_dataset(rows.to_iterable_dataset(), max_images=4).labels.tolist() == LABELS[:4]


def test_torchvisions_image_folder(tmp_path):
    folders = pytest.importorskip("torchvision.datasets")
    for index, (image, label) in enumerate(Pictures()):
        path = tmp_path / Pictures.classes[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    images = ImageSet.from_dataset(folders.ImageFolder(tmp_path))
    assert images.classes == ("cat", "dog", "eel")
    order = sorted(range(6), key=lambda index: (LABELS[index], index))
    assert torch.equal(images.pixels, torch.from_numpy(COLORS[order]).permute(0, 3, 1, 2))
    same = ImageSet.from_folder(tmp_path)
    assert torch.equal(same.pixels, images.pixels)
    assert torch.equal(same.labels, images.labels)
    assert same.classes == images.classes
    assert ImageSet.from_folder(tmp_path, size=2, channels=1).shape == (1, 2, 2)
    with pytest.raises(DataError, match="no such folder"):
        ImageSet.from_folder(tmp_path / "absent")


def test_few_images_are_drawn_from_the_whole_and_always_the_same():
    many = TensorDataset(torch.linspace(0, 1, 1000).view(-1, 1, 1, 1), torch.arange(1000) // 100)
    few = ImageSet.from_dataset(many, max_images=200)
    assert len(few) == 200
    assert few.labels.bincount().min() > 5  # of ten classes that lie one after the other
    assert torch.equal(few.pixels, ImageSet.from_dataset(many, max_images=200).pixels)
    assert few.labels.tolist() == sorted(few.labels.tolist())
    assert len(ImageSet.from_dataset(many, max_images=2000)) == 1000


def test_images_are_resized_as_pillow_does():
    large = np.random.default_rng(1).integers(0, 256, (1, 16, 12, 3), dtype=np.uint8)
    images = ImageSet.from_dataset(Pictures(large), size=(8, 6))
    expected = np.asarray(Image.fromarray(large[0]).resize((6, 8), Image.Resampling.BILINEAR)).astype(int)
    assert images.pixels.dtype == torch.uint8
    assert np.abs(images.pixels[0].permute(1, 2, 0).numpy() - expected).max() <= 1
    assert ImageSet.from_dataset(Pictures(large), size=7).shape == (3, 7, 7)


def test_grey_images_among_coloured_ones_get_three_channels():
    mixed = [(Image.fromarray(COLORS[0]), 0), (Image.fromarray(COLORS[1, ..., 0]), 1)]
    images = ImageSet.from_dataset(mixed)
    assert images.shape == (3, 5, 4)
    assert torch.equal(images.pixels[1], torch.from_numpy(COLORS[1, ..., 0]).expand(3, -1, -1))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "holds no images"),
        ([(Image.new("RGB", (4, 4)), 0), (Image.new("RGB", (5, 4)), 0)], r"differ in size \(4 x 4, 4 x 5\)"),
        ([(Image.new("I", (4, 4)), 0)], "mode 'I'"),
        ([(Image.new("L", (4, 4)), 0), (torch.rand(1, 4, 4), 0)], "some images are uint8"),
        ([(Image.new("L", (4, 4)), 0), (Image.new("L", (4, 4)), None)], "1 of 2 images have no label"),
        ([(torch.randn(1, 4, 4) - 3, 0)], r"must lie in \[0, 1\]"),
    ],
)
def test_a_data_set_that_is_no_image_set_is_refused(samples, message):
    with pytest.raises(DataError, match=message):
        ImageSet.from_dataset(samples)


def test_at_least_one_image_is_asked_for():
    with pytest.raises(DataError, match="at least 1"):
        ImageSet.from_dataset(Pictures(), max_images=0)
