"""AdaHessian against Adam on one sigmoid neuron: when does the loss stabilise, which is faster, whose path is more direct?

Claim     AdaHessian's loss stabilises after 150 of 200 epochs and Adam's after 175; AdaHessian converges faster, and on a more
          direct path (adahessian-in-action).
Set-up    The article gives no data, start, learning rate or loss. `article`, `surface` and `windows` take those of its most
          likely ancestor (an inference): two points, w = b = -2, half the sum of squared errors. `grid` and `probes` take 3
          data sets x 3 losses x 7 starts x 27 rates, because a claim about optimisers should not hang on the choice.
Hardware  any CPU, one thread; 10 s in all.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from secondlook.curvature import Exact
from secondlook.optim import AdaHessian
from secondlook.study.arrivals import first
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Fraction, Number, Positive, PositiveInt

from .curves import arrived, detour, stabilised
from .neuron import LOSSES, Neuron, averaged, descend, exact, gradient, hutchinson, minimum, sigmoid

LOSS = "SSE/2"  # of the ancestor
SEARCH = np.array(
    [(w, b) for w in range(-6, 7, 2) for b in range(-6, 7, 2)], dtype=float
)  # where the search for a minimum begins


@dataclass(frozen=True)
class Shared:
    epochs: PositiveInt
    x: tuple[Number, ...]
    y: tuple[Fraction, ...]
    start: tuple[Number, ...]
    betas: tuple[Fraction, ...]
    adam_eps: Positive
    adahessian_eps: Positive
    hessian_power: Positive
    stable: Fraction
    target: Fraction
    loose_target: Fraction
    tight_target: Fraction
    octaves: tuple[Number, ...]
    per_octave: PositiveInt

    @property
    def neuron(self) -> Neuron:
        """The ancestor's."""
        return Neuron(np.array(self.x), np.array(self.y), LOSS)

    @property
    def rates(self) -> np.ndarray:
        low, high = self.octaves
        return 2.0 ** np.arange(low, high + 0.5 / self.per_octave, 1 / self.per_octave)

    def adam(self, neuron: Neuron, starts, rates) -> np.ndarray:
        return descend(neuron, gradient, starts, rates, self.epochs, self.betas, self.adam_eps)

    def adahessian(self, neuron: Neuron, starts, rates, d=exact) -> np.ndarray:
        return descend(neuron, d, starts, rates, self.epochs, self.betas, self.adahessian_eps, self.hessian_power)


@dataclass(frozen=True)
class Article(Shared):
    adahessian_lr: Positive
    adam_lr: Positive


@dataclass(frozen=True)
class Surface(Shared):
    w_range: tuple[Number, ...]
    b_range: tuple[Number, ...]
    points: PositiveInt


@dataclass(frozen=True)
class Windows(Shared):
    lr_step: Positive
    lr_count: PositiveInt


@dataclass(frozen=True)
class Parity(Shared):
    lr: Positive
    blocks: tuple[PositiveInt, ...]


@dataclass(frozen=True)
class NextToMinimum(Shared):
    offset: tuple[Number, ...]
    steps: PositiveInt


@dataclass(frozen=True)
class Grid(Shared):
    one_x: tuple[Number, ...]
    one_y: tuple[Fraction, ...]
    noisy_points: PositiveInt
    noisy_theta: tuple[Number, ...]
    noisy_spread: Positive
    noisy_reach: Positive
    noisy_seed: Count
    starts: tuple[tuple[Number, ...], ...]

    @property
    def data(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(self.noisy_seed)
        x = rng.uniform(-self.noisy_reach, self.noisy_reach, self.noisy_points)
        slope, bias = self.noisy_theta
        y = sigmoid(slope * x + bias + self.noisy_spread * rng.standard_normal(self.noisy_points))
        return {
            "one point": (np.array(self.one_x), np.array(self.one_y)),
            "two points": (np.array(self.x), np.array(self.y)),
            "noisy points": (x, y),
        }


def autograd_loss(neuron: Neuron, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The neuron's loss as torch sees it."""
    x, y = torch.from_numpy(neuron.x), torch.from_numpy(neuron.y)
    q = w * x + b
    if neuron.loss == "cross-entropy":
        return torch.nn.functional.binary_cross_entropy_with_logits(q, y)
    return LOSSES[neuron.loss].factor(len(x)) * ((torch.sigmoid(q) - y) ** 2).sum()


def torch_path(neuron: Neuron, make, start, epochs: int) -> np.ndarray:
    """Path (epochs + 1, 1, 2) of a torch optimiser, `make(parameters)`, with w and b as two parameters of one number."""
    w, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in start)
    optimizer = make([w, b])
    backward = getattr(optimizer, "backward", torch.Tensor.backward)
    path = [[w.item(), b.item()]]
    for _ in range(epochs):
        optimizer.zero_grad()
        backward(autograd_loss(neuron, w, b))
        optimizer.step()
        path.append([w.item(), b.item()])
    return np.array(path)[:, None]


@case(Article)
def article(p: Article, seed: int):
    """Paths and losses of both optimisers: at the rates that give the article's epochs, at an equal one, at each one's best."""
    neuron, starts = p.neuron, np.tile(p.start, (len(p.rates), 1))

    def best(path):
        loss = neuron.value(path)
        return p.rates[np.argmin(arrived(loss, p.target * loss[0]))]  # the lowest loss is 0: two points, two parameters

    conditions = {
        "stated epochs": (p.adahessian_lr, p.adam_lr),
        "equal rate": (p.adahessian_lr, p.adahessian_lr),
        "own best rate": (best(p.adahessian(neuron, starts, p.rates)), best(p.adam(neuron, starts, p.rates))),
    }
    for condition, (adahessian_lr, adam_lr) in conditions.items():
        adam = partial(torch.optim.Adam, lr=adam_lr, betas=p.betas, eps=p.adam_eps)
        paths = {
            "AdaHessian": (adahessian_lr, p.adahessian(neuron, [p.start], [adahessian_lr])),
            "Adam": (adam_lr, torch_path(neuron, adam, p.start, p.epochs)),
        }
        for method, (lr, path) in paths.items():
            loss = neuron.value(path)[:, 0]
            cell = {"condition": condition, "method": method, "lr": lr}
            yield {**cell, "step": 0, "metric": "target", "value": p.target * loss[0]}
            for t, ((w, b), value) in enumerate(zip(path[:, 0], loss, strict=True)):
                for metric, number in (("w", w), ("b", b), ("loss", value)):
                    yield {**cell, "step": t, "metric": metric, "value": number}


@case(Surface)
def surface(p: Surface, seed: int) -> pd.DataFrame:
    """The ancestor's loss over a grid of (w, b), and its minimum."""
    w, b = np.meshgrid(np.linspace(*p.w_range, p.points), np.linspace(*p.b_range, p.points))
    theta = np.stack([w.ravel(), b.ravel()], -1)
    lowest = minimum(p.neuron, SEARCH)[None]
    return pd.concat(
        pd.DataFrame({"w": at[:, 0], "b": at[:, 1], "step": 0, "metric": metric, "value": p.neuron.value(at)})
        for metric, at in (("loss", theta), ("minimum", lowest))
    )


@case(Windows)
def windows(p: Windows, seed: int) -> pd.DataFrame:
    """Epoch of stabilisation on the ancestor's set-up against the learning rate."""
    neuron, rates = p.neuron, p.lr_step * np.arange(1, p.lr_count + 1)
    starts = np.tile(p.start, (len(rates), 1))
    paths = {"AdaHessian": p.adahessian(neuron, starts, rates), "Adam": p.adam(neuron, starts, rates)}
    return pd.concat(
        pd.DataFrame({"method": method, "lr": rates.round(6), "step": p.epochs, "metric": metric, "value": value})
        for method, path in paths.items()
        for metric, value in _metrics(neuron, path, 0.0, p).items()
    )


@case(Parity)
def parity(p: Parity, seed: int):
    """Largest difference of any parameter at any step: against torch, against the library, and between block sizes."""
    neuron = p.neuron
    adam = partial(torch.optim.Adam, lr=p.lr, betas=p.betas, eps=p.adam_eps)
    library = partial(AdaHessian, lr=p.lr, betas=p.betas, eps=p.adahessian_eps, hessian_power=p.hessian_power, diagonal=Exact())
    ours = p.adahessian(neuron, [p.start], [p.lr])
    differences = {
        "Adam": p.adam(neuron, [p.start], [p.lr]) - torch_path(neuron, adam, p.start, p.epochs),
        "AdaHessian": ours - torch_path(neuron, library, p.start, p.epochs),
    }
    for block in p.blocks:
        differences[f"block {block}"] = p.adahessian(neuron, [p.start], [p.lr], averaged(block)) - ours
    for what, difference in differences.items():
        yield {"method": what, "step": p.epochs, "metric": "difference", "value": np.abs(difference).max()}


@case(NextToMinimum)
def newton(p: NextToMinimum, seed: int):
    """Distance to the minimum under theta <- theta - H^-1 g, and with the diagonal D in place of H.

    H predicts the latter's rate: the spectral radius of I - D^-1 H, which for two parameters is |H_wb| / sqrt(H_ww H_bb).
    """
    neuron = p.neuron
    lowest = minimum(neuron, SEARCH)
    H = neuron.hessian(lowest)
    yield {"method": "diagonal Newton", "step": 0, "metric": "rate", "value": abs(H[0, 1]) / np.sqrt(H[0, 0] * H[1, 1])}
    for method in ("Newton", "diagonal Newton"):
        theta = lowest + np.array(p.offset)
        for t in range(p.steps + 1):
            yield {"method": method, "step": t, "metric": "distance", "value": np.linalg.norm(theta - lowest)}
            H = neuron.hessian(theta)
            theta = theta - np.linalg.solve(H if method == "Newton" else np.diag(np.diag(H)), neuron.gradient(theta))


def _metrics(neuron: Neuron, path: np.ndarray, lowest: float, p: Shared) -> dict[str, np.ndarray]:
    """All that is kept of each run, (C,) each. Epochs are inf where a run does not get there."""
    loss = neuron.value(path)
    above = loss - lowest
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "stabilised": stabilised(loss, p.stable),
            "arrived": arrived(above, p.target * above[0]),
            "arrived_loosely": arrived(above, p.loose_target * above[0]),
            "arrived_tightly": arrived(above, p.tight_target * above[0]),
            "touched": first(above <= p.target * above[0]),
            "left": np.where(np.isfinite(loss[-1]), above[-1] / above[0], np.inf),
            "detour": detour(path),
        }


def _over_settings(p: Grid, methods) -> pd.DataFrame:
    """The metrics of `methods(neuron, starts, rates) -> {method: path}` over data sets, losses, starts and learning rates."""
    starts = np.repeat(p.starts, len(p.rates), axis=0)  # (starts x rates, 2)
    index = np.repeat(np.arange(len(p.starts)), len(p.rates))
    rates = np.tile(p.rates, len(p.starts))
    tables = []
    for data, (x, y) in p.data.items():
        for loss in LOSSES:
            neuron = Neuron(x, y, loss)
            lowest = neuron.value(minimum(neuron, SEARCH))
            for method, path in methods(neuron, starts, rates).items():
                cells = {"data": data, "loss": loss, "start": index, "lr": rates.round(6), "method": method, "step": p.epochs}
                for metric, value in _metrics(neuron, path, lowest, p).items():
                    tables.append(pd.DataFrame({**cells, "metric": metric, "value": value}))
    return pd.concat(tables)


@case(Grid)
def grid(p: Grid, seed: int) -> pd.DataFrame:
    return _over_settings(p, lambda *cells: {"Adam": p.adam(*cells), "AdaHessian": p.adahessian(*cells)})


@case(Grid)
def probes(p: Grid, seed: int) -> pd.DataFrame:
    d = hutchinson(np.random.default_rng(seed))
    return _over_settings(p, lambda *cells: {"AdaHessian": p.adahessian(*cells, d)})
