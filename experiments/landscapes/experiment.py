"""The optimiser family on classical landscapes: what the article's rules, animations and captions say, measured.

Claim     Rules of eleven optimisers as Python code; momentum is smoother but overshoots; adaptive rates are faster and jitter
          less; methods without scaling are slow to break symmetry; momentum oscillates at a saddle; AdaBelief considers the
          curvature (optimization-algorithms). AdaHessian converges in one step on 10 x^2 + y^2, and in 7 on
          x^2 + 0.1 x sin(20 pi x) (adahessian-abstract).
Numbers   The article has none, only animations: the measures are ours. w^2 after five steps: see case rules.
          Whether a run leaves its basin: basins.py. On data, batch, mini-batch and stochastic descent by examples seen:
          batches.py.
Hardware  any CPU, one thread; about a minute in all.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from secondlook.optim import AdaHessian
from secondlook.problems.landscapes import LANDSCAPES, gradient_noise
from secondlook.study.arrivals import first, from_then_on
from secondlook.study.declare import case
from secondlook.study.parameters import Fraction, NonNegative, Number, Positive, PositiveInt

from . import article, basins, batches, courses
from .methods import descend, methods

CLASSICAL = ("Beale", "long valley", "saddle")  # the surfaces of the animations
SYMMETRIC = ("long valley", "saddle")  # those with a saddle at the origin and minima on the y axis


@dataclass(frozen=True)
class Shared:
    momentum: Fraction
    betas: tuple[Fraction, ...]


@dataclass(frozen=True)
class Rules(Shared):
    lr: Positive
    start: Number
    steps: PositiveInt
    long_steps: PositiveInt
    compare_steps: PositiveInt
    compare_lr: Positive
    eps: Positive


def torch_path(make, f, start: torch.Tensor, steps: int) -> torch.Tensor:
    """theta after each step (steps, n) of a torch optimiser, `make([theta])`, on the loss f."""
    theta = start.clone().requires_grad_()
    optimizer = make([theta])
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        f(theta).backward()
        optimizer.step()
        path.append(theta.detach().clone())
    return torch.stack(path)


@case(Rules)
def rules(p: Rules, seed: int):
    """The courses on w^2; whether the printed lines run; and how far the rules, repaired where needed, are from torch's."""
    if seed == 0:
        yield from _course(p)
        yield from _as_printed(p)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(2, generator=generator, dtype=torch.float64)
    f = LANDSCAPES["rotated"].value
    steps, lr, eps, (beta1, beta2) = p.compare_steps, p.compare_lr, p.eps, p.betas
    torchs = {
        "heavy ball": lambda w: torch.optim.SGD(w, lr, momentum=p.momentum),
        "Nesterov": lambda w: torch.optim.SGD(w, lr, momentum=p.momentum, nesterov=True),
        "Adagrad": lambda w: torch.optim.Adagrad(w, lr, eps=eps),
        "RMSprop": lambda w: torch.optim.RMSprop(w, lr, alpha=beta2, eps=eps),
        "Adam": lambda w: torch.optim.Adam(w, lr, p.betas, eps),
        "AdaMax": lambda w: torch.optim.Adamax(w, lr, p.betas, eps),
    }

    def slope(w):
        w = w.detach().requires_grad_()
        return torch.autograd.grad(f(w), w)[0]

    ours = {
        ("momentum", "heavy ball"): article.momentum(slope, start, steps, lr, p.momentum),
        ("printed Nesterov", "heavy ball"): article.nesterov(slope, start, steps, lr, p.momentum),
        ("printed Nesterov", "Nesterov"): article.nesterov(slope, start, steps, lr, p.momentum),
        ("look-ahead", "Nesterov"): article.look_ahead(slope, start, steps, lr, p.momentum),
        ("Adagrad", "Adagrad"): article.adagrad(slope, start, steps, lr, eps),
        ("RMSprop", "RMSprop"): article.rmsprop(slope, start, steps, lr, beta2, eps),
        ("Adam", "Adam"): article.adam(slope, start, steps, lr, beta1, beta2, eps, first=1),
        ("AdaMax", "AdaMax"): article.adamax(slope, start, steps, lr, beta1, beta2, eps, first=1, max=torch.maximum),
    }
    for (rule, reference), path in ours.items():
        difference = (torch.stack(list(path)) - torch_path(torchs[reference], f, start, steps)).abs().max().item()
        yield {"method": rule, "against": reference, "step": steps, "metric": "difference", "value": difference}


def _course(p: Rules):
    """w after each step on w^2."""
    w, steps, given = p.start, p.long_steps, (p.lr, p.momentum)
    start = torch.tensor([p.start], dtype=torch.float64)

    def of_torch(nesterov):
        def make(params):
            return torch.optim.SGD(params, p.lr, momentum=p.momentum, nesterov=nesterov)

        return torch_path(make, lambda theta: (theta**2).sum(), start, steps)[:, 0].tolist()

    courses_ = {
        "printed Nesterov": list(article.nesterov(lambda w: 2 * w, w, steps, *given)),
        "look-ahead": list(article.look_ahead(lambda w: 2 * w, w, steps, *given)),
        "heavy ball": of_torch(False),
        "Nesterov": of_torch(True),
    }
    for method, course in courses_.items():
        for t, value in enumerate([w, *course]):
            yield {"method": method, "step": t, "metric": "w", "value": value}
        yield {"method": method, "step": p.steps, "metric": "w_end", "value": course[p.steps - 1]}


def _as_printed(p: Rules):
    """What happens to the lines as they stand: 1 where it does, 0 where it does not; and three sizes."""
    vector, given = torch.tensor([1.0, -2.0], dtype=torch.float64), (p.lr, *p.betas, p.eps)

    def slope(w):
        return 2 * w

    def step(rule, w, **options):
        return article.last(rule(slope, w, 1, *given, **options))

    found = {
        "Adam: division by zero with numbers": article.raises(ZeroDivisionError, lambda: step(article.adam, 1.0)),
        "Adam: not a number with tensors": step(article.adam, vector).isnan().all().item(),
        "AdaMax: max of two tensors fails": article.raises(RuntimeError, lambda: step(article.adamax, vector, first=1)),
        "RMSprop: line does not parse": article.raises(SyntaxError, lambda: compile(article.RMSPROP_LINE, "article", "exec")),
        "Adam: first step over lr": (vector - step(article.adam, vector, first=1)).abs()[0].item() / p.lr,
        "Adam uncorrected: first step over lr": (vector - step(article.adam_uncorrected, vector)).abs()[0].item() / p.lr,
        "momentum: last step over lr": _constant_gradient(p),
    }
    for what, value in found.items():
        yield {"method": what, "step": 1, "metric": "as printed", "value": float(value)}


def _constant_gradient(p: Rules) -> float:
    """The step of the printed momentum, in units of lr, under a gradient of 1, once it has settled."""
    *_, before, after = article.momentum(lambda w: 1.0, 0.0, 400, p.lr, p.momentum)  # 0.9^400 is 5e-19
    return (before - after) / p.lr


@dataclass(frozen=True)
class Surfaces(Shared):
    points: PositiveInt
    x_range: dict[str, tuple[Number, ...]]
    y_range: dict[str, tuple[Number, ...]]


@case(Surfaces)
def surfaces(p: Surfaces, seed: int) -> pd.DataFrame:
    """Height above the minimum over a grid, and the minima."""
    tables = []
    for name in CLASSICAL:
        landscape = LANDSCAPES[name]
        x, y = (torch.linspace(*ends[name], p.points, dtype=torch.float64) for ends in (p.x_range, p.y_range))
        theta = torch.cartesian_prod(x, y)
        minima = torch.tensor(landscape.minima, dtype=torch.float64)
        for metric, at in (("height", theta), ("minimum", minima)):
            value = landscape.value(at) - landscape.lowest
            cells = {"x": at[:, 0].numpy().round(6), "y": at[:, 1].numpy().round(6), "value": value.numpy().round(6)}
            tables.append(pd.DataFrame({"landscape": name, "step": 0, "metric": metric, **cells}))
    return pd.concat(tables)


@dataclass(frozen=True)
class Sweep(Shared):
    steps: PositiveInt
    radius: Positive
    latest: PositiveInt
    last: PositiveInt
    least: Positive
    tuning_starts: PositiveInt
    starts: PositiveInt
    noise: dict[str, NonNegative]
    boxes: dict[str, tuple[Number, ...]]
    octaves: tuple[Number, ...]

    @property
    def rates(self) -> np.ndarray:
        return 2.0 ** np.arange(self.octaves[0], self.octaves[1] + 1)

    @property
    def all_starts(self) -> int:
        return self.tuning_starts + self.starts


@case(Sweep)
def sweep(p: Sweep, seed: int) -> pd.DataFrame:
    """Epoch of arrival of every optimiser from every start at every rate, and how often it crosses a symmetric axis before it
    leaves; at its best rate, chosen on the tuning starts, also how its path from each reported start looks; and on the
    classical surfaces the path from the first of these."""
    conditions = list(itertools.product(p.boxes, p.noise))  # a block of cells each: all starts
    generator = torch.Generator().manual_seed(seed)
    starts = {name: _starts(box, p.all_starts, generator) for name, box in p.boxes.items()}
    start = torch.cat([starts[name] for name, _ in conditions])  # (conditions x starts, 2)
    size = torch.tensor([p.noise[noise] for _, noise in conditions]).repeat_interleave(p.all_starts)[:, None]
    noises = size * torch.randn(p.steps + 1, *start.shape, generator=generator, dtype=torch.float64)  # the same for all

    def loss(theta, t):
        blocks = theta.split(p.all_starts, dim=-2)
        values = (LANDSCAPES[name].value(block).sum() for (name, _), block in zip(conditions, blocks, strict=True))
        return sum(values) + gradient_noise(theta, noises[t]).sum()

    tables = []
    for method, make in methods(p.momentum, p.betas).items():
        paths = descend(make, loss, start, p.rates, p.steps)  # (steps + 1, rates, conditions x starts, 2)
        for (name, noise), block in zip(conditions, paths.split(p.all_starts, dim=-2), strict=True):
            found = _runs(p, name, noise, block)
            tables.append(found.assign(method=method, landscape=name, noise=noise))
    return pd.concat(tables)


def _starts(box, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 2), uniform in the box (centre and half width for x, then for y)."""
    x, dx, y, dy = box
    sides = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1
    return torch.tensor([x, y]) + torch.tensor([dx, dy]) * sides


def best(epochs: np.ndarray) -> int:
    """Index of the best rate, from arrivals (rates, starts): lowest median epoch, then most arrivals, then the smallest."""
    keys = (np.isinf(epochs).mean(axis=1), np.median(epochs, axis=1))
    return int(np.lexsort(keys)[0])


def _runs(p: Sweep, name: str, noise: str, path: torch.Tensor) -> pd.DataFrame:
    """Rows of one optimiser on one landscape, from its paths (steps + 1, rates, starts, 2)."""
    distance = LANDSCAPES[name].distance(path).numpy()
    epochs = from_then_on(distance <= p.radius)  # (rates, starts)
    epochs = np.where(epochs <= p.latest, epochs, np.inf)
    chosen = best(epochs[:, : p.tuning_starts])
    numbers = np.arange(p.all_starts)
    rates = np.repeat(p.rates.round(6), p.all_starts)
    tables = [_table("arrived", np.tile(numbers, len(p.rates)), rates, epochs.ravel())]

    lr = p.rates[chosen].round(6)
    own, away, came = path[:, chosen, p.tuning_starts :].numpy(), distance[:, chosen, p.tuning_starts :], epochs[chosen]
    came = came[p.tuning_starts :]
    metrics = {
        "turning": courses.turning(own, came),
        "overshoot": courses.overshoot(away, p.radius),
        "jitter": courses.jitter(own, p.last),
    }
    if name in SYMMETRIC:
        every = path[:, :, p.tuning_starts :].numpy()
        escapes = first(np.abs(every[..., 1]) >= LANDSCAPES[name].minima[0][1] / 2)  # (rates, starts)
        crossings = courses.crossings(every, escapes, p.least)
        metrics |= {"escape": escapes[chosen], "crossings": crossings[chosen]}
        rate, number = np.nonzero(np.isfinite(escapes))
        start, at = numbers[p.tuning_starts :][number], p.rates.round(6)[rate]
        tables.append(_table("crossings at each rate", start, at, crossings[rate, number]))
    for metric, value in metrics.items():
        tables.append(_table(metric, numbers[p.tuning_starts :], lr, value))
    if name in CLASSICAL and noise == "exact":
        for metric, value in zip(("x", "y"), own[:, 0].T, strict=True):
            steps = np.arange(p.steps + 1)
            tables.append(_table(metric, p.tuning_starts, lr, value.round(5)).assign(step=steps))
    return pd.concat(tables)


def _table(metric: str, start, lr, value) -> pd.DataFrame:
    return pd.DataFrame({"start": start, "lr": lr, "step": 0, "metric": metric, "value": value})


@case(basins.Basins, "basins")
def leaving(p: basins.Basins, seed: int):
    return basins.rows(p, seed)


@case(batches.Batches, "data")
def data(p: batches.Batches, seed: int):
    return batches.rows(p, seed)


@dataclass(frozen=True)
class Belief(Shared):
    steps: PositiveInt
    warm_up: PositiveInt
    curvatures: tuple[NonNegative, ...]
    speeds: tuple[Positive, ...]
    noises: tuple[NonNegative, ...]


@case(Belief)
def belief(p: Belief, seed: int):
    """The mean of (g - m)^2, the quantity that AdaBelief averages, along a straight walk of constant speed u on h theta^2 / 2
    with gradient noise sigma.

    With m lagging beta1 / (1 - beta1) steps behind, its expectation is
        (beta1 / (1 - beta1) h u)^2 + 2 beta1^2 / (1 + beta1) sigma^2.
    """
    beta1 = p.betas[0]
    normal = np.random.default_rng(seed).standard_normal(p.steps)
    for h, u, sigma in itertools.product(p.curvatures, p.speeds, p.noises):
        g = h * u * np.arange(p.steps) + sigma * normal
        m, squares = 0.0, []
        for now in g:
            m = beta1 * m + (1 - beta1) * now
            squares.append((now - m) ** 2)
        expected = (beta1 / (1 - beta1) * h * u) ** 2 + 2 * beta1**2 / (1 + beta1) * sigma**2
        cell = {"curvature": h, "speed": u, "sigma": sigma, "step": p.steps}
        yield {**cell, "metric": "belief", "value": np.mean(squares[p.warm_up :])}
        yield {**cell, "metric": "expected", "value": expected}


@dataclass(frozen=True)
class Taylor(Shared):
    points: PositiveInt
    range: tuple[Number, ...]
    radius: Positive
    at: tuple[Number, ...]


@case(Taylor)
def taylor(p: Taylor, seed: int):
    """The floor of the saddle, and its Taylor models of first and second order at two points."""

    def floor(y):
        return LANDSCAPES["saddle"].value(torch.stack([torch.zeros_like(y), y], -1))

    for at in p.at:
        centre = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        value = floor(centre)
        (slope,) = torch.autograd.grad(value, centre, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, centre)
        f, g, h = value.item(), slope.item(), curvature.item()
        ends = {"gradient": g, "curvature": h, "radius": p.radius, "value": f}
        for metric, value in ends.items():
            yield {"at": at, "step": 0, "metric": metric, "value": value}
        y = np.linspace(*p.range, p.points)
        d = y - at
        curves = {"loss": floor(torch.from_numpy(y)).numpy(), "first": f + g * d, "second": f + g * d + h * d**2 / 2}
        for metric, curve in curves.items():
            for where, value in zip(y.round(6), curve, strict=True):
                yield {"at": at, "y": where, "step": 0, "metric": metric, "value": value}


@dataclass(frozen=True)
class OneStep(Shared):
    lr: Positive
    eps: Positive
    reach: Positive
    starts: PositiveInt
    near: Positive
    steps: PositiveInt
    gap: Positive
    octaves: tuple[Number, ...]


@case(OneStep)
def one_step(p: OneStep, seed: int):
    """Largest coordinate after one step with one probe, on the bowl and on the rotated quadratic; and for each rate and start
    whether `steps` iterations reach the bottom of the ripples, with the mean of squared curvatures and without (beta2 = 0)."""
    generator = torch.Generator().manual_seed(seed)
    for name in ("bowl", "rotated"):
        start = p.reach * (2 * torch.rand(p.starts, 2, generator=generator, dtype=torch.float64) - 1)
        end = descend(
            _adahessian(p, p.betas), lambda theta, t, name=name: LANDSCAPES[name].value(theta).sum(), start, [p.lr], 1
        )
        for i, worst in enumerate(end[-1, 0].abs().amax(-1).tolist()):
            cell = {"landscape": name, "start": i, "lr": p.lr, "step": 1}
            yield {**cell, "metric": "coordinate", "value": worst}
            yield {**cell, "metric": "reached", "value": worst < p.near}
    ripples = LANDSCAPES["ripples"]

    def arrived(theta):
        return ripples.value(theta) - ripples.lowest <= p.gap

    rates = 2.0 ** np.arange(p.octaves[0], p.octaves[1] + 1)
    start = p.reach * (2 * torch.rand(p.starts, 1, generator=generator, dtype=torch.float64) - 1)
    for i, there in enumerate(arrived(start).tolist()):
        yield {"landscape": "ripples", "start": i, "step": 0, "metric": "reached", "value": there}
    for memory, betas in (("mean of curvatures", p.betas), ("last curvature", (p.betas[0], 0.0))):
        path = descend(_adahessian(p, betas), lambda theta, t: ripples.value(theta).sum(), start, rates, p.steps)
        for lr, row in zip(rates, arrived(path[-1]).tolist(), strict=True):
            for i, hit in enumerate(row):
                cell = {"landscape": "ripples", "memory": memory, "start": i, "lr": lr, "step": p.steps}
                yield {**cell, "metric": "reached", "value": hit}


def _adahessian(p: OneStep, betas):
    return lambda groups: AdaHessian(groups, betas=betas, eps=p.eps)
