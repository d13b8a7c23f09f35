"""Hessian-vector products by differentiating twice in reverse mode.

    (H v)_i = d(g^T v) / d theta_i,    g = gradient with a graph, v constant          (Pearlmutter 1994)

Cost: one backward pass through the graph of g. The Hessian itself is never formed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def hvp(
    gradients: Sequence[Tensor], params: Sequence[Tensor], vectors: Sequence[Tensor], *, retain_graph: bool = False
) -> list[Tensor]:
    """H v, block by block: result i has the shape of `params[i]` and no graph.

    `gradients`, `params` and `vectors` match in number and shape, and the gradients carry a graph (`create_graph=True`).
    Where no gradient depends on a parameter, the result is zero. The graph is freed unless `retain_graph`.
    """
    live = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    if not live:
        return [torch.zeros_like(p) for p in params]
    g, v = zip(*live, strict=True)
    return list(torch.autograd.grad(g, params, v, retain_graph=retain_graph, allow_unused=True, materialize_grads=True))
