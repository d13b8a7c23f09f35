"""A straight line by Adam: does the demonstration of the instruments reproduce, and what do they show there?

Claim     the demonstration of instrumenting-adam: linear regression on 10,000 points, 5 epochs of Adam; its figures show a
          distance travelled of 0.5615 and shares of 0.891 and 0.109 for the two principal axes of the path.
Cases     demo (20 orders of the points), redrawn (20 draws of their noise), path (one order step by step), draws (what noise
          alone decides), steady (do the steps of second-order optimisers point more steadily?), rules (a first look at the
          slides' rules).
Hardware  one CPU core; under a minute.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from secondlook.curvature.objective import Objective, of_module
from secondlook.optim import KFAC, AdaHessian, Newton
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Fraction, Number, Positive, PositiveInt
from secondlook.training.instruments import LocalShape, Recorder
from secondlook.training.path import Path
from secondlook.training.rules import EVE, AdaptiveRate, CarefulRate, Walk
from secondlook.training.steps import Step, eager_step
from secondlook.training.streams import generator

from .data import READINGS, Line, points

OPTIMISERS = {  # of a line, at a rate; K-FAC as the natural gradient: no momentum, no clip, next to no damping
    "Adam": lambda line, lr: torch.optim.Adam(line.parameters(), lr),
    "AdaHessian": lambda line, lr: AdaHessian(line.parameters(), lr),
    "SGD": lambda line, lr: torch.optim.SGD(line.parameters(), lr),
    "Newton": lambda line, lr: Newton(line.parameters(), lr),
    "K-FAC": lambda line, lr: KFAC(
        line, lr, 0.0, damping=1e-6, kl_clip=math.inf, inverses_every=1, fisher="exact", likelihood="squared"
    ),
}


@dataclass(frozen=True)
class Shared:
    train: PositiveInt
    test: PositiveInt
    spread: Positive
    start: tuple[Number, ...]
    lr: Positive
    batch_size: PositiveInt
    epochs: PositiveInt

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        return points(self.train + self.test, self.spread)

    @property
    def line(self) -> Line:
        """The loss on the points to train on."""
        x, y = self.points
        return Line.through(x[: self.train], y[: self.train])


def column(values: np.ndarray) -> Tensor:
    """(N,) as a float32 tensor (N, 1), the document's type."""
    return torch.tensor(values, dtype=torch.float32)[:, None]


def model(start: tuple[float, ...]) -> nn.Linear:
    """The line with theta = (m, b) = start: m is its weight, b its bias."""
    line = nn.utils.skip_init(nn.Linear, 1, 1)  # which draws no random numbers
    with torch.no_grad():
        line.weight.fill_(start[0])
        line.bias.fill_(start[1])
    return line


def losses(p: Shared, step: Step, seed: int) -> Iterator[Tensor]:
    """The loss of each step before its update, epoch after epoch, each in an order drawn anew."""
    x, y = (column(values[: p.train]) for values in p.points)
    order = generator(seed, "order")
    for _ in range(p.epochs):
        for chosen in torch.randperm(p.train, generator=order).split(p.batch_size):
            yield step(x[chosen], y[chosen])


def epochs(p: Shared, step: Step, seed: int) -> Iterator[tuple[int, float]]:
    """The number of each epoch, from 1, and its mean loss, once its steps are taken."""
    batches = math.ceil(p.train / p.batch_size)
    taken = losses(p, step, seed)
    for epoch in range(1, p.epochs + 1):
        yield epoch, torch.stack(list(islice(taken, batches))).mean().item()


def step_of(optimizer: torch.optim.Optimizer, line: nn.Module) -> Step:
    """As `eager_step`, and for Newton, whose step takes a closure."""
    if isinstance(optimizer, Newton):
        return lambda x, y: optimizer.step(lambda: functional.mse_loss(line(x), y))
    return eager_step(optimizer, line, functional.mse_loss)


def listening(optimizer: torch.optim.Optimizer, line: nn.Module) -> Path:
    """The path of (m, b), step by step."""
    path = Path(line.parameters())
    optimizer.register_step_post_hook(lambda *_: path.record())
    return path


def theta(line: nn.Linear) -> np.ndarray:
    """(m, b) as they are."""
    return np.array([line.weight.item(), line.bias.item()])


def places(walked: Path) -> np.ndarray:
    """(m, b) at every point of the path (T + 1, 2)."""
    return walked.start.numpy() + np.concatenate([np.zeros((1, 2)), walked.steps.double().cumsum(0).numpy()])


@case(Shared)
def demo(p: Shared, seed: int):
    """The recorder's rows; of the last epoch also the errors on both sets, the share of the path's first axis, and its length
    step by step."""
    line = model(p.start)
    optimizer = torch.optim.Adam(line.parameters(), lr=p.lr)
    recorder, walked = Recorder(optimizer, every=10), listening(optimizer, line)  # the path has every step
    for epoch, _ in epochs(p, step_of(optimizer, line), seed):
        yield from recorder.epoch()
        for metric, value in zip(("m", "b"), theta(line), strict=True):
            yield {"step": epoch, "metric": metric, "value": value}
    x, y = p.points
    error = (theta(line) @ np.stack([x, np.ones_like(x)]) - y) ** 2
    found = {"train error": error[: p.train].mean(), "test error": error[p.train :].mean()}
    found |= {"first axis": walked.pca()[1][0].item(), "travelled by steps": walked.travelled}
    for metric, value in found.items():
        yield {"step": p.epochs, "metric": metric, "value": value}


@dataclass(frozen=True)
class Redrawn(Shared):
    noise: Count  # the seed of other dm and db

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        return points(self.train + self.test, self.spread, seed=self.noise)


@case(Shared)
def redrawn(p: Shared, seed: int):
    """As `demo`, on noise that is drawn anew: the share of the path's first axis and the distance from start to end."""
    line = model(p.start)
    optimizer = torch.optim.Adam(line.parameters(), lr=p.lr)
    walked = listening(optimizer, line)
    for _ in losses(Redrawn(**vars(p), noise=seed), step_of(optimizer, line), seed):
        pass
    for metric, value in {"first axis": walked.pca()[1][0].item(), "displacement": walked.displacement}.items():
        yield {"step": p.epochs, "metric": metric, "value": value}


@dataclass(frozen=True)
class Shown(Shared):
    shown: PositiveInt
    batch_of_noise: PositiveInt


@case(Shown)
def path(p: Shown, seed: int):
    """m, b, size and cosine of every step; points to draw; the loss's minimum, floor and H; the recorder's rows of
    curvature."""
    line = model(p.start)
    optimizer = torch.optim.Adam(line.parameters(), lr=p.lr)
    walked = listening(optimizer, line)
    x, y = (column(values[: p.train]).split(p.batch_of_noise) for values in p.points)
    loss = Objective(of_module(line, functional.mse_loss), line.parameters(), list(zip(x, y, strict=True)))
    recorder = Recorder(optimizer, shape=LocalShape(loss, generator=generator(seed, "probes")))
    for _ in epochs(p, step_of(optimizer, line), seed):
        yield from recorder.epoch()
    for t, (m, b) in enumerate(places(walked).tolist()):
        yield {"step": t, "metric": "m", "value": m}
        yield {"step": t, "metric": "b", "value": b}
    for metric, values in {"size of step": walked.norms, "cosine of step": walked.cosines}.items():
        for t, value in enumerate(values.tolist(), 1):
            yield {"step": t, "metric": metric, "value": value}
    for i, (x, y) in enumerate(zip(*(values[: p.shown] for values in p.points), strict=True)):
        yield {"step": 0, "at": i, "metric": "x", "value": x}
        yield {"step": 0, "at": i, "metric": "y", "value": y}
    for metric, values in {"minimum": p.line.minimum, "H": p.line.H.ravel(), "floor": [p.line.floor]}.items():
        for i, value in enumerate(values):
            yield {"step": 0, "at": i, "metric": metric, "value": value}


@case(Shared)
def draws(p: Shared, seed: int):
    """Least loss on the points to train on and how far that line is from the start: for dm and db drawn anew, and, with seed 0,
    for every reading of the document."""
    drawn = {"drawn anew": points(p.train + p.test, p.spread, seed=seed)}
    if seed == 0:
        drawn |= {name: points(p.train + p.test, p.spread, name) for name in READINGS}
    for name, (x, y) in drawn.items():
        line = Line.through(x[: p.train], y[: p.train])
        found = {"least error": line.floor, "distance": np.linalg.norm(line.minimum - p.start)}
        for metric, value in found.items():
            yield {"reading": name, "step": 0, "metric": metric, "value": value}


@dataclass(frozen=True)
class Steady(Shared):
    reduction: Fraction
    piece: PositiveInt
    rates: dict[str, Positive]


@case(Steady)
def steady(p: Steady, seed: int):
    """Each optimiser's path until it arrives, see `reduction`, or to the last epoch: the number of its steps; mean cosines of
    neighbouring steps, of neighbouring pieces of `piece` steps, and of a piece and the way from its start to the minimum; the
    distance that the pieces travel over the displacement."""
    known = p.line
    target = p.reduction * known.excess(np.array(p.start))
    for method, lr in p.rates.items():
        line = model(p.start)
        optimizer = OPTIMISERS[method](line, lr)
        walked, pieces = listening(optimizer, line), Path(line.parameters())
        for _ in losses(p, step_of(optimizer, line), seed):
            if len(walked) % p.piece == 0:
                pieces.record()
            if known.excess(theta(line)) <= target:
                break
        found = {
            "arrival": len(walked),
            "cosine of steps": walked.cosines.nanmean().item(),
            "cosine of pieces": pieces.cosines.nanmean().item(),
            "aim": aim(pieces, known.minimum),
            "detour": pieces.travelled / pieces.displacement,
        }
        for metric, value in found.items():
            yield {"method": method, "lr": lr, "step": 0, "metric": metric, "value": value}


def aim(pieces: Path, minimum: np.ndarray) -> float:
    """Mean cosine between a piece and the way from its start to the minimum."""
    moved, ways = pieces.steps.double().numpy(), minimum - places(pieces)[:-1]
    return np.mean(np.sum(moved * ways, axis=1) / (np.linalg.norm(moved, axis=1) * np.linalg.norm(ways, axis=1)))


@dataclass(frozen=True)
class Rules(Shared):
    c: Positive
    held_out: PositiveInt
    larger: Positive


@case(Rules)
def rules(p: Rules, seed: int):
    """Adam with each rule, and alone at two rates: the loss above its least value and the rate after every epoch; for EVE the
    chosen multiple and the number of held-out losses."""
    x, y = (column(values[p.train : p.train + p.held_out]) for values in p.points)
    kinds = {
        "Adam": lambda optimizer, line: [],
        "Adam, larger lr": lambda optimizer, line: [],
        "adaptive": lambda optimizer, line: [AdaptiveRate(optimizer, c=p.c)],
        "careful": lambda optimizer, line: [CarefulRate(optimizer)],
        "EVE": lambda optimizer, line: [EVE(line.parameters())],
        "EVE, walk": lambda optimizer, line: [EVE(line.parameters(), Walk())],
    }
    for rule, make in kinds.items():
        line = model(p.start)
        optimizer = torch.optim.Adam(line.parameters(), lr=p.lr * (p.larger if rule == "Adam, larger lr" else 1))
        acting = make(optimizer, line)

        @torch.no_grad()
        def evaluate(line=line) -> float:
            return functional.mse_loss(line(x), y).item()

        for epoch, train_loss in epochs(p, step_of(optimizer, line), seed):
            for part in acting:
                part.after_epoch(train_loss, evaluate)
            found = {"excess": p.line.excess(theta(line)), "lr": optimizer.param_groups[0]["lr"]}
            for part in acting:
                if isinstance(part, EVE):
                    found |= {"chosen": part.chosen[-1], "evaluations": part.evaluations}
            for metric, value in found.items():
                yield {"rule": rule, "step": epoch, "metric": metric, "value": value}
