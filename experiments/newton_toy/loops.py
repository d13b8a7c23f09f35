"""The document's training loops, and two that do the same without its growing graph.

All minimise the mean of (theta - target)^2 over n = size^2 numbers, with step

    theta <- theta - lr g                 gradient descent
    theta <- theta - lr H^-1 g            Newton's method, damped by lr

and yield one Step before each update and one after the last, so that item t holds the state after t updates.

Source: hessian-network-learning, "Example Codes".
Deviations: the loops draw from a generator of their own, with the same numbers as `torch.manual_seed`; the Hessian has a
fresh buffer each step; `by_autograd` leaves out the target's Hessian, which the document computes and drops; when a loop
ends, its gradients are dropped, or the cycles that it builds would never be freed.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.functional import hessian
from torch.nn.functional import mse_loss


class Step(NamedTuple):
    """`loss`: scalar. `H`: (n, n), None where the method has none. `path`: the thetas that the loop holds on to, (size, size)
    each, the present one last."""

    loss: Tensor
    H: Tensor | None
    path: list[Tensor]


def start(seed: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Parameters and target as the document draws them after `torch.manual_seed(seed)`: in float32, then as `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    theta, target = torch.rand(size, size, generator=generator), torch.rand(size, size, generator=generator)
    return theta.to(dtype), target.to(dtype)


def rows_of_hessian(g: Tensor, theta: Tensor) -> Tensor:
    """H, (n, n), row j the gradient of g_j. `g`: (n,), with its graph back to theta."""
    return torch.stack([torch.autograd.grad(g_j, theta, create_graph=True)[0].flatten() for g_j in g])


def _keeping_history(theta: Tensor, target: Tensor, lr: float, steps: int, find_hessian) -> Iterator[Step]:
    """The document's loop: it never detaches theta, so each backward pass walks through all updates before it."""
    path = []
    try:
        theta.requires_grad_()
        for _ in range(steps + 1):
            loss = mse_loss(theta, target)
            theta.retain_grad()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Using backward.* with create_graph=True")
                loss.backward(create_graph=True)
            g = theta.grad.flatten()
            H = find_hessian(g, theta)
            path.append(theta)
            yield Step(loss, H, path)
            direction = g if H is None else torch.inverse(H) @ g
            theta = (theta.view(-1) - lr * direction).view(theta.shape)  # (n,) -> (size, size)
    finally:
        for theta in path:
            theta.grad = None


def gradient_descent(theta: Tensor, target: Tensor, lr: float, steps: int) -> Iterator[Step]:
    """The document's 'conventional gradient descent'."""
    return _keeping_history(theta, target, lr, steps, lambda g, theta: None)


def row_by_row(theta: Tensor, target: Tensor, lr: float, steps: int) -> Iterator[Step]:
    """The document's manual Newton loop: the Hessian one row at a time."""
    return _keeping_history(theta, target, lr, steps, rows_of_hessian)


def by_autograd(theta: Tensor, target: Tensor, lr: float, steps: int) -> Iterator[Step]:
    """The document's Newton loop through `torch.autograd.functional.hessian`."""
    n = theta.numel()

    def find_hessian(g, theta):
        return hessian(lambda at: mse_loss(at, target), theta).view(n, n)  # (size, size, size, size) -> (n, n)

    return _keeping_history(theta, target, lr, steps, find_hessian)


def by_func(theta: Tensor, target: Tensor, lr: float, steps: int) -> Iterator[Step]:
    """Newton through `torch.func`, which leaves no graph behind."""
    n = theta.numel()
    gradient = torch.func.grad(mse_loss)
    for _ in range(steps + 1):
        g, H = gradient(theta, target).flatten(), torch.func.jacrev(gradient)(theta, target).reshape(n, n)
        yield Step(mse_loss(theta, target), H, [theta])
        theta = (theta.view(-1) - lr * (torch.inverse(H) @ g)).view(theta.shape)


def detached(theta: Tensor, target: Tensor, lr: float, steps: int) -> Iterator[Step]:
    """The manual Newton loop put right: every step starts from a theta without history."""
    for _ in range(steps + 1):
        theta = theta.detach().requires_grad_()
        loss = mse_loss(theta, target)
        g = torch.autograd.grad(loss, theta, create_graph=True)[0].flatten()
        H = rows_of_hessian(g, theta)
        yield Step(loss, H, [theta])
        theta = (theta.view(-1) - lr * (torch.inverse(H) @ g)).view(theta.shape)
