r"""Transport with a mesh that is made anew at every interval of so many time steps, from the coarsest one, by so many cuts.

At the start of an interval a rule sees u_h on the mesh of the last one, and cuts cells of the new mesh; u_h is projected on
it, and carried over it for the interval's time steps. What leaves the fine cells in that time is lost. Oracles see the true
function u in place of u_h:

    true error            how far the squared error of u falls by a cut, now: greedy, as estimators are
    true error, ahead     the mean of that over the interval's time steps, the present one among them
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .problems import coefficients, on_finest, projected, shifted, squared_distance
from .quadtree import Grid, Mesh, Tables, project


@dataclass
class Flow:
    """Functions (b, y, x, 4) on the finest cells, with the squared errors `lost` (b,) there, and their velocities (b, 2), rows
    and columns of finest cells in a time step. `now` is u_h, `true` is u."""

    grid: Grid
    true: Tensor
    lost: Tensor
    velocity: Tensor
    steps: int  # in an interval

    def __post_init__(self):
        self.now = self.true

    def only(self, which: np.ndarray) -> "Flow":
        """Those of the numbers `which`, from the start."""
        return Flow(self.grid, self.true[which], self.lost[which], self.velocity[which], self.steps)

    def seen(self) -> Tables:
        """What u_h tells."""
        return project(self.grid, self.now)

    def present(self) -> Tables:
        """What u tells."""
        return project(self.grid, self.true)

    def ahead(self) -> Tables:
        """What u tells of the whole interval."""
        times = [project(self.grid, shifted(self.true, self.velocity * k)) for k in range(self.steps + 1)]
        error, fall = (torch.stack([getattr(t, name) for t in times]).mean(0) for name in ("error", "fall"))
        return Tables(times[0].coefficients, error, fall)

    def carry(self, mesh: Mesh) -> Tensor:
        """Go to the end of the interval on this mesh: (b,) squared errors."""
        self.now = on_finest(mesh, coefficients(mesh, self.seen()))
        for _ in range(self.steps):
            self.now, self.true = projected(mesh, shifted(self.now, self.velocity)), shifted(self.true, self.velocity)
        return squared_distance(self.now, self.true) + self.lost


def velocities(count: int, rng: np.random.Generator) -> Tensor:
    """(count, 2): any of the twelve with two finest cells along one axis and at most one along the other."""
    fast, slow, axis = rng.choice([-2, 2], count), rng.integers(-1, 2, count), rng.integers(0, 2, count)
    return torch.from_numpy(np.where(axis[:, None] == [0, 1], fast[:, None], slow[:, None]))


def journey(flow: Flow, intervals: int, make: Callable[[Flow], Mesh]) -> Iterator[tuple[Mesh, Tensor]]:
    """The mesh that `make` gives for every interval, and the squared errors (b,) at its end."""
    for _ in range(intervals):
        mesh = make(flow)
        yield mesh, flow.carry(mesh)
