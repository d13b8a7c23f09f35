r"""Landscapes: functions of one or two numbers with known minima, for many thetas at once.

    Beale           (1.5 - x + xy)^2 + (2.25 - x + xy^2)^2 + (2.625 - x + xy^3)^2
    long valley     5 x^2 + (y^2 - 4)^2 / 256          saddle at the origin, curvatures 10 across and -1/16 along the valley
    saddle          x^2/2 - y^2/2 + y^4/4              saddle at the origin, curvatures 1 and -1
    Rosenbrock      (1 - x)^2 + 100 (y - x^2)^2
    Rastrigin       20 + x^2 + y^2 - 10 cos(2 pi x) - 10 cos(2 pi y)
    ill-conditioned (100 u^2 + w^2) / 2                with u = x, w = y
    rotated         the same                           with u = (x + y)/sqrt(2), w = (y - x)/sqrt(2)
    bowl            10 x^2 + y^2                       the AdaHessian paper's example of one-step convergence
    ripples         x^2 + 0.1 x sin(20 pi x)           theta is one number; the lowest points are next to 0, not at 0

Shapes: theta (..., 2), of `ripples` (..., 1); values (...). Every cell is independent of the others: the gradient of the summed
values holds the gradients of all cells, and H of the sum is block diagonal over cells, 2 x 2 each.

Source: Beale's, Rosenbrock's and Rastrigin's functions in their standard form. Long valley and saddle are named after two
animations by A. Radford. We know no formula of his: these are ours, with quartic terms so that both have minima.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Landscape:
    """`value`: theta (..., n) to (...). `minima`: all global ones. `lowest`: the value there."""

    value: Callable[[Tensor], Tensor]
    minima: tuple[tuple[float, ...], ...]
    lowest: float = 0.0

    def distance(self, theta: Tensor) -> Tensor:
        """(...): from theta (..., n) to the nearest minimum."""
        minima = torch.tensor(self.minima, dtype=theta.dtype)  # (number, n)
        return torch.linalg.vector_norm(theta.unsqueeze(-2) - minima, dim=-1).amin(-1)


def gradient_noise(theta: Tensor, noise: Tensor) -> Tensor:
    """(...): a linear term that adds `noise` (..., n) to the gradient at theta (..., n), and nothing to the Hessian."""
    return (noise * theta).sum(-1)


def beale(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def long_valley(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return 5 * x**2 + (y**2 - 4) ** 2 / 256


def saddle(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return x**2 / 2 - y**2 / 2 + y**4 / 4


def rosenbrock(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rastrigin(theta: Tensor) -> Tensor:
    return (10 + theta**2 - 10 * torch.cos(2 * math.pi * theta)).sum(-1)


def ill_conditioned(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return (100 * x**2 + y**2) / 2


def rotated(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return (100 * (x + y) ** 2 + (y - x) ** 2) / 4


def bowl(theta: Tensor) -> Tensor:
    x, y = theta.unbind(-1)
    return 10 * x**2 + y**2


def ripples(theta: Tensor) -> Tensor:
    (x,) = theta.unbind(-1)
    return x**2 + 0.1 * x * torch.sin(20 * math.pi * x)


ORIGIN = ((0.0, 0.0),)
RIPPLE = 0.07336549466562718  # where the derivative 2x + 0.1 sin(20 pi x) + 2 pi x cos(20 pi x) is zero next to 3/40

LANDSCAPES = {
    "Beale": Landscape(beale, ((3.0, 0.5),)),
    "long valley": Landscape(long_valley, ((0.0, 2.0), (0.0, -2.0))),
    "saddle": Landscape(saddle, ((0.0, 1.0), (0.0, -1.0)), -0.25),
    "Rosenbrock": Landscape(rosenbrock, ((1.0, 1.0),)),
    "Rastrigin": Landscape(rastrigin, ORIGIN),
    "ill-conditioned": Landscape(ill_conditioned, ORIGIN),
    "rotated": Landscape(rotated, ORIGIN),
    "bowl": Landscape(bowl, ORIGIN),
    "ripples": Landscape(ripples, ((RIPPLE,), (-RIPPLE,)), ripples(torch.tensor([RIPPLE], dtype=torch.float64)).item()),
}
