r"""The click model: a small one of the kind that Naumov et al. describe (2019, arXiv 1906.00091), 'DLRM'.

    e_f = E_f[x_f]                          row of field f, width numbers; E starts as U(-1, 1) / sqrt(categories of the field)
    h   = bottom(d)                         dense features to width numbers: Linear, ReLU, Linear, ReLU
    q   = top([h, v_f^T v_h for f < h])     of v = (h, e_1, ..., e_F), all pairs; Linear, ReLU, Linear to one logit

Weights of a Linear start as N(0, 2 / (inputs + outputs)), biases as N(0, 1 / outputs). The tables of all fields stand one below
the other in one nn.Embedding, whose gradient is sparse: it holds the rows that the batch looked up, and no others.

Deviations from the paper: sizes; one table with an offset for each field in place of a table each, which is the same model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ClickModel(nn.Module):
    """Dense features (N, k) and categories (N, F) to logits (N,); starts from `generator`, on the CPU.

    `tables` are the parameters of the embedding, with sparse gradients; `networks` those of bottom and top, with dense ones.
    """

    def __init__(self, fields: Sequence[int], dense: int, width: int, hidden: int, generator: torch.Generator):
        super().__init__()
        self.embedding = nn.utils.skip_init(nn.Embedding, sum(fields), width, sparse=True)
        sizes = torch.tensor(fields)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes)
        bound = sizes.repeat_interleave(sizes)[:, None] ** -0.5
        with torch.no_grad():
            self.embedding.weight.uniform_(-1, 1, generator=generator).mul_(bound)
        vectors = len(fields) + 1
        first, second = torch.triu_indices(vectors, vectors, 1)
        self.register_buffer("pairs", first * vectors + second)
        self.bottom = nn.Sequential(linear(dense, hidden, generator), nn.ReLU(), linear(hidden, width, generator), nn.ReLU())
        self.top = nn.Sequential(linear(width + len(self.pairs), hidden, generator), nn.ReLU(), linear(hidden, 1, generator))

    @property
    def tables(self) -> list[nn.Parameter]:
        return list(self.embedding.parameters())

    @property
    def networks(self) -> list[nn.Parameter]:
        return [*self.bottom.parameters(), *self.top.parameters()]

    def rows(self, category: Tensor) -> Tensor:
        """What the categories (N, F) look up: (N, F, width)."""
        return self.embedding(category + self.offsets)

    def logits(self, dense: Tensor, rows: Tensor) -> Tensor:
        """(N, k) and (N, F, width) to (N,)."""
        h = self.bottom(dense)
        v = torch.cat([h[:, None], rows], dim=1)  # (N, F + 1, width)
        dots = (v @ v.mT).flatten(1)[:, self.pairs]  # (N, F (F + 1) / 2)
        return self.top(torch.cat([h, dots], dim=1))[:, 0]

    def forward(self, dense: Tensor, category: Tensor) -> Tensor:
        return self.logits(dense, self.rows(category))


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, std=(2 / (inputs + outputs)) ** 0.5, generator=generator)
    nn.init.normal_(layer.bias, std=outputs**-0.5, generator=generator)
    return layer
