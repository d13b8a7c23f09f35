r"""An estimator is applied to one parameter tensor after the other, so that the curvature between two tensors makes no noise.

    D_l = method(H_ll),    H_ll = E_l^T H E_l the block of parameter tensor l

Bias:       that of the method; none where it has none, as diag(H) is made of the diagonals of the blocks.
Variance:   that of the method with H_ll for H. With signs (1/s) sum_{j != i, j in tensor of i} H_ij^2.

Cost: what the method takes, for each of the tensors. With one probe that is L products in place of one: it pays where the
curvature between layers is more than L times what is inside them. A `GraphHessian`'s products with a block still go through the
whole graph. Deviations: none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.objective import Cost
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Source, check_estimator


@dataclass(frozen=True)
class Block:
    """H_ll, an `Operator` on tensor l alone."""

    H: Operator
    l: int  # noqa: E741 - the index in the formula

    @property
    def params(self) -> Vector:
        return [self.H.params[self.l]]

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        for v, Hv in self.H.products(self._widened(v) for (v,) in vectors):
            yield [v[self.l]], [Hv[self.l]]

    def _widened(self, v: Tensor) -> list[Tensor]:
        return [v if l == self.l else torch.zeros_like(p) for l, p in enumerate(self.H.params)]  # noqa: E741

    def kept(self) -> "Block":
        return Block(self.H.kept(), self.l)


@dataclass(frozen=True)
class LayerWise:
    """`method` on the block of every parameter tensor in turn; one whose source is products with a matrix.

    >>> hessian_diagonal(lambda theta: (theta[0] ** 3).sum(), [torch.tensor([1.0, 2.0])], method=LayerWise())
    [tensor([ 6., 12.])]
    """

    method: Diagonal = ONE_PROBE

    source = Source.GRAPH

    def __post_init__(self) -> None:
        check_estimator("method", self.method, Source.GRAPH)

    def cost(self, params: Vector) -> Cost:
        """That of `method`, tensor by tensor; see `Diagonal`."""
        return sum((self.method.cost([p]) for p in params), Cost())

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        last = len(H.params) - 1
        return [self.method(Block(H if j == last else H.kept(), j), generator)[0] for j in range(last + 1)]
