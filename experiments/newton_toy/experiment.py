"""Newton's method against gradient descent: does the Hessian do what hessian-network-learning says?

Claim: on a 5 x 5 mean squared error, gradient descent at lr 0.1 takes the loss from 0.1446 to 0.0893 (38.2 %) in 40 epochs and
Newton's method to 0.0003 (99.8 %), because it uses curvature; it needs no learning rate, and it avoids saddle points.

Cases: toy (the document's numbers), scale (what the toy hides), conditioning (where curvature does matter), saddle and paths
(where methods end), graph and growth (what the document's loop costs). Hardware: one CPU core. Run time: about 25 s, and as
much again for growth, which measures time and is therefore recorded.
"""

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from secondlook.problems.quadratics import rotated, spectrum
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Fraction, Number, Positive, PositiveInt

from . import double_well, loops
from .accounting import heap, nodes
from .closed_forms import bound, eigenbasis, steps_to_reduce
from .methods import steppers

NEWTON_LOOPS = {"row by row": loops.row_by_row, "autograd": loops.by_autograd, "func": loops.by_func}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Loop:
    lr: Positive
    size: PositiveInt
    steps: PositiveInt


@case(Loop)
def toy(params: Loop, seed: int):
    """Loss after t updates of each of the document's loops; in float64 also how far its fall in a step is from the closed form,
    (1 - 2 lr/n)^2 for gradient descent and (1 - lr)^2 for Newton, because H = (2/n) I; and how far each loop's H is from
    that, and from the row-by-row loop's."""
    n = params.size**2
    factors = {"GD": (1 - 2 * params.lr / n) ** 2} | dict.fromkeys(NEWTON_LOOPS, (1 - params.lr) ** 2)
    for precision, dtype in DTYPES.items():
        closed_form = 2 / n * torch.eye(n, dtype=dtype)
        runs = {
            name: run(*loops.start(seed, params.size, dtype), params.lr, params.steps)
            for name, run in {"GD": loops.gradient_descent, **NEWTON_LOOPS}.items()
        }
        before = {}
        for t, states in enumerate(zip(*runs.values(), strict=True)):
            state = dict(zip(runs, states, strict=True))
            for name in runs:
                found = {"loss": state[name].loss.item()}
                if dtype is torch.float64 and t > 0:
                    found["factor_error"] = abs(found["loss"] / before[name] - factors[name])
                if state[name].H is not None:
                    found["hessian_from_closed_form"] = (state[name].H - closed_form).abs().max().item()
                    found["hessian_from_row_by_row"] = (state[name].H - state["row by row"].H).abs().max().item()
                before[name] = found["loss"]
                for metric, value in found.items():
                    yield {"method": name, "dtype": precision, "step": t, "metric": metric, "value": value}


@case(Loop)
def scale(params: Loop, seed: int):
    """Newton at lr beside gradient descent at lr n/2, in float64: the loss of both, and the distance between their thetas."""
    for lr in (params.lr, 1.0):
        rates = {"Newton": lr, "GD": lr * params.size**2 / 2}
        newton = loops.by_func(*loops.start(seed, params.size, torch.float64), rates["Newton"], params.steps)
        descent = loops.gradient_descent(*loops.start(seed, params.size, torch.float64), rates["GD"], params.steps)
        for t, states in enumerate(zip(newton, descent, strict=True)):
            distance = (states[0].path[-1] - states[1].path[-1]).abs().max()
            for (method, rate), state in zip(rates.items(), states, strict=True):
                yield {"method": method, "lr": rate, "step": t, "metric": "loss", "value": state.loss.item()}
            yield {"method": "Newton", "lr": lr, "step": t, "metric": "distance_to_GD", "value": distance.item()}


@dataclass(frozen=True)
class Conditioning:
    lr: Positive
    dimension: PositiveInt
    reduction: Fraction
    newton_steps: PositiveInt
    conditions: tuple[Positive, ...]
    lr_multiples: tuple[Positive, ...]


@case(Conditioning)
def conditioning(params: Conditioning, seed: int):
    """Steps until the loss has fallen to `reduction` of its first value, on rotated quadratics.

    The start gives every eigendirection the same expected share of the loss, so that none is negligible. Newton is
    iterated. Gradient descent, which needs up to 10^7 steps, is not: its loss after t steps is known exactly in the
    eigenbasis of H and falls with t, so the first t that reaches the target is found by bisection (`closed_forms`); a test
    compares it with iteration at small condition numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    for condition in params.conditions:
        problem = rotated(spectrum(condition, params.dimension), generator)
        eigenvalues, vectors = torch.linalg.eigh(problem.H)
        z = torch.randn(params.dimension, generator=generator, dtype=torch.float64)
        theta = vectors @ (z / eigenvalues.sqrt())
        found = {("Newton", 1.0): _newton_steps(problem, theta, 1.0, params)}
        found["damped Newton", params.lr] = _newton_steps(problem, theta, params.lr, params)
        found["GD bound", 1.0] = bound(params.reduction, condition)
        spectrum_found, c = eigenbasis(problem.H, theta - problem.minimum)
        for multiple in params.lr_multiples:
            lr = multiple * 2 / (spectrum_found[0] + spectrum_found[-1]).item()
            found["GD", multiple] = steps_to_reduce(params.reduction, spectrum_found, c, lr)
        for (method, lr), steps in found.items():
            yield {"method": method, "condition": condition, "lr": lr, "step": 0, "metric": "iterations", "value": steps}
        price = 1 + params.dimension  # g, and n differences of gradients for H, exact on a quadratic
        yield {"method": "Newton", "condition": condition, "lr": 1.0, "step": 0, "metric": "gradients", "value": price}


def _newton_steps(problem, theta, lr: float, params: Conditioning) -> float:
    target = params.reduction * problem.value(theta)
    for t in itertools.count():
        if problem.value(theta) <= target:
            return t
        if t == params.newton_steps:
            return math.inf
        theta = theta - lr * torch.linalg.solve(problem.H, problem.gradient(theta))


@dataclass(frozen=True)
class Walks:
    lr: Positive
    margin: Positive
    radius: Positive
    max_radius: Positive
    max_steps: PositiveInt
    tolerance: Positive

    def steppers(self) -> dict[str, double_well.Stepper]:
        return steppers(self.lr, self.margin, self.radius, self.max_radius)


@dataclass(frozen=True)
class Saddle(Walks):
    near: Positive
    ring: Positive


@case(Saddle)
def saddle(params: Saddle, seed: int):
    """Whether each method arrives at the saddle or at a minimum, and after how many steps, from two random starts."""
    generator = np.random.default_rng(seed)
    angles = generator.uniform(0, 2 * math.pi, size=2)
    radii = {"near": params.near * math.sqrt(generator.uniform()), "ring": params.ring}
    for angle, (region, radius) in zip(angles, radii.items(), strict=True):
        start = radius * np.array([math.cos(angle), math.sin(angle)])
        for method, stepper in params.steppers().items():
            *before, end = double_well.walk(start, stepper, params.max_steps, params.tolerance)
            stationary = np.linalg.norm(double_well.gradient(end)) < params.tolerance
            convex = np.linalg.eigvalsh(double_well.hessian(end))[0] > 0
            arrived = {"at_saddle": stationary and not convex, "at_minimum": stationary and convex}
            for metric, here in arrived.items():
                yield {"method": method, "region": region, "step": len(before), "metric": metric, "value": here}


@dataclass(frozen=True)
class Paths(Walks):
    starts: tuple[tuple[Number, ...], ...]


@case(Paths)
def paths(params: Paths, seed: int):
    """theta at every step of each method from the given starts."""
    for index, start in enumerate(params.starts):
        for method, stepper in params.steppers().items():
            for t, theta in enumerate(double_well.walk(np.array(start), stepper, params.max_steps, params.tolerance)):
                for metric, number in zip(("theta_1", "theta_2"), theta, strict=True):
                    yield {"method": method, "start": index, "step": t, "metric": metric, "value": number}


@dataclass(frozen=True)
class Graph:
    lr: Positive
    size: PositiveInt
    steps: PositiveInt
    every: PositiveInt


@case(Graph)
def graph(params: Graph, seed: int):
    """Graph nodes at step t: those that the next backward pass walks through, and all that the loop keeps alive."""
    runs = {"GD": loops.gradient_descent, "row by row": loops.row_by_row, "detached": loops.detached}
    for name, run in runs.items():
        for t, state in enumerate(run(*loops.start(seed, params.size, torch.float32), params.lr, params.steps)):
            if t % params.every == 0:
                kept = [state.loss, *(theta.grad for theta in state.path)]
                yield {"method": name, "step": t, "metric": "nodes_of_loss", "value": nodes([state.loss])}
                yield {"method": name, "step": t, "metric": "nodes_alive", "value": nodes(kept)}


@dataclass(frozen=True)
class Growth:
    lr: Positive
    size: PositiveInt
    steps: PositiveInt
    warm_up: Count


@case(Growth)
def growth(params: Growth, seed: int):
    """Time of each step, in ms, and memory that the loop has taken so far, in bytes; the two loops take turns."""
    makers = {"row by row": loops.row_by_row, "detached": loops.detached}
    for make in makers.values():
        for _ in make(*loops.start(seed, params.size, torch.float32), params.lr, params.warm_up):
            pass
    runs = {
        name: make(*loops.start(seed, params.size, torch.float32), params.lr, params.steps) for name, make in makers.items()
    }
    taken = dict.fromkeys(runs, 0.0)
    for t in range(params.steps + 1):
        for name, run in runs.items():
            before, begin = heap(), time.perf_counter()
            next(run)
            elapsed = time.perf_counter() - begin
            taken[name] += heap() - before
            yield {"method": name, "step": t, "metric": "time_ms", "value": 1000 * elapsed}
            yield {"method": name, "step": t, "metric": "heap_bytes", "value": taken[name]}
