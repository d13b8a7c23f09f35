"""Six ways to step on the double well. A step p is made from g and H = Q diag(lambda) Q^T alone:

    GD                      p = -lr g
    Newton                  p = -H^-1 g
    damped Newton           p = -lr H^-1 g
    Levenberg               p = -(H + mu I)^-1 g,  mu = max(0, margin - lambda_min)
    absolute-value Newton   p = -Q diag(1/|lambda|) Q^T g
    trust-region Newton     p = argmin g^T p + p^T H p / 2  over  |p| <= radius

All but the first and the third are the library's Newton. Damped Newton takes a hundred steps a walk, which would be most of the
stage's time, and is written out; a test holds it equal to the library's.

Source: Dauphin et al. (2014) for the absolute value; Nocedal and Wright (2006), algorithm 4.1 for the radius and section 4.3
for the subproblem (also Conn, Gould and Toint (2000), chapter 7). Deviations: none.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secondlook.curvature.blocks import BlockHessian
from secondlook.optim import Newton
from secondlook.optim.directions import Absolute, Adaptive, Damped, Direction, Plain, TrustRegion

from .double_well import Stepper, gradient, hessian, value


def gradient_descent(lr: float) -> Stepper:
    return lambda theta: theta - lr * gradient(theta)


def damped_newton(lr: float) -> Stepper:
    return lambda theta: theta - lr * np.linalg.solve(hessian(theta), gradient(theta))


def newton(direction: Direction | Adaptive, lr: float = 1.0) -> Stepper:
    """The library's optimiser; what it adapts, it remembers from step to step."""
    parameter = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = Newton([parameter], lr, direction=direction)

    def step(theta):
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(theta))
        optimizer.step(lambda: value(parameter))
        return parameter.detach().numpy().copy()

    return step


@dataclass(frozen=True)
class Levenberg:
    """Damped by just so much that the least eigenvalue is `margin`, and not at all where it is larger."""

    margin: float
    start = None

    def __call__(self, g: Tensor, H: BlockHessian, size: None = None) -> Tensor:
        least = min(torch.linalg.eigvalsh(matrices).min().item() for _, matrices in H.groups)
        return Damped(max(0.0, self.margin - least))(g, H)


def steppers(lr: float, margin: float, radius: float, max_radius: float) -> dict[str, Stepper]:
    """The methods, to be made anew for every walk: a trust region remembers its radius."""
    return {
        "GD": gradient_descent(lr),
        "Newton": newton(Plain()),
        "damped Newton": damped_newton(lr),
        "Levenberg": newton(Levenberg(margin)),
        "absolute-value Newton": newton(Absolute()),
        "trust-region Newton": newton(TrustRegion(radius, max_radius)),
    }
