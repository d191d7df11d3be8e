"""Memory layout of a problem for fast convolutions on CPUs: blocks of neighboring pixels become channels.

A convolution with few channels leaves most of a processor's vector lanes idle, above all the synthesis, which writes
only as many channels as the image has. Here every block of ``b x b`` positions becomes channels of one position, and
the pixels likewise, so that one image channel becomes up to 16. This costs some multiply-adds with zeros and fills the
lanes. The problem stays the same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse._dictionary import Atoms, Codes, ConvDictionary, Dictionary, Images
from sparseguard.sparse._problem import Problem

Arranged = Float[Tensor, "n *arranged"]

LANES = 16
"""Single-precision numbers in the widest CPU vectors."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A problem in a solver's layout, and the conversions of codes and images."""

    problem: Problem

    def code_in(self, code: Codes) -> Arranged:
        """Convert codes to the solver's layout."""
        return code

    def code_out(self, code: Arranged) -> Codes:
        """Convert a solver's codes to the caller's layout."""
        return code

    def image_out(self, images: Arranged) -> Images:
        """Convert a solver's images to the caller's layout."""
        return images


@dataclass(frozen=True, eq=False)
class BlockDictionary(Dictionary):
    """The operator of a `ConvDictionary` on blocks: ``valid`` analysis with stride 1 of images with a margin.

    Args:
        atoms: ``(b^2 features, channels B^2, kh, kw)``, with B = b times the stride; the features of one position
            are adjacent.
        inside: ``(1, channels B^2, h, w)``, 1 where a pixel belongs to the image and 0 in the margin.
        positions: height and width of a code, in blocks.
    """

    atoms: Float[Tensor, "f c kh kw"]
    inside: Float[Tensor, "1 c h w"]
    positions: tuple[int, int]

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Features, height and width of a code, in blocks."""
        return int(self.atoms.shape[0]), *self.positions

    def analysis(
        self, images: Float[Tensor, "n c h w"], bias: Float[Tensor, " f"] | None = None
    ) -> Float[Tensor, "n f p q"]:
        """Correlate images with every atom."""
        return F.conv2d(images, self.atoms, bias)

    def synthesis(self, code: Float[Tensor, "n f p q"]) -> Float[Tensor, "n c h w"]:
        """Sum the atoms weighted by the code; the margin is zero."""
        return F.conv_transpose2d(code, self.atoms).mul_(self.inside)

    def correlate(self, code: Codes, images: Images) -> Atoms:
        """Not supported: learning of atoms uses the original dictionary."""
        raise NotImplementedError("use the original dictionary.")

    def connectivity(self) -> Tensor:
        """Not supported: the locally competitive algorithm uses the original dictionary."""
        raise NotImplementedError("use the original dictionary.")

    def inhibition(self, code: Codes, connectivity: Tensor) -> Codes:
        """Not supported: the locally competitive algorithm uses the original dictionary."""
        raise NotImplementedError("use the original dictionary.")


@dataclass(frozen=True, eq=False)
class Blocks(Layout):
    """A problem on blocks.

    Args:
        block: b.
        origin: the original dictionary.
    """

    block: int
    origin: ConvDictionary

    def code_in(self, code: Codes) -> Arranged:
        """Gather positions into blocks."""
        n, f, p, q = code.shape
        b = self.block
        blocks = code.permute(0, 2, 3, 1).reshape(n, p // b, b, q // b, b, f).transpose(2, 3)
        return blocks.reshape(n, p // b, q // b, b * b * f).permute(0, 3, 1, 2)

    def code_out(self, code: Arranged) -> Codes:
        """Spread blocks over positions."""
        n, channels, p, q = code.shape
        b, f = self.block, channels // self.block**2
        blocks = code.permute(0, 2, 3, 1).reshape(n, p, q, b, b, f).transpose(2, 3)
        return blocks.reshape(n, p * b, q * b, f).permute(0, 3, 1, 2)

    def image_out(self, images: Arranged) -> Images:
        """Spread blocks over pixels and remove the margin."""
        top, bottom, left, right = _compute_frame(self.origin, self.block)
        return F.pad(F.pixel_shuffle(images, self.block * self.origin.stride), (-left, -right, -top, -bottom))


def arrange(problem: Problem, *, blocks: bool = True) -> Layout:
    """Return the problem in the fastest layout for float32 on a CPU: channels last, and few channels in blocks.

    Args:
        problem: any problem; on other devices, precisions or dictionaries it is returned unchanged.
        blocks: whether blocks may be used. Atoms cannot be learned in blocks.
    """
    dictionary = problem.dictionary
    if (
        not isinstance(dictionary, ConvDictionary)
        or problem.images.shape[0] == 0
        or not _is_float_on_cpu(dictionary.atoms)
    ):
        return Layout(problem)
    block = _choose_block(dictionary) if blocks else 1
    if block == 1:
        return Layout(
            replace(
                problem,
                images=problem.images.contiguous(memory_format=torch.channels_last),
                dictionary=dictionary.with_atoms(dictionary.atoms.contiguous(memory_format=torch.channels_last)),
            )
        )
    top, bottom, left, right = _compute_frame(dictionary, block)
    side, margin = block * dictionary.stride, (left, right, top, bottom)
    _, p, q = dictionary.code_shape
    in_blocks = BlockDictionary(
        _build_block_atoms(dictionary, block),
        _to_blocks(F.pad(problem.images.new_ones(1, *problem.images.shape[1:]), margin), side),
        (p // block, q // block),
    )
    lambd = problem.lambd.repeat(block**2) if isinstance(problem.lambd, Tensor) else problem.lambd
    images = _to_blocks(F.pad(problem.images, margin), side)
    return Blocks(replace(problem, images=images, dictionary=in_blocks, lambd=lambd), block, dictionary)


def _is_float_on_cpu(atoms: Atoms) -> bool:
    return atoms.device.type == "cpu" and atoms.dtype == torch.float32


def _choose_block(dictionary: ConvDictionary) -> int:
    """Return the largest useful block that divides the code, 1 for none."""
    channels, (_, p, q) = dictionary.atoms.shape[1], dictionary.code_shape
    sizes = (b for b in (4, 2) if channels * (b * dictionary.stride) ** 2 <= LANES)
    return next((b for b in sizes if p % b == q % b == 0), 1)


def _compute_frame(dictionary: ConvDictionary, block: int) -> tuple[int, int, int, int]:
    """Return the pixels to add at top, bottom, left and right (negative: to remove, as no atom reaches them)."""
    side = block * dictionary.stride
    ends = []
    for margin, size, positions, kernel in zip(
        dictionary.margins, dictionary.size, dictionary.code_shape[1:], dictionary.atoms.shape[2:], strict=True
    ):
        total = (positions // block + _count_kernel_blocks(int(kernel), block, dictionary.stride) - 1) * side
        ends += [margin, total - margin - size]
    return ends[0], ends[1], ends[2], ends[3]


def _count_kernel_blocks(kernel: int, block: int, stride: int) -> int:
    return -(-(kernel + (block - 1) * stride) // (block * stride))


def _build_block_atoms(dictionary: ConvDictionary, block: int) -> Float[Tensor, "fb cb kh kw"]:
    """Shift each atom to every position within a block, and split the result into blocks of pixels."""
    atoms, stride = dictionary.atoms, dictionary.stride
    kh, kw = (_count_kernel_blocks(int(k), block, stride) * block * stride for k in atoms.shape[2:])
    shifted = [
        F.pad(
            atoms,
            (x * stride, kw - int(atoms.shape[3]) - x * stride, y * stride, kh - int(atoms.shape[2]) - y * stride),
        )
        for y in range(block)
        for x in range(block)
    ]
    return _to_blocks(torch.cat(shifted), block * stride)


def _to_blocks(images: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n cb hb wb"]:
    return F.pixel_unshuffle(images, side).contiguous(memory_format=torch.channels_last)
