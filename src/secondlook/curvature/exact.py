"""The exact diagonal of the Hessian, for small problems.

    D_i = e_i^T H e_i,    e_i the i-th basis vector

Cost: n Hessian-vector products, each through the block of one parameter. Deviations: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.curvature.products import hvp


@dataclass(frozen=True)
class Exact:
    """diag(H), entry by entry; draws nothing from the generator."""

    def __call__(
        self,
        gradients: Sequence[Tensor],
        params: Sequence[Tensor],
        generator: torch.Generator | None = None,
        *,
        retain_graph: bool = False,
    ) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        D = [torch.zeros_like(p) for p in params]
        entries = [(j, i) for j, p in enumerate(params) for i in range(p.numel())]
        for left, (j, i) in zip(reversed(range(len(entries))), entries, strict=True):
            e = torch.zeros_like(params[j])
            e.view(-1)[i] = 1
            (column,) = hvp([gradients[j]], [params[j]], [e], retain_graph=retain_graph or left > 0)
            D[j].view(-1)[i] = column.reshape(-1)[i]
        return D
