"""Does Richardson extrapolation turn slow errors into fast ones, and does it ever cost anything?

Claim     Extrapolation gives Frank-Wolfe rates of 1/k^2 on polytopes and Nesterov's smoothing rates close to 1/k^2, and comes
          with no significant loss, but sometimes strong gains, in these two, averaged gradient descent and ridge regression
          (the abstract of Bach, on adahessian-abstract). It gives no number.
Set-up    Random instances whose minimum is known, so that an error is measured and not estimated; extrapolated and plain
          results at equal cost. Beyond the document: differences of gradients for Hessian-vector products, and the mean
          iterate of SGD and of AdaHessian at a constant learning rate.
Hardware  any CPU, one thread; about half a minute in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from secondlook.curvature.finite_differences import DifferenceHessian
from secondlook.curvature.objective import Objective
from secondlook.curvature.vectors import flat
from secondlook.study.declare import case
from secondlook.study.parameters import Count, NonNegative, Positive, PositiveInt, Text

from . import chains, frank_wolfe, lasso, logistic, ridge
from .extrapolation import even_steps, in_iterations, in_strength

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Averaging:
    steps: PositiveInt
    first: PositiveInt
    points: PositiveInt
    examples: PositiveInt
    dimension: PositiveInt
    decays: tuple[Positive, ...]
    noises: tuple[NonNegative, ...]


@case(Averaging)
def averaging(p: Averaging, seed: int) -> Iterator[dict]:
    """Gap of the mean iterate of gradient descent, of its extrapolation, and of the last iterate."""
    rng = np.random.default_rng(seed)
    steps = even_steps(p.first, p.steps, p.points)
    for decay in p.decays:
        A = logistic.data(p.examples, p.dimension, decay, rng)
        best = logistic.minimum(A)
        path = logistic.descend(A, p.steps, np.array(p.noises), rng)
        means = logistic.averages(path)
        for run, noise in enumerate(p.noises):
            shown = {
                "plain": means[steps, :, run],
                "extrapolated": in_iterations(means[:, :, run], steps),
                "last": path[steps, :, run],
            }
            for method, theta in shown.items():
                for k, gap in zip(steps, logistic.gap(A, theta, best), strict=True):
                    at = {"decay": decay, "noise": noise, "method": method, "step": k}
                    yield {**at, "metric": "gap", "value": gap}


@dataclass(frozen=True)
class FrankWolfe:
    steps: PositiveInt
    first: PositiveInt
    points: PositiveInt
    dimension: PositiveInt
    support: PositiveInt
    margin: Positive
    problems: dict[str, Text]


@case(FrankWolfe)
def polytopes(p: FrankWolfe, seed: int) -> Iterator[dict]:
    """Gap of Frank-Wolfe's iterate; of its extrapolation, in absolute value, for it may leave C; of that point's projection
    on C; the distance that the projection goes; and g^T (x_K - x*), to which only weight outside the face of x* adds."""
    rng = np.random.default_rng(seed)
    steps = even_steps(p.first, p.steps, p.points)
    for region, rules in p.problems.items():
        problem = frank_wolfe.instance(region, p.dimension, p.support, p.margin, rng)
        for rule in rules.split(" and "):
            path = frank_wolfe.walk(problem, rule, p.steps, rng)
            ahead = in_iterations(path, steps)
            inside = problem.project(ahead)
            found = {
                ("plain", "gap"): problem.gap(path[steps]),
                ("extrapolated", "gap"): np.abs(problem.gap(ahead)),
                ("projected", "gap"): problem.gap(inside),
                ("extrapolated", "distance"): np.linalg.norm(ahead - inside, axis=1),
            }
            for (method, metric), values in found.items():
                for k, value in zip(steps, values, strict=True):
                    at = {"region": region, "rule": rule, "method": method, "step": k}
                    yield {**at, "metric": metric, "value": value}
            outside = problem.g @ (path[-1] - problem.best)
            at = {"region": region, "rule": rule, "method": "plain", "step": p.steps}
            yield {**at, "metric": "outside face", "value": outside}


def _strengths(p) -> np.ndarray:
    """Every power of two between the given exponents, ascending."""
    return 2.0 ** np.arange(-p.halvings, p.doublings + 1)


@dataclass(frozen=True)
class Smoothing:
    dimension: PositiveInt
    support: PositiveInt
    decay: Positive
    weight: Positive
    halvings: Count
    doublings: Count
    orders: tuple[Count, ...]
    gradients: PositiveInt
    first: PositiveInt
    points: PositiveInt


@case(Smoothing)
def smoothing(p: Smoothing, seed: int) -> Iterator[dict]:
    """Gap of F at the exact minimum of F_s against s, and after so many gradients (counted over all solutions that an
    extrapolation takes) at the best s; `at edge`: whether that is the least or the largest that was tried."""
    rng = np.random.default_rng(seed)
    problem = lasso.instance(p.dimension, p.support, p.decay, p.weight, rng)
    strengths = _strengths(p)
    budgets = np.unique(np.geomspace(p.first, p.gradients, p.points).astype(int))
    for name in lasso.SMOOTHINGS:
        exact = lasso.minima(problem, name, strengths)
        path = lasso.accelerated(problem, name, strengths, p.gradients)
        for order in p.orders:
            at = {"smoothing": name, "method": f"order {order}"}
            for s, gap in zip(strengths, problem.gap(in_strength(exact, order)), strict=False):
                yield {**at, "strength": s, "step": 0, "metric": "gap at minimum", "value": gap}
            for budget in budgets:
                gaps = problem.gap(in_strength(path[budget // (order + 1) - 1], order))
                best = gaps.argmin()
                for metric, value in (("gap", gaps[best]), ("at edge", best in (0, len(gaps) - 1))):
                    yield {**at, "strength": strengths[best], "step": budget, "metric": metric, "value": value}
    direct = lasso.proximal(problem, p.gradients)
    for budget, gap in zip(budgets, problem.gap(direct[budgets - 1]), strict=True):
        yield {"smoothing": "none", "method": "proximal", "step": budget, "metric": "gap", "value": gap}


@dataclass(frozen=True)
class Ridge:
    examples: PositiveInt
    dimension: PositiveInt
    decay: Positive
    halvings: Count
    doublings: Count
    orders: tuple[Count, ...]
    smoothnesses: tuple[NonNegative, ...]
    noises: tuple[Positive, ...]


@case(Ridge)
def penalties(p: Ridge, seed: int) -> Iterator[dict]:
    """Of ridge regression against its penalty: the bias, which is the distance to least squares without noise, in the norm
    of S; and the risk with noise."""
    rng = np.random.default_rng(seed)
    strengths = _strengths(p)
    for smoothness in p.smoothnesses:
        problem = ridge.instance(p.examples, p.dimension, p.decay, smoothness, rng)
        clean, noise = problem.A @ problem.truth, rng.standard_normal(p.examples)
        (least_squares,) = ridge.solutions(problem.A, clean, np.zeros(1))
        for order in p.orders:
            at = {"smoothness": smoothness, "method": f"order {order}", "step": 0}
            theta = in_strength(ridge.solutions(problem.A, clean, strengths), order)
            for s, risk in zip(strengths, problem.risk(theta, least_squares), strict=False):
                yield {**at, "noise": 0.0, "strength": s, "metric": "bias", "value": np.sqrt(risk)}
            for deviation in p.noises:
                theta = in_strength(ridge.solutions(problem.A, clean + deviation * noise, strengths), order)
                for s, risk in zip(strengths, problem.risk(theta), strict=False):
                    yield {**at, "noise": deviation, "strength": s, "metric": "risk", "value": risk}


@dataclass(frozen=True)
class Differences:
    inputs: PositiveInt
    hidden: PositiveInt
    examples: PositiveInt
    halvings: Count
    doublings: Count
    orders: tuple[PositiveInt, ...]


@case(Differences)
def differences(p: Differences, seed: int) -> Iterator[dict]:
    """Relative error of H v by differences of gradients, for a small tanh network, against the exact product in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((p.hidden, p.inputs), (p.hidden,), (1, p.hidden))
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) / s[-1] ** 0.5 for s in shapes]
    v = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    x = torch.randn(p.examples, p.inputs, generator=generator, dtype=torch.float64)
    y = torch.randn(p.examples, 1, generator=generator, dtype=torch.float64)
    exact = flat(next(iter(_objective(drawn, x, y, torch.float64).products([v])))[1])
    for name, dtype in DTYPES.items():
        objective = _objective(drawn, x, y, dtype)
        vector = [part.to(dtype) for part in v]
        for order in p.orders:
            for step in _strengths(p):
                ((_, product),) = DifferenceHessian(objective, step, order).products([vector])
                error = ((flat(product).double() - exact).norm() / exact.norm()).item()
                yield {"dtype": name, "order": order, "strength": step, "step": 0, "metric": "error", "value": error}


def _objective(params, x, y, dtype) -> Objective:
    def loss(theta, x, y):
        W, b, out = theta
        return functional.mse_loss(torch.tanh(x @ W.T + b) @ out.T, y)

    leaves = [part.to(dtype).requires_grad_() for part in params]
    return Objective(loss, leaves, [(x.to(dtype), y.to(dtype))])


@dataclass(frozen=True)
class ConstantRate:
    examples: PositiveInt
    dimension: PositiveInt
    chains: PositiveInt
    steps: PositiveInt
    burn_in: PositiveInt
    warm_up: Count
    lrs: dict[str, tuple[Positive, ...]]


@case(ConstantRate)
def constant_rate(p: ConstantRate, seed: int) -> Iterator[dict]:
    """Distance of the mean iterate from theta*, plain and extrapolated in the learning rate."""
    A = logistic.data(p.examples, p.dimension, 0.0, np.random.default_rng(seed))
    for method, lrs in p.lrs.items():
        bias = chains.mean_bias(method, A, lrs, p.chains, p.steps, p.burn_in, p.warm_up, seed)
        for order in (0, 1):
            for lr, b in zip(lrs, in_strength(bias, order), strict=False):
                at = {"method": method, "order": order, "strength": lr, "step": p.steps}
                yield {**at, "metric": "bias", "value": np.linalg.norm(b)}
