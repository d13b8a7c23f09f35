"""AdaHessian, OASIS and Sophia on several processes: whether replicas stay equal, what probes of their own gain, what it costs.

Background: DistributedDataParallel averages gradients while they are computed, and nothing else. A rule of second order needs
its curvature averaged too, or replicas drift apart. Other packages ask for `backward(create_graph=True)`; they are tried under
DistributedDataParallel as they are, and with gradients averaged by hand before their step.
Hardware: two CPU cores; times mean nothing but as ratios within one round. Run time: some minutes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from secondlook.curvature import GaussNewtonBartlett
from secondlook.errors import Mistake
from secondlook.optim import OASIS, AdaHessian, Sophia, data_parallel
from secondlook.problems.resnet import resnet
from secondlook.study.declare import case
from secondlook.study.parameters import Positive, PositiveInt, Text, one_of
from secondlook.training.ranks import on_ranks

from .ranks import average, spread

OURS = {
    "AdaHessian": AdaHessian,
    "OASIS": partial(OASIS, adaptive=True),
    "Sophia-H": Sophia,
    "Sophia-G": partial(Sophia, diagonal=GaussNewtonBartlett()),
}
PEERS = {"torch-optimizer": ("torch_optimizer", "Adahessian"), "pytorch-optimizer": ("pytorch_optimizer", "AdaHessian")}


@dataclass(frozen=True)
class Small:
    inputs: PositiveInt
    hidden: PositiveInt
    classes: PositiveInt
    examples: PositiveInt

    def network(self, generator: torch.Generator) -> nn.Module:
        model = nn.Sequential(nn.Linear(self.inputs, self.hidden), nn.Tanh(), nn.Linear(self.hidden, self.classes))
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(std=0.5, generator=generator)
        return model

    def problem(self, seed: int) -> tuple[nn.Module, Tensor, Tensor]:
        """The network, inputs and labels, the same on all ranks."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(self.examples, self.inputs, generator=generator)
        y = self.network(generator)(x).argmax(1)
        return self.network(generator), x, y


@dataclass(frozen=True)
class Replicas(Small):
    lr: Positive
    batch: PositiveInt
    processes: PositiveInt
    steps: PositiveInt
    shown: tuple[PositiveInt, ...]
    methods: tuple[Text, ...]


@case(Replicas)
def replicas(params: Replicas, seed: int):
    return on_ranks(params.processes, _compared, params, seed)[0]


def _compared(params: Replicas, seed: int) -> list[dict]:
    rows = []
    for method in params.methods:
        model, x, y = params.problem(seed)
        if method in PEERS:
            rows += _row(method, 1, "refused", float(_refused(method, params, seed)))
            step = _by_hand(_peer(method)(model.parameters(), lr=params.lr), model)
        else:
            step = _under_ddp(OURS[method], params.lr, model)
        order = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of the peers' probes: the same on all ranks
        for t in range(1, params.steps + 1):
            batch = torch.randint(len(x), (params.batch,), generator=order)
            mine = batch[dist.get_rank() :: params.processes]
            step(x[mine], y[mine])
            if t in params.shown:
                rows += _row(method, t, "spread", spread(torch.cat([p.detach().flatten() for p in model.parameters()])))
    return rows


def _row(method: str, step: int, metric: str, value: float) -> list[dict]:
    return [{"method": method, "step": step, "metric": metric, "value": value}]


def _under_ddp(make: Callable, lr: float, model: nn.Module) -> Callable:
    model = DistributedDataParallel(model)
    optimizer = data_parallel(make(model.parameters(), lr=lr), model)

    def step(x: Tensor, y: Tensor) -> None:
        logits = model(x)
        optimizer.zero_grad()
        optimizer.differentiate(cross_entropy(logits, y), logits)
        optimizer.step()

    return step


def _peer(method: str) -> Callable:
    package, name = PEERS[method]
    try:
        return getattr(import_module(package), name)
    except ImportError as error:
        raise Mistake(f"data_parallel needs the package {package}: install the extra 'benchmark'") from error


def _by_hand(optimizer: torch.optim.Optimizer, model: nn.Module) -> Callable:
    """The gradients averaged between the pass backward, whose graph the step differentiates, and the step."""

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward(create_graph=True)
        average([p.grad.data for p in model.parameters()])  # .data: the graph stays that of this rank's loss
        optimizer.step()

    return step


def _refused(method: str, params: Replicas, seed: int) -> bool:
    """Whether the usual loop under DistributedDataParallel raises at its first step."""
    network, x, y = params.problem(seed)
    model = DistributedDataParallel(network)
    optimizer = _peer(method)(model.parameters(), lr=params.lr)
    try:
        cross_entropy(model(x), y).backward(create_graph=True)
        optimizer.step()
    except RuntimeError:
        return True
    return False


@dataclass(frozen=True)
class Variance(Small):
    draws: PositiveInt
    processes: tuple[PositiveInt, ...]
    probes: tuple[one_of("independent", "equal"), ...]


@case(Variance)
def variance(params: Variance, seed: int):
    """|D - diag H|^2 of every draw, over the expectation for one probe of signs: the squares of H off its diagonal."""
    model, x, y = params.problem(seed)
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(theta: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]
        return cross_entropy(torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,)), y)

    H = torch.autograd.functional.hessian(loss, theta)
    one_probe = (H.square().sum() - H.diagonal().square().sum()).item()
    for processes in params.processes:
        for probes, D in on_ranks(processes, _draws, params, seed)[0].items():
            errors = (torch.tensor(D) - H.diagonal()).square().sum(1) / one_probe
            for t, error in enumerate(errors.tolist(), 1):
                yield {"processes": processes, "probes": probes, "step": t, "metric": "squared_error", "value": error}


def _draws(params: Variance, seed: int) -> dict[str, list]:
    """D of every draw, by probes; read from Sophia's state, which without memory is the last D."""
    found = {}
    for probes in params.probes:
        network, x, y = params.problem(seed)
        model = DistributedDataParallel(network)
        optimizer = data_parallel(Sophia(model.parameters(), lr=0.0, betas=(0.0, 0.0), every=1), model, probes)
        found[probes] = []
        for _ in range(params.draws):
            optimizer.zero_grad()
            optimizer.backward(cross_entropy(model(x), y))
            optimizer.step()
            D = torch.cat([optimizer.state[p]["exp_hessian_diag"].flatten() for p in model.parameters()])
            found[probes].append(D.tolist())
    return found


@dataclass(frozen=True)
class Overhead(Small):
    processes: PositiveInt
    depth: PositiveInt
    width: PositiveInt
    side: PositiveInt
    batch: PositiveInt
    rounds: PositiveInt


@case(Overhead)
def overhead(params: Overhead, seed: int):
    return on_ranks(params.processes, _timed, params, seed)[0]


def _timed(params: Overhead, seed: int) -> list[dict]:
    """Milliseconds of a step of each method; in every round both take their turn, in a drawn order."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(params.batch, 3, params.side, params.side, generator=generator)
    y = torch.randint(0, 10, (params.batch,), generator=generator)  # CIFAR-10's classes
    steps = dict(_steps(params, x, y))
    draw, rows = np.random.default_rng(seed), []
    for t in range(params.rounds + 1):  # the first is not timed: state, and DistributedDataParallel's first buckets
        for name in draw.permutation(list(steps)):
            dist.barrier()
            start = time.perf_counter()
            steps[name]()
            dist.barrier()
            if t:
                rows += _row(str(name), t, "milliseconds", 1e3 * (time.perf_counter() - start))
    return rows


def _steps(params: Overhead, x: Tensor, y: Tensor) -> Iterator[tuple[str, Callable]]:
    for name in ("gradients", "gradients and curvature"):
        network = resnet(params.depth, torch.Generator().manual_seed(0), params.width)
        model = DistributedDataParallel(network)
        optimizer = AdaHessian(model.parameters(), lr=1e-5)  # so small that no loss diverges while the clock runs
        if "curvature" in name:
            data_parallel(optimizer, model)

        def step(model=model, optimizer=optimizer) -> None:
            optimizer.zero_grad()
            optimizer.backward(cross_entropy(model(x), y))
            optimizer.step()

        yield name, step
