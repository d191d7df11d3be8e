"""CelebA's label files, and the labels made of them: hair colour, one or two attributes, the most frequent identities.

Source: Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from sparseguard.core.errors import DataError

# fmt: off
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)
# fmt: on
HAIR = {"Black": "Black_Hair", "Blond": "Blond_Hair", "Brown": "Brown_Hair", "Gray": "Gray_Hair", "Bald": "Bald"}
"""The five flags of hair, by the name of their class."""

T = TypeVar("T")
Rule = Literal["drop", "class"]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attributes:
    """Content of ``list_attr_celeba.txt``.

    Args:
        names: of the attributes, in the order of the file.
        flags: each image's attributes ``(k,)`` by its file name, in the order of the file.
    """

    names: tuple[str, ...]
    flags: Mapping[str, Flags]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labels of some images.

    Args:
        classes: the classes' names.
        label: each labelled image's index into ``classes``.
        left_out: the images without a label, by the reason.
        keep_together: whether the images of a person belong into one split.
    """

    classes: tuple[str, ...]
    label: Mapping[str, int]
    left_out: Mapping[str, list[str]]
    keep_together: bool = True


def read_attributes(text: str, where: str) -> Attributes:
    r"""Read ``list_attr_celeba.txt``: the number of images, the attributes' names, and a row of 1 and -1 an image.

    Args:
        text: the file.
        where: what messages call it.

    Raises:
        DataError: for a row of another form, an image named twice, or another number of rows than is declared.

    Example:
        >>> read_attributes("1\nBald Male\n000001.jpg -1 1\n", "list_attr_celeba.txt").flags["000001.jpg"]
        array([False,  True])
    """
    lines = text.splitlines()
    if len(lines) < 2 or not lines[0].strip().isascii() or not lines[0].strip().isdigit():
        raise DataError(f"{where}: must begin with the number of images and the attributes' names. Get it again.")
    names = tuple(lines[1].split())
    if not names or len(set(names)) != len(names):
        raise DataError(f"{where}: line 2 must name each attribute once. Get it again.")

    def flags(values: Sequence[str]) -> Flags | None:
        good = len(values) == len(names) and set(values) <= {"1", "-1"}
        return np.array([value == "1" for value in values]) if good else None

    rows = _rows(lines, 2, where, f"{len(names)} values of 1 or -1", flags)
    declared = lines[0].strip().lstrip("0") or "0"
    if declared != str(len(rows)):
        raise DataError(f"{where}: declares {declared[:20]} images and has {len(rows):,}. Get it again.")
    return Attributes(names=names, flags=rows)


def read_identities(text: str, where: str) -> dict[str, int]:
    r"""Read ``identity_CelebA.txt``: a row an image, its file name and the number of the person.

    Args:
        text: the file.
        where: what messages call it.

    Raises:
        DataError: for a row of another form, or an image named twice.

    Example:
        >>> read_identities("000001.jpg 2880\n000002.jpg 2937\n", "identity_CelebA.txt")
        {'000001.jpg': 2880, '000002.jpg': 2937}
    """

    def identity(values: Sequence[str]) -> int | None:
        good = len(values) == 1 and values[0].isascii() and values[0].isdigit() and len(values[0]) < 10
        return int(values[0]) if good else None

    return _rows(text.splitlines(), 0, where, "one number", identity)


def hair_labels(
    names: Sequence[str], attributes: Attributes, where: str, *, none: Rule = "drop", several: Rule = "drop"
) -> Labelled:
    """Label images by hair: the one of the five flags that is set.

    Args:
        names: the images, all of which ``attributes`` has.
        attributes: as `read_attributes` gives them.
        where: what messages call their file.
        none: what becomes of images with no flag set: ``drop``, or a ``class`` called "none".
        several: what becomes of images with several flags set: ``drop``, or a ``class`` called "several".

    Raises:
        DataError: when the file has not all five flags.
    """
    chosen = _columns(attributes, tuple(HAIR.values()), where)
    rules = {"none": none, "several": several}
    classes = (*HAIR, *(name for name, rule in rules.items() if rule == "class"))
    label: dict[str, int] = {}
    left_out: dict[str, list[str]] = {}
    for name in names:
        flags = attributes.flags[name][chosen]
        kind = list(HAIR)[int(flags.argmax())] if flags.sum() == 1 else "several" if flags.any() else "none"
        if kind in classes:
            label[name] = classes.index(kind)
        else:
            left_out.setdefault(f"{kind} of the five hair flags set", []).append(name)
    return Labelled(classes=classes, label=label, left_out=left_out)


def attribute_labels(names: Sequence[str], attributes: Attributes, where: str, *, wanted: Sequence[str]) -> Labelled:
    r"""Label images by attributes: every combination of them is a class, the first one counting most.

    Args:
        names: the images, all of which ``attributes`` has.
        attributes: as `read_attributes` gives them.
        where: what messages call their file.
        wanted: the attributes; one gives two classes, two give four.

    Raises:
        DataError: when the file lacks one of them.

    Example:
        >>> attributes = read_attributes("1\nBald Male\n000001.jpg -1 1\n", "list_attr_celeba.txt")
        >>> labelled = attribute_labels(["000001.jpg"], attributes, "list_attr_celeba.txt", wanted=["Male", "Bald"])
        >>> labelled.classes[labelled.label["000001.jpg"]]
        'Male, not Bald'
    """
    chosen = _columns(attributes, wanted, where)
    classes = [""]
    for attribute in wanted:
        classes = [f"{head}, {tail}" for head in classes for tail in (f"not {attribute}", attribute)]
    weights = 2 ** np.arange(len(wanted))[::-1]
    label = {name: int(attributes.flags[name][chosen] @ weights) for name in names}
    return Labelled(classes=tuple(name.removeprefix(", ") for name in classes), label=label, left_out={})


def identity_labels(names: Sequence[str], identities: Mapping[str, int], *, count: int, least: int = 2) -> Labelled:
    """Label images by person, keeping the ``count`` persons with the most images, ties by the smaller number.

    Args:
        names: the images, all of which ``identities`` has.
        identities: as `read_identities` gives them.
        count: how many persons are classes; the class with the most images is the first.
        least: how many images a person must have.

    Raises:
        DataError: when there are fewer persons with as many images.

    Example:
        >>> people = {"a.jpg": 9, "b.jpg": 4, "c.jpg": 9, "d.jpg": 4, "e.jpg": 7}
        >>> labelled = identity_labels(list(people), people, count=2)
        >>> labelled.classes, labelled.left_out
        (('4', '9'), {'not one of the 2 most frequent identities': ['e.jpg']})
    """
    often = Counter(identities[name] for name in names)
    if count > len(often):
        raise DataError(f"asked for {count:,} identities, the images show {len(often):,}. Ask for at most that many.")
    ranked = sorted(often, key=lambda identity: (-often[identity], identity))[:count]
    if often[ranked[-1]] < least:
        enough = sum(images >= least for images in often.values())
        raise DataError(
            f"asked for {count:,} identities, {enough:,} have {least} images or more, one for each split. "
            f"Ask for at most that many; identity {ranked[-1]} has {often[ranked[-1]]}."
        )
    class_of = {identity: index for index, identity in enumerate(ranked)}
    label = {name: class_of[identities[name]] for name in names if identities[name] in class_of}
    rest = [name for name in names if name not in label]
    left_out = {f"not one of the {count:,} most frequent identities": rest} if rest else {}
    classes = tuple(str(identity) for identity in ranked)
    return Labelled(classes=classes, label=label, left_out=left_out, keep_together=False)


def _columns(attributes: Attributes, wanted: Sequence[str], where: str) -> list[int]:
    missing = [name for name in wanted if name not in attributes.names]
    if missing:
        raise DataError(f"{where}: has no attribute {', '.join(missing)}. Get CelebA's own file.")
    return [attributes.names.index(name) for name in wanted]


def _rows(
    lines: Sequence[str], first: int, where: str, expected: str, read: Callable[[Sequence[str]], T | None]
) -> dict[str, T]:
    rows: dict[str, T] = {}
    for number, line in enumerate(lines[first:], first + 1):
        name, *values = line.split() or [""]
        value = read(values)
        if value is None:
            raise DataError(f"{where}: line {number:,} is not a file name and {expected}. Get it again.")
        if name in rows:
            raise DataError(f"{where}: line {number:,} names {name} again. Get it again.")
        rows[name] = value
    return rows
