r"""Diag++: the diagonal of a low-rank part of the Hessian exactly, that of the rest from other probes.

    Q = orth(H Z),                              Z of s probes (n, s)
    D = diag(Q Q^T H) + (1/s) sum_{j=1..s} u_j * (I - Q Q^T) H u_j,    u_j other probes, all of signs

Source: Baston and Nakatsukasa (2022), "Stochastic diagonal estimation: probabilistic bounds and an improved algorithm".

Unbiased:   the u_j are independent of Q, and the two parts add up to H.
Variance:   given Q, Var[D_i] = (1/s) sum_{j != i} ((I - Q Q^T) H)_ij^2: Hutchinson's law for what Q leaves; zero for a rank
            of at most s.

Cost: 3s products; 4 n s^2 multiplications; memory 3 n s numbers. `XDiag` makes more of the same budget.

Deviations: the rest is projected from one side, by which it stays unbiased for any Q. A budget of n products is spent on the
exact diagonal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import at_least
from secondlook.curvature.exact import Exact
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Source
from secondlook.curvature.vectors import split
from secondlook.curvature.xdiag import range_of, sign_columns, times


@dataclass(frozen=True)
class DiagPlusPlus:
    """D from at most `budget` products, three times as many as fit.

    >>> hessian_diagonal(lambda theta: (theta[0] ** 3).sum(), [torch.tensor([1.0, 2.0])], method=DiagPlusPlus(budget=3))
    [tensor([ 6., 12.])]
    """

    budget: int = 12

    source = Source.GRAPH

    def __post_init__(self) -> None:
        at_least(3).check(budget=self.budget)

    def cost(self, params: Vector) -> Cost:
        """The budget, as far as it is spent; see `Diagonal`."""
        exact = Exact().cost(params)
        return exact if self.budget >= exact.products else Cost(products=self.budget // 3 * 3)

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        if self.budget >= sum(p.numel() for p in H.params):
            return Exact()(H)
        s = self.budget // 3
        Q, _, _ = range_of(times(H.kept(), sign_columns(H.params, s, generator)))
        HQ = times(H.kept(), Q)
        U = sign_columns(H.params, s, generator)
        HU = times(H, U)
        rest = HU - Q @ (Q.T @ HU)
        return split((Q * HQ).sum(1) + (U * rest).mean(1), H.params)
