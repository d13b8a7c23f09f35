r"""Gauss-Newton-Bartlett: the diagonal of a classifier's Gauss-Newton matrix, from labels that the model draws itself.

    y^_b ~ softmax(logits_b),   b = 1..B,   the loss sum_b w_b cross_entropy(logits_b, y_b), w_b >= 0
    g^   = gradient of sum_b sqrt(w_b) cross_entropy(logits_b, y^_b)
    D    = g^ * g^                  of a mean, with w_b = 1/B, B times the square (Liu et al., arXiv 2305.14342, Algorithm 2)

Unbiased for the Gauss-Newton matrix sum_b w_b J_b^T S_b J_b, with J_b the derivative of the logits by theta and
S_b = diag(p_b) - p_b p_b^T the Hessian of the cross entropy by the logits: by Bartlett's identities a sampled gradient of one
row has mean 0 and covariance J_b^T S_b J_b, and rows are independent, so in E[g^ * g^] the products of two rows vanish.
It is never negative, and has nothing of the model's own second derivatives.

The weights are those of the loss itself, whatever scales it: a mean or a sum, a share of a micro-batch, weights of classes,
rows that are ignored, soft or smoothed labels. The loss's Hessian by row b of the logits is w_b S_b. So with e the unit vector
of the row's likeliest class, one product H_b e = w_b S_b e gives w_b, and tells whether the loss is of this kind at all.

Cost: one gradient, and a product with the Hessian of the loss by the logits. The gradient goes through the graph of the logits,
which the loss has built: there is no second forward pass, and nothing of the model is differentiated twice.

Deviations: the weights; the paper's loss is a mean. Here B counts rows of the logits: every position of a sequence is one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.products import Vector, hvp
from secondlook.curvature.source import GraphLogits, Source

ONE_PASS_BACKWARD = Cost(gradients=2 / 3)  # a gradient is three matrix products a layer: one forward, two backward


@dataclass(frozen=True)
class GaussNewtonBartlett:
    """D of a loss that is a sum of weighted cross entropies of rows of logits, from which the labels are drawn:

    logits = model(x)
    optimizer.backward(functional.cross_entropy(logits, y), curvature_of=logits)

    The classes are the last dimension of the logits. The loss must be computed from these very logits; a RuntimeError says
    where it is not, or is no such sum. Of an `Objective` of a `Composed`, whose model gives logits, it is D of its loss. What
    else is in the loss and does not pass through the logits, such as a penalty on theta, is left out.

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
            return self._squares(H, generator)
        D = [torch.zeros_like(p) for p in H.params]
        for w, x, y in H.weighted():
            theta = H.at()
            logits = H.loss_fn.model(theta, x)
            weights = row_weights(H.loss_fn.criterion(logits, y), logits)
            torch._foreach_add_(D, self._squares(GraphLogits(logits, theta, weights=weights), generator), alpha=w)
        H.spend(gradients=1)
        return D

    def _squares(self, H: GraphLogits, generator: torch.Generator | None) -> list[Tensor]:
        rows = H.logits.reshape(-1, H.logits.shape[-1])  # (B, classes)
        losses = functional.cross_entropy(rows, drawn_labels(rows, generator), reduction="none")
        weights = torch.full_like(losses, 1 / len(rows)) if H.weights is None else H.weights.to(losses.dtype)
        keep: dict[str, Any] = {"retain_graph": H.retain_graph, "allow_unused": True, "materialize_grads": True}
        return [g * g for g in torch.autograd.grad((weights.sqrt() * losses).sum(), H.params, **keep)]


def row_weights(loss: Tensor, logits: Tensor) -> Tensor:
    """w (B,) of the rows of `logits` (..., classes) in loss = sum_b w_b cross_entropy(logits_b, y_b). All graphs stay.

    Raises RuntimeError where the loss does not depend on `logits`, or is no such sum; where a CUDA graph is captured, which
    waits for no number, the second is not looked at. A row whose label is certain has no curvature, and the weight zero.
    """
    (g,) = torch.autograd.grad(loss, logits, create_graph=True, allow_unused=True)
    if g is None:
        raise RuntimeError(
            "the loss does not depend on the logits in curvature_of: hand over the tensor that the loss is computed from,"
            " classes last, as in z = model(x).transpose(1, 2), cross_entropy(z.transpose(1, 2), y); or an Objective"
        )
    p = logits.detach().softmax(-1)
    e = functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
    top, others = (p * e).sum(-1, keepdim=True), p * (1 - e)
    Se = top * (others.sum(-1, keepdim=True) * e - others)  # without the difference 1 - p, which rounding would spoil
    He = hvp([g], [logits], [e], retain_graph=True)[0]
    w = ((He * (1 - e)).sum(-1, keepdim=True) / (Se * (1 - e)).sum(-1, keepdim=True)).nan_to_num()
    w = torch.where(g.isfinite().all(-1, keepdim=True), w, torch.nan)  # which is to be seen in D
    if not (loss.is_cuda and torch.cuda.is_current_stream_capturing()):
        eps = torch.finfo(p.dtype).eps
        off = (He - w * Se).abs() > eps**0.5 * He.abs().amax(-1, keepdim=True) + 16 * eps * w.abs()
        if (off.any() or (w < 0).any() or not (w != 0).any()) and (Se != 0).any():
            raise RuntimeError(
                "the loss is no sum of weighted cross entropies of the rows in curvature_of, whose last dimension must be the"
                " classes: take another estimator, such as Hutchinson()"
            )
    return w.reshape(-1)


def drawn_labels(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """A label for each row of `logits` (B, classes), drawn from its softmax p: (B,), the argmax of p_c / e_c, e_c ~ Exp(1).

    A row that is not finite gets some label, where torch.multinomial raises, or ends the process on a GPU.
    """
    p = logits.detach().softmax(dim=1, dtype=torch.float32)
    p = p if generator is None else p.to(generator.device)
    return (p / torch.empty_like(p).exponential_(generator=generator)).argmax(dim=1).to(logits.device)
