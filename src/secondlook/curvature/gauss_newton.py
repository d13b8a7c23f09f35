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

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.products import Vector
from secondlook.curvature.source import GraphLogits, Source

ONE_PASS_BACKWARD = Cost(gradients=2 / 3)  # a gradient is three matrix products a layer: one forward, two backward


@dataclass(frozen=True)
class GaussNewtonBartlett:
    """D of the mean cross entropy over all rows of `logits`, which are what the labels are drawn from:

    logits = model(x)
    optimizer.backward(functional.cross_entropy(logits, y), curvature_of=logits)

    Of an `Objective` of a `Composed`, whose model gives logits, it is D of the mean, or of the sum, of the cross entropy over
    its examples: batch by batch, with the objective's weights. It sees logits and no loss. What else is in the loss, a penalty
    or weights of the classes, it cannot know.

    >>> model, x, y = torch.nn.Linear(2, 3), torch.ones(4, 2), torch.arange(4) % 3
    >>> optimizer, logits = Sophia(model.parameters(), diagonal=GaussNewtonBartlett()), model(x)
    >>> optimizer.backward(torch.nn.functional.cross_entropy(logits, y), curvature_of=logits)
    >>> optimizer.step()
    """

    source = Source.LOGITS

    def cost(self, params: Vector) -> Cost:
        """One pass backward from the logits; see `Diagonal`."""
        return ONE_PASS_BACKWARD

    def __call__(self, H: GraphLogits | Objective, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        self.source.check(self, H)
        if isinstance(H, GraphLogits):
            return self._mean(H, generator)
        D = [torch.zeros_like(p) for p in H.params]
        for w, x, _ in H.weighted():
            theta = H.at()
            logits = H.loss_fn.model(theta, x)
            rows = 1 if H.reduction == "mean" else logits.shape[:-1].numel()
            torch._foreach_add_(D, self._mean(GraphLogits(logits, theta), generator), alpha=w * rows)
        H.spend(gradients=1)
        return D

    def _mean(self, H: GraphLogits, generator: torch.Generator | None) -> list[Tensor]:
        rows = H.logits.reshape(-1, H.logits.shape[-1])  # (B, classes)
        loss = functional.cross_entropy(rows, drawn_labels(rows, generator))
        keep = {"retain_graph": H.retain_graph, "allow_unused": True, "materialize_grads": True}
        return [len(rows) * g * g for g in torch.autograd.grad(loss, H.params, **keep)]


def drawn_labels(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """A label for each row of `logits` (B, classes), drawn from its softmax p: (B,), the argmax of p_c / e_c, e_c ~ Exp(1).

    A row that is not finite gets some label, where torch.multinomial raises, or ends the process on a GPU.
    """
    p = logits.detach().softmax(dim=1, dtype=torch.float32)
    p = p if generator is None else p.to(generator.device)
    return (p / torch.empty_like(p).exponential_(generator=generator)).argmax(dim=1).to(logits.device)
