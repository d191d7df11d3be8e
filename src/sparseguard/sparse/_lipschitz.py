"""Upper bound of a solver's step size: the largest eigenvalue of the Gram operator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse._dictionary import ConvDictionary, Dictionary

SAMPLES = 16
"""Frequencies along an axis, in units of the polynomial's degree."""

MARGIN = math.cos(math.pi / SAMPLES) ** -2
"""Between two of the frequencies a trigonometric polynomial is at most this much higher (once for each axis)."""

ITERATIONS, POSITIONS, ITERATION_MARGIN = 60, 32, 1.06
"""Parameters of power iteration, which approaches from below; positions along an axis of its images."""

SQUARINGS = 5
LARGEST_MATRIX = 64
"""Up to this many channels of the symbol are multiplied out; beyond, power iteration is cheaper."""


def lipschitz_bound(dictionary: Dictionary) -> Float[Tensor, ""]:
    r"""Return L, not below the largest eigenvalue of analysis of synthesis, and a few percent above it.

    It is computed from the atoms alone each time: power iteration from an earlier vector can miss a change of the
    dominant spatial frequency, and then solvers diverge.

    For convolutions the eigenvalues of the operator on images of any size are at most those of its symbol,

    .. math:: \max_\omega \lambda_{\max}(\hat W(\omega)^* \hat W(\omega)), \qquad
              \lambda_{\max}(A) \le (\operatorname{tr} A^{32})^{1/32}

    with :math:`\hat W` the atoms' Fourier transform, the phases of the stride counted as channels. The maximum is
    taken over a grid of frequencies, times how much higher a polynomial of the atoms' degree can be between them (4 %).
    For dictionaries with more than 64 channels it is an estimate by power iteration with a margin of 6 %, without
    proof; for dense ones the exact eigenvalue.
    """
    atoms = dictionary.atoms.detach()
    tiny = torch.finfo(atoms.dtype).tiny
    if not isinstance(dictionary, ConvDictionary):
        flat = atoms.flatten(1)
        gram = flat @ flat.mT if flat.shape[0] <= flat.shape[1] else flat.mT @ flat
        exact: Tensor = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0))[-1]
        return exact.clamp_min(tiny) * (1 + 1e-4)
    if min(len(atoms), atoms.shape[1] * dictionary.stride**2) <= LARGEST_MATRIX:
        return _bound_symbol(atoms, dictionary.stride).clamp_min(tiny) * MARGIN
    generator = torch.Generator().manual_seed(0)
    kh, kw = ((POSITIONS - 1) * dictionary.stride + int(side) for side in atoms.shape[2:])
    operator = ConvDictionary(atoms, dictionary.stride, "valid", (kh, kw))
    start = torch.randn(1, *operator.code_shape, generator=generator).to(atoms)
    return largest_eigenvalue(operator, start, ITERATIONS)[0].clamp_min(tiny) * ITERATION_MARGIN


def largest_eigenvalue(
    dictionary: Dictionary, start: Float[Tensor, "1 *code"], iterations: int
) -> tuple[Float[Tensor, ""], Float[Tensor, "1 *code"]]:
    """Estimate the largest eigenvalue of the Gram operator (analysis of synthesis) by power iteration.

    Returns:
        The Rayleigh quotient, which approaches the eigenvalue from below, and its unit vector.
    """
    vector = start
    quotient = torch.ones((), dtype=start.dtype, device=start.device)
    for _ in range(iterations):
        image = dictionary.analysis(dictionary.synthesis(vector))
        quotient = (vector * image).sum()
        vector = image / torch.linalg.vector_norm(image).clamp_min(torch.finfo(image.dtype).tiny)
    return quotient, vector


def _bound_symbol(atoms: Float[Tensor, "f c kh kw"], stride: int) -> Float[Tensor, ""]:
    """Bound the largest eigenvalue over a grid of frequencies, by traces of powers."""
    wide = atoms.to(torch.promote_types(atoms.dtype, torch.float32))
    phases = F.pixel_unshuffle(
        F.pad(wide, (0, -int(atoms.shape[3]) % stride, 0, -int(atoms.shape[2]) % stride)), stride
    )
    sides = [max(1, SAMPLES * (int(side) - 1)) for side in phases.shape[2:]]
    spectrum = torch.fft.rfft2(phases, s=sides).flatten(2).permute(2, 0, 1)
    product = spectrum.mH @ spectrum if phases.shape[1] <= len(atoms) else spectrum @ spectrum.mH
    trace = _compute_trace(product)
    log = trace.log()
    if product.shape[1] > 1:
        for power in range(1, SQUARINGS + 1):
            product = product / trace
            product = product @ product
            trace = _compute_trace(product)
            log = log + trace.log() / 2**power
    return log.amax().exp().to(atoms.dtype)


def _compute_trace(matrices: Tensor) -> Float[Tensor, "w 1 1"]:
    trace = matrices.diagonal(dim1=1, dim2=2).real.sum(1)
    return trace.clamp_min(torch.finfo(trace.dtype).tiny).view(-1, 1, 1)
