r"""A small character transformer whose embeddings are its output layer as well.

    x = sqrt(w) (E[character] + P[position]),   blocks,   logits = E norm(x)

E is (vocabulary, w) and P (positions, w); w is the width. There is one E: its gradient is the sum of those of both uses. The
output has no bias, so that every parameter's number of entries is a multiple of w.

Weights start as N(0, 1 / inputs of a neuron), E and P as N(0, SMALL^2), biases at 0 and norms at 1 and 0: logits are near 0,
and the first loss near log(vocabulary).

Source: the factor sqrt(w) goes with shared embeddings in Vaswani et al. (2017), "Attention is all you need", section 3.4.
Deviations from it: the norm stands before a block's layers and not behind them; positions are learned.
"""

import torch
from torch import Tensor, nn

from secondlook.problems.transformer import Attention, Block

SMALL = 0.05


class Transformer(nn.Module):
    """Characters (b, t) to logits (b, vocabulary, t), as torch's cross entropy takes them; t is `length`."""

    def __init__(self, vocabulary: int, width: int, blocks: int, heads: int, length: int):
        super().__init__()
        self.characters, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, length) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, characters: Tensor) -> Tensor:
        E, P = self.characters.weight, self.positions.weight
        x = E.shape[1] ** 0.5 * (self.characters(characters) + P)  # (b, t, w)
        return (self.norm(self.blocks(x)) @ E.T).transpose(1, 2)


def transformer(vocabulary: int, width: int, blocks: int, heads: int, length: int, generator: torch.Generator) -> Transformer:
    """One with the weights with which training starts, on the generator's device, drawn from it alone."""
    with torch.device("meta"):  # no memory and no random numbers yet
        model = Transformer(vocabulary, width, blocks, heads, length)
    model.to_empty(device=generator.device)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=SMALL, generator=generator)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
        elif isinstance(layer, Attention):
            layer.future.fill_(True).triu_(1)
    return model
