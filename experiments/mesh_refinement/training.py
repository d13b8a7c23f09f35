"""How a policy learns: episodes on problems drawn from a pool, the surrogate's gradient, an optimiser's step."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .policies import draw, surrogate
from .quadtree import Grid, Mesh, Tables
from .transport import Flow, journey

Episodes = Callable[[nn.Module, np.ndarray, torch.Generator], tuple[Tensor, Tensor]]  # of problems of the pool: logs, to go
INITIAL, POOL, DRAWN, TESTS = range(4)  # what a seed draws, each by a generator of its own


def rng(seed: int, *use: int) -> np.random.Generator:
    return np.random.default_rng([seed, *use])


def on_functions(grid: Grid, cuts: int, pool: Tables) -> Episodes:
    """Episodes of `cuts` cuts on functions that stand still. The return to go is the fall of log error until the end."""

    def episodes(network: nn.Module, which: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tables = Tables(pool.coefficients[which], pool.error[which], pool.fall[which])
        logs, errors = draw(network, Mesh.uniform(grid, len(which)), tables, cuts, generator)
        return logs, _to_go(errors)

    return episodes


def on_present(pool: Flow, cuts: int, ahead: int) -> Episodes:
    """Episodes of the same return on functions that are about to be carried: what is seen is as in `on_flows`, and the error
    that pays is the present one, before they move."""

    def episodes(network: nn.Module, which: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        flow = pool.only(which)
        mesh, way = Mesh.uniform(flow.grid, len(which)), flow.velocity * flow.steps
        logs, errors = draw(network, mesh, flow.seen(), cuts, generator, way, ahead)
        return logs, _to_go(errors + flow.lost[:, None])

    return episodes


def _to_go(errors: Tensor) -> Tensor:
    """(b, cuts): how far the logarithm of the error, from squared ones (b, cuts + 1), falls until the end."""
    log_error = errors.log() / 2
    return log_error[:, :-1] - log_error[:, -1:]


def on_flows(pool: Flow, cuts: int, intervals: int, ahead: int) -> Episodes:
    """Episodes of so many intervals of transport, with `cuts` cuts in each. The return to go is the fall of log error, from the
    end of the last interval until the end of the episode; what comes before the first is the same for all."""

    def episodes(network: nn.Module, which: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        logs, log_errors = [], []

        def make(flow: Flow) -> Mesh:
            mesh = Mesh.uniform(flow.grid, len(which))
            logs.append(draw(network, mesh, flow.seen(), cuts, generator, flow.velocity * flow.steps, ahead)[0])
            return mesh

        for _, errors in journey(pool.only(which), intervals, make):
            log_errors.append(errors.log() / 2)
        before = torch.stack([torch.zeros_like(log_errors[0]), *log_errors[:-1]], 1)
        return torch.cat(logs, 1), (before - log_errors[-1][:, None]).repeat_interleave(cuts, 1)

    return episodes


def train(
    network: nn.Module, optimizer: torch.optim.Optimizer, episodes: Episodes, p, seed: int, decay: bool = True
) -> Iterator[int]:
    """Update the network `p.updates` times, each on `p.episodes` episodes of each of `p.batch` problems of a pool of `p.pool`;
    yield the number of updates so far. With `decay` the rate falls to zero along a line."""
    problems = rng(seed, DRAWN)
    generator = torch.Generator().manual_seed(int(problems.integers(2**62)))
    rates = [group["lr"] for group in optimizer.param_groups]
    for update in range(p.updates):
        if decay:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - update / p.updates)
        which = problems.integers(p.pool, size=p.batch).repeat(p.episodes)
        logs, to_go = episodes(network, which, generator)
        shape = (p.batch, p.episodes, -1)
        loss = surrogate(logs.view(shape), to_go.view(shape).float())
        optimizer.zero_grad()
        backward = getattr(optimizer, "backward", torch.Tensor.backward)
        backward(loss)
        optimizer.step()
        yield update + 1
