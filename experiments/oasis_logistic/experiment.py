"""Does OASIS save the tuning of the learning rate, and do its other constants matter?

Claim     jahani2021oasis: with a rate that adapts to the curvature, OASIS "does not require the tedious task of learning rate
          tuning", on regularised logistic regression and non-linear least squares, "in both deterministic and stochastic
          regimes". Here: OASIS in one setting for all problems, against methods at the best of eight rates for every problem.
Data      scikit-learn's tumours and digits, and generated problems of condition 1e2 to 1e6; a small network on the digits.
Cases     problems (how hard they are), rates and deterministic (full gradients: all trials, the comparison), fresh (the claim's
          comparison alone, on as many fresh seeds as it asks for), batch_rates and batches (the same with mini-batches),
          network_rates to network_batches (the four on the network), constants (what a wrong one costs), times (seconds).
Hardware  one CPU core, half an hour in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Fraction, Positive, PositiveInt, one_of
from secondlook.study.place import Place
from secondlook.training import generator

from .descents import Arrivals, descend, lbfgs, shuffled, whole
from .methods import methods
from .names import QUASI_NEWTON, SAME_BATCH, TUNED, UNTUNED
from .problems import PROBLEMS, Network, Problem

FULL = (*TUNED, *UNTUNED, QUASI_NEWTON)  # with full gradients


@dataclass(frozen=True)
class Shared:
    problems: tuple[one_of(*PROBLEMS), ...]
    examples: PositiveInt
    features: PositiveInt
    levels: tuple[Fraction, ...]
    lr: Positive
    beta2: Fraction
    alpha: Positive
    epochs: PositiveInt


def made(p: Shared, name: str, seed: int) -> Problem | Network:
    return PROBLEMS[name](seed, p.examples, p.features)


@case(Shared)
def problems(p: Shared, seed: int) -> Iterator[dict]:
    """Of every problem: condition numbers of |H| at 0 and at the minimum; there also of |H| scaled to ones on its diagonal, as
    a diagonal method would at best see it; the gradient's norm at the minimum; L."""
    for name in p.problems:
        problem = made(p, name, seed)
        H = problem.hessian(problem.minimum)
        scale = H.diagonal().abs().rsqrt()
        found = {
            "condition at 0": condition(problem.hessian(torch.zeros_like(problem.minimum))),
            "condition": condition(H),
            "scaled condition": condition(scale[:, None] * H * scale),
            "gradient": torch.func.grad(problem.loss)(problem.minimum).norm().item(),
            "smoothness": problem.smoothness,
        }
        for metric, value in found.items():
            yield {"problem": name, "step": 0, "metric": metric, "value": float(f"{value:.4g}")}


def condition(H: torch.Tensor) -> float:
    magnitudes = torch.linalg.eigvalsh(H).abs()
    return (magnitudes.max() / magnitudes.min()).item()


def arrived(p: Shared, cell: dict, found: Arrivals, metrics=("epochs",)) -> Iterator[dict]:
    """By level: epochs, or seconds, until the gap is there, infinite where it never was. And the gap at the end, infinite where
    a run diverged."""
    for metric in metrics:
        for level, value in zip(p.levels, getattr(found, metric).tolist(), strict=True):
            yield {**cell, "level": level, "step": 0, "metric": metric, "value": value}
    yield {**cell, "step": p.epochs, "metric": "gap", "value": float(f"{found.last:.3g}")}


@dataclass(frozen=True)
class Rates(Shared):
    multiples: tuple[Positive, ...]
    rates: dict[str, tuple[Positive, ...]]


@dataclass(frozen=True)
class BatchRates(Rates):
    batch: PositiveInt


def tried(p: Rates, seed: int, place: Place, batch: int | None) -> Iterator[dict]:
    """The runs of every tuned method from every rate, on every problem."""
    for name in p.problems:
        yield from kept(place, {"problem": name, "seed": seed}, lambda _, name=name: _trials(p, name, seed, batch))


def _trials(p: Rates, name: str, seed: int, batch: int | None) -> Iterator[dict]:
    problem = made(p, name, seed)
    for method in TUNED:
        given = p.multiples if method == "GD" else p.rates[method]
        for lr, found in zip(given, course(p, problem, method, given, seed, batch), strict=True):
            yield from arrived(p, {"problem": name, "method": method, "lr": lr}, found)


def course(
    p: Shared, problem: Problem | Network, method: str, rates, seed: int, batch: int | None = None, **constants
) -> list[Arrivals]:
    """The runs of a method from its rates; those of GD are multiples of 1/L. The same seed draws the same batches for all."""
    make = methods(**{"beta2": p.beta2, "alpha": p.alpha} | constants)[method]
    unit = 1 / problem.smoothness if method == "GD" else 1.0
    batches = whole if batch is None else shuffled(len(problem.X), batch, generator(seed, "order"))
    lrs = [rate * unit for rate in rates]
    probes = generator(seed, "probes")
    return descend(problem, make, lrs, p.levels, p.epochs, probes, batches, same_batch=method in SAME_BATCH)


@case(Rates, "rates", "network_rates", place=True)
def rates(p: Rates, seed: int, place: Place):
    """Full gradients: see `tried`."""
    yield from tried(p, seed, place, None)


@case(BatchRates, "batch_rates", "network_batch_rates", place=True)
def batch_rates(p: BatchRates, seed: int, place: Place):
    """Mini-batches: see `tried`."""
    yield from tried(p, seed, place, p.batch)


@dataclass(frozen=True)
class Compared(Shared):
    tuned: dict[str, dict[str, Positive]]


@dataclass(frozen=True)
class Batches(Compared):
    batch: PositiveInt


def once(p: Compared, name: str, problem: Problem | Network, method: str, seed: int, batch: int | None = None) -> Arrivals:
    """The run of a method at its tuned rate, or in its one setting."""
    if method == QUASI_NEWTON:
        return lbfgs(problem, p.levels, p.epochs)
    (found,) = course(p, problem, method, [p.tuned[name][method] if method in TUNED else p.lr], seed, batch)
    return found


def compared(p: Compared, seed: int, place: Place, methods: tuple[str, ...], batch: int | None = None) -> Iterator[dict]:
    """One run of each of the methods on every problem."""
    for name in p.problems:
        yield from kept(place, {"problem": name, "seed": seed}, lambda _, name=name: _methods(p, name, seed, methods, batch))


def _methods(p: Compared, name: str, seed: int, methods: tuple[str, ...], batch: int | None) -> Iterator[dict]:
    problem = made(p, name, seed)
    for method in methods:
        yield from arrived(p, {"problem": name, "method": method}, once(p, name, problem, method, seed, batch))


@case(Compared, "deterministic", "network", place=True)
def deterministic(p: Compared, seed: int, place: Place):
    """Full gradients: see `compared`."""
    yield from compared(p, seed, place, FULL)


@case(Compared, place=True)
def fresh(p: Compared, seed: int, place: Place):
    """Full gradients, OASIS and gradient descent: see `compared`."""
    yield from compared(p, seed, place, ("GD", "OASIS"))


@case(Batches, "batches", "network_batches", place=True)
def batches(p: Batches, seed: int, place: Place):
    """Mini-batches: see `compared`."""
    yield from compared(p, seed, place, (*TUNED, *UNTUNED, *SAME_BATCH), p.batch)


@dataclass(frozen=True)
class Constants(Shared):
    tuned: dict[str, dict[str, Positive]]
    wrong: tuple[Positive, ...]


@case(Constants, place=True)
def constants(p: Constants, seed: int, place: Place):
    """Full gradients: each method with one constant that is `wrong` times what it should be, the others as they are. What it
    should be: the tuned rate; of OASIS and AdGD the library's."""
    for name in p.problems:
        yield from kept(place, {"problem": name, "seed": seed}, lambda _, name=name: _wrong(p, name, seed))


def _wrong(p: Constants, name: str, seed: int) -> Iterator[dict]:
    problem = made(p, name, seed)
    for method in TUNED:
        lrs = [p.tuned[name][method] * times for times in p.wrong]
        for times, found in zip(p.wrong, course(p, problem, method, lrs, seed), strict=True):
            yield from arrived(p, {"problem": name, "method": method, "constant": "lr", "wrong": times}, found)
    for times in p.wrong:
        cell = {"problem": name, "wrong": times}
        (found,) = course(p, problem, "AdGD", [p.lr * times], seed)
        yield from arrived(p, {**cell, "method": "AdGD", "constant": "lr"}, found)
        for constant, lr, changed in (
            ("lr", p.lr * times, {}),
            ("beta2", p.lr, {"beta2": max(1 - (1 - p.beta2) * times, 0.0)}),
            ("alpha", p.lr, {"alpha": p.alpha * times}),
        ):
            (found,) = course(p, problem, "OASIS", [lr], seed, **changed)
            yield from arrived(p, {**cell, "method": "OASIS", "constant": constant}, found)


@dataclass(frozen=True)
class Times(Compared):
    warm_up: Count


@case(Times)
def times(p: Times, seed: int):
    """A round: the comparison with full gradients, with the seconds of steps until arrival; the methods take turns."""
    for name in p.problems:
        problem = made(p, name, seed)
        for method in FULL:
            once(replace(p, epochs=p.warm_up), name, problem, method, seed)
        for method in FULL:
            found = once(p, name, problem, method, seed)
            yield from arrived(p, {"problem": name, "method": method}, found, ("epochs", "seconds"))
