r"""The functions that meshes are to resolve, and their transport.

    steps      sum_k a_k (1 + tanh((x . n_k - d_k) / delta_k)) / 2       steep fronts along lines
    bumps      sum_k a_k exp(-|x - c_k|^2 / (2 w_k^2))
    circles    sum_k a_k (1 + tanh((r_k - |x - c_k|) / delta_k)) / 2     steep fronts along circles

a_k is +-1, lines pass through points of the square; sizes are drawn evenly from the ranges that the parameters give. On a
periodic square x - c_k is the shortest way round; r_k is then small enough for the fronts not to meet themselves.

Transport, u_t + v . grad u = 0, on a periodic square: a time step carries the function on the mesh exactly by v dt, and
projects it on the same mesh (Lagrange-Galerkin). v dt is a whole number of finest cells, so that the shift is a roll of the
coefficients and all error is that of the mesh.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .names import FAMILIES
from .quadtree import Grid, Mesh, Tables, approximate, children, project


@dataclass(frozen=True)
class Sizes:
    """Ranges of the widths of fronts, of bumps, and of circles' radii."""

    front: tuple[float, float]
    bump: tuple[float, float]
    radius: tuple[float, float]


def functions(
    family: str, count: int, features: int, sizes: Sizes, grid: Grid, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """`count` functions of a family, one of FAMILIES, each a sum of so many `features`: their coefficients on the finest cells,
    and their squared errors there."""
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    found = []
    for _ in range(count):
        parts = [_feature(family, sizes, grid.periodic, rng) for _ in range(features)]
        found.append(approximate(grid, lambda x, y, parts=parts: sum(part(x, y) for part in parts)))
    return torch.cat([c for c, _ in found]), torch.cat([r for _, r in found])


def _feature(family: str, sizes: Sizes, periodic: bool, rng: np.random.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    sign, cx, cy = rng.choice([-1.0, 1.0]), *rng.uniform(0, 1, 2)
    front, bump, radius = (rng.uniform(*ends) for ends in (sizes.front, sizes.bump, sizes.radius))
    angle = rng.uniform(0, 2 * np.pi)

    def away(x: Tensor, c: float) -> Tensor:
        return x - c - (x - c).round() if periodic else x - c

    def u(x: Tensor, y: Tensor) -> Tensor:
        dx, dy = away(x, cx), away(y, cy)
        if family == "bumps":
            return sign * torch.exp(-(dx**2 + dy**2) / (2 * bump**2))
        inside = dx * np.cos(angle) + dy * np.sin(angle) if family == "steps" else radius - (dx**2 + dy**2).sqrt()
        return sign * (1 + torch.tanh(inside / front)) / 2

    return u


def on_finest(mesh: Mesh, c: Tensor) -> Tensor:
    """(b, y, x, 4): the function with coefficients `c` (b, n, 4) on the mesh, on the finest cells."""
    grid = mesh.grid
    fine = torch.zeros(len(c), grid.coarse, grid.coarse, 4, dtype=c.dtype)
    for level, size in enumerate(grid.sizes):
        fine = fine if level == 0 else children(fine)
        at = torch.arange(size) << (grid.depth - level)
        slot = mesh.slot[:, at[:, None], at].long()  # the cell of the mesh at each cell of the level
        own = c.gather(1, slot.flatten(1)[..., None].expand(-1, -1, 4)).view_as(fine)
        same = mesh.level.gather(1, slot.flatten(1)).view(slot.shape) == level
        fine = torch.where(same[..., None], own, fine)
    return fine


def projected(mesh: Mesh, fine: Tensor) -> Tensor:
    """The L2 projection on the mesh of a function on the finest cells, on these."""
    return on_finest(mesh, coefficients(mesh, project(mesh.grid, fine)))


def coefficients(mesh: Mesh, tables: Tables) -> Tensor:
    """(b, n, 4) of the projection on the mesh."""
    return tables.coefficients.gather(1, mesh.cells[..., None].expand(-1, -1, 4))


def shifted(fine: Tensor, velocity: Tensor) -> Tensor:
    """The function carried by `velocity` (b, 2), rows and columns of whole finest cells, on the periodic square."""
    size = fine.shape[1]
    y, x = ((torch.arange(size) - velocity[:, axis, None]) % size for axis in (0, 1))
    return fine[torch.arange(len(fine))[:, None, None], y[:, :, None], x[:, None, :]]


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """(b,): integral of the squared difference of two functions on the finest cells."""
    return ((a - b) ** 2).sum((1, 2, 3)) / a.shape[1] ** 2
