"""AdaHessian with one estimator of the diagonal or another, and with its running mean or without, on digits; all else stays."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature import Composed, GaussNewtonDiagonal, Hutchinson, Objective, PerExample, Preactivations
from secondlook.curvature.diagonal import Diagonal
from secondlook.optim import AdaHessian
from secondlook.problems.digits import COUNT, digits
from secondlook.study.parameters import Count, NonNegative, Positive, PositiveInt, Text

from .networks import Network, Shared

ALL = 32  # probes at the layers' sums, enough for the exact diagonal with 16 units and 10 outputs
ESTIMATORS: dict[str, Diagonal] = {
    "exact": Preactivations(ALL),
    "Hutchinson": Hutchinson(),
    "Hutchinson 10": Hutchinson(10),
    "per example": PerExample(chunk_size=128),
    "layer sums": Preactivations(2),
    "Gauss-Newton": GaussNewtonDiagonal(chunk_size=128),
}


@dataclass(frozen=True)
class Runs(Shared):
    """What training on batches of digits needs, and its tuning."""

    tuning_seeds: PositiveInt
    first: Count
    count: PositiveInt
    train: PositiveInt
    batch: PositiveInt
    steps: PositiveInt
    every: PositiveInt
    hidden: tuple[PositiveInt, ...]
    lrs: tuple[Positive, ...]


@dataclass(frozen=True)
class Training(Runs):
    work: Positive
    estimators: tuple[Text, ...]


@dataclass(frozen=True)
class Smoothing(Runs):
    eps: tuple[Positive, ...]
    beta2s: tuple[NonNegative, ...]


def runs(p: Runs, network: Network, estimator: str, lr: float, seed: int, **options: float | tuple) -> Iterator[dict]:
    """The loss on all training pictures and the accuracy on the rest, every `every` steps, and the work done until then, in
    gradients of a batch. Seeds fix weights, pictures and batches; probes draw from a generator of their own. `options` are more
    of AdaHessian's."""
    generator = torch.Generator().manual_seed(seed)
    x, y = digits(COUNT, generator)
    loss = Composed(network, functional.cross_entropy)
    theta = [t.requires_grad_() for t in network.start(generator)]
    probes = torch.Generator().manual_seed(seed)
    options = {"betas": (0.9, p.beta2), "diagonal": ESTIMATORS[estimator], "generator": probes} | options
    optimizer = AdaHessian(theta, lr=lr, **options)
    work = 0.0
    for step in range(p.steps + 1):
        if step % p.every == 0:
            for metric, value in _measured(network, theta, x, y, p.train).items():
                yield {"step": step, "work": work, "metric": metric, "value": value}
        if step == p.steps:
            return
        batch = torch.randperm(p.train, generator=generator)[: p.batch]
        xs, ys = x[batch], y[batch]
        optimizer.zero_grad()
        if isinstance(optimizer.diagonal, Hutchinson):  # products from the graph of the gradient that the step needs anyway
            optimizer.backward(loss(theta, xs, ys))
            work += 1 + 2 * optimizer.diagonal.probes
        else:
            objective = Objective(loss, theta, (xs, ys), chunk_size=ALL)
            optimizer.backward(loss(theta, xs, ys), curvature_of=objective)
            work += 1 + objective.cost.in_gradients
        optimizer.step()


@torch.no_grad()
def _measured(network: Network, theta: list[Tensor], x: Tensor, y: Tensor, train: int) -> dict[str, float]:
    logits = network(theta, x)
    right = (logits.argmax(1) == y).double()
    return {
        "loss": functional.cross_entropy(logits[:train], y[:train]).nan_to_num(nan=torch.inf, posinf=torch.inf).item(),
        "accuracy": right[train:].mean().item(),
    }


def smoothed(p: Smoothing, network: Network, key: dict, lr: float, run: int) -> Iterator[dict]:
    rows = runs(p, network, "Hutchinson", lr, run, betas=(0.9, key["beta2"]), eps=key["eps"])
    return ({**key, "run": run, "lr": lr, **row} for row in rows)


def finals(p: Smoothing, network: Network, key: dict, seed: int) -> Iterator[dict]:
    for lr in p.lrs:
        for run in range(seed, seed + p.tuning_seeds):
            *_, loss, _ = smoothed(p, network, key, lr, run)
            yield loss


def reported(p: Smoothing, network: Network, key: dict) -> Iterator[dict]:
    for run in range(p.first, p.first + p.count):
        yield from smoothed(p, network, key, key["lr"], run)


def smoothest(tuning: list[dict], paper: float) -> dict[str, tuple[float, float]]:
    """eps and rate of the least mean loss over the runs: with the paper's eps, and of all."""
    losses: dict[tuple[float, float], list[float]] = {}
    for row in tuning:
        losses.setdefault((row["eps"], row["lr"]), []).append(row["value"])
    best = sorted(losses, key=lambda at: sum(losses[at]))
    return {"paper's eps": next(at for at in best if at[0] == paper), "best eps": best[0]}


def chosen(tuning: list[dict], steps: int, work: float) -> dict[str, float]:
    """The rate of the least mean loss after `steps`, and at the last look before `work` gradients were spent."""
    rates = {}
    for aim, within in (("equal steps", lambda row: row["step"] <= steps), ("equal work", lambda row: row["work"] <= work)):
        last: dict[float, dict[int, float]] = {}
        for row in tuning:
            if row["metric"] == "loss" and within(row):
                last.setdefault(row["lr"], {})[row["run"]] = row["value"]
        rates[aim] = min(last, key=lambda lr: sum(last[lr].values()))
    return rates
