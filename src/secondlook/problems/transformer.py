"""Parts of a character transformer, with explicit attention: the fused attention of torch has no double backward on a CPU."""

import torch
from torch import Tensor, nn


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
    """Attention of every position to those before it, then two layers on each; norms before, residuals around."""

    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, length))
        self.think = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.think(x)
