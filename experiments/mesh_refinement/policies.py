r"""Policies that cut meshes, and the gradient by which they learn.

A network gives every cell a score from what is observed there, and the next cell is drawn with softmax probabilities over all
cells of the mesh. The number of weights does not depend on the mesh, and the order of its cells does not matter. What is
observed of a cell is computed from u_h and the mesh alone, never from the true function; logarithms are of the quantity plus
1e-6:

    log10 of the root mean square and of the largest jump of u_h at the cell's corners
    log10 of side times the root mean square jump of grad u_h there
    log10 of the rise of u_h over the cell, and of the size of its product term
    the cell's level, and the share of the budget that is left
    where the function is carried: the first five also of the cells upstream, at even distances up to a whole interval's way

None of them changes when the square is turned or mirrored. They are what estimators are made of; no estimate is among them.

    independent         score_i = f(o_i)
    message passing     s = a(o);  twice: s_i <- s_i + b(s_i, mean of s over the sectors at its corners);  score_i = f(s_i)

Several episodes are drawn for each problem. With G_t the logarithm of the error at step t less that at the end, and the mean of
the problem's other episodes as a baseline, the surrogate

    L = -mean over problems and episodes of sum_t (G_t - baseline_t) pi(a_t) / pi(a_t)',    pi' held constant

has REINFORCE's gradient, without bias, and as its Hessian an estimate of that of the expected return, up to the terms between
different steps.
"""

import torch
from torch import Tensor, nn

from .markings import Score, fall
from .problems import coefficients
from .quadtree import Corners, Mesh, Tables, corners

FLOOR = 1e-6
SEEN = 5  # of a cell itself: all but level and budget


def look(mesh: Mesh, tables: Tables) -> tuple[Tensor, Corners]:
    """(b, n, SEEN) of every cell, and what meets at its corners."""
    c = coefficients(mesh, tables)
    around = corners(mesh, c)
    others = around.there * (1 - around.own)
    count = others.sum((-1, -2))
    jump = (around.value - around.ours(around.value)).abs() * others
    bend = sum((g - around.ours(g)) ** 2 for g in around.gradient) * others
    found = (
        ((jump**2).sum((-1, -2)) / count).sqrt(),
        jump.amax((-1, -2)),
        mesh.side * (bend.sum((-1, -2)) / count).sqrt(),
        (c[..., 1] ** 2 + c[..., 2] ** 2).sqrt(),
        c[..., 3].abs(),
    )
    return torch.log10(torch.stack(found, -1) + FLOOR), around


def observe(mesh: Mesh, tables: Tables, left: float, velocity: Tensor | None = None, ahead: int = 0) -> tuple[Tensor, Corners]:
    """(b, n, features), and what meets at the corners. `left` is the share of the budget; `velocity` (b, 2), rows and columns
    of finest cells in an interval, where the function is carried, is looked along at `ahead` distances."""
    seen, around = look(mesh, tables)
    parts = [seen, mesh.level[..., None].double() - 2, torch.full_like(seen[..., :1], left)]
    for k in range(1, ahead + 1):
        parts.append(seen.gather(1, upstream(mesh, velocity * k / ahead)[..., None].expand(-1, -1, SEEN)))
    return torch.cat(parts, -1).float(), around


def upstream(mesh: Mesh, way: Tensor) -> Tensor:
    """(b, n): the cell from which the middle of each came by `way` (b, 2), in finest cells, on the periodic square."""
    width = 1 << (mesh.grid.depth - mesh.level)
    y, x = (
        ((start * width + width / 2 - way[:, axis, None]).floor().long()) % mesh.grid.finest
        for start, axis in ((mesh.row, 0), (mesh.column, 1))
    )
    return mesh.slot.flatten(1).gather(1, y * mesh.grid.finest + x).long()


def along(estimate: Score, power: int, way: Tensor, ahead: int) -> Score:
    """An estimator that looks where the policies look: of a cell itself and of the cells upstream at `ahead` distances up to
    `way` (b, 2), the largest estimate, which goes with side^power and is taken as if each were of this cell's side."""

    def score(mesh: Mesh, tables: Tables) -> Tensor:
        own = estimate(mesh, tables) / mesh.side**power
        others = [own.gather(1, upstream(mesh, way * k / ahead)) for k in range(1, ahead + 1)]
        return torch.stack([own, *others]).amax(0) * mesh.side**power

    return score


def neighbours(around: Corners) -> Tensor:
    """(b, n, n): the matrix that takes the mean of what the other cells at the corners of each have, over the sectors."""
    others = (around.there * (1 - around.own)).flatten(2)
    batch, count, _ = others.shape
    weights = torch.zeros(batch, count, count, dtype=others.dtype).scatter_add(2, around.slot.flatten(2), others)
    return (weights / others.sum(-1, keepdim=True)).float()


class Independent(nn.Module):
    """A perceptron for each cell."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, observed: Tensor, around: Corners) -> Tensor:
        return self.score(observed)[..., 0]


class MessagePassing(nn.Module):
    """Two rounds of messages between cells that meet at a corner."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(features, width), nn.SiLU())
        self.rounds = nn.ModuleList(nn.Sequential(nn.Linear(2 * width, width), nn.SiLU()) for _ in range(2))
        self.score = nn.Linear(width, 1)

    def forward(self, observed: Tensor, around: Corners) -> Tensor:
        state, mean = self.enter(observed), neighbours(around)
        for step in self.rounds:
            state = state + step(torch.cat([state, mean @ state], -1))
        return self.score(state)[..., 0]


MADE = {"independent": Independent, "message passing": MessagePassing}


def policy(name: str, width: int, seed: int, ahead: int = 0) -> nn.Module:
    """The network called `name`, from first weights that the seed draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MADE[name](SEEN * (1 + ahead) + 2, width)


def draw(
    network: nn.Module,
    mesh: Mesh,
    tables: Tables,
    cuts: int,
    generator: torch.Generator,
    velocity: Tensor | None = None,
    ahead: int = 0,
) -> tuple[Tensor, Tensor]:
    """An episode of every problem: (b, cuts) log-probabilities of the cells that were cut, and (b, cuts + 1) squared errors."""
    errors, chosen = [tables.error.gather(1, mesh.cells).sum(1)], []
    for t in range(cuts):
        scores = network(*observe(mesh, tables, 1 - t / cuts, velocity, ahead)).masked_fill(
            mesh.level == mesh.grid.depth, -torch.inf
        )
        logs = scores.log_softmax(1)
        which = torch.multinomial(logs.detach().exp(), 1, generator=generator)
        chosen.append(logs.gather(1, which)[:, 0])
        errors.append(errors[-1] - fall(mesh, tables).gather(1, which)[:, 0])
        mesh.refine(which[:, 0])
    return torch.stack(chosen, 1), torch.stack(errors, 1)


def scored(network: nn.Module, cuts: int, velocity: Tensor | None = None, ahead: int = 0):
    """The network as a rule that is followed without chance, for meshes that have `cuts` more cuts from now on."""
    taken = iter(range(cuts))

    @torch.no_grad()
    def score(mesh: Mesh, tables: Tables) -> Tensor:
        return network(*observe(mesh, tables, 1 - next(taken) / cuts, velocity, ahead))

    return score


def surrogate(logs: Tensor, to_go: Tensor) -> Tensor:
    """L, from log-probabilities and returns to go, both (problems, episodes, steps), of two episodes or more each."""
    episodes = to_go.shape[1]
    baseline = (to_go.sum(1, keepdim=True) - to_go) / (episodes - 1)
    return -((to_go - baseline) * (logs - logs.detach()).exp()).sum(-1).mean()
