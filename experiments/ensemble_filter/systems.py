"""The chaotic systems, how they are observed, and what is to be estimated: true states and their observations.

    Lorenz-63           x' = 10 (y - x),  y' = x (28 - z) - y,  z' = x y - 8 z / 3; all of it observed every 0.25, variance 2:
                        the set-up of Sakov and others (2012), Table 1, as DAPPER has it
    Lorenz-63, sensor   the same, of which one number is observed, 10 tanh(x / 10) with variance 1, every 0.1: a sensor of one
                        component that saturates
    Lorenz-96           x_j' = (x_{j+1} - x_{j-2}) x_{j-1} - x_j + 8 on a ring of 40; every second one observed every 0.4,
                        variance 0.5: the set-up of Spantini and others (2022), as DAPPER has it

Steps are those of the classical Runge-Kutta method. There is no noise in the dynamics. A run begins on the attractor: after
`SPIN_UP` units of time from a random state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SPIN_UP = 20.0


def lorenz63(u: Tensor) -> Tensor:
    x, y, z = u.unbind(-1)
    return torch.stack((10 * (y - x), x * (28 - z) - y, x * y - 8 * z / 3), -1)


def lorenz96(x: Tensor) -> Tensor:
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + 8


def step(f: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    """One step of the classical Runge-Kutta method, of order 4."""
    k1 = f(x)
    k2 = f(x + dt / 2 * k1)
    k3 = f(x + dt / 2 * k2)
    k4 = f(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@dataclass(frozen=True)
class System:
    """Dynamics f of `d` components, with `steps` steps of `dt` between two observations h(x) + r eps of those `observed`."""

    f: Callable[[Tensor], Tensor]
    d: int
    dt: float
    steps: int
    observed: tuple[int, ...]
    r: float
    h: Callable[[Tensor], Tensor] = lambda x: x
    ring: bool = False

    def predicted(self, x: Tensor) -> Tensor:
        """h(x) (..., q)."""
        return self.h(x[..., list(self.observed)])

    def forward(self, x: Tensor) -> Tensor:
        """From one observation to the next."""
        for _ in range(self.steps):
            x = step(self.f, x, self.dt)
        return x

    def truth(self, runs: int, cycles: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Where the runs begin (S, d), their states at every observation (cycles, S, d), the observations (cycles, S, q)."""
        x = 1.0 + torch.randn(runs, self.d, generator=generator, dtype=torch.float64)
        for _ in range(round(SPIN_UP / self.dt)):
            x = step(self.f, x, self.dt)
        first, states = x, []
        for _ in range(cycles):
            x = self.forward(x)
            states.append(x)
        found = torch.stack(states)
        noise = torch.randn(cycles, runs, len(self.observed), generator=generator, dtype=torch.float64)
        return first, found, self.predicted(found) + self.r * noise


SYSTEMS = {
    "Lorenz-63": System(lorenz63, 3, 0.025, 10, (0, 1, 2), 2**0.5),
    "Lorenz-63, sensor": System(lorenz63, 3, 0.025, 4, (0,), 1.0, lambda x: 10 * torch.tanh(x / 10)),
    "Lorenz-96": System(lorenz96, 40, 0.04, 10, tuple(range(0, 40, 2)), 0.5**0.5, ring=True),
}
