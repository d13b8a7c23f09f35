"""One training step of any optimiser, and what its estimates of curvature cost.

A step is a function `step(x, y) -> loss` on one batch: gradient, curvature where it is due, update. The loss is a tensor
without a graph, taken before the update. `eager_step` makes one; a compiled or captured step that takes the same arguments
can stand in its place.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from secondlook.curvature.gauss_newton import GaussNewtonBartlett
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost
from secondlook.optim.base import SecondOrder
from secondlook.optim.kfac import KFAC

Criterion = Callable[[Tensor, Tensor], Tensor]  # (outputs (B, ...), y (B, ...)) -> scalar, a mean over the B examples
Step = Callable[[Tensor, Tensor], Tensor]

ONE_PASS_BACKWARD = Cost(gradients=2 / 3)  # a gradient is three matrix products a layer: one forward, two backward


def differentiate(optimizer: torch.optim.Optimizer, loss: Tensor, outputs: Tensor) -> None:
    """Put into `.grad`, and into the optimiser, all that its step needs: the one place where optimisers differ."""
    if isinstance(optimizer, SecondOrder):
        optimizer.backward(loss, curvature_of=outputs if isinstance(optimizer.diagonal, GaussNewtonBartlett) else None)
        return
    if isinstance(optimizer, KFAC) and optimizer.fisher != "empirical":
        optimizer.curvature(outputs)
    loss.backward()


def eager_step(optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion) -> Step:
    """The step of `optimizer` on criterion(model(x), y), operation by operation."""

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        outputs = model(x)
        loss = criterion(outputs, y)
        differentiate(optimizer, loss, outputs)
        optimizer.step()
        return loss.detach()

    return step


def price(optimizer: torch.optim.Optimizer) -> Cost:
    """What one estimate of curvature costs beside the step's gradient, in passes over the batch.

    Raises ValueError for an estimator whose cost depends on more than itself.
    """
    if isinstance(optimizer, SecondOrder):
        if isinstance(optimizer.diagonal, Hutchinson):
            return Cost(products=optimizer.diagonal.probes)
        if isinstance(optimizer.diagonal, GaussNewtonBartlett):
            return ONE_PASS_BACKWARD
        raise ValueError(f"price must be given for the estimator {type(optimizer.diagonal).__name__}")
    if isinstance(optimizer, KFAC) and optimizer.fisher != "empirical":
        if optimizer.fisher == "mc":
            return ONE_PASS_BACKWARD
        raise ValueError("price must be given for K-FAC with fisher='exact': one pass backward for each output")
    return Cost()


def estimates(optimizer: torch.optim.Optimizer) -> int:
    """How many estimates of curvature the optimiser has had; OASIS takes `warmup` of them at its first step."""
    had = max((state.get("estimates", 0) for state in optimizer.state.values()), default=0)
    return had + getattr(optimizer, "warmup", 1) - 1 if had else 0
