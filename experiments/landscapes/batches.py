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


def descend(p: Batches, size: int, seeds: range, rates: np.ndarray, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Examples seen, and the mean loss over all pictures (rates, seeds): at the start and after `every` steps."""
    data = [digits(p.examples, torch.Generator().manual_seed(seed)) for seed in seeds]
    x = np.stack([np.c_[x.flatten(1).numpy(), np.ones(p.examples)] for x, _ in data])  # (seeds, N, pixels + 1)
    y = np.stack([np.eye(CLASSES)[y.numpy()] for _, y in data])  # (seeds, N, classes)
    orders = [np.random.default_rng(seed) for seed in seeds]
    W = np.zeros((len(rates), len(seeds), x.shape[-1], CLASSES))
    seen = step = 0
    yield seen, _loss(W, x, y)
    for _ in range(p.epochs):
        order = np.stack([generator.permutation(p.examples) for generator in orders])  # (seeds, N)
        for first in range(0, p.examples, size):
            picked = order[:, first : first + size, None]
            xs, ys = np.take_along_axis(x, picked, 1), np.take_along_axis(y, picked, 1)
            g = xs.swapaxes(1, 2) @ (_softmax(xs @ W) - ys) / xs.shape[1]  # (rates, seeds, pixels + 1, classes)
            W = W - rates[:, None, None, None] * g
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
    """For each kind of descent the examples seen before the loss is down to `target` of the first: of the tuning runs at every
    rate, of the reported ones at the best, at `looks` an epoch. Of these also the losses at these looks, and the variation of
    the loss from step to step, sum |L' - L| over the fall of L: 1 where it never rises."""
    tuning = range(seed, seed + p.tuning_runs)
    reported = range(tuning.stop, tuning.stop + p.runs)
    for name, size in p.sizes.items():
        every = max(p.examples // p.looks // size, 1)  # steps between two looks
        seen, loss = _course(p, size, tuning, p.rates, every)
        arrived = _arrived(p, seen, loss)
        for lr, values in zip(p.rates, arrived, strict=True):
            for run, value in zip(tuning, values, strict=True):
                at = {"method": name, "start": run, "lr": lr, "part": "tuning"}
                yield {**at, "step": size, "metric": "examples", "value": value}
        best = np.lexsort((loss[-1].mean(1), np.median(arrived, axis=1)))[:1]
        seen, loss = _course(p, size, reported, p.rates[best], 1)
        variation = np.abs(np.diff(loss, axis=0)).sum(0) / (loss[0] - loss[-1])
        seen, loss = seen[::every], loss[::every]
        arrived = _arrived(p, seen, loss)
        for index, run in enumerate(reported):
            at = {"method": name, "start": run, "lr": p.rates[best[0]], "part": "reported"}
            yield {**at, "step": size, "metric": "examples", "value": arrived[0, index]}
            yield {**at, "step": size, "metric": "variation", "value": variation[0, index]}
            for when, value in zip(seen, loss[:, 0, index], strict=True):
                yield {**at, "step": when, "metric": "loss", "value": value}


def _course(p: Batches, size: int, seeds: range, rates: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples seen (looks,), and the losses (looks, rates, seeds)."""
    seen, losses = zip(*descend(p, size, seeds, rates, every), strict=True)
    return np.array(seen), np.stack(losses)


def _arrived(p: Batches, seen: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Examples seen at the first look at which the loss is down to the target (rates, seeds); infinity where it never is."""
    there = loss <= p.target * loss[0]
    return np.where(there.any(0), seen[there.argmax(0)], np.inf)
