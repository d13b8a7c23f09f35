"""Gradient descent on a quadratic, without iterating.

In the eigenbasis of H every coordinate goes its own way, c_i <- (1 - lr lambda_i) c_i, so after t steps

    loss(t) = 1/2 sum_i lambda_i c_i^2 (1 - lr lambda_i)^(2t)

which falls with t for 0 < lr < 2/L. The first t with loss(t) <= target is therefore found by bisection, however large.

Source: Boyd and Vandenberghe (2004), section 9.3; Nocedal and Wright (2006), section 3.3.
"""

import math

import torch
from torch import Tensor


def loss_after(t: int, eigenvalues: Tensor, c: Tensor, lr: float) -> float:
    """loss(t). `eigenvalues`: (n,) of H. `c`: (n,), start minus minimum in the eigenbasis."""
    return (eigenvalues * c.square() * (1 - lr * eigenvalues).abs().pow(2 * t)).sum().item() / 2


def steps_to_reduce(reduction: float, eigenvalues: Tensor, c: Tensor, lr: float) -> int:
    """First t with loss(t) <= reduction loss(0)."""
    target = reduction * loss_after(0, eigenvalues, c, lr)
    high = 1
    while loss_after(high, eigenvalues, c, lr) > target:
        high *= 2
    low = high // 2  # loss(low) > target, or low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if loss_after(middle, eigenvalues, c, lr) > target else (low, middle)
    return high


def bound(reduction: float, condition: float) -> int:
    """Steps within which lr = 2/(L + mu) reduces the loss from every start: the first t for which
    ((condition - 1) / (condition + 1))^(2t) <= reduction."""
    rate = (condition - 1) / (condition + 1)
    return 1 if rate == 0 else math.ceil(math.log(reduction) / (2 * math.log(rate)))


def eigenbasis(H: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of H (n,), ascending, and `offset` (n,) in the eigenbasis."""
    eigenvalues, vectors = torch.linalg.eigh(H)
    return eigenvalues, vectors.T @ offset
