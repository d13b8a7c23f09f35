"""One loop for all: how long an optimiser takes until the gap has fallen to each of several levels."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .methods import Make, compare_on_this_batch
from .problems import Network, Problem

LEAST_GRADIENT = 1e-12  # largest component of g at which L-BFGS stops
Batches = Callable[[], Iterable[Tensor | slice]]  # of the next epoch


@dataclass(frozen=True)
class Arrivals:
    """Of each run: the first of its epochs after which the gap is at most each level, and the seconds of its steps until then,
    (levels,); infinite where it never was. last: the gap at the end; infinite where the run diverged."""

    epochs: np.ndarray
    seconds: np.ndarray
    last: float


class Watch:
    """Notes when the gaps of R runs arrive at the levels."""

    def __init__(self, levels: Sequence[float], runs: int):
        self.levels = np.array(levels)[:, None]
        self.epochs, self.seconds = (np.full((len(levels), runs), math.inf) for _ in range(2))
        self.gaps = np.full(runs, math.nan)

    def see(self, gaps: np.ndarray, epoch: int, seconds: float) -> bool:
        """Whether every run has arrived everywhere or diverged."""
        self.gaps = gaps
        here = (gaps <= self.levels) & np.isinf(self.epochs)
        self.epochs[here], self.seconds[here] = epoch, seconds
        return bool((np.isfinite(self.epochs).all(0) | ~np.isfinite(gaps)).all())

    def arrivals(self) -> list[Arrivals]:
        last = np.where(np.isfinite(self.gaps), self.gaps, math.inf)
        return [Arrivals(*run) for run in zip(self.epochs.T, self.seconds.T, last.tolist(), strict=True)]


def whole() -> list[slice]:
    """Every epoch is one step, on all examples."""
    return [slice(None)]


def shuffled(examples: int, size: int, generator: torch.Generator) -> Batches:
    """All examples in a new order every epoch, `size` at a time; the few that are left over wait for another epoch."""
    return lambda: torch.randperm(examples, generator=generator)[: examples - examples % size].split(size)


def descend(
    problem: Problem | Network,
    make: Make,
    rates: Sequence[float],
    levels: Sequence[float],
    epochs: int,
    probes: torch.Generator,
    batches: Batches = whole,
    same_batch: bool = False,
) -> list[Arrivals]:
    """Runs from theta_0, one for each rate, side by side on the same batches, `epochs` long or until all have arrived at the
    last level. An adaptive optimiser has one rate for all its parameters: give it one. `same_batch`: see
    `methods.compare_on_this_batch`."""
    params = [problem.start.clone().requires_grad_() for _ in rates]
    optimizer = make([{"params": [p], "lr": lr} for p, lr in zip(params, rates, strict=True)], probes)
    backward = getattr(optimizer, "backward", Tensor.backward)
    watch, seconds = Watch(levels, len(rates)), 0.0
    for epoch in range(epochs + 1):
        with torch.no_grad():
            gaps = problem.gaps(problem.losses(torch.stack(params, 1)))
        if watch.see(gaps.numpy(), epoch, seconds) or epoch == epochs:
            break
        begin = time.perf_counter()
        for batch in batches():
            optimizer.zero_grad()
            backward(problem.losses(torch.stack(params, 1), batch).sum())
            if same_batch:
                compare_on_this_batch(optimizer, problem, batch)
            optimizer.step()
        seconds += time.perf_counter() - begin
    return watch.arrivals()


def lbfgs(problem: Problem | Network, levels: Sequence[float], evaluations: int) -> Arrivals:
    """Torch's L-BFGS with a memory of 10 steps and its line search for the strong Wolfe conditions, so without a rate. An
    evaluation of f and g counts as a step: a point is judged by the evaluations before its own, as those of the others are."""
    theta = problem.start.clone().requires_grad_()
    tolerances = {"tolerance_grad": LEAST_GRADIENT, "tolerance_change": 0.0}
    limits = {"max_iter": evaluations, "max_eval": evaluations}
    optimizer = torch.optim.LBFGS([theta], history_size=10, line_search_fn="strong_wolfe", **tolerances, **limits)
    watch, count = Watch(levels, 1), 0
    begin = time.perf_counter()

    def evaluate() -> Tensor:
        nonlocal count
        optimizer.zero_grad()
        loss = problem.loss(theta)
        loss.backward()
        if count <= evaluations:
            watch.see(problem.gaps(loss.detach())[None].numpy(), count, time.perf_counter() - begin)
        count += 1
        return loss

    optimizer.step(evaluate)
    (found,) = watch.arrivals()
    return found
