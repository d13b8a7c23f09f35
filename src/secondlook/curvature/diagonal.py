"""The diagonal of a Hessian in one call, and what every estimator of it is: a function of an operator and a generator.

D = hessian_diagonal(loss, params, data, method=Hutchinson(probes=10))
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.objective import Cost, Objective, hessian_of
from secondlook.curvature.products import Operator, Vector
from secondlook.curvature.source import Given, Source


class Diagonal(Protocol):
    """D_i, exactly or in expectation H_ii, for every parameter; tensor i has the shape of `H.params[i]` and no graph.

    An estimator declares its `source`, the kind of thing that H must be, and raises a TypeError for anything less. Random
    numbers come from `generator` alone, on its device.

    >>> class Zero:
    ...     source = Source.GRAPH
    ...
    ...     def cost(self, params):
    ...         return Cost()
    ...
    ...     def __call__(self, H, generator):
    ...         return [torch.zeros_like(p) for p in H.params]
    >>> hessian_diagonal(lambda theta: (theta[0] ** 3).sum(), [torch.tensor([1.0, 2.0])], method=Zero())
    [tensor([0., 0.])]
    """

    @property
    def source(self) -> Source: ...

    def cost(self, params: Vector) -> Cost:
        """What one estimate costs beside the gradient that the source has been differentiated for, in passes over its data.

        Raises ValueError where that depends on more than the estimator and `params`.
        """

    def __call__(self, H: Given, generator: torch.Generator | None) -> list[Tensor]: ...


def hessian_diagonal(
    loss: Operator | Tensor | Callable[..., Tensor],
    params: Iterable[Tensor] | None = None,
    data: object = None,
    method: Diagonal = ONE_PROBE,
    generator: torch.Generator | None = None,
    **options: Any,
) -> list[Tensor]:
    """D of a loss, one tensor for each parameter. Loss, params, data and options: as of `hessian_of`.

    >>> model, data = torch.nn.Linear(2, 1), (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1))
    >>> hessian_diagonal(of_module(model, torch.nn.functional.mse_loss), model.parameters(), data, method=Exact())
    [tensor([[10., 20.]]), tensor([2.])]
    """
    return method(hessian_of(loss, params, data, **options), generator)


def estimate(objective: Objective, method: Diagonal, generator: torch.Generator | None = None) -> tuple[list[Tensor], Cost]:
    """D, and what it cost in gradients and Hessian-vector products over all of the data.

    >>> H = Objective(lambda theta, x, y: (x * theta[0] ** 2).mean(), [torch.tensor(1.0)], (torch.ones(3), torch.ones(3)))
    >>> D, cost = estimate(H, Hutchinson(probes=2))
    >>> D, cost.products
    ([tensor(2.)], 2.0)
    """
    before = objective.cost
    D = method(objective, generator)
    return D, objective.cost - before
