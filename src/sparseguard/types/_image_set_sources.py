"""Conversion of arrays, torch datasets, data loaders and Hugging Face datasets into the parts of an image set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from sparseguard.core.errors import DataError
from sparseguard.core.seeding import derive

UNLABELED = ("unlabeled",)
"""Classes of images without labels."""


class Labelled(NamedTuple):
    """Pixels ``(n, c, h, w)``, labels ``(n,)`` and class names."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def convert_arrays(images: Any, labels: Any, classes: Sequence[str] | None) -> Labelled:
    """Convert images of one size and their labels, see `ImageSet.from_arrays`."""
    channels_last = not isinstance(images, Tensor)
    pixels = _channels_first(_to_tensor(images), channels_last)
    return Labelled(pixels, *_convert_labels(labels, len(pixels), classes))


def convert_dataset(dataset: Any, max_images: int | None, size: tuple[int, int] | None) -> Labelled:
    """Convert a data set's images one by one, see `ImageSet.from_dataset`."""
    if max_images is not None and max_images < 1:
        raise DataError(f"max_images must be at least 1, got {max_images}.")
    images, labels = [], []
    for image, label in islice(_samples(dataset, max_images), max_images):
        images.append(_resize(_convert_image(image), size))
        labels.append(label)
    if not images:
        raise DataError("the data set holds no images.")
    labelled = [label is not None for label in labels]
    if any(labelled) and not all(labelled):
        raise DataError(f"{labelled.count(False):,} of {len(labels):,} images have no label. Label all or none.")
    return Labelled(_stack(images), *_convert_labels(labels if all(labelled) else None, len(images), _names(dataset)))


def _to_tensor(images: Any) -> Tensor:
    tensor = images.detach().cpu() if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise DataError(f"images must be uint8, or floating point in [0, 1], got {tensor.dtype}.")
    return tensor.float()


def _channels_first(images: Tensor, channels_last: bool) -> Tensor:
    """Return ``(n, c, h, w)`` of grey images or of images with channels first or last."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim != 4 or not (images.shape[1] in (1, 3) or images.shape[3] in (1, 3)):
        raise DataError(
            f"images need the shape (n, h, w), (n, 1 or 3, h, w) or (n, h, w, 1 or 3), got {tuple(images.shape)}."
        )
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    return images.permute(0, 3, 1, 2).contiguous() if last and (channels_last or not first) else images


def _convert_labels(labels: Any, count: int, classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    if labels is None:
        names = UNLABELED if classes is None else tuple(classes)
        if len(names) != 1:
            raise DataError(f"images without labels have one class, got {len(names)} classes.")
        return torch.zeros(count, dtype=torch.int64), names
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,) or values.dtype.kind not in "iuU":
        raise DataError(
            f"{count:,} images need as many labels, integers or names of classes, got {values.dtype} {values.shape}."
        )
    if values.dtype.kind == "U":
        names = tuple(sorted(set(values.tolist()))) if classes is None else tuple(classes)
        if unknown := sorted(set(values.tolist()) - set(names)):
            raise DataError(f"label '{unknown[0]}' is none of the classes {', '.join(names)}.")
        number_of = {name: number for number, name in enumerate(names)}
        return torch.tensor([number_of[name] for name in values.tolist()], dtype=torch.int64), names
    numbers = torch.from_numpy(values.astype(np.int64))
    if classes is not None:
        return numbers, tuple(classes)
    return numbers, tuple(map(str, range(int(numbers.max()) + 1 if count else 0)))


def _samples(dataset: Any, max_images: int | None) -> Iterator[tuple[Any, Any]]:
    """Yield image and label; of a data set with a length, ``max_images`` that are spread over it."""
    if isinstance(dataset, DataLoader):
        for batch in dataset:
            images, labels = _split_sample(batch)
            yield from zip(images, [None] * len(images) if labels is None else labels, strict=True)
        return
    if not any(callable(getattr(dataset, method, None)) for method in ("__len__", "__iter__")):
        raise DataError(f"a data set of images is needed, got {type(dataset).__name__}.")
    try:
        count = len(dataset)
    except TypeError:  # only to be iterated over
        yield from map(_split_sample, dataset)
        return
    if max_images is None or max_images >= count:
        indices: Iterable[int] = range(count)
    else:
        generator = torch.Generator().manual_seed(derive(purpose="images of a data set"))
        indices = torch.randperm(count, generator=generator)[:max_images].sort().values.tolist()
    for index in indices:
        yield _split_sample(dataset[index])


def _split_sample(sample: Any) -> tuple[Any, Any]:
    """Return image and label of a tuple or of a row with named columns, or of a bare image."""
    if isinstance(sample, Mapping):
        label = _label_column(sample)
        return sample[_image_column(sample)], None if label is None else sample[label]
    if isinstance(sample, tuple | list):
        return sample[0], sample[1] if len(sample) > 1 else None
    return sample, None


def _image_column(row: Mapping[str, Any]) -> str:
    images: list[str] = [name for name, value in row.items() if isinstance(value, Image.Image | Tensor | np.ndarray)]
    known = [name for name in ("image", "img", "pixel_values") if name in row]
    if known or len(images) == 1:
        return (known or images)[0]
    raise DataError(f"rows need a column 'image', the columns are {', '.join(map(repr, row))}.")


def _label_column(row: Mapping[str, Any]) -> str | None:
    return next((name for name in ("label", "labels", "target", "fine_label") if name in row), None)


def _names(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names that a data set brings, or None."""
    while isinstance(dataset, DataLoader | Subset):
        dataset = dataset.dataset
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):  # of Hugging Face
        names = getattr(features[label], "names", None) if (label := _label_column(features)) else None
    else:
        names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def _convert_image(image: Any) -> Tensor:
    """Return ``(c, h, w)``, uint8 or float32."""
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise DataError(f"images of mode '{image.mode}' have more than 8 bits a channel. Convert them to 8 bits.")
        image = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    channels_last = not isinstance(image, Tensor)
    tensor = _to_tensor(image)
    return _channels_first(tensor[None], channels_last)[0]


def _resize(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return the image at ``size`` (height, width), by antialiased bilinear interpolation."""
    if size is None or tuple(image.shape[1:]) == tuple(size):
        return image
    resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else resized.clamp(0, 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Return all images in one tensor; where some have colours, grey ones get three channels."""
    sizes = {tuple(image.shape[1:]) for image in images}
    if len(sizes) > 1:
        shown = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:3])
        raise DataError(
            f"images differ in size ({shown}{', ...' if len(sizes) > 3 else ''}). Give size=(height, width)."
        )
    if len({image.dtype for image in images}) > 1:
        raise DataError("some images are uint8 and others floating point. Use one transform for all.")
    channels = max(len(image) for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])
