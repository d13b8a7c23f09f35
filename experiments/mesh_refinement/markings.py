r"""Which cell to cut next, by rules: a score for every cell, of which the highest is cut, one at a time, as the budget allows.

    ZZ            Zienkiewicz and Zhu's estimate of the energy error, |G u_h - grad u_h| over the cell. G u_h is the bilinear
                  interpolant of the gradients at the corners, averaged over the sectors about each corner
    ZZ, L2        side times that, which is of the order of the error in L2, by which meshes are judged here
    ZZ, bulk      the same, marked after Doerfler: the fewest cells that hold a share `bulk` of the squared estimates are all
                  cut before anything is estimated again
    jumps         side times the root mean square jump of u_h at the corners: at hand where elements are discontinuous
    true error    how far the squared error falls by the cut: the oracle, which looks one cut ahead
    uniform       the largest cell, in random order
    random        any cell

A cell that is one of the finest is never cut.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .problems import coefficients
from .quadtree import Mesh, Tables, corners

Score = Callable[[Mesh, Tables], Tensor]  # (b, n) of the cells

_LINE = torch.tensor([[2, 1], [1, 2]], dtype=torch.float64) / 6
MASS = torch.kron(_LINE, _LINE)  # of the bilinear functions that are 1 at one corner, on a square of side 1


def zz(mesh: Mesh, tables: Tables, power: int = 0) -> Tensor:
    """side^power times the norm over each cell of recovered less own gradient."""
    around = corners(mesh, coefficients(mesh, tables))
    square = torch.zeros_like(mesh.side)
    for g in around.gradient:
        mean = (g * around.there).sum(-1) / around.there.sum(-1)
        difference = mean - around.ours(g)[..., 0]
        square += torch.einsum("bnc,cd,bnd->bn", difference, MASS, difference)
    return square.sqrt() * mesh.side ** (1 + power)


def zz_in_l2(mesh: Mesh, tables: Tables) -> Tensor:
    """Of the order of the error in L2."""
    return zz(mesh, tables, 1)


def jumps(mesh: Mesh, tables: Tables) -> Tensor:
    """Side times the root mean square jump at the corners, over the sectors beside the cell."""
    around = corners(mesh, coefficients(mesh, tables))
    square = (around.value - around.ours(around.value)) ** 2 * around.there  # 0 in the cell itself
    return (square.sum((-1, -2)) / (around.there * (1 - around.own)).sum((-1, -2))).sqrt() * mesh.side


def fall(mesh: Mesh, tables: Tables) -> Tensor:
    """How far the squared error falls when a cell is cut."""
    return tables.fall.gather(1, mesh.cells)


class Bulk:
    """Scores of cells of one mesh that are marked in bulk: those of the last marking, while marked cells are left."""

    def __init__(self, estimate: Score, share: float):
        self.estimate, self.share, self.left = estimate, share, None

    def __call__(self, mesh: Mesh, tables: Tables) -> Tensor:
        now = self.estimate(mesh, tables).masked_fill(mesh.level == mesh.grid.depth, 0)
        if self.left is None:
            self.left = torch.zeros_like(now)
        new = now.shape[1] - self.left.shape[1]
        left = torch.cat([self.left, torch.zeros(len(now), new, dtype=now.dtype)], 1)
        left = torch.where((left > 0).any(1, keepdim=True), left, marked(now, self.share))
        self.left = left.scatter(1, left.argmax(1, keepdim=True), 0.0)  # it is cut now; its first child takes its place
        return left


def marked(estimate: Tensor, share: float) -> Tensor:
    """(b, n): the estimates of the fewest cells whose squares sum to `share` of all, and 0 elsewhere."""
    ordered, order = estimate.sort(1, descending=True)
    squares = ordered**2
    before = squares.cumsum(1) - squares
    return torch.zeros_like(estimate).scatter(1, order, ordered * (before < share * squares.sum(1, keepdim=True)))


SIDES = {"ZZ, L2": 2, "jumps": 1}  # with which power of its side the estimate of a cell goes, for a function as steep


def rules(generator: torch.Generator) -> dict[str, Score]:
    """The rules by name that may be followed on any mesh."""

    def noise(mesh: Mesh) -> Tensor:
        return torch.rand(mesh.level.shape, generator=generator, dtype=torch.float64)

    return {
        "ZZ": zz,
        "ZZ, L2": zz_in_l2,
        "jumps": jumps,
        "true error": fall,
        "uniform": lambda mesh, _: noise(mesh) - 2 * mesh.level,
        "random": lambda mesh, _: noise(mesh),
    }


def spend(mesh: Mesh, tables: Tables, cuts: int, score: Score) -> Tensor:
    """Cut so many cells of every mesh, each time that with the highest score: (b, cuts + 1) squared errors on the way."""
    errors = [tables.error.gather(1, mesh.cells).sum(1)]
    for _ in range(cuts):
        which = score(mesh, tables).masked_fill(mesh.level == mesh.grid.depth, -torch.inf).argmax(1)
        errors.append(errors[-1] - fall(mesh, tables).gather(1, which[:, None])[:, 0])
        mesh.refine(which)
    return torch.stack(errors, 1)
