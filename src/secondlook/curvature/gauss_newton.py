r"""Gauss-Newton-Bartlett: the diagonal of a classifier's Gauss-Newton matrix, from labels that the model draws itself.

    y^_b ~ softmax(logits_b),   b = 1..B
    g^   = gradient of (1/B) sum_b cross_entropy(logits_b, y^_b)
    D    = B g^ * g^                                     (Liu et al., arXiv 2305.14342, Algorithm 2)

Unbiased for the Gauss-Newton matrix (1/B) sum_b J_b^T S_b J_b, with J_b the derivative of the logits by theta and
S_b = diag(p_b) - p_b p_b^T the Hessian of the cross entropy by the logits: by Bartlett's identities a sampled gradient of one
row has mean 0 and covariance J_b^T S_b J_b, and rows are independent, so in E[B g^ * g^] the products of two rows vanish.
It is never negative, and has nothing of the model's own second derivatives.

Cost: one gradient, through the graph of the logits, which is that of the loss: no second forward pass, nothing differentiated
twice.

Deviations: none. Here B counts rows of the logits: every position of a sequence is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class GaussNewtonBartlett:
    """D of the mean cross entropy over all rows of `logits`, which are what the labels are drawn from:

    logits = model(x)
    optimizer.backward(functional.cross_entropy(logits, y), logits=logits)

    It sees logits and no loss. What else is in the loss, a penalty or weights of the classes, it cannot know.
    """

    def __call__(
        self, logits: Tensor, params: Sequence[Tensor], generator: torch.Generator | None, *, retain_graph: bool = False
    ) -> list[Tensor]:
        """D, one tensor for each parameter; `logits` (..., classes) carry a graph, which is freed unless `retain_graph`."""
        if not logits.requires_grad:
            raise RuntimeError("the logits have no graph: compute them from the parameters, with gradients enabled")
        rows = logits.reshape(-1, logits.shape[-1])  # (B, classes)
        p = rows.detach().softmax(dim=1, dtype=torch.float32)
        p = p if generator is None else p.to(generator.device)
        labels = torch.multinomial(p, 1, generator=generator).view(-1).to(rows.device)  # (B,)
        loss = functional.cross_entropy(rows, labels)
        g = torch.autograd.grad(loss, params, retain_graph=retain_graph, allow_unused=True, materialize_grads=True)
        return [len(rows) * gi * gi for gi in g]
