"""Local (Hebbian) learning of a dictionary."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_weight

from sparseguard.sparse.dictionary import ConvDictionary, unit_norm


def correlate(
    code: Float[Tensor, "n f p q"], residual: Float[Tensor, "n c h w"], dictionary: ConvDictionary
) -> Float[Tensor, "f c kh kw"]:
    r"""Correlate codes with residuals: minus the gradient of :math:`\tfrac12\|X - R \circledast W\|^2` in W.

    Entry ``[f, c, i, j]`` sums, over images and positions, the coefficient of atom f times the residual's pixel
    ``(i, j)`` of channel c in the patch that the atom covers there.
    """
    correlation: Tensor = conv2d_weight(
        residual, dictionary.atoms.shape, code, stride=dictionary.stride, padding=dictionary.margins
    )
    return correlation


def hebbian_update(
    atoms: Float[Tensor, "f c kh kw"],
    correlation: Float[Tensor, "f c kh kw"],
    active: Float[Tensor, " f"],
    rate: float,
) -> Float[Tensor, "f c kh kw"]:
    r"""Return the updated unit-norm atoms: :math:`W_f + \eta\, \mathrm{corr}_f / (\mathrm{active}_f + 1)`.

    Args:
        atoms: the dictionary.
        correlation: as from `correlate`, summed over batches since the last update.
        active: how many coefficients of each atom were not zero in the same batches.
        rate: eta.

    Source: the paper's "fast update" (section 3), in the rule of the public library lca-pytorch.
    """
    return unit_norm(atoms + rate * correlation / (active + 1).view(-1, 1, 1, 1))
