"""CelebA: aligned photographs of faces, with forty attributes and the person's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic

from sparseguard.core.config import settings
from sparseguard.core.errors import nearest
from sparseguard.data.preparation.decode_image import ImageFormat
from sparseguard.data.preparation.prepared_dataset import PreparedSet
from sparseguard.data.readers.base import Source
from sparseguard.data.readers.celeba import ATTRIBUTES_FILE, WIDTH, open_celeba, scaled_crop
from sparseguard.data.readers.celeba_labels import (
    ATTRIBUTES,
    Attributes,
    Labelled,
    Rule,
    attribute_labels,
    hair_labels,
    identity_labels,
)
from sparseguard.data.split_ranges import split_percentages


@settings
class CelebA(PreparedSet):
    """CelebA, or as many of its 202,599 aligned images as there are, at any size.

    The images of a person are all in one split, so that no attack gains from knowing the person; with ``identities``
    every person is in every split instead: each split gets one image of everybody, and of the others what it lacks (of
    30 images 21, 4, 1, 1 and 3). Persons with fewer images than there are splits are refused.

    Args:
        path: the folder of ``img_align_celeba`` (a folder, or ``.zip``), ``list_attr_celeba.txt`` and
            ``identity_CelebA.txt``, or the folder around that folder when it is called ``celeba``.
        label: what the classes are: ``hair`` (which of the five flags is set), an attribute such as ``Smiling``, or
            two of them such as ``Male+Smiling``, which give four classes.
        no_hair: images with none of the five flags: ``drop`` them, which is noted, or make them a ``class``.
        several_hair: the same for images with several of them.
        identities: classes are the persons with the most images, as many of them; ``label`` is not used then.
        size: height and width in pixels.
        crop: side of the square kept from the middle before resizing, in pixels of the published 178 x 218, and
            scaled with images of another size; 0: the largest square.
        channels: 1 grey, 3 colour.

    Raises:
        pydantic.ValidationError: for an attribute CelebA has not, or rules for hair where hair is not the label.

    Source: Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015. Cropping to 148
    and scaling to 64 is common practice, not the authors'.
    """

    name: ClassVar[str] = "celeba"
    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "faces, up to 202,599, by hair colour, by attributes or by person; from its own files."
    paper_name: ClassVar[str | None] = "CelebA"
    classes: ClassVar[tuple[str, ...]] = ()
    flips_keep_class: ClassVar[bool] = True
    places: ClassVar[tuple[str, ...]] = ("celeba",)

    label: str = "hair"
    no_hair: Rule = "drop"
    several_hair: Rule = "drop"
    identities: Annotated[int, pydantic.Field(ge=2)] | None = None
    size: Annotated[int, pydantic.Field(ge=1, le=4096)] = 64
    crop: Annotated[int, pydantic.Field(ge=0, le=WIDTH)] = 148
    channels: Literal[1, 3] = 3

    @pydantic.field_validator("label")
    @classmethod
    def _known(cls, label: str) -> str:
        wanted = label.split("+")
        for name in wanted:
            if name not in ATTRIBUTES and label != "hair":
                raise ValueError(f"'{name}' is neither 'hair' nor an attribute. {nearest(name, ATTRIBUTES)}")
        if len(wanted) > 2 or len(set(wanted)) < len(wanted):
            raise ValueError("must be one attribute or two different ones")
        return label

    @pydantic.model_validator(mode="after")
    def _rules_of_hair(self) -> CelebA:
        if "class" in (self.no_hair, self.several_hair) and (self.label != "hair" or self.identities is not None):
            raise ValueError("no_hair and several_hair are rules for label = 'hair'")
        return self

    def _source(self, path: Path) -> Source:
        return open_celeba(path, self._labelled)

    def _image_format(self) -> ImageFormat:
        path = self._find_files()
        side = scaled_crop(self.crop, path) if self.crop and path is not None else 0
        return ImageFormat(size=(self.size, self.size), channels=self.channels, crop=side)

    def _labelled(self, names: Sequence[str], attributes: Attributes, identities: Mapping[str, int]) -> Labelled:
        if self.identities is not None:
            return identity_labels(names, identities, count=self.identities, least=len(split_percentages(self.layout)))
        if self.label == "hair":
            return hair_labels(names, attributes, ATTRIBUTES_FILE, none=self.no_hair, several=self.several_hair)
        return attribute_labels(names, attributes, ATTRIBUTES_FILE, wanted=self.label.split("+"))
