"""The exact diagonal of a Hessian, for small problems.

    D_i = e_i^T H e_i,    e_i the i-th basis vector

Cost: n Hessian-vector products. Deviations: none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Source


@dataclass(frozen=True)
class Exact:
    """diag(H), entry by entry; draws nothing from the generator.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian_diagonal(w[0] ** 3 * w[1] ** 2, [w], method=Exact())  # 6 w_0 w_1^2 and 2 w_0^3
    [tensor([24.,  2.])]
    """

    source = Source.GRAPH

    def cost(self, params: Vector) -> Cost:
        """One product for each entry; see `Diagonal`."""
        return Cost(products=sum(p.numel() for p in params))

    def __call__(self, H: Operator, generator: torch.Generator | None = None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        D = _zeros(H.params)
        entries = [(d.view(-1), j, i) for j, d in enumerate(D) for i in range(d.numel())]
        for (d, j, i), (_, column) in zip(entries, H.products(basis(H.params)), strict=True):
            d[i] = column[j].reshape(-1)[i]
        return D


def basis(params: Vector) -> Iterator[list[Tensor]]:
    """e_1, ..., e_n in the shapes of `params`."""
    for j, p in enumerate(params):
        for i in range(p.numel()):
            e = _zeros(params)
            e[j].view(-1)[i] = 1
            yield e


def _zeros(params: Vector) -> list[Tensor]:
    """In the shapes of `params`, each with its entries one after the other in memory, whatever the parameter's are."""
    return [torch.zeros_like(p, memory_format=torch.contiguous_format) for p in params]
