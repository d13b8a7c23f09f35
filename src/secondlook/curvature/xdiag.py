r"""XDiag: the diagonal of a low-rank part of the Hessian exactly, that of the rest from probes, every probe used for both.

    Z = (z_1 ... z_k) signs (n, k),   Y = H Z,   Q = orth(Y) (n, r),   Q_i = orth(Y without column i)
    D = (1/k) sum_i [ diag(Q_i Q_i^T H) + z_i * (I - Q_i Q_i^T) H z_i ]

Source: Epperly, Tropp and Webber (2024), "XTrace: making the most of every sample in stochastic trace estimation", XDiag.

The k bases come from one: with Y = Q R and s_i the unit vector along which R's column i alone has a part,
Q_i Q_i^T = Q (I - s_i s_i^T) Q^T, so that

    D = rowsum(Q * HQ) + (1/k) sum_i [ z_i * Q s_i (s_i^T R e_i) - Q s_i * HQ s_i ]

Here R = S V^T by the singular value decomposition: s_i is along S^{-1} V^T e_i. A column that the others span has no s_i, and
its term is zero.

Unbiased:   z_i is independent of Q_i, and signs are unbiased for the diagonal of (I - Q_i Q_i^T) H.
Variance:   no closed form. Given its Q_i, each term has sum_{j != i} of the squared rest ((I - Q_i Q_i^T) H)_ij, which falls
            with H's eigenvalues; zero for a rank below k. Without low rank to find, half of the products are wasted.

A budget of n products is spent on the exact diagonal.

Cost: 2k products, k of them after the others; 4 n k^2 multiplications; memory 3 n k numbers.

Deviations: the singular value decomposition stands for QR, so that a singular Y is no exception.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import at_least
from secondlook.curvature.exact import Exact
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Source
from secondlook.curvature.vectors import finite, flat, full_precision, split


@dataclass(frozen=True)
class XDiag:
    """D from at most `budget` products, half of them for the probes; an odd one is left over.

    >>> hessian_diagonal(lambda theta: (theta[0] ** 3).sum(), [torch.tensor([1.0, 2.0])], method=XDiag(budget=2))
    [tensor([ 6., 12.])]
    """

    budget: int = 10

    source = Source.GRAPH

    def __post_init__(self) -> None:
        at_least(2).check(budget=self.budget)

    def cost(self, params: Vector) -> Cost:
        """The budget, as far as it is spent; see `Diagonal`."""
        exact = Exact().cost(params)
        return exact if self.budget >= exact.products else Cost(products=self.budget // 2 * 2)

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        n = sum(p.numel() for p in H.params)
        if self.budget >= n:
            return Exact()(H)
        k = self.budget // 2
        Z = sign_columns(H.params, k, generator)  # (n, k)
        Q, sigma, V = range_of(times(H.kept(), Z))
        HQ = times(H, Q)
        alone = (V**2).sum(1) > 1 - V.shape[0] * torch.finfo(V.dtype).eps ** 0.5  # (k,): no other column makes up for it
        S = V.T / sigma[:, None]  # (r, k)
        part = torch.where(alone, 1 / S.norm(dim=0), 0)  # (k,): s_i^T R e_i
        S = S * part
        QS = Q @ S  # (n, k)
        D = (Q * HQ).sum(1) + (Z * QS * part - QS * (HQ @ S)).sum(1) / k
        return split(D, H.params)


def sign_columns(params: Vector, k: int, generator: torch.Generator | None) -> Tensor:
    """Probes of signs (n, k), for a factorisation."""
    full_precision(params, "a low-rank part")
    return torch.stack([flat(Hutchinson().probe(params, generator)) for _ in range(k)], dim=1)


def times(H: Operator, V: Tensor) -> Tensor:
    """H V (n, k) for the columns of V (n, k)."""
    if not V.shape[1]:
        return V
    return torch.stack([finite(flat(Hv)) for _, Hv in H.products(split(v, H.params) for v in V.T)], dim=1)


def range_of(Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Y = Q diag(sigma) V^T with Q (n, r), sigma (r,), V (k, r), of the rank r that rounding leaves."""
    Q, sigma, Vt = torch.linalg.svd(Y, full_matrices=False)
    r = int((sigma > max(Y.shape) * torch.finfo(Y.dtype).eps * sigma[0]).sum())
    return Q[:, :r], sigma[:r], Vt[:r].T
