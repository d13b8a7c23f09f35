"""Does a filter with a learnt conditional mean follow chaos better than the ensemble Kalman filter?

Claim     hoang2021encmf (its abstract, on adahessian-abstract): the ensemble conditional mean filter is unbiased for the
          posterior mean, with the expected conditional variance; networks represent conditional means in high dimensions;
          with them the filter outperforms the ensemble Kalman filter on Lorenz-63 and Lorenz-96. It gives no number.
Set-up    E[X | Y] known by quadrature or in closed form; then Lorenz-63 and Lorenz-96, as DAPPER sets them up, many runs as one
          tensor, beside a square root filter, each filter at the inflation and the radius that are best for it.
Cases     posterior (bias and variance), dimensions (error of phi), tuning (all trials), tracking (the comparison),
          rates and optimisers (Adam, AdaHessian and L-BFGS for the network, at equal work).
Hardware  one CPU core, half an hour in all.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Fraction, Positive, PositiveInt, one_of
from secondlook.study.place import Place

from .analysis import enkf, everything, gain
from .cycling import follow
from .networks import Training, better, conditional_mean, learn
from .priors import SCALARS, Mixture, Scalar, by_likelihood
from .systems import SYSTEMS

FILTERS = ("EnKF", "ETKF", "learnt")
METRICS = ("rmse", "spread", "used", "held_out")  # the last two of a filter that learns


@dataclass(frozen=True)
class Network:
    hidden: PositiveInt
    lr: Positive
    gradients: PositiveInt
    draws: PositiveInt

    def training(self, **others) -> Training:
        """With Adam, unless `others` say more."""
        own = {"hidden": self.hidden, "lr": self.lr, "gradients": self.gradients, "draws": self.draws}
        return Training(**({"method": "Adam"} | own | others))


@dataclass(frozen=True)
class Posterior(Network):
    priors: tuple[one_of(*SCALARS), ...]
    ensembles: PositiveInt
    members: PositiveInt
    quantiles: tuple[Fraction, ...]


@case(Posterior)
def posterior(p: Posterior, seed: int) -> Iterator[dict]:
    """At quantiles of Y, in units of the root of E Var(X | Y): the bias of the updated ensemble's mean, over `ensembles` of
    them, and its variance over E Var(X | Y); `posterior`: Var(X | y) over E Var(X | Y). Methods: phi by quadrature, the Kalman
    filter's, and learnt from the members."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for name in p.priors:
        prior = SCALARS[name]
        x = prior.draw(rng, (p.ensembles, p.members))
        simulated = prior.h(x) + prior.r * rng.standard_normal(x.shape)
        X, H, Y = (torch.from_numpy(part)[..., None] for part in (x, prior.h(x), simulated))
        K = gain(X, H, prior.r, torch.ones(1, dtype=X.dtype))
        learnt = learn(X, H, prior.r, everything(1), p.training(), generator)
        unit = prior.expected_variance
        exactly = partial(_exactly, prior)
        for share in p.quantiles:
            y = torch.full((p.ensembles, 1), prior.quantile(share), dtype=X.dtype)
            after = {
                "conditional mean": conditional_mean(X, Y, y, exactly),
                "EnKF": enkf(X, Y, y, K),
                "learnt": conditional_mean(X, Y, y, learnt),
            }
            exact = exactly(y[0, 0]).item()
            at = {"prior": name, "quantile": share, "step": 0}
            for method, members in after.items():
                bias = (members.mean().item() - exact) / unit**0.5
                yield {**at, "method": method, "metric": "bias", "value": bias}
                yield {**at, "method": method, "metric": "variance", "value": members.var(1).mean().item() / unit}
            spread = float(np.interp(y[0, 0].item(), prior.y, prior.moments[1]))
            yield {**at, "method": "exact", "metric": "posterior", "value": spread / unit}


def _exactly(prior: Scalar, y: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.asarray(prior.conditional_mean(y.numpy())))


@dataclass(frozen=True)
class Dimensions(Network):
    wide: PositiveInt
    runs: PositiveInt
    tests: PositiveInt
    kinds: tuple[one_of("joint", "components"), ...]
    dimensions: tuple[PositiveInt, ...]
    members: tuple[PositiveInt, ...]


@case(Dimensions, place=True)
def dimensions(p: Dimensions, seed: int, place: Place) -> Iterator[dict]:
    """Error of an estimated conditional mean, E |phi^ - phi|^2 / E |phi - E X|^2, over fresh observations: linear; linear and
    a network of `hidden` units or of `wide` ones; by the choice among the three on held-out members, for each component; and by
    the likelihoods of the members."""
    for kind in p.kinds:
        for d in p.dimensions:
            for M in p.members:
                key = {"seed": seed, "prior": kind, "dimension": d, "members": M}
                yield from kept(place, key, partial(_errors, p, Mixture(kind, d), M, seed))


def _errors(p: Dimensions, prior: Mixture, M: int, seed: int, _) -> Iterator[dict]:
    generator = torch.Generator().manual_seed(seed)
    X = prior.draw((p.runs, M), generator)
    y = prior.draw((p.runs, p.tests), generator)
    y = y + prior.r * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    narrow, wide = (
        learn(X, X, prior.r, everything(prior.d), p.training(hidden=units), generator) for units in (p.hidden, p.wide)
    )
    phi = better(narrow, wide)
    exact, mean = prior.conditional_mean(y), X.mean(1, keepdim=True)
    linear = mean + (y - mean) @ phi.K
    found = {
        "linear": linear,
        "narrow": linear + narrow.correction(y),
        "wide": linear + wide.correction(y),
        "chosen": linear + phi.used[:, None] * phi.correction(y),
        "likelihood": torch.stack([by_likelihood(*pair, prior.r) for pair in zip(X, y, strict=True)]),
    }
    for method, estimate in found.items():
        errors = (estimate - exact).square().sum(-1).mean(-1) / exact.square().sum(-1).mean()
        for run, error in enumerate(errors.tolist()):
            at = {"prior": prior.kind, "dimension": prior.d, "members": M, "method": method, "run": run, "step": 0}
            yield {**at, "metric": "error", "value": float(f"{error:.4g}")}


@dataclass(frozen=True)
class Lorenz(Network):
    runs: PositiveInt
    cycles: PositiveInt
    spin_up: Count


@dataclass(frozen=True)
class Tuning(Lorenz):
    trials: dict[str, dict[str, tuple[Positive, ...]]]


def cell(p: Lorenz, key: dict, place: Place, seed: int, *setting, **how) -> Iterator[dict]:
    """The rows of a cell, kept."""
    yield from kept(place, {"seed": seed, **key}, lambda _: rows(p, seed, *setting, **how))


def rows(p: Lorenz, seed: int, name: str, M: int, which: str, inflations, radius: float, **how) -> Iterator[dict]:
    """Of every inflation and run: the means of `Followed`; and the processor's seconds for a cycle of all of them. All
    inflations see the same truth and observations."""
    system, every = SYSTEMS[name], len(inflations)
    first, states, observations = system.truth(p.runs, p.cycles, torch.Generator().manual_seed(seed))
    truth = (first.repeat(every, 1), states.repeat(1, every, 1), observations.repeat(1, every, 1))
    inflation = torch.tensor(inflations, dtype=torch.float64).repeat_interleave(p.runs)
    generator, begin = torch.Generator().manual_seed(seed + 1), time.process_time()
    found = follow(system, truth, which, M, inflation, radius, p.spin_up, generator, p.training(**how))
    seconds = (time.process_time() - begin) / p.cycles
    at = {"system": name, "members": M, "method": which, "radius": radius, "step": p.cycles}
    yield {**at, "inflation": inflations[0], "run": 0, "metric": "seconds", "value": float(f"{seconds:.3g}")}
    for i, factor in enumerate(inflation.tolist()):
        for metric in METRICS if which == "learnt" else METRICS[:2]:
            value = float(f"{getattr(found, metric)[i].item():.5g}")
            yield {**at, "inflation": factor, "run": i % p.runs, "metric": metric, "value": value}


@case(Tuning, place=True)
def tuning(p: Tuning, seed: int, place: Place) -> Iterator[dict]:
    """All trials: every filter at every inflation and, on the ring, radius."""
    for where, tried in p.trials.items():
        for which in FILTERS:
            for radius in tried["radius"]:
                key = {"where": where, "method": which, "radius": radius}
                yield from cell(p, key, place, seed, *_named(where), which, tried["inflation"], radius)


@dataclass(frozen=True)
class Tracking(Lorenz):
    tuned: dict[str, dict[str, tuple[Positive, ...]]]


@case(Tracking, place=True)
def tracking(p: Tracking, seed: int, place: Place) -> Iterator[dict]:
    """Every filter at its own best inflation and radius: on the same truth and observations, run by run."""
    for where, best in p.tuned.items():
        for which, (inflation, radius) in best.items():
            yield from cell(p, {"where": where, "method": which}, place, seed, *_named(where), which, [inflation], radius)


def _named(where: str) -> tuple[str, int]:
    """'Lorenz-63 50': the system and how many members."""
    name, members = where.rsplit(" ", 1)
    return name, int(members)


@dataclass(frozen=True)
class Optimisers(Lorenz):
    system: one_of(*SYSTEMS)
    members: PositiveInt
    inflation: Positive
    works: tuple[PositiveInt, ...]
    lrs: dict[str, tuple[Positive, ...]]


@case(Optimisers, "rates", "optimisers", place=True)
def optimisers(p: Optimisers, seed: int, place: Place) -> Iterator[dict]:
    """The learning filter with each optimiser and rate at each amount of work, in gradients on all draws of the noise."""
    for optimiser, lrs in p.lrs.items():
        for lr in lrs:
            for work in p.works:
                key = {"optimiser": optimiser, "lr": lr, "work": work}
                how = {"method": optimiser, "lr": lr, "gradients": work, "whole": True}
                for row in cell(p, key, place, seed, p.system, p.members, "learnt", [p.inflation], 1, **how):
                    yield {**row, **key}
