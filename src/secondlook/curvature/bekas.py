r"""Bekas' estimator of the Hessian's diagonal: Hutchinson's sum over what its probes weigh.

    D = sum_{j=1..s} z_j * H z_j  /  sum_{j=1..s} z_j * z_j,        element by element

Source: Bekas, Kokiopoulou and Saad (2007), "An estimator for the diagonal of a matrix".

Unbiased:   D_i = H_ii + sum_{j != i} H_ij (sum z_i z_j / sum z_i^2), and every z_j is independent of z_i and symmetric about 0.

Variance:   Gaussian     Var[D_i] = 1/(s - 2) sum_{j != i} H_ij^2 for s > 2, not finite for s <= 2
            Rademacher   the divisor is s: `Hutchinson`

    because D_i given z_i has variance sum_{j != i} H_ij^2 / sum z_i^2, and that sum of squares is chi^2 of s degrees of
    freedom. Beside Hutchinson with normal numbers, the 2 H_ii^2 / s of the diagonal itself is gone.

Cost: s Hessian-vector products. Deviations: none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import COUNT
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Source


@dataclass(frozen=True)
class Bekas:
    """Sum of z * Hz over the sum of z * z, for `probes` independent probes of standard normal numbers.

    >>> (D,) = hessian_diagonal(lambda theta: (theta[0] ** 3).sum(), [torch.tensor([1.0, 2.0])], method=Bekas())
    >>> D.round(decimals=3)  # 6 theta
    tensor([ 6., 12.])
    """

    probes: int = 10

    source = Source.GRAPH

    def __post_init__(self) -> None:
        COUNT.check(probes=self.probes)

    def cost(self, params: Vector) -> Cost:
        """One product for each probe; see `Diagonal`."""
        return Cost(products=self.probes)

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        normal = Hutchinson(distribution="gaussian")
        products, squares = ([torch.zeros_like(p) for p in H.params] for _ in range(2))
        for z, Hz in H.products(normal.probe(H.params, generator) for _ in range(self.probes)):
            torch._foreach_addcmul_(products, z, Hz)
            torch._foreach_addcmul_(squares, z, z)
        return list(torch._foreach_div(products, squares))
