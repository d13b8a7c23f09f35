"""The diagonal of a Hessian in one call, and what every estimator of it is: a function of an operator and a generator.

D = hessian_diagonal(loss_fn, params, data, method=Hutchinson(probes=10))
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.objective import Cost, LossFn, Objective
from secondlook.curvature.products import Operator


class Diagonal(Protocol):
    """D_i, exactly or in expectation H_ii, for every parameter; tensor i has the shape of `H.params[i]` and no graph.

    Most estimators take any `Operator`; some need an `Objective`, which can be taken apart into batches, examples and
    outputs, and raise a TypeError for anything less. Random numbers come from `generator` alone, on its device.
    """

    def __call__(self, H: Operator, generator: torch.Generator | None) -> list[Tensor]: ...


def hessian_diagonal(
    loss_fn: LossFn,
    params: Iterable[Tensor],
    data: object,
    method: Diagonal = ONE_PROBE,
    generator: torch.Generator | None = None,
    **options,
) -> list[Tensor]:
    """D of the loss over `data`, one tensor for each parameter. Arguments: as of `Objective`, to which `options` go."""
    return estimate(Objective(loss_fn, params, data, **options), method, generator)[0]


def estimate(objective: Objective, method: Diagonal, generator: torch.Generator | None = None) -> tuple[list[Tensor], Cost]:
    """D, and what it cost in gradients and Hessian-vector products over all of the data."""
    before = objective.cost
    D = method(objective, generator)
    return D, objective.cost - before
