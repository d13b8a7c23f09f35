"""Batch, mini-batch and stochastic gradient descent on data: softmax regression on digits, three kinds by their batch alone.

    theta <- theta - lr (1/b) sum_{i in batch} grad loss_i(theta),    b = N, b < N, b = 1

Every run draws its pictures, and an epoch's order anew; many runs and rates go side by side, (K, ...).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from secondlook.problems.digits import CLASSES, digits
from secondlook.study.parameters import Fraction, Number, PositiveInt


@dataclass(frozen=True)
class Batches:
    momentum: Fraction
    betas: tuple[Fraction, ...]
    examples: PositiveInt
    epochs: PositiveInt
    looks: PositiveInt
    target: Fraction
    tuning_runs: PositiveInt
    runs: PositiveInt
    sizes: dict[str, PositiveInt]
    octaves: tuple[Number, Number]

    @property
    def rates(self) -> np.ndarray:
        low, high = self.octaves
        return 2.0 ** np.arange(low, high + 1)


def descend(p: Batches, size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Examples seen, and the mean loss over all pictures (rates, runs); `looks` times an epoch, the first at the start."""
    count = p.tuning_runs + p.runs
    data = [digits(p.examples, torch.Generator().manual_seed(seed + run)) for run in range(count)]
    x = np.stack([np.c_[x.flatten(1).numpy(), np.ones(p.examples)] for x, _ in data])  # (runs, N, pixels + 1)
    y = np.stack([np.eye(CLASSES)[y.numpy()] for _, y in data])  # (runs, N, classes)
    orders = [np.random.default_rng(seed + run) for run in range(count)]
    W = np.zeros((len(p.rates), count, x.shape[-1], CLASSES))
    every = max(p.examples // p.looks // size, 1)  # steps
    seen = step = 0
    yield seen, _loss(W, x, y)
    for _ in range(p.epochs):
        order = np.stack([generator.permutation(p.examples) for generator in orders])  # (runs, N)
        for first in range(0, p.examples, size):
            picked = order[:, first : first + size, None]
            xs, ys = np.take_along_axis(x, picked, 1), np.take_along_axis(y, picked, 1)
            g = xs.swapaxes(1, 2) @ (_softmax(xs @ W) - ys) / xs.shape[1]  # (rates, runs, pixels + 1, classes)
            W = W - p.rates[:, None, None, None] * g
            seen, step = seen + xs.shape[1], step + 1
            if step % every == 0:
                yield seen, _loss(W, x, y)


def _softmax(s: np.ndarray) -> np.ndarray:
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _loss(W: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    s = x @ W
    top = s.max(-1)
    return (top + np.log(np.exp(s - top[..., None]).sum(-1)) - (s * y).sum(-1)).mean(-1)


def rows(p: Batches, seed: int) -> Iterator[dict]:
    """For each kind of descent the examples seen before the loss is down to `target` of the first, at every rate; and, of the
    reported runs at the rate that is best for that, the losses on the way and their variation, sum |L' - L| over the fall of L:
    1 where the loss never rises."""
    for name, size in p.sizes.items():
        seen, losses = zip(*descend(p, size, seed), strict=True)
        loss = np.stack(losses)  # (looks, rates, runs)
        there = loss <= p.target * loss[0]
        arrived = np.where(there.any(0), np.array(seen)[there.argmax(0)], np.inf)  # (rates, runs)
        middle = np.median(arrived[:, : p.tuning_runs], axis=1)
        chosen = int(np.lexsort((loss[-1, :, : p.tuning_runs].mean(1), middle))[0])
        variation = np.abs(np.diff(loss, axis=0)).sum(0) / (loss[0] - loss[-1])
        for run in range(p.tuning_runs + p.runs):
            for rate, lr in enumerate(p.rates):
                at = {"method": name, "start": run, "lr": lr, "part": "tuning" if run < p.tuning_runs else "reported"}
                yield {**at, "step": size, "metric": "examples", "value": arrived[rate, run]}
                if run >= p.tuning_runs and rate == chosen:
                    yield {**at, "step": size, "metric": "variation", "value": variation[rate, run]}
                    for when, value in zip(seen, loss[:, rate, run], strict=True):
                        yield {**at, "step": when, "metric": "loss", "value": value}
