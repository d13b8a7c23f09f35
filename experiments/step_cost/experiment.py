"""What a step of AdaHessian costs beside a step of SGD, and beside other implementations of the same rule.

Background: a matrix product has one product forward and two backward; a Hessian-vector product has six more. An exact step of
AdaHessian on the whole batch therefore costs three times the operations of a gradient step, whatever the implementation. The
paper's Table 8 gives times on a GPU for a Hessian every 1 to 5 steps. Here operations are counted, and times taken beside them.
Hardware: one CPU core; times mean nothing but as ratios within one round. Run time: about twenty minutes, most of it the
residual network.
"""

import math
import multiprocessing
import time
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from secondlook.optim import AdaHessian
from secondlook.problems.resnet import resnet as residual_network
from secondlook.study.declare import case
from secondlook.study.memory import peak_mib
from secondlook.study.parameters import Positive, PositiveInt, Text

from .methods import makers, period
from .networks import Transformer, perceptron

WARM_UP = 4  # steps that are not timed: compilation, state, and one whole period between two Hessians


@dataclass(frozen=True)
class Perceptron:
    lr: Positive
    widths: tuple[PositiveInt, ...]
    batch: PositiveInt
    steps: PositiveInt
    methods: tuple[Text, ...]

    def network(self) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        """The network, inputs and labels."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.batch, self.widths[0], generator=generator)
        return perceptron(self.widths), x, torch.randint(0, self.widths[-1], (self.batch,), generator=generator)


@dataclass(frozen=True)
class CharacterModel:
    lr: Positive
    vocabulary: PositiveInt
    width: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt
    length: PositiveInt
    batch: PositiveInt
    steps: PositiveInt
    methods: tuple[Text, ...]

    def network(self) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        """The network, characters and the characters that follow them."""
        generator = torch.Generator().manual_seed(0)
        text = torch.randint(0, self.vocabulary, (self.batch, self.length + 1), generator=generator)
        model = Transformer(self.vocabulary, self.width, self.blocks, self.heads, self.length)
        return model, text[:, :-1], text[:, 1:]


@dataclass(frozen=True)
class Residual:
    lr: Positive
    depth: PositiveInt
    width: PositiveInt
    side: PositiveInt
    batch: PositiveInt
    steps: PositiveInt
    methods: tuple[Text, ...]

    def network(self) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        """The network, images and labels."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.batch, 3, self.side, self.side, generator=generator)
        y = torch.randint(0, 10, (self.batch,), generator=generator)  # CIFAR-10's classes
        return residual_network(self.depth, generator, self.width), x, y


@cache
def _steps(params) -> dict:
    """Each method's step on a copy of the same network, warmed up. Kept from round to round."""
    model, x, y = params.network()
    steps = {name: makers(params.lr)[name](deepcopy(model), x, y) for name in params.methods}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    return steps


def _timed(steps: dict, count: int, seed: int):
    """Milliseconds a step, the methods in an order drawn from the seed; `count` steps, or whole periods of at least as many."""
    for name in np.random.default_rng(seed).permutation(list(steps)):
        whole = math.ceil(count / period(name)) * period(name)
        start = time.perf_counter()
        for _ in range(whole):
            steps[name]()
        taken = (time.perf_counter() - start) / whole
        yield {"method": str(name), "step": whole, "metric": "milliseconds", "value": 1e3 * taken}


@case(Perceptron, "mlp")
@case(CharacterModel, "transformer")
@case(Residual, "resnet")
def network(params: Perceptron | CharacterModel | Residual, seed: int):
    return _timed(_steps(params), params.steps, seed)


@case(Perceptron, "mlp_operations")
@case(CharacterModel, "transformer_operations")
@case(Residual, "resnet_operations")
def operations(params: Perceptron | CharacterModel | Residual, seed: int):
    """Multiplications and additions of all matrix products and convolutions of a step, mean over a period. Not for compiled
    steps: the counter sees operations as torch dispatches them, not what a compiler makes of them."""
    model, x, y = params.network()
    for name in params.methods:
        step = makers(params.lr)[name](deepcopy(model), x, y)
        with FlopCounterMode(display=False) as counter:
            for _ in range(period(name)):
                step()
        yield {"method": name, "step": period(name), "metric": "operations", "value": counter.get_total_flops() / period(name)}


@dataclass(frozen=True)
class Update:
    lr: Positive
    widths: tuple[PositiveInt, ...]
    steps: PositiveInt


@cache
def _updates(params: Update) -> dict:
    """The arithmetic of an update, without anything before it."""
    adam_model = perceptron(params.widths)
    adam = torch.optim.Adam(adam_model.parameters(), lr=params.lr, fused=True)
    model = perceptron(params.widths)
    adahessian = AdaHessian(model.parameters(), lr=params.lr)
    generator = torch.Generator().manual_seed(0)
    D = {}
    for p, q in zip(adam_model.parameters(), model.parameters(), strict=True):
        p.grad = torch.randn(p.shape, generator=generator)
        q.grad, D[q] = p.grad.clone(), torch.randn(p.shape, generator=generator)

    def step():
        adahessian.curvature = dict(D)  # as `backward` leaves it
        adahessian.step()

    return {"fused Adam": adam.step, "AdaHessian": step}


@case(Update)
def update(params: Update, seed: int):
    steps = _updates(params)
    for step in steps.values():
        step()
    return _timed(steps, params.steps, seed)


@case(CharacterModel, "transformer_memory")
@case(Residual, "resnet_memory")
def memory(params: CharacterModel | Residual, seed: int):
    """Peak of the resident memory above what the process holds before the first step, MiB; each method in a fresh process."""
    context = multiprocessing.get_context("spawn")
    for name in params.methods:
        with context.Pool(1) as pool:
            value = pool.apply(_peak, (params, name))
        yield {"method": name, "step": WARM_UP, "metric": "peak_mib", "value": value}


def _peak(params, name: str) -> float:
    torch.set_num_threads(1)
    model, x, y = params.network()
    step = makers(params.lr)[name](model, x, y)
    before = peak_mib()
    for _ in range(WARM_UP):
        step()
    return peak_mib() - before
