r"""A probe for every example, or every group of examples: the noise of one product, averaged over the batch.

    D = (1/N) sum_{b=1..N} z_b * H_b z_b,     H = (1/N) sum_b H_b, the z_b independent probes of signs

Groups of several examples, M to a batch, share a probe: H_b is then the Hessian of a group. For a sum over examples 1/N is 1.

Unbiased:   term by term, as `hutchinson`.
Variance:   Var[D_i] = (1/s) sum_{j != i} (1/N^2) sum_b (H_b)_ij^2          against Hutchinson's ((1/N) sum_b (H_b)_ij)^2

    N times less where all examples have the same H_b; the same in expectation where their entries off the diagonal are
    independent with mean 0; more where they cancel.

Cost: by the count of operations one Hessian-vector product and its gradient for each of the s probes, but N n random signs and
as many numbers to go through: wide layers take far longer than the count says. Memory: a probe and a product for every example
in flight, 2 n `chunk_size` numbers; for M groups 2 n, and the products are M smaller ones. `Preactivations` has neither price.

Every example must count for itself in the loss, for which two passes forward look, and `loss_fn` must take a batch of one.
Deviations: no paper is followed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import COUNT
from secondlook.curvature.batches import apart
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.products import Vector
from secondlook.curvature.source import Source


@dataclass(frozen=True)
class PerExample:
    """Mean over `probes` draws, each of a probe for every example, `chunk_size` examples at a time, by vmap.

    With `groups`, one for each of that many groups of neighbours in a batch, of sizes as equal as can be, one after the other.

    >>> model, data = torch.nn.Linear(1, 1), (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    >>> loss = of_module(model, torch.nn.functional.mse_loss)
    >>> D = hessian_diagonal(loss, model.parameters(), data, method=PerExample(probes=10))
    >>> [d.shape for d in D]
    [torch.Size([1, 1]), torch.Size([1])]
    """

    probes: int = 1
    groups: int | None = None
    chunk_size: int = 64

    source = Source.OBJECTIVE

    def __post_init__(self) -> None:
        COUNT.check(probes=self.probes, chunk_size=self.chunk_size)
        COUNT.or_none().check(groups=self.groups)

    def cost(self, params: Vector) -> Cost:
        """A gradient and a product for each probe; see `Diagonal`."""
        return Cost(gradients=self.probes, products=self.probes)

    def __call__(self, H: Objective, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        self.source.check(self, H)
        D = [torch.zeros_like(p) for p in H.params]
        for j in range(self.probes):
            for w, *batch in H.weighted():
                x, y = apart(batch, "PerExample")
                if j == 0:
                    refuse_mixing(H, x, y, self.chunk_size, self.groups)
                terms = self._examples(H, x, y, generator) if self.groups is None else self._groups(H, x, y, generator)
                for share, term in terms:
                    torch._foreach_add_(D, term, alpha=w * share / self.probes)
            H.spend(gradients=1, products=1)
        return D

    def _examples(self, H: Objective, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Iterator:
        """(share in the batch's loss, sum of z_b * H_b z_b) of every chunk."""
        share = 1 / len(x) if H.reduction == "mean" else 1.0
        for xs, ys in zip(x.split(self.chunk_size), y.split(self.chunk_size), strict=True):
            z = Hutchinson().probe([p.new_empty(len(xs), *p.shape) for p in H.params], generator)  # (B, *shape)
            Hz = _products(H, xs, ys, z)
            yield share, [(a * b).sum(0) for a, b in zip(z, Hz, strict=True)]

    def _groups(self, H: Objective, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Iterator:
        """The same of every group."""
        for xs, ys in zip(x.tensor_split(self.groups), y.tensor_split(self.groups), strict=True):
            if len(xs):  # there may be more groups than examples
                part = Objective(H.loss_fn, H.params, (xs, ys), reduction=H.reduction, mode=H.mode)
                yield (len(xs) / len(x) if H.reduction == "mean" else 1.0), Hutchinson()(part, generator)


@torch.no_grad()
def refuse_mixing(H: Objective, x: Tensor, y: Tensor, chunk_size: int, groups: int | None = None) -> None:
    """ValueError unless the loss of the batch (x, y) is the mean, or the sum, of its examples' or groups' own."""
    theta = [p.detach() for p in H.params]
    whole = H.loss_fn(theta, x, y)
    if groups is None:
        own = torch.func.vmap(lambda x, y: H.loss_fn(theta, x[None], y[None]), chunk_size=chunk_size)(x, y)  # (N,)
        counts = torch.ones_like(own)
    else:
        parts = [part for part in zip(x.tensor_split(groups), y.tensor_split(groups), strict=True) if len(part[0])]
        own = torch.stack([H.loss_fn(theta, *part) for part in parts])
        counts = own.new_tensor([len(part[0]) for part in parts])
    shares = counts / len(x) if H.reduction == "mean" else torch.ones_like(own)
    rounding = (1000 * torch.finfo(own.dtype).eps * (shares @ own.abs())).nan_to_num().item()
    if not torch.isclose(whole, shares @ own, rtol=0, atol=rounding, equal_nan=True):
        raise ValueError(
            f"the loss of a batch is not the {H.reduction} of its examples' own, {whole.item():.6g} and {shares @ own:.6g}:"
            " weights of classes, ignored labels and other means over a batch cannot be taken apart; divide by a constant"
        )


def _products(H: Objective, x: Tensor, y: Tensor, z: Vector) -> tuple[Tensor, ...]:
    """H_b z_b (B, *shape) of every example alone, in the objective's mode."""
    theta = tuple(p.detach() for p in H.params)

    def product(x: Tensor, y: Tensor, *z: Tensor) -> tuple[Tensor, ...]:
        gradient = torch.func.grad(lambda theta: H.loss_fn(list(theta), x[None], y[None]))
        if H.mode == "forward":
            return torch.func.jvp(gradient, (theta,), (z,))[1]
        return torch.func.vjp(gradient, theta)[1](z)[0]

    return torch.func.vmap(product)(x, y, *z)
