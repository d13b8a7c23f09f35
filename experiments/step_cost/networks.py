"""The networks that are timed: a multilayer perceptron, and a small character transformer with explicit attention.

Explicit, because the fused attention of torch has no double backward on a CPU. The third is the library's ResNet.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.convolution import Conv2d
from secondlook.problems.rectifier import ReLU

DERIVED = (BatchNorm2d, Conv2d, ReLU)  # the layers whose second derivative is the library's own


def perceptron(widths: tuple[int, ...]) -> nn.Module:
    pairs = list(zip(widths, widths[1:], strict=False))
    layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Attention(nn.Module):
    """Causal self-attention. Letters: b batch, t and s positions, h heads, d numbers of a head."""

    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.heads = heads
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("future", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.into(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (b, t, h, d) each
        scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(self.future, -torch.inf).softmax(-1)
        return self.out(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, length))
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.think(x)


class Transformer(nn.Module):
    """Characters (b, t) to logits (b, t, vocabulary)."""

    def __init__(self, vocabulary: int, width: int, blocks: int, heads: int, length: int):
        super().__init__()
        self.characters, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, length) for _ in range(blocks)))
        self.logits = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, characters: Tensor) -> Tensor:
        x = self.characters(characters) + self.positions.weight[: characters.shape[1]]
        return self.logits(self.blocks(x))


def with_layers_of_torch(model: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    """A copy of `model` with torch's layers in place of the library's `kinds`, whose double backwards are derived by hand."""
    model = deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, kinds):
            layer.__class__ = type(layer).__base__
    return model


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over everything but the classes, which stand last in `logits`."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten())
