"""A table of small problems in float64: where they start, their loss, and, for quadratics, their Hessian."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """`shapes` of the parameters; `loss` of a list of such tensors; `start`, flat; `H` where it is known."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    start: Tensor
    loss: Callable[[Sequence[Tensor]], Tensor]
    H: Tensor | None = None

    def split(self, theta: Tensor) -> list[Tensor]:
        """The parameters in the flat vector `theta`."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        return [part.reshape(shape) for part, shape in zip(theta.split(sizes), self.shapes, strict=True)]

    def params(self) -> list[Tensor]:
        """The parameters at the start, as leaves that ask for gradients."""
        return [p.clone().requires_grad_() for p in self.split(self.start)]

    def gradients(self, params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradients, with a graph."""
        return torch.autograd.grad(self.loss(params), params, create_graph=True)

    def __str__(self) -> str:
        return self.name


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _case(name: str, *shapes: tuple[int, ...], loss: Callable, seed: int) -> Case:
    n = sum(torch.Size(shape).numel() for shape in shapes)
    return Case(name, shapes, 0.5 * _normal(n, seed=seed), loss)


def _quadratic(name: str, H: Tensor, start: Tensor, *shapes: tuple[int, ...]) -> Case:
    def loss(params: Sequence[Tensor]) -> Tensor:
        theta = torch.cat([p.reshape(-1) for p in params])
        return theta @ H @ theta / 2

    return Case(name, shapes, start, loss, H)


def _neuron() -> Case:
    x, y = torch.tensor([0.5, 2.5], dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64)
    start = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    return Case("neuron", ((), ()), start, lambda wb: ((torch.sigmoid(wb[0] * x + wb[1]) - y) ** 2).sum() / 2)


def _logistic() -> Case:
    x, y = _normal(12, 3, seed=1), torch.arange(12) % 4
    return _case("logistic", (4, 3), (4,), loss=lambda p: functional.cross_entropy(x @ p[0].T + p[1], y), seed=2)


def _convolution(d: int) -> Case:
    """Two channels in, two out; `d` dimensions."""
    x, y = _normal(6, 2, *[3] * d, seed=3), _normal(6, 2, seed=4)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[d - 1]

    def loss(params: Sequence[Tensor]) -> Tensor:
        kernel, bias, head = params
        features = torch.tanh(convolve(x, kernel, bias)).flatten(2).mean(2)  # (6, 2)
        return ((features @ head - y) ** 2).mean()

    return _case(f"conv{d}d", (2, 2, *(2, 2, 1)[:d]), (2,), (2, 2), loss=loss, seed=5)


_half = _normal(6, 8, seed=6)
BOWL = _quadratic("10x^2 + y^2", torch.diag(torch.tensor([20.0, 2.0]).double()), torch.ones(2).double(), (1,), (1,))
QUADRATIC = _quadratic("dense quadratic", _half @ _half.T / 8, _normal(6, seed=7), (2, 2), (2,))
LOGISTIC = _logistic()
CONV = _convolution(2)
CASES = [BOWL, QUADRATIC, _neuron(), LOGISTIC, _convolution(1), CONV, _convolution(3)]
