"""The estimators at a budget, and the dense Hessian as what they ask for products.

A budget is a number of Hessian-vector products, each with its gradient: three gradients' work. An estimator that works
otherwise gets as many probes as fit into it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from secondlook.curvature import (
    Bekas,
    Cost,
    DiagPlusPlus,
    FiniteDifferences,
    GaussNewtonDiagonal,
    Hutchinson,
    LayerWise,
    MeanSquare,
    PerExample,
    Preactivations,
    XDiag,
)
from secondlook.curvature.averaging import spatial_average
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.vectors import flat, split

CHUNK = 128  # products of the dense matrix at a time
FEW = 100  # products: with more, layer sums are exact, and of the others only the plain one and XDiag are worth the time
PER_HVP = 3  # gradients' work in a Hessian-vector product with its gradient


class Matrix:
    """The dense H (n, n) as an `Operator`: the numbers of Hessian-vector products in a fraction of their time."""

    def __init__(self, H: Tensor, params: Vector):
        self.H, self.params = H, params
        self.cost = Cost()

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        vectors = iter(vectors)
        while chunk := list(islice(vectors, CHUNK)):
            V = torch.stack([flat(v) for v in chunk])  # (k, n)
            self.cost += Cost(len(V), len(V))
            yield from ((v, self.split(Hv)) for v, Hv in zip(chunk, V @ self.H, strict=True))

    def split(self, v: Tensor) -> list[Tensor]:
        """The flat v (n,) in the shapes of the parameters."""
        return split(v, self.params)

    def kept(self) -> "Matrix":
        return self


@dataclass(frozen=True)
class WeightMeans:
    """`method`'s D in signed means over blocks of every weight (`spatial_average`): kernels of convolutions, `block_size`
    entries of others. Biases, too few for blocks, keep their own; so does everything for a size of 1."""

    method: Diagonal
    block_size: int

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]:
        return weight_means(self.method(H, generator), self.block_size)


def weight_means(D: Vector, block_size: int) -> list[Tensor]:
    return [spatial_average(d, block_size) if d.dim() > 1 and block_size > 1 else d for d in D]


def blocks(A: Matrix, block_size: int) -> Tensor:
    """The number of the block to which each entry belongs (n,), told by the mean of its members' places."""
    places = torch.arange(len(A.H), dtype=A.H.dtype)
    return flat(weight_means(A.split(places), block_size)).unique(return_inverse=True)[1]


def by_products(budget: int, tensors: int, block: int) -> dict[str, Diagonal]:
    """Estimators that ask for nothing but products, where the budget is enough for them; `tensors` of parameters."""
    found: dict[str, Diagonal] = {"Hutchinson": Hutchinson(budget)}
    if budget >= 3:
        found["XDiag"] = XDiag(budget)
    if budget > FEW:
        return found
    found |= {
        "normal probes": Hutchinson(budget, "gaussian"),
        "block means": WeightMeans(Hutchinson(budget), block),
        "mean of squares": MeanSquare(budget),
    }
    if budget >= 3:
        found |= {"Bekas": Bekas(budget), "Diag++": DiagPlusPlus(budget)}
    if budget >= tensors:
        found["layer by layer"] = LayerWise(Hutchinson(budget // tensors))
    return found


def by_parts(budget: int) -> dict[str, Diagonal]:
    """Estimators that take the loss apart: into examples, layers, outputs, gradients."""
    if budget > FEW:
        return {}
    found: dict[str, Diagonal] = {"layer sums": Preactivations(int(PER_HVP * budget - 2 / 3))}
    if budget <= 10:
        found["per example"] = PerExample(budget, chunk_size=256)
        found["differences"] = FiniteDifferences(Hutchinson(max(1, PER_HVP * budget // 2)), order=2)
    if budget == 1:
        found["Gauss-Newton, drawn"] = GaussNewtonDiagonal(2)
    if budget == 10:
        found["Gauss-Newton"] = GaussNewtonDiagonal()
    return found
