"""The networks, their pictures, and the places on their way at which the curvature is looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature import Composed, Objective
from secondlook.curvature.dense import hessian
from secondlook.errors import Mistake
from secondlook.problems.digits import CLASSES, SIDE, digits
from secondlook.study.parameters import Fraction, Positive, PositiveInt

KERNEL, STRIDE = 3, 2  # of all convolutions, with one pixel of padding
GAIN = {torch.tanh: 1.0, torch.relu: 2.0}  # variance of a weight times its inputs: Glorot and Bengio 2010, He et al. 2015


@dataclass(frozen=True)
class Shared:
    """What makes the networks and their stages, and what several cases ask of AdaHessian."""

    examples: PositiveInt
    tanh_hidden: tuple[PositiveInt, ...]
    relu_hidden: tuple[PositiveInt, ...]
    channels: tuple[PositiveInt, ...]
    lr: Positive
    most_steps: PositiveInt
    shares: dict[str, Fraction]
    beta2: Fraction
    block: PositiveInt


@dataclass(frozen=True)
class Network:
    """`theta` is W_1, c_1, W_2, c_2, ...: convolutions to `channels`, each of which halves the picture, then dense layers."""

    activation: object
    channels: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()

    def start(self, generator: torch.Generator) -> list[Tensor]:
        """Weights N(0, gain / inputs) and biases 0, float64."""
        pixels = (SIDE // STRIDE ** len(self.channels)) ** 2
        features = (self.channels or (1,))[-1] * pixels
        shapes = [(after, before, KERNEL, KERNEL) for before, after in pairwise((1, *self.channels))]
        shapes += [(after, before) for before, after in pairwise((features, *self.hidden, CLASSES))]
        theta = []
        for shape in shapes:
            scale = (GAIN[self.activation] / torch.Size(shape[1:]).numel()) ** 0.5
            theta.append(torch.randn(shape, generator=generator, dtype=torch.float64) * scale)
            theta.append(torch.zeros(shape[0], dtype=torch.float64))
        return theta

    def __call__(self, theta: list[Tensor], x: Tensor) -> Tensor:
        """Logits (N, 10) of pictures (N, 1, 8, 8)."""
        h, layers = x, list(zip(theta[::2], theta[1::2], strict=True))
        for i, (W, c) in enumerate(layers):
            h = functional.conv2d(h, W, c, STRIDE, 1) if W.dim() == 4 else functional.linear(h.flatten(1), W, c)
            h = self.activation(h) if i < len(layers) - 1 else h
        return h


@dataclass(frozen=True)
class Cell:
    """A network at a stage of its training: its loss as an objective, and the dense Hessian (n, n)."""

    network: str
    stage: str
    step: int
    objective: Objective
    H: Tensor

    @property
    def key(self) -> dict:
        return {"network": self.network, "stage": self.stage, "step": self.step}


def cells(p: Shared, seed: int) -> Iterator[Cell]:
    """Every network of `p` at every stage; weights and pictures are drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    x, y = digits(p.examples, generator)
    for name, network in (
        ("tanh", Network(torch.tanh, hidden=p.tanh_hidden)),
        ("ReLU", Network(torch.relu, hidden=p.relu_hidden)),
        ("CNN", Network(torch.tanh, p.channels)),
    ):
        loss = Composed(network, functional.cross_entropy)
        for stage, step, theta in stages(loss, network.start(generator), x, y, p):
            H = hessian(lambda theta, loss=loss: loss(theta, x, y), theta)
            yield Cell(name, stage, step, Objective(loss, theta, (x, y)), H)


def stages(loss: Composed, theta: list[Tensor], x: Tensor, y: Tensor, p: Shared) -> Iterator[tuple[str, int, list[Tensor]]]:
    """Name, step and parameters where the loss is first at a stage's share of its first value, or below; full-batch Adam."""
    theta = [t.requires_grad_() for t in theta]
    optimizer = torch.optim.Adam(theta, lr=p.lr)
    left, first = list(p.shares.items()), None
    for step in range(p.most_steps + 1):
        value = loss(theta, x, y)
        first = first or value.item()
        while left and value.item() <= first * left[0][1]:
            yield left.pop(0)[0], step, [t.detach().clone() for t in theta]
        if not left:
            return
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    raise Mistake(f"hessian_diagonal: the loss does not fall to {left[0][1]} of the first in {p.most_steps} steps")
