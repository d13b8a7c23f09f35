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

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature.objective import Composed, Objective
from secondlook.curvature.products import Vector


@dataclass(frozen=True)
class GraphLogits:
    """A classifier's `logits` (..., classes) with their graph back to `params`, which is freed unless `retain_graph`."""

    logits: Tensor
    params: Vector
    retain_graph: bool = False

    def kept(self) -> "GraphLogits":
        """The same, for further use of the graph."""
        return replace(self, retain_graph=True)


@dataclass(frozen=True)
class GaussNewtonBartlett:
    """D of the mean cross entropy over all rows of `logits`, which are what the labels are drawn from:

    logits = model(x)
    optimizer.backward(functional.cross_entropy(logits, y), curvature_of=logits)

    Of an `Objective` of a `Composed`, whose model gives logits, it is D of the mean, or of the sum, of the cross entropy over
    its examples: batch by batch, with the objective's weights. It sees logits and no loss. What else is in the loss, a penalty
    or weights of the classes, it cannot know.
    """

    def __call__(self, source: GraphLogits | Objective, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter. Raises TypeError for anything that has no logits."""
        if isinstance(source, GraphLogits):
            return self._mean(source, generator)
        if not (isinstance(source, Objective) and isinstance(source.loss_fn, Composed)):
            raise TypeError(f"GaussNewtonBartlett needs the logits of a classifier, got {type(source).__name__}")
        D = [torch.zeros_like(p) for p in source.params]
        for w, x, _ in source.weighted():
            theta = source.at()
            logits = source.loss_fn.model(theta, x)
            rows = 1 if source.reduction == "mean" else logits.shape[:-1].numel()
            torch._foreach_add_(D, self._mean(GraphLogits(logits, theta), generator), alpha=w * rows)
        source.spend(gradients=1)
        return D

    def _mean(self, source: GraphLogits, generator: torch.Generator | None) -> list[Tensor]:
        rows = source.logits.reshape(-1, source.logits.shape[-1])  # (B, classes)
        loss = functional.cross_entropy(rows, drawn_labels(rows, generator))
        keep = {"retain_graph": source.retain_graph, "allow_unused": True, "materialize_grads": True}
        return [len(rows) * g * g for g in torch.autograd.grad(loss, source.params, **keep)]


def drawn_labels(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """A label for each row of `logits` (B, classes), drawn from its softmax p: (B,), the argmax of p_c / e_c, e_c ~ Exp(1).

    A row that is not finite gets some label, where torch.multinomial raises, or ends the process on a GPU.
    """
    p = logits.detach().softmax(dim=1, dtype=torch.float32)
    p = p if generator is None else p.to(generator.device)
    return (p / torch.empty_like(p).exponential_(generator=generator)).argmax(dim=1).to(logits.device)
