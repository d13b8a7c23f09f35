r"""Hutchinson's estimator of the Hessian's diagonal, from products with random probes.

    D = (1/s) sum_{j=1..s} z_j * H z_j,        E[z] = 0,  E[z z^T] = I,  * element by element

Source: Hutchinson 1990 (the trace); Bekas, Kokiopoulou and Saad 2007 (the diagonal).

Unbiased:       E[D_i] = E[z_i sum_j H_ij z_j] = sum_j H_ij E[z_i z_j] = H_ii.

Variance:       Rademacher   Var[D_i] = (1/s)  sum_{j != i} H_ij^2
                Gaussian     Var[D_i] = (1/s) (sum_j H_ij^2 + H_ii^2)

    because z_i^2 H_ii is the constant H_ii for signs and has variance 2 H_ii^2 for normal numbers. With signs, a diagonal
    Hessian is found exactly by one probe.

Cost: s Hessian-vector products.

Deviations: Bekas et al. divide sum z * Hz by sum z * z. For signs that divisor is s; for normal numbers the plain mean is
taken here, as it is unbiased and has the variance above.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import COUNT, one_of
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.signs import random_words, signs
from secondlook.curvature.source import Source

DISTRIBUTIONS = ("rademacher", "gaussian")


@dataclass(frozen=True)
class Hutchinson:
    """Mean of z * Hz over `probes` independent probes of signs ('rademacher') or standard normal numbers ('gaussian').

    >>> hessian_diagonal(lambda theta: (theta[0] ** 3).sum(), [torch.tensor([1.0, 2.0])], method=Hutchinson(probes=1))
    [tensor([ 6., 12.])]
    """

    probes: int = 1
    distribution: str = "rademacher"

    source = Source.GRAPH

    def __post_init__(self) -> None:
        COUNT.check(probes=self.probes)
        one_of(DISTRIBUTIONS).check(distribution=self.distribution)

    def cost(self, params: Vector) -> Cost:
        """One product for each probe; see `Diagonal`."""
        return Cost(products=self.probes)

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        D = None
        for z, Hz in H.products(self.probe(H.params, generator) for _ in range(self.probes)):
            if D is None:
                D = torch._foreach_mul(Hz, z)  # not in place: tensors of Hz may share memory, with one another or with z
            else:
                torch._foreach_addcmul_(D, z, Hz)
        if self.probes > 1:
            torch._foreach_div_(D, self.probes)
        return list(D)

    def probe(self, params: Vector, generator: torch.Generator | None) -> list[Tensor]:
        """z, in the shapes of `params`: one draw on the generator's device, split in their order."""
        sizes = [p.numel() for p in params]
        dtype = functools.reduce(torch.promote_types, (p.dtype for p in params))
        device = params[0].device if generator is None else generator.device
        z = self._draw(sum(sizes), dtype, device, generator).split(sizes)
        return [part.view(p.shape).to(p.device, p.dtype) for part, p in zip(z, params, strict=True)]

    def _draw(self, n: int, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None) -> Tensor:
        if self.distribution == "gaussian":
            return torch.empty(n, dtype=dtype, device=device).normal_(generator=generator)
        return signs(random_words(n, device, generator), dtype)[:n]


ONE_PROBE = Hutchinson()  # the usual default
