r"""The diagonal of the Gauss-Newton matrix: exactly from the outputs' derivatives, or from random mixtures of the outputs.

    G = sum_b J_b^T H_b J_b,     H_b = d^2 l / d f_b^2 = sum_c lambda_bc e_bc e_bc^T        (C, C), example by example
    exact         D = sum_b sum_c lambda_bc (J_b^T e_bc)^2
    Monte Carlo   D = (1/s) sum_j sum_b (J_b^T R_b u_bj) * (J_b^T R'_b u_bj),    u signs (C,),
                  R_b = (sqrt|lambda_bc| e_bc)_c,  R'_b the same times the signs of lambda_bc: R_b R'_b^T = H_b

squares element by element, with the weights of `objective` inside l. H_b is found by differentiating the criterion twice: that
of a softmax's cross entropy is diag(p) - p p^T, of a square error 2/C I. The criterion must bear vmap.

Bias:       none for G. For the Hessian, -(1/N) sum_b sum_c (d l_b / d f_bc) d^2 f_bc / d theta_i^2. Where the model is
            piecewise linear in each parameter by itself (ReLU, max pooling) and theta is on no kink, that is zero, and the
            exact D is the exact diagonal of the Hessian; so it is at a residual of zero.
Variance:   exact 0; Monte Carlo, of a convex criterion, (2/s) sum_b sum_{c != c'} P_bci^2 P_bc'i^2, P_b = R_b^T J_b

Source: Schraudolph (2002); Dangel, Kunstner and Hennig (2020), "BackPACK", DiagGGN and DiagGGN-MC.

Cost: one forward pass, and one backward pass for each of C outputs, or two for each of s draws: (1 + 2 C) / 3 gradients, or
(1 + 4 s) / 3. Memory: C n numbers for every example in flight, or 2 s n. Deviations: signs and not sampled labels, which are
`GaussNewtonBartlett`'s. The second factor of a draw differs from the first only where a criterion is not convex.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.arguments import COUNT
from secondlook.curvature.batches import apart
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.per_example import refuse_mixing
from secondlook.curvature.products import Vector
from secondlook.curvature.source import Source


@dataclass(frozen=True)
class GaussNewtonDiagonal:
    """diag(G), exactly or from `draws` mixtures of an example's outputs; `chunk_size` examples at a time.

    >>> model, data = torch.nn.Linear(1, 1), (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    >>> loss = of_module(model, torch.nn.functional.mse_loss)
    >>> D = hessian_diagonal(loss, model.parameters(), data, method=GaussNewtonDiagonal())
    >>> [d.round(decimals=3).tolist() for d in D]
    [[[10.0]], [2.0]]
    """

    draws: int | None = None
    chunk_size: int = 64

    source = Source.LAYERS

    def __post_init__(self) -> None:
        COUNT.check(chunk_size=self.chunk_size)
        COUNT.or_none().check(draws=self.draws)

    def cost(self, params: Vector) -> Cost:
        """A pass forward, and two backward for each draw; see `Diagonal`."""
        if self.draws is None:
            raise ValueError("the cost of an exact GaussNewtonDiagonal depends on how many outputs the model has")
        return Cost(gradients=(1 + 4 * self.draws) / 3)

    def __call__(self, H: Objective, generator: torch.Generator | None = None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`."""
        self.source.check(self, H)
        D = [torch.zeros_like(p) for p in H.params]
        for w, *batch in H.weighted():
            x, y = apart(batch, "GaussNewtonDiagonal")
            refuse_mixing(H, x, y, self.chunk_size)
            share = w / len(x) if H.reduction == "mean" else w
            for xs, ys in zip(x.split(self.chunk_size), y.split(self.chunk_size), strict=True):
                torch._foreach_add_(D, self._examples(H, xs, ys, generator), alpha=share)
        return D

    def _examples(self, H: Objective, x: Tensor, y: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Sum over the examples of D_b."""
        theta = [p.detach() for p in H.params]
        model, criterion = H.loss_fn.model, H.loss_fn.criterion
        f = model(theta, x)  # (B, *outputs)

        def curvature(f: Tensor, y: Tensor) -> Tensor:
            return torch.func.hessian(lambda f: criterion(f[None], y[None]))(f)

        C = f[0].numel()
        Hf = torch.func.vmap(curvature)(f, y).reshape(len(x), C, C)
        lambdas, E = torch.linalg.eigh(Hf)  # (B, C), (B, C, C) with eigenvectors in columns
        if self.draws is None:
            left, right, weights = E.mT, E.mT, lambdas  # (B, c, C), (B, c, C), (B, c)
        else:
            u = Hutchinson().probe([f.new_empty(len(x), self.draws, C)], generator)[0]
            left = u * lambdas.abs().sqrt()[:, None] @ E.mT  # (B, s, C)
            right = u * lambdas.abs().sqrt().copysign(lambdas)[:, None] @ E.mT
            weights = torch.full_like(u[:, :, 0], 1 / self.draws)

        def terms(x: Tensor, left: Tensor, right: Tensor, weights: Tensor) -> list[Tensor]:
            back = torch.func.vjp(lambda theta: model(theta, x[None])[0].reshape(-1), theta)[1]
            P = torch.func.vmap(back)(left)[0]  # (c, *shape) each
            Q = P if self.draws is None else torch.func.vmap(back)(right)[0]
            return [torch.tensordot(weights, p * q, 1) for p, q in zip(P, Q, strict=True)]

        H.spend(gradients=(1 + 2 * C if self.draws is None else 1 + 4 * self.draws) / 3, examples=len(x))
        return [part.sum(0) for part in torch.func.vmap(terms)(x, left, right, weights)]
