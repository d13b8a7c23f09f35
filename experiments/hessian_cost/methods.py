"""Ways to the dense Hessian of a network, and from it to Newton's step.

A way to the Hessian takes a loss and the network's parameters, a list of tensors, and gives H (n, n). The loops and torch's own
functions see one flat vector, as the documents do; ours sees the list. A solver takes H (n, n) and g (n,), and gives p with
H p = -g.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secondlook.curvature import dense
from secondlook.curvature.products import GraphHessian
from secondlook.curvature.vectors import flat, split

Loss = Callable[[list[Tensor]], Tensor]


def row_by_row(loss: Loss, params: Sequence[Tensor]) -> Tensor:
    """The document's loop: every row with a graph of its own, which H keeps alive."""
    theta = flat(params).requires_grad_()
    (g,) = torch.autograd.grad(loss(split(theta, params)), theta, create_graph=True)
    H = torch.zeros(len(g), len(g), dtype=g.dtype)
    for j in range(len(g)):
        H[j] = torch.autograd.grad(g[j], theta, create_graph=True)[0]
    return H


def functional(loss: Loss, params: Sequence[Tensor]) -> Tensor:
    return torch.autograd.functional.hessian(lambda theta: loss(split(theta, params)), flat(params))


def func(loss: Loss, params: Sequence[Tensor]) -> Tensor:
    return torch.func.hessian(lambda theta: loss(split(theta, params)))(flat(params))


def one_by_one(loss: Loss, params: Sequence[Tensor]) -> Tensor:
    """n products with basis vectors, through one graph of the gradient."""
    theta = [p.detach().requires_grad_() for p in params]
    g = torch.autograd.grad(loss(theta), theta, create_graph=True)
    return dense.matrix(GraphHessian(g, theta, retain_graph=True))


HESSIANS = {
    "row by row": row_by_row,
    "autograd.functional": functional,
    "torch.func": func,
    "products, one by one": one_by_one,
    "ours": dense.hessian,
}


def gradient(loss: Loss, params: Sequence[Tensor]) -> list[Tensor]:
    theta = [p.detach().requires_grad_() for p in params]
    return list(torch.autograd.grad(loss(theta), theta))


def inverse(H: Tensor, g: Tensor) -> Tensor:
    """As the document does: torch.inverse(H) @ g."""
    return -torch.inverse(H) @ g


def lu(H: Tensor, g: Tensor) -> Tensor:
    return -torch.linalg.solve(H, g)


def cholesky(H: Tensor, g: Tensor) -> Tensor:
    return -torch.cholesky_solve(g[:, None], torch.linalg.cholesky(H))[:, 0]


def conjugate_gradients(product: Callable[[Tensor], Tensor], g: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """p with |H p + g| <= tolerance |g| for positive definite H, from p = 0, and the number of products; n at most."""
    p, r = torch.zeros_like(g), -g
    d, rr = r, r @ r
    stop, products = tolerance**2 * rr, 0
    while rr > stop and products < len(g):
        Hd = product(d)
        alpha = rr / (d @ Hd)
        p, r = p + alpha * d, r - alpha * Hd
        rr, last = r @ r, rr
        d = r + rr / last * d
        products += 1
    return p, products
