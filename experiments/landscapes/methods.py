r"""The optimisers of the sweep: torch's, the library's AdaHessian and AdaBelief, and Newton's method for many cells at once.

    Newton                  theta <- theta - lr H^-1 g
    absolute-value Newton   theta <- theta - lr |H|^-1 g                          Dauphin et al. 2014

A parameter is a tensor (..., 2) of independent cells, so H is a 2 x 2 matrix for each cell. Its inverse and its absolute value
have closed forms (Cayley and Hamilton), which leave a diverged cell as NaN and touch no other:

    H^-1 = adj(H) / det(H),     |H| = (H^2 + |det H| I) / c,     c = |lambda_1| + |lambda_2|,  c^2 = tr(H^2) + 2 |det H|

The library's Newton takes one H for all its parameters, so that each of thousands of cells would be an optimiser of its own.
A test holds the steps here equal to the library's, cell by cell.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, Adamax, NAdam, Optimizer, RMSprop

from secondlook.optim import AdaBelief, AdaHessian


def inverse_product(H: Tensor, g: Tensor) -> Tensor:
    """H^-1 g (..., 2), for symmetric H (..., 2, 2)."""
    (a, b), (_, d) = (row.unbind(-1) for row in H.unbind(-2))
    x, y = g.unbind(-1)
    return torch.stack([d * x - b * y, a * y - b * x], -1) / (a * d - b * b).unsqueeze(-1)


def absolute(H: Tensor) -> Tensor:
    """|H| (..., 2, 2), for symmetric H: the eigenvalues replaced by their absolute values."""
    det = (H[..., 0, 0] * H[..., 1, 1] - H[..., 0, 1] ** 2).abs()[..., None, None]
    return (H @ H + det * torch.eye(2, dtype=H.dtype)) / (H.square().sum((-1, -2), keepdim=True) + 2 * det).sqrt()


class Newton(Optimizer):
    """`use(H)`: what takes the place of H."""

    def __init__(self, params, lr=1.0, use: Callable[[Tensor], Tensor] = lambda H: H):
        super().__init__(params, dict(lr=lr))
        self.use = use

    def backward(self, loss: Tensor) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, params, create_graph=True)
        columns = [torch.autograd.grad(sum(g[..., i].sum() for g in gradients), params, retain_graph=True) for i in range(2)]
        for p, g, *H in zip(params, gradients, *columns, strict=True):
            p.grad = inverse_product(self.use(torch.stack(H, -1)), g.detach())

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad


def methods(momentum: float, betas: tuple[float, float]) -> dict[str, Callable[[list[dict]], Optimizer]]:
    """Name of each optimiser and how it is made from parameter groups, which hold the learning rates. All else is torch's
    default, or the paper's."""
    return {
        "SGD": lambda groups: SGD(groups),
        "momentum": lambda groups: SGD(groups, momentum=momentum),
        "Nesterov": lambda groups: SGD(groups, momentum=momentum, nesterov=True),
        "Adagrad": lambda groups: Adagrad(groups),
        "RMSprop": lambda groups: RMSprop(groups),
        "Adam": lambda groups: Adam(groups, betas=betas),
        "Adamax": lambda groups: Adamax(groups, betas=betas),
        "NAdam": lambda groups: NAdam(groups, betas=betas),
        "AdaBelief": lambda groups: AdaBelief(groups, betas=betas),
        "AdaHessian": lambda groups: AdaHessian(groups, betas=betas),
        "Newton": lambda groups: Newton(groups),
        "absolute-value Newton": lambda groups: Newton(groups, use=absolute),
    }


def descend(make, loss: Callable[[Tensor, int], Tensor], start: Tensor, rates, steps: int) -> Tensor:
    """The paths (steps + 1, rates, C, 2) from `start` (C, 2), one parameter and group for each learning rate.

    `loss(theta, t)`: theta (rates, C, 2) to a scalar, the sum over all cells.
    """
    params = [start.clone().requires_grad_() for _ in rates]
    optimizer = make([{"params": [p], "lr": float(lr)} for p, lr in zip(params, rates, strict=True)])
    backward = getattr(optimizer, "backward", Tensor.backward)
    path = [torch.stack(params).detach()]
    for t in range(1, steps + 1):
        optimizer.zero_grad()
        backward(loss(torch.stack(params), t))
        optimizer.step()
        path.append(torch.stack(params).detach())
    return torch.stack(path)
