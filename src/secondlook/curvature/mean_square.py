r"""AdaHessian's mean of squares, as an estimator to be studied: it converges to the rows' norms, not to the diagonal.

    v_t = beta2 v_{t-1} + (1 - beta2) (z_t * H z_t)^2,      D = sqrt(v_s / (1 - beta2^s))
    without beta2                                           D = sqrt((1/s) sum_j (z_j * H z_j)^2)

Limit:      with signs E[(z_i (Hz)_i)^2] = sum_j H_ij^2, so D_i tends to the norm of row i as s (or s and 1 / (1 - beta2))
            grows, and never to |H_ii| unless H is diagonal. More probes do not help: it is the noise itself that is averaged.
Bias:       D_i^2 is unbiased for the row's squared norm; the root is below it in expectation (Jensen) for a finite s.
Variance:   Var[D_i^2] = (1/s) Var[(Hz)_i^2],   Var[(Hz)_i^2] = 2 (sum_j H_ij^2)^2 - 2 sum_j H_ij^4; with beta2, 1/s is
            (1 - beta2)/(1 + beta2) (1 + beta2^s)/(1 - beta2^s)

Source: Yao et al., arXiv 2006.00719, Algorithm 1. Cost: s Hessian-vector products. Deviations: theta stays, so that
the average is all there is to see; in training it moves.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import BETA, COUNT
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Source


@dataclass(frozen=True)
class MeanSquare:
    """Root of the mean, or with `beta2` of the corrected running mean, of (z * Hz)^2 over `probes` probes of signs.

    >>> loss = lambda theta: theta[0][0] * theta[0][1]  # its diagonal is zero, and its rows have norms of 1
    >>> hessian_diagonal(loss, [torch.zeros(2)], method=MeanSquare())
    [tensor([1., 1.])]
    """

    probes: int = 1
    beta2: float | None = None

    source = Source.GRAPH

    def __post_init__(self) -> None:
        COUNT.check(probes=self.probes)
        BETA.or_none().check(beta2=self.beta2)

    def cost(self, params: Vector) -> Cost:
        """One product for each probe; see `Diagonal`."""
        return Cost(products=self.probes)

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        """D >= 0, one tensor for each parameter; see `Diagonal`."""
        v = [torch.zeros_like(p) for p in H.params]
        pairs = H.products(Hutchinson().probe(H.params, generator) for _ in range(self.probes))
        for t, (_, Hz) in enumerate(pairs, 1):  # z^2 = 1
            weight = 1 / t if self.beta2 is None else (1 - self.beta2) / (1 - self.beta2**t)  # the correction is inside it
            torch._foreach_lerp_(v, torch._foreach_mul(Hz, Hz), weight)
        return list(torch._foreach_sqrt(v))
