"""Networks that are timed: a multilayer perceptron and a small character transformer. The third is the library's ResNet."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secondlook.problems.transformer import Block


def perceptron(widths: tuple[int, ...]) -> nn.Module:
    pairs = list(zip(widths, widths[1:], strict=False))
    layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


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


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over everything but the classes, which stand last in `logits`."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten())
