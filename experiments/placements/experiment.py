"""K-FAC on several processes: what its placements send, hold and take, and whether it is worth it against SGD.

Claim     KAISA, a distributed K-FAC, converges 18.1 to 36.3 % faster than first-order methods at equal batch, on up to 128
          A100 (adahessian-abstract, a neighbour named there).
Set-up    Placements: a residual network, each share on 1, 2 and 4 gloo processes. Training: a small convolutional network on
          the digits, KAISA's published settings, with factors at every step or every 10 steps; the learning rate tuned for
          each method with equal trials; epochs until the test accuracy is reached, and seconds of a step on one process and on
          two. A step takes as long at any rate, so that case training, which is timed on a machine without other work, need
          not have the tuned ones.
Hardware  two CPU cores; four processes share them. About twenty minutes in all.
"""

import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from secondlook.curvature.kronecker import factor_sizes
from secondlook.optim.kfac import KFAC
from secondlook.optim.placement import Placement
from secondlook.problems.convolution import Conv2d
from secondlook.problems.digits import CLASSES, digits
from secondlook.problems.resnet import resnet
from secondlook.study.declare import case
from secondlook.study.parameters import Fraction, NonNegative, Positive, PositiveInt
from secondlook.training.ranks import on_ranks

from .methods import FACTORS_EVERY, METHODS

WARM_UP = 1  # periods that are not timed
PORTIONS = {"validation": 0, "test": 1}  # of the digits that are not for training


@dataclass(frozen=True)
class Shared:
    momentum: Fraction
    weight_decay: NonNegative
    damping: Positive
    factor_decay: Fraction
    kl_clip: Positive


@dataclass(frozen=True)
class Steps(Shared):
    lr: Positive
    depth: PositiveInt
    width: PositiveInt
    side: PositiveInt
    batch: PositiveInt
    steps: PositiveInt
    processes: tuple[PositiveInt, ...]
    rhythms: tuple[tuple[PositiveInt, ...], ...]


@dataclass(frozen=True)
class Digits(Shared):
    inverses_every: PositiveInt
    channels: PositiveInt
    examples: tuple[PositiveInt, ...]
    batch: PositiveInt
    epochs: PositiveInt


@dataclass(frozen=True)
class Arrivals(Digits):
    target: Fraction


@dataclass(frozen=True)
class Rates(Arrivals):
    rates: tuple[Positive, ...]


@dataclass(frozen=True)
class Epochs(Arrivals):
    tuned: dict[str, Positive]


@dataclass(frozen=True)
class Runs(Digits):
    judge_every: PositiveInt
    processes: tuple[PositiveInt, ...]
    tuned: dict[str, Positive]


def _kfac(p: Shared, model: nn.Module, lr: float, share: float | None, factors_every: int, inverses_every: int) -> KFAC:
    options = dict(lr=lr, momentum=p.momentum, damping=p.damping, factor_decay=p.factor_decay, kl_clip=p.kl_clip)
    rhythm = dict(factors_every=factors_every, inverses_every=inverses_every)
    placement = None if share is None else Placement(share)
    options |= dict(weight_decay=p.weight_decay, decoupled=False, subclasses=[Conv2d])
    return KFAC(model, **options, **rhythm, placement=placement)


def _sgd(p: Shared, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=p.momentum, weight_decay=p.weight_decay)


# Placements


@case(Steps)
def steps(p: Steps, seed: int):
    """The sides of the factors; milliseconds, bytes and messages of a step, and bytes held, by rank. A seed is a round."""
    layers = [m for m in _network(p).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for i, layer in enumerate(layers):
        for name, side in zip("ag", factor_sizes(layer), strict=True):
            yield {"layer": i, "step": 0, "metric": f"side {name}", "value": side}
    for count in p.processes:
        for rank, rows in enumerate(on_ranks(count, _placements, p, seed)):
            for row in rows:
                yield {"ranks": count, "rank": rank, **row}


def _network(p: Steps) -> nn.Module:
    return resnet(p.depth, torch.Generator().manual_seed(0), p.width, CLASSES)


def _placements(p: Steps, seed: int) -> list[dict]:
    ranks = distributed.get_world_size()
    generator = torch.Generator().manual_seed(distributed.get_rank())
    x = torch.randn(p.batch, 3, p.side, p.side, generator=generator)
    y = torch.randint(0, CLASSES, (p.batch,), generator=generator)
    start = _network(p)
    shares = [w / ranks for w in range(1, ranks + 1) if ranks % w == 0]
    names = [(0, 0, 0), *((share, *rhythm) for share in shares for rhythm in p.rhythms)]  # zeros: SGD
    runs = {}
    for share, *rhythm in names:
        model = deepcopy(start)
        optimizer = _kfac(p, model, p.lr, share, *rhythm) if share else _sgd(p, model, p.lr)
        runs[share, *rhythm] = DistributedDataParallel(model), optimizer
    rows = []
    for number in np.random.default_rng(seed).permutation(len(names)):
        share, factors_every, inverses_every = names[number]
        parallel, optimizer = runs[names[number]]
        for _ in range(WARM_UP * max(factors_every, inverses_every, 1)):
            _step(parallel, optimizer, x, y)
        before = {} if not share else {kind: dict(getattr(optimizer.exchange, kind)) for kind in ("bytes", "messages")}
        distributed.barrier()
        begin = time.perf_counter()
        for _ in range(p.steps):
            _step(parallel, optimizer, x, y)
        distributed.barrier()
        values = {"milliseconds": 1e3 * (time.perf_counter() - begin) / p.steps}
        if share:
            for metric, had in before.items():
                for kind, value in getattr(optimizer.exchange, metric).items():
                    values[f"{metric} of {kind}"] = (value - had.get(kind, 0)) / p.steps
            values |= _held(optimizer)
        at = {"share": share, "factors_every": factors_every, "inverses_every": inverses_every, "step": p.steps}
        rows += [{**at, "metric": metric, "value": value} for metric, value in values.items()]
    return rows


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def _held(optimizer: KFAC) -> dict[str, int]:
    """Bytes of the factors and of their inverses on this rank."""
    found = {}
    for kind, names in (("factors", ("A", "G")), ("inverses", ("A_inverse", "G_inverse"))):
        tensors = [state[name] for state in optimizer.state.values() for name in names if name in state]
        found[f"held {kind}"] = sum(M.numel() * M.element_size() for M in tensors)
    return found


# Training


def network(channels: int, generator: torch.Generator) -> nn.Module:
    """Two convolutions, the second of stride 2, and a linear layer: digits (B, 1, 8, 8) to logits (B, 10)."""
    first, second = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(32 * channels, CLASSES))
    for layer in (first, second, model[5]):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    return model


def _trained(p: Digits, method: str, lr: float, seed: int, portion: str, judge_every: int) -> Iterator[tuple]:
    """The step, the accuracy on the `portion` and the seconds of training until then, every `judge_every` steps and after the
    last; on this rank's part of each batch."""
    rank, count = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    generator = torch.Generator().manual_seed(seed)
    x, y = digits(sum(p.examples), torch.Generator().manual_seed(0))  # the same split for all seeds
    train, *others = zip(x.float().split(list(p.examples)), y.split(list(p.examples)), strict=True)
    judged_x, judged_y = others[PORTIONS[portion]]
    model = network(p.channels, generator)
    share = None if count == 1 else 1.0
    optimizer = _sgd(p, model, lr) if method == "SGD" else _kfac(p, model, lr, share, FACTORS_EVERY[method], p.inverses_every)
    parallel = model if count == 1 else DistributedDataParallel(model)
    batches = [b for _ in range(p.epochs) for b in torch.randperm(len(train[0]), generator=generator).split(p.batch)]
    spent = 0.0
    for step, batch in enumerate(batches, 1):
        begin = time.perf_counter()
        _step(parallel, optimizer, train[0][batch[rank::count]], train[1][batch[rank::count]])
        spent += time.perf_counter() - begin
        if step % judge_every == 0 or step == len(batches):
            with torch.no_grad():
                accuracy = (model(judged_x).argmax(1) == judged_y).float().mean().item()
            yield step, accuracy, spent


def _arrival(p: Arrivals, method: str, lr: float, seed: int, portion: str) -> Iterator[dict]:
    """Epochs until the accuracy on the `portion`, judged after every step, is first at the target, infinite where it never is;
    and the accuracy after the last step."""
    course = [accuracy for _, accuracy, _ in _trained(p, method, lr, seed, portion, judge_every=1)]
    steps = len(course)
    arrived = next((step for step, accuracy in enumerate(course, 1) if accuracy >= p.target), math.inf)
    at = {"method": method, "lr": lr, "target": p.target, "step": steps}
    yield {**at, "metric": "epochs", "value": arrived * p.epochs / steps}
    yield {**at, "metric": "accuracy", "value": course[-1]}


@case(Rates)
def rates(p: Rates, seed: int):
    """Epochs to the target and last accuracy on the validation part, for each method at each learning rate."""
    for method in METHODS:
        for lr in p.rates:
            yield from _arrival(p, method, lr, seed, "validation")


@case(Epochs)
def epochs(p: Epochs, seed: int):
    """The same on the test part, for each method at its own rate."""
    for method, lr in p.tuned.items():
        yield from _arrival(p, method, lr, seed, "test")


@case(Runs)
def training(p: Runs, seed: int):
    """Accuracy on the test part and seconds, for each method on each number of processes."""
    for count in p.processes:
        rows = _each(p, seed) if count == 1 else on_ranks(count, _each, p, seed)[0]
        yield from ({"ranks": count, **row} for row in rows)


def _each(p: Runs, seed: int) -> list[dict]:
    return [
        {"method": method, "lr": lr, "step": step, "metric": metric, "value": value}
        for method, lr in p.tuned.items()
        for step, accuracy, seconds in _trained(p, method, lr, seed, "test", p.judge_every)
        for metric, value in {"accuracy": accuracy, "seconds": seconds}.items()
    ]
