"""Small classifiers as functions of their weights, each layer one matrix product with its bias inside.

    s = a W^T,    a = (patch of the layer's input, 1),    next layer's input = activation(s)

W is (out, in + 1), its last column the bias, so that row o is all that belongs to neuron o. A dense layer sees one patch, its
whole input; a convolution sees one at each position. N examples, T positions. Weights start as W ~ N(0, gain^2 / in), biases
at 0, with gain^2 = 2 for ReLU (He et al. 2015) and 1 for tanh (Glorot and Bengio 2010, for layers of equal width).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {"tanh": (torch.tanh, 1.0), "relu": (torch.relu, 2.0)}
KERNEL = 3  # of all convolutions, with stride 2 and one pixel of padding


@dataclass(frozen=True)
class Trace:
    """What a pass through the network leaves: each layer's `inputs` a (N, T, in + 1) and `sums` s (N, T, out); the last s."""

    inputs: list[Tensor]
    sums: list[Tensor]
    logits: Tensor


@dataclass(frozen=True)
class Network:
    """`widths`: inputs (or channels) first, classes last. The first `convolutions` layers halve an image of `side` pixels."""

    widths: tuple[int, ...]
    activation: str
    convolutions: int = 0
    side: int = 1

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(out, in + 1) of each layer."""
        found = []
        for layer, (before, after) in enumerate(pairwise(self.widths)):
            pixels = (self.side // 2**layer) ** 2
            patch = KERNEL**2 if layer < self.convolutions else pixels if layer == self.convolutions else 1
            found.append((after, before * patch + 1))
        return found

    def start(self, generator: torch.Generator) -> list[Tensor]:
        """Random weights and zero biases, float64."""
        _, gain = ACTIVATIONS[self.activation]
        params = []
        for out, inputs in self.shapes:
            W = torch.randn(out, inputs, generator=generator, dtype=torch.float64) * (gain / (inputs - 1)) ** 0.5
            W[:, -1] = 0
            params.append(W)
        return params

    def trace(self, params: Sequence[Tensor], x: Tensor) -> Trace:
        """All layers' inputs and sums; x: (N, features), or (N, channels, side, side) for convolutions."""
        activation, _ = ACTIVATIONS[self.activation]
        inputs, sums, h = [], [], x
        for layer, W in enumerate(params):
            convolved = layer < self.convolutions
            patches = functional.unfold(h, KERNEL, padding=1, stride=2) if convolved else h.flatten(1)[..., None]  # (N, in, T)
            a = torch.cat([patches, torch.ones_like(patches[:, :1])], dim=1).transpose(1, 2)  # (N, T, in + 1)
            s = functional.linear(a, W)  # (N, T, out)
            inputs.append(a)
            sums.append(s)
            half = self.side // 2 ** (layer + 1)
            h = activation(s.transpose(1, 2).reshape(len(x), -1, half, half) if convolved else s[:, 0])
        return Trace(inputs, sums, s[:, 0])

    def __call__(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.trace(params, x).logits
