"""Do refinement policies that learned by reinforcement match an error estimator, carry over to other problems, and look ahead?

Claim     yang2023refinement, whose abstract and first page were read: policies of a size that does not depend on the mesh are
          "competitive with a widely-used error estimator, and generalize to larger, more complex, and unseen test problems";
          existing methods "do not aim for long-term optimality". No numbers are given there.
Set-up    Bilinear discontinuous elements on quadtrees, L2 projection of generated functions, and their transport by a known
          velocity. The quadtrees are this experiment's own: a training takes tens of thousands of cuts, for which an adaptive
          step on triangles by scikit-fem takes 4 ms each and the tables of quadtree.py 0.1 to 0.2 ms, and scikit-fem cannot
          refine some quadrilaterals alone. It is the reference in the tests.
Cases     static (E12a, E12b: three families, two policies, meshes as in training and larger), rates and optimisers (Adam and
          AdaHessian as the method by which the policy learns: all trials, the comparison), transport (E12c).
Hardware  one CPU core; twenty minutes in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secondlook.optim import AdaHessian
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Fraction, Positive, PositiveInt, Seed, one_of
from secondlook.study.place import Place
from secondlook.training import generator, price

from .markings import SIDES, Bulk, Score, fall, rules, spend, zz_in_l2
from .names import BELOW, FAMILIES, FORESIGHT, INSTANT, OPTIMISERS, ORACLE, POLICIES, PRESENT, SIZES, UPSTREAM
from .policies import along, policy, scored
from .problems import Sizes, functions
from .quadtree import Grid, Mesh, Tables, project
from .training import INITIAL, POOL, TESTS, Episodes, on_flows, on_functions, on_present, rng, train
from .transport import Flow, journey, velocities


@dataclass(frozen=True)
class Shared:
    coarse: PositiveInt
    depth: PositiveInt
    cuts: PositiveInt
    front: tuple[Positive, ...]
    bump: tuple[Positive, ...]
    radius: tuple[Positive, ...]
    features: PositiveInt
    width: PositiveInt
    pool: PositiveInt
    batch: PositiveInt
    episodes: PositiveInt
    updates: PositiveInt
    tests: PositiveInt

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.front, self.bump, self.radius)


def tables(p: Shared, family: str, count: int, seed: int, use: int, grid: Grid, features: int) -> Tables:
    """Functions of a family, for one use of the seed."""
    return project(grid, *functions(family, count, features, p.sizes, grid, rng(seed, use, FAMILIES.index(family), features)))


def optimiser(name: str, network: nn.Module, lr: float, epsilon: float, seed: int) -> torch.optim.Optimizer:
    if name == "Adam":
        return torch.optim.Adam(network.parameters(), lr)
    return AdaHessian(network.parameters(), lr, eps=epsilon, generator=generator(seed, "probes"))


def trained(p, name: str, episodes: Episodes, seed: int, ahead: int = 0) -> nn.Module:
    """A policy after all updates by Adam, at a rate that falls to zero."""
    network = policy(name, p.width, int(rng(seed, INITIAL).integers(2**31)), ahead)
    for _ in train(network, torch.optim.Adam(network.parameters(), p.lr), episodes, p, seed):
        pass
    return network


def rounded(x: Tensor | float) -> float:
    return float(f"{float(x):.6g}")


@dataclass(frozen=True)
class Static(Shared):
    lr: Positive
    bulk: Fraction
    larger_coarse: PositiveInt
    larger_cuts: PositiveInt
    larger_features: PositiveInt
    larger_tests: PositiveInt
    drawn: Seed


@case(Static, place=True)
def static(p: Static, seed: int, place: Place):
    """The logarithm of the error, mean over the test problems, by cuts; the share of problems on which it ends below that of
    the estimator in L2; and of the seed `drawn` the cells of one mesh, of larger problems with circles."""
    yield from kept(place, {"seed": seed}, lambda _: _static(p, seed))


def _static(p: Static, seed: int) -> Iterator[dict]:
    grid = Grid(p.coarse, p.depth)
    networks = {}
    for family in FAMILIES:
        episodes = on_functions(grid, p.cuts, tables(p, family, p.pool, seed, POOL, grid, p.features))
        for name in POLICIES:
            networks[name, family] = trained(p, name, episodes, seed)
    larger = Grid(p.larger_coarse, p.depth)
    for size, on, cuts, features, count in (
        (SIZES[0], grid, p.cuts, p.features, p.tests),
        (SIZES[1], larger, p.larger_cuts, p.larger_features, p.larger_tests),
    ):
        for family in FAMILIES:
            problems = tables(p, family, count, seed, TESTS, on, features)
            chance = torch.Generator().manual_seed(seed)
            scores: dict[tuple[str, str], Score] = {(name, "none"): rule for name, rule in rules(chance).items()}
            scores["ZZ, bulk", "none"] = Bulk(zz_in_l2, p.bulk)
            scores |= {cell: scored(network, cuts) for cell, network in networks.items()}
            drawn = seed == p.drawn and (size, family) == (SIZES[1], "circles")
            yield from _tested({"size": size, "family": family}, on, cuts, problems, scores, drawn)


def _tested(
    cell: dict, grid: Grid, cuts: int, problems: Tables, scores: dict[tuple[str, str], Score], drawn: bool
) -> Iterator[dict]:
    ends = {}
    for (method, trained_on), score in scores.items():
        mesh = Mesh.uniform(grid, len(problems.error))
        log_errors = spend(mesh, problems, cuts, score).log() / 2
        at = {**cell, "method": method, "trained": trained_on}
        for step in range(0, cuts + 1, max(cuts // 10, 1)):
            yield {**at, "step": step, "metric": "log error", "value": rounded(log_errors[:, step].mean())}
        ends[method, trained_on] = log_errors[:, -1]
        if trained_on != "none":
            below = ends[method, trained_on] < ends["ZZ, L2", "none"]
            yield {**at, "step": cuts, "metric": "below", "value": rounded(below.double().mean())}
        if drawn and (method in ("ZZ, L2", ORACLE) or (method, trained_on) == (POLICIES[0], cell["family"])):
            yield from squares({**at, "step": cuts}, mesh)


def squares(at: dict, mesh: Mesh) -> Iterator[dict]:
    """The cells of the first problem's mesh: their places and sides, in finest cells."""
    side = 1 << (mesh.grid.depth - mesh.level[0])
    for y, x, value in zip((mesh.row[0] * side).tolist(), (mesh.column[0] * side).tolist(), side.tolist(), strict=True):
        yield {**at, "y": y, "x": x, "metric": "side", "value": value}


@dataclass(frozen=True)
class Optimisers(Shared):
    family: one_of(*FAMILIES)
    epsilon: Positive
    every: PositiveInt
    rates: dict[str, tuple[Positive, ...]]


@case(Optimisers, "rates", "optimisers", place=True)
def optimisers(p: Optimisers, seed: int, place: Place):
    """The logarithm of the error, mean over the test problems, every few updates of the policy that sees each cell alone, by
    Adam and by AdaHessian at constant rates; and the work so far, in gradients of an update's episodes."""
    for name in OPTIMISERS:
        for lr in p.rates[name]:
            cell = {"method": name, "lr": lr}
            yield from kept(
                place, cell | {"seed": seed}, lambda _, name=name, lr=lr, cell=cell: _learned(p, name, lr, cell, seed)
            )


def _learned(p: Optimisers, name: str, lr: float, cell: dict, seed: int) -> Iterator[dict]:
    grid = Grid(p.coarse, p.depth)
    pool, tests = (tables(p, p.family, count, seed, use, grid, p.features) for count, use in ((p.pool, POOL), (p.tests, TESTS)))
    network = policy(POLICIES[0], p.width, int(rng(seed, INITIAL).integers(2**31)))
    optimizer = optimiser(name, network, lr, p.epsilon, seed)
    per_update = 1 + price(optimizer).in_gradients

    def judged(score: Score) -> float:
        return rounded(spend(Mesh.uniform(grid, p.tests), tests, p.cuts, score)[:, -1].log().mean() / 2)

    yield {**cell, "step": 0, "metric": "oracle", "value": judged(fall)}
    yield {**cell, "step": 0, "metric": "log error", "value": judged(scored(network, p.cuts))}
    for update in train(network, optimizer, on_functions(grid, p.cuts, pool), p, seed, decay=False):
        if update % p.every == 0:
            yield {**cell, "step": update, "metric": "log error", "value": judged(scored(network, p.cuts))}
            yield {**cell, "step": update, "metric": "work", "value": update * per_update}


@dataclass(frozen=True)
class Transport(Shared):
    family: one_of(*FAMILIES)
    lr: Positive
    steps: PositiveInt
    intervals: PositiveInt
    test_intervals: PositiveInt
    ahead: PositiveInt
    drawn: Seed


@case(Transport, place=True)
def transport(p: Transport, seed: int, place: Place):
    """The logarithm of the error at the end of every interval, mean over the test problems; of the seed `drawn` the cells of
    one mesh of each kind by interval, and the finest cells where its front is at first, with the way that it goes."""
    yield from kept(place, {"seed": seed}, lambda _: _transport(p, seed))


def flows(p: Transport, count: int, seed: int, use: int) -> Flow:
    grid, drawn = Grid(p.coarse, p.depth, periodic=True), rng(seed, use)
    finest, residual = functions(p.family, count, p.features, p.sizes, grid, drawn)
    return Flow(grid, finest, residual.sum((1, 2)), velocities(count, drawn), p.steps)


def _transport(p: Transport, seed: int) -> Iterator[dict]:
    pool, tests = flows(p, p.pool, seed, POOL), flows(p, p.tests, seed, TESTS)
    network = trained(p, POLICIES[0], on_flows(pool, p.cuts, p.intervals, p.ahead), seed, p.ahead)
    present = trained(p, POLICIES[0], on_present(pool, p.cuts, p.ahead), seed, p.ahead)
    found = rules(torch.Generator().manual_seed(seed))
    sees = {name: (lambda _, rule=found[name]: rule, Flow.seen) for name in (*INSTANT, BELOW[0])}
    sees |= {ORACLE: (lambda _: fall, Flow.present), FORESIGHT: (lambda _: fall, Flow.ahead)}
    for name, of in (("policy", network), (PRESENT, present)):
        sees[name] = (lambda flow, of=of: scored(of, p.cuts, flow.velocity * flow.steps, p.ahead), Flow.seen)
    sees["policy, reversed"] = (lambda flow: scored(network, p.cuts, -flow.velocity * flow.steps, p.ahead), Flow.seen)
    for name, upstream in UPSTREAM.items():
        rule, power = found[name], SIDES[name]
        sees[upstream] = (
            lambda flow, rule=rule, power=power: along(rule, power, flow.velocity * flow.steps, p.ahead),
            Flow.seen,
        )
    for method, (rule, seen) in sees.items():

        def make(flow: Flow, rule=rule, seen=seen) -> Mesh:
            mesh = Mesh.uniform(flow.grid, p.tests)
            spend(mesh, seen(flow), p.cuts, rule(flow))
            return mesh

        for interval, (mesh, errors) in enumerate(journey(replace(tests), p.test_intervals, make), 1):
            at = {"method": method, "step": interval}
            yield {**at, "metric": "log error", "value": rounded(errors.log().mean() / 2)}
            if seed == p.drawn and method in ("policy", ORACLE, FORESIGHT, *INSTANT):
                yield from squares(at, mesh)
    if seed == p.drawn:
        yield from front(tests)


def front(flow: Flow) -> Iterator[dict]:
    """Of the first function: the finest cells over which it rises by half of the steepest rise or more, and its way."""
    rise = (flow.true[0, ..., 1] ** 2 + flow.true[0, ..., 2] ** 2).sqrt()
    for y, x in (rise >= rise.max() / 2).nonzero().tolist():
        yield {"method": "none", "step": 0, "y": y, "x": x, "metric": "front", "value": 1}
    way = (flow.velocity[0] * flow.steps).tolist()
    for metric, value in zip(("rows in an interval", "columns in an interval"), way, strict=True):
        yield {"method": "none", "step": 0, "metric": metric, "value": value}
