r"""Another estimator's D, replaced by the means of its blocks: less variance, some bias.

    D'_i = (1/b) sum_{j in block of i} D_j,  or of |D_j|          (`averaging.spatial_average`: blocks, kernels)

Bias:       signed      E[D'_i] - H_ii = mean of H_jj over the block - H_ii, if D is unbiased; it does not fall with the budget
            absolute    more: E|D_j| >= |H_jj|, by the noise
Variance:   signed      (1/b^2) sum_{j, j' in block} Cov[D_j, D_j'], for b uncorrelated entries 1/b of their mean. With signs
                        and one probe Cov[D_j, D_j'] = H_jj'^2, which is not zero.

Cost: that of the estimator. Source: Yao et al., arXiv 2006.00719, Eq. 10. Deviations: see `averaging`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import COUNT, one_of
from secondlook.curvature.averaging import AVERAGING, spatial_average
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Vector
from secondlook.curvature.source import Given, Source, check_estimator


@dataclass(frozen=True)
class Averaged:
    """Means of `method`'s D over blocks of `block_size`, which divides every tensor's entries, or over kernels.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian_diagonal((w**3).sum(), [w], method=Averaged(Exact(), block_size=2))
    [tensor([9., 9.])]
    """

    method: Diagonal
    block_size: int = 1
    averaging: str = "signed"

    def __post_init__(self) -> None:
        check_estimator("method", self.method)
        COUNT.check(block_size=self.block_size)
        one_of(AVERAGING).check(averaging=self.averaging)

    @property
    def source(self) -> Source:
        return self.method.source

    def cost(self, params: Vector) -> Cost:
        """That of `method`; see `Diagonal`."""
        return self.method.cost(params)

    def __call__(self, H: Given, generator: torch.Generator | None) -> list[Tensor]:
        """D', one tensor for each parameter; see `Diagonal`. Raises ValueError where the blocks do not fit."""
        for p in H.params:
            if p.dim() < 3 and p.numel() % self.block_size:
                raise ValueError(f"block_size {self.block_size} does not divide the entries of shape {tuple(p.shape)}")
        return [spatial_average(D, self.block_size, self.averaging) for D in self.method(H, generator)]
