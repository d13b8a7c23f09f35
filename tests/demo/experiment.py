"""Gradient descent on f(theta) = theta^2 from random starts: small enough for the tests of the machinery."""

from dataclasses import dataclass

import numpy as np

from secondlook.study.declare import case
from secondlook.study.parameters import Fraction, PositiveInt


@dataclass(frozen=True)
class Decay:
    steps: PositiveInt
    lr: Fraction


def _descend(steps: int, lr: float, seed: int):
    theta = np.random.default_rng(seed).uniform(1, 2)
    for t in range(steps + 1):
        yield {"method": "GD", "step": t, "metric": "loss", "value": theta**2}
        theta -= lr * 2 * theta


@case(Decay)
def decay(p: Decay, seed: int):
    return _descend(p.steps, p.lr, seed)
