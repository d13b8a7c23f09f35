"""Slow, literal counterparts of the library, entry by entry in numpy: what the fast code is held against."""

from collections.abc import Iterator

import numpy as np
import torch
from cases import Case


def gradient(case: Case, theta: np.ndarray) -> np.ndarray:
    """g (n,) at the flat `theta`."""
    return torch.autograd.functional.jacobian(lambda x: case.loss(case.split(x)), torch.from_numpy(theta)).numpy()


def hessian(case: Case, theta: np.ndarray) -> np.ndarray:
    """H (n, n) at the flat `theta`."""
    return torch.autograd.functional.hessian(lambda x: case.loss(case.split(x)), torch.from_numpy(theta)).numpy()


def blocks(case: Case, block_size: int) -> list[range]:
    """Entries of the flat vector that are averaged together: kernels of convolutions, else `block_size` in a row."""
    found, first = [], 0
    for shape in case.shapes:
        n = int(np.prod(shape))
        b = int(np.prod(shape[2:])) if len(shape) >= 3 else block_size
        found += [range(first + i, first + i + b) for i in range(0, n, b)]
        first += n
    return found


def averaged(D: np.ndarray, blocks: list[range], averaging: str) -> np.ndarray:
    """Eq. 10: every entry becomes the mean of its block, of magnitudes where `averaging` says so."""
    Ds = np.empty_like(D)
    for block in blocks:
        total = 0.0
        for j in block:
            total += abs(D[j]) if averaging == "absolute" else D[j]
        for i in block:
            Ds[i] = total / len(block)
    return Ds


def adahessian(
    case: Case,
    probes: Iterator[np.ndarray],
    *,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-4,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    hessian_power: float = 1.0,
    block_size: int = 1,
    averaging: str = "signed",
    every: int = 1,
) -> np.ndarray:
    """AdaHessian as the paper's Algorithm 1 writes it; returns theta after every step (steps, n)."""
    theta = case.start.numpy().copy()
    n = len(theta)
    m, v, path = np.zeros(n), np.zeros(n), []
    beta1, beta2 = betas
    estimates = 0
    for t in range(1, steps + 1):
        g = gradient(case, theta)
        if not decoupled:
            g = g + weight_decay * theta
        for i in range(n):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
        if t % every == 1 % every:
            H = hessian(case, theta) + (0 if decoupled else weight_decay) * np.eye(n)
            z = next(probes)
            Ds = averaged(z * (H @ z), blocks(case, block_size), averaging)
            estimates += 1
            for i in range(n):
                v[i] = beta2 * v[i] + (1 - beta2) * Ds[i] ** 2
        new = theta.copy()
        for i in range(n):
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**estimates)
            new[i] -= lr * m_hat / (np.sqrt(v_hat) ** hessian_power + eps)
            if decoupled:
                new[i] -= lr * weight_decay * theta[i]
        theta = new
        path.append(theta)
    return np.array(path)
