r"""Functions on a square that is cut into squares, each of which may be cut into four: a batch of problems at a time.

On a cell of side h, with xi and eta from -1 to 1, the space is that of the bilinear functions, discontinuous from cell to
cell, in the orthonormal basis

    phi = (1, sqrt(3) xi, sqrt(3) eta, 3 xi eta),    |u|^2 over the cell = h^2 |c|^2

With T_s phi(xi') = phi((xi' + s) / 2), s = -1, 1 the half in which xi' runs, the L2 projection of four children on their
parent is p = 1/4 sum_s T_s c_s, and a parent's function on a child is T_s' p: products of small matrices, without quadrature.
So the error of every cell that a mesh might have is a table, and that of a mesh is a sum over its cells: nothing is solved.
Meshes are those of nonconforming refinement: sides may hang, and neighbours differ by any number of levels.

Cells     of all levels are numbered through: `first[l] + row * size[l] + column`.
Axes      b problem, n cell of its mesh, c corner of the cell, s sector about the corner, y and x finest cells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

ROOT3 = 3**0.5


@dataclass(frozen=True)
class Grid:
    """All cells that meshes on a square of side 1 may have: `coarse` to a side at first, cut at most `depth` times."""

    coarse: int
    depth: int
    periodic: bool = False

    @property
    def finest(self) -> int:
        return self.coarse << self.depth

    @property
    def sizes(self) -> list[int]:
        """Cells to a side, by level."""
        return [self.coarse << level for level in range(self.depth + 1)]

    @property
    def first(self) -> Tensor:
        """The number of the first cell, by level."""
        return torch.tensor([0, *np.cumsum([size**2 for size in self.sizes[:-1]]).tolist()])


@cache
def _halves() -> Tensor:
    """(4, 4, 4): T of the children (0, 0), (0, 1), (1, 0), (1, 1) as (row, column)."""
    one = {s: torch.tensor([[1, 0], [s * ROOT3 / 2, 0.5]], dtype=torch.float64) for s in (-1, 1)}
    return torch.stack([torch.kron(one[y], one[x]) for y in (-1, 1) for x in (-1, 1)])


def children(parent: Tensor) -> Tensor:
    """(b, y, x, 4) coefficients on cells of half the side, which give the same function."""
    b, y, x, _ = parent.shape
    c = torch.einsum("byxk,skm->byxsm", parent, _halves()).view(b, y, x, 2, 2, 4)
    return c.permute(0, 1, 3, 2, 4, 5).reshape(b, 2 * y, 2 * x, 4)


def parents(child: Tensor) -> Tensor:
    """(b, y, x, 4) coefficients of the L2 projection on cells of twice the side."""
    b, y, x, _ = child.shape
    c = child.view(b, y // 2, 2, x // 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(b, y // 2, x // 2, 4, 4)
    return torch.einsum("byxsm,skm->byxk", c, _halves()) / 4


def _four(of_children: Tensor) -> Tensor:
    """(b, y, x) sums over the four children of each cell."""
    b, y, x = of_children.shape
    return of_children.view(b, y // 2, 2, x // 2, 2).sum((2, 4))


@dataclass(frozen=True)
class Tables:
    """Of every cell of a grid: `coefficients` (b, cells, 4) of the projection, its squared error, and how far that falls when
    the cell is cut; a finest cell is never cut, and its fall is 0."""

    coefficients: Tensor
    error: Tensor
    fall: Tensor


def project(grid: Grid, finest: Tensor, residual: Tensor | float = 0.0) -> Tables:
    """The tables of functions with (b, y, x, 4) coefficients on the finest cells, where their squared error is `residual`."""
    none = torch.zeros_like(finest[..., 0])
    coefficients, error, fall = [finest], [residual + none], [none]
    for size in reversed(grid.sizes[1:]):
        coefficients.insert(0, parents(coefficients[0]))
        details = coefficients[1] - children(coefficients[0])  # what the cut adds: orthogonal to the rest
        fall.insert(0, _four((details**2).sum(-1)) / size**2)
        error.insert(0, _four(error[0]) + fall[0])
    return Tables(
        torch.cat([c.flatten(1, 2) for c in coefficients], 1),
        *(torch.cat([e.flatten(1) for e in of_levels], 1) for of_levels in (error, fall)),
    )


def approximate(grid: Grid, function: Callable[[Tensor, Tensor], Tensor], points: int = 4) -> tuple[Tensor, Tensor]:
    """Coefficients (b, y, x, 4) of the projections of functions (b, ...) of x and y on the finest cells, and their squared
    errors (b, y, x), by Gauss's rule with points^2 points a cell."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(points))
    size = grid.finest
    at = ((torch.arange(size)[:, None] + (nodes + 1) / 2) / size).flatten()
    u = function(at[None, :], at[:, None]).view(-1, size, points, size, points)
    basis = torch.stack([torch.ones_like(nodes), ROOT3 * nodes]) * weights / 2  # k, q
    c = torch.einsum("byqxr,kq,lr->byxkl", u, basis, basis).flatten(-2)
    squares = torch.einsum("byqxr,q,r->byx", u**2, weights / 2, weights / 2)
    return c, (squares - (c**2).sum(-1)).clamp(min=0) / size**2


@dataclass
class Mesh:
    """Meshes of a batch, all with as many cells: `level`, `row`, `column` (b, n), and `slot` (b, y, x), which cell of the mesh
    holds a finest cell. `refine` replaces a cell by its first child, and adds the other three at the end."""

    grid: Grid
    level: Tensor
    row: Tensor
    column: Tensor
    slot: Tensor

    @classmethod
    def uniform(cls, grid: Grid, batch: int) -> "Mesh":
        """The coarsest mesh of every problem."""
        row, column = (a.flatten().repeat(batch, 1) for a in torch.meshgrid(*[torch.arange(grid.coarse)] * 2, indexing="ij"))
        fine = (torch.arange(grid.finest) >> grid.depth).short()
        return cls(grid, torch.zeros_like(row), row, column, (fine[:, None] * grid.coarse + fine).repeat(batch, 1, 1))

    @property
    def cells(self) -> Tensor:
        """(b, n) numbers in the tables of the grid."""
        return self.grid.first[self.level] + self.row * (self.grid.coarse << self.level) + self.column

    @property
    def side(self) -> Tensor:
        """(b, n) sides of the cells."""
        return 1 / (self.grid.coarse << self.level).double()

    def refine(self, which: Tensor) -> None:
        """Cut cell `which` (b,) of every problem. Raises ValueError where it is a finest one."""
        level, row, column = (a.gather(1, which[:, None]) for a in (self.level, self.row, self.column))
        if (level == self.grid.depth).any():
            raise ValueError("a finest cell cannot be cut")
        count = self.level.shape[1]
        below = self.grid.depth - level - 1  # levels from the children to the finest cells
        fine = (torch.arange(self.grid.finest) >> below).short()  # in children's sides
        inside = (fine >> 1 == row)[:, :, None] & (fine >> 1 == column)[:, None, :]
        child = 2 * (fine & 1)[:, :, None] + (fine & 1)[:, None, :]
        names = torch.where(child == 0, which[:, None, None].short(), child + (count - 1))
        self.slot = torch.where(inside, names, self.slot)
        new = (
            level + 1 + torch.zeros(4, dtype=torch.long),
            2 * row + torch.tensor([0, 0, 1, 1]),
            2 * column + torch.tensor([0, 1, 0, 1]),
        )
        self.level, self.row, self.column = (
            torch.cat([old.scatter(1, which[:, None], four[:, :1]), four[:, 1:]], 1)
            for old, four in zip((self.level, self.row, self.column), new, strict=True)
        )


@dataclass(frozen=True)
class Corners:
    """About the corners of every cell, by sector: which cell of the mesh is there (`slot`), whether it is in the square
    (`there`, 0 or 1), whether it is the cell itself (`own`), and that cell's function and gradient at the corner; all
    (b, n, c, s)."""

    slot: Tensor
    there: Tensor
    own: Tensor
    value: Tensor
    gradient: tuple[Tensor, Tensor]

    def ours(self, of_sectors: Tensor) -> Tensor:
        """(b, n, c, 1): what the cell itself has at its corner."""
        return (of_sectors * self.own).sum(-1, keepdim=True)


_CORNER = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])  # (y, x) of corners, and of sectors about one


def corners(mesh: Mesh, c: Tensor) -> Corners:
    """What meets at the corners of the cells with coefficients `c` (b, n, 4)."""
    grid, batch = mesh.grid, len(c)
    width = 1 << (grid.depth - mesh.level)  # in finest cells
    fine, outside = [], False
    for start, axis in ((mesh.row, 0), (mesh.column, 1)):
        vertex = (start * width)[..., None] + _CORNER[:, axis] * width[..., None]  # b, n, c
        at = vertex[..., None] - 1 + _CORNER[:, axis]  # b, n, c, s: the finest cell of the sector
        outside = outside | (at < 0) | (at >= grid.finest)
        fine.append(at % grid.finest)
    y, x = fine
    slot = mesh.slot.flatten(1).gather(1, (y * grid.finest + x).flatten(1)).long()
    cells = torch.cat([c, torch.stack([width, mesh.row * width, mesh.column * width], -1)], -1)  # and where they begin
    count = slot.shape[1] // 16
    met = cells.flatten(0, 1).index_select(0, (slot + count * torch.arange(batch)[:, None]).flatten())
    *k, w, top, left = met.view(*y.shape, -1).unbind(-1)
    eta = 2 * (y + 1 - _CORNER[:, 0] - top) / w - 1
    xi = 2 * (x + 1 - _CORNER[:, 1] - left) / w - 1
    per = 2 * grid.finest / w  # d xi / dx
    there = (~outside if not grid.periodic else torch.ones_like(outside)).double()
    return Corners(
        slot.view_as(y),
        there,
        (_CORNER.flip(0)[:, None] == _CORNER[None]).all(-1).double().expand_as(there),
        k[0] + ROOT3 * (k[1] * xi + k[2] * eta) + 3 * k[3] * xi * eta,
        (per * (ROOT3 * k[1] + 3 * k[3] * eta), per * (ROOT3 * k[2] + 3 * k[3] * xi)),
    )
