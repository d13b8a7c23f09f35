"""Six ways to step on the double well. A step p is made from g and H = Q diag(lambda) Q^T alone:

    GD                      p = -lr g
    Newton                  p = -H^-1 g
    damped Newton           p = -lr H^-1 g
    Levenberg               p = -(H + mu I)^-1 g,  mu = max(0, margin - lambda_min)
    absolute-value Newton   p = -Q diag(1/|lambda|) Q^T g
    trust-region Newton     p = argmin g^T p + p^T H p / 2  over  |p| <= radius

All but the first and the third go in the library's directions, and the radius follows its rule. f, g and H are in closed form
here: the library's Newton differentiates, and a walk of it takes many times as long. Damped Newton takes a hundred steps
and is written out. A test holds every walk equal to that of the library's optimiser.

Source: Dauphin et al. (2014) for the absolute value; Nocedal and Wright (2006), algorithm 4.1 for the radius and section 4.3
for the subproblem (also Conn, Gould and Toint (2000), chapter 7). Deviations: none.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secondlook.curvature.blocks import BlockHessian
from secondlook.optim.directions import Absolute, Adaptive, Damped, Direction, Plain, TrustRegion

from .double_well import Stepper, gradient, hessian, value


def gradient_descent(lr: float) -> Stepper:
    return lambda theta: theta - lr * gradient(theta)


def damped_newton(lr: float) -> Stepper:
    return lambda theta: theta - lr * np.linalg.solve(hessian(theta), gradient(theta))


class Matrix(BlockHessian):
    """A Hessian that is known, H (2, 2), as one block."""

    def __init__(self, H: np.ndarray):
        self.blocks, self.groups = [[0, 1]], [(torch.tensor([[0, 1]]), torch.from_numpy(H)[None])]


def newton(direction: Direction | Adaptive) -> Stepper:
    """The step of the library's Newton in this direction; what it adapts, it remembers from step to step."""
    size = direction.start

    def step(theta):
        nonlocal size
        g, H = gradient(theta), hessian(theta)
        p = direction(torch.from_numpy(g), Matrix(H), size).numpy()
        if size is None:
            return theta + p
        promised, trial = -(g @ p + p @ H @ p / 2), theta + p
        if promised <= 10 * np.finfo(float).eps * abs(value(theta)):
            return theta
        ratio = (value(theta) - value(trial)) / promised
        size = direction.resize(size, ratio, np.linalg.norm(p))
        return trial if ratio > direction.accept else theta

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
