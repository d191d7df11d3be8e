"""Local (Hebbian) learning of a dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

from sparseguard.sparse._dictionary import Atoms, Codes, Dictionary, Images, unit_norm

PerAtom = Float[Tensor, " f"]


def hebbian_update(atoms: Atoms, correlation: Atoms, active: PerAtom, rate: float) -> Atoms:
    r"""Return the updated unit-norm atoms: :math:`W_f + \eta\, \mathrm{corr}_f / (\mathrm{active}_f + 1)`.

    Args:
        atoms: the dictionary.
        correlation: codes correlated with residuals (`Dictionary.correlate`), summed since the last update; minus the
            gradient of half the squared residual.
        active: number of nonzero coefficients of each atom since the last update.
        rate: eta.

    Source: the paper's "fast update" (section 3), in the rule of the public library lca-pytorch.
    """
    return unit_norm(atoms + rate * correlation / (active + 1).view(-1, *(1,) * (atoms.ndim - 1)))


@dataclass(frozen=True, eq=False)
class HebbianStatistics:
    """Sums over training batches for the next update; no images.

    Args:
        correlation: as `hebbian_update` takes it.
        active: as `hebbian_update` takes it.
    """

    correlation: Atoms
    active: PerAtom

    @classmethod
    def from_batch(cls, code: Codes, residual: Images, dictionary: Dictionary) -> HebbianStatistics:
        """Return the statistics of a batch."""
        code = code.detach()
        active = (code != 0).transpose(0, 1).flatten(1).sum(1)
        return cls(dictionary.correlate(code, residual).detach(), active.to(code.dtype))

    @classmethod
    def zeros(cls, atoms: Atoms) -> HebbianStatistics:
        """Return statistics of no batch."""
        return cls(torch.zeros_like(atoms), atoms.new_zeros(len(atoms)))

    def add(self, other: HebbianStatistics) -> HebbianStatistics:
        """Return the sum of both."""
        return HebbianStatistics(self.correlation + other.correlation, self.active + other.active)

    def all_reduce(self) -> HebbianStatistics:
        """Return the sum over all processes of `torch.distributed`, if it is initialized."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        flat = torch.cat([self.correlation.flatten(), self.active])
        dist.all_reduce(flat)
        return HebbianStatistics(flat[: -len(self.active)].view_as(self.correlation), flat[-len(self.active) :])
