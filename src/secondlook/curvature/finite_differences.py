r"""Hessian-vector products from gradients alone: every estimator that takes an operator does without second derivatives.

    R_0(h) = (g(theta + h v) - g(theta - h v)) / (2 h)  =  H v + c_2 h^2 + c_4 h^4 + ...
    R_j(h) = (4^j R_{j-1}(h / 2) - R_{j-1}(h)) / (4^j - 1)                     (Richardson), error of order h^{2 j + 2}

The step h is `step` |theta| / |v|, or `step` / |v| at theta = 0: relative to what is moved.

Bias:       c h^{order} from the series, for a smooth loss, plus rounding of about eps |g| / h. Estimators inherit both. Not for
            a loss with kinks (ReLU) that v crosses, where R is the mean curvature of a chord. Zero, but for rounding, for a
            quadratic.
Variance:   that of the estimator.

Cost: `order` gradients for each product, none of them with a graph: order 2 is as dear as a product, and takes the memory of a
gradient. Source: Richardson (1911); Nocedal and Wright (2006), section 8.1, for H v. Deviations: none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import POSITIVE, Must
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.products import Vector
from secondlook.curvature.source import Source, check_estimator

EVEN = Must("an even integer of at least 2", lambda x: isinstance(x, int) and x >= 2 and x % 2 == 0)


@dataclass(frozen=True)
class DifferenceHessian:
    """H of an `objective` by differences; an `Operator`. `order` 2, 4, 6, ... of the error in `step`."""

    objective: Objective
    step: float
    order: int

    @property
    def params(self) -> Vector:
        return self.objective.params

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        for v in vectors:
            length = _norm(v)
            h = self.step * (_norm(self.params) or 1.0) / (length or 1.0)
            column = [self._central(v, h / 2**i) for i in range(self.order // 2)]  # R_0(h), R_0(h / 2), ...
            for j in range(1, len(column)):
                column = [
                    [fine + (fine - coarse) / (4**j - 1) for fine, coarse in zip(after, before, strict=True)]
                    for before, after in zip(column, column[1:], strict=False)
                ]
            yield v, column[0]

    def _central(self, v: Vector, h: float) -> list[Tensor]:
        theta = [p.detach() for p in self.params]
        ahead, behind = (self.objective.gradient(torch._foreach_add(theta, list(v), alpha=a)) for a in (h, -h))
        return [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]

    def kept(self) -> "DifferenceHessian":
        """Itself: it has no graph that a product could free."""
        return self


@dataclass(frozen=True)
class FiniteDifferences:
    """`method` with H's products by differences of `order` and relative `step`.

    >>> model, data = torch.nn.Linear(1, 1), (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    >>> loss = of_module(model, torch.nn.functional.mse_loss)
    >>> D = hessian_diagonal(loss, model.double().parameters(), [d.double() for d in data], method=FiniteDifferences(Exact()))
    >>> [d.round(decimals=3).tolist() for d in D]
    [[[10.0]], [2.0]]
    """

    method: Diagonal = ONE_PROBE
    step: float = 1e-3
    order: int = 4

    source = Source.OBJECTIVE

    def __post_init__(self) -> None:
        check_estimator("method", self.method, Source.GRAPH)
        POSITIVE.check(step=self.step)
        EVEN.check(order=self.order)

    def cost(self, params: Vector) -> Cost:
        """`order` gradients for each of the method's products; see `Diagonal`."""
        return Cost(gradients=self.order * self.method.cost(params).products)

    def __call__(self, H: Objective, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        self.source.check(self, H)
        return self.method(DifferenceHessian(H, self.step, self.order), generator)


def _norm(v: Vector) -> float:
    return torch.stack(torch._foreach_norm(list(v))).norm().item()
