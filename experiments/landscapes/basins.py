"""Whether a descent leaves the basin in which it begins: Rastrigin's function, whose basins are known.

Its gradient along a coordinate is 2 t + 20 pi sin(2 pi t). To first order in c = 1 / (20 pi^2) the minima are k (1 - c), k
whole numbers, with heights that grow with k^2, and basins meet at (k + 1/2) (1 + c).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from secondlook.problems.landscapes import LANDSCAPES
from secondlook.study.parameters import Fraction, Number, Positive, PositiveInt, Text

from .methods import descend, methods

STRETCH = 1 / (20 * np.pi**2)  # c


@dataclass(frozen=True)
class Basins:
    momentum: Fraction
    betas: tuple[Fraction, ...]
    steps: PositiveInt
    latest: PositiveInt
    radius: Positive
    reach: Positive
    tuning_starts: PositiveInt
    starts: PositiveInt
    methods: tuple[Text, ...]
    octaves: tuple[Number, ...]


def lower_minimum(first: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """1 where a run from `first` (..., 2) stays at its end (steps, ..., 2) within `radius` of a lower minimum than that of the
    basin in which it began, 0 where it does not, NaN where it began in the lowest."""
    began, ended = (np.rint(theta / (1 + STRETCH)) for theta in (first, end[-1]))
    with np.errstate(all="ignore"):
        rests = (np.abs(end - ended * (1 - STRETCH)) <= radius).all((0, -1))
        heights = (began**2).sum(-1), (ended**2).sum(-1)
    return np.where(heights[0] == 0, np.nan, rests & (heights[1] < heights[0]))


def rows(p: Basins, seed: int) -> Iterator[dict]:
    """For every method, rate and start outside of the lowest basin, whether it ends in a lower minimum; the first
    `tuning_starts` choose a method's rate."""
    generator = torch.Generator().manual_seed(seed)
    start = p.reach * (2 * torch.rand(p.tuning_starts + p.starts, 2, generator=generator, dtype=torch.float64) - 1)
    rates = 2.0 ** np.arange(p.octaves[0], p.octaves[1] + 1)
    known = methods(p.momentum, p.betas)
    for method in p.methods:
        path = descend(known[method], lambda theta, t: LANDSCAPES["Rastrigin"].value(theta).sum(), start, rates, p.steps)
        found = lower_minimum(path[0].numpy(), path[p.latest :].numpy(), p.radius)  # (rates, starts)
        for rate, number in zip(*np.nonzero(~np.isnan(found)), strict=True):
            part = "tuning" if number < p.tuning_starts else "reported"
            at = {"method": method, "start": number, "lr": rates[rate], "part": part, "step": p.steps}
            yield {**at, "metric": "lower minimum", "value": found[rate, number]}
