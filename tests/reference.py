"""Slow, literal counterparts of the library, entry by entry in numpy: what the fast code is held against."""

from collections.abc import Callable, Iterator

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


def adabelief(
    case: Case,
    *,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-16,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    rectify: bool = False,
) -> np.ndarray:
    """AdaBelief as the paper's Algorithm 2 writes it, RAdam's rectification added; theta after every step (steps, n)."""
    theta = case.start.numpy().copy()
    n = len(theta)
    m, s, path = np.zeros(n), np.zeros(n), []
    beta1, beta2 = betas
    N = 2 / (1 - beta2) - 1
    for t in range(1, steps + 1):
        g = gradient(case, theta)
        Nt = N - 2 * t * beta2**t / (1 - beta2**t)
        new = theta.copy()
        for i in range(n):
            gi = g[i] if decoupled else g[i] + weight_decay * theta[i]
            m[i] = beta1 * m[i] + (1 - beta1) * gi
            s[i] = beta2 * s[i] + (1 - beta2) * (gi - m[i]) ** 2 + eps
            m_hat, s_hat = m[i] / (1 - beta1**t), s[i] / (1 - beta2**t)
            if not rectify:
                new[i] -= lr * m_hat / (np.sqrt(s_hat) + eps)
            elif Nt >= 5:
                r = np.sqrt((Nt - 4) / (N - 4) * (Nt - 2) / (N - 2) * N / Nt)
                new[i] -= lr * r * m_hat / (np.sqrt(s_hat) + eps)
            else:
                new[i] -= lr * m_hat
            if decoupled:
                new[i] -= lr * weight_decay * theta[i]
        theta = new
        path.append(theta)
    return np.array(path)


def oasis(
    case: Case,
    probes: Iterator[np.ndarray],
    *,
    steps: int,
    lr: float,
    beta2: float = 0.99,
    alpha: float = 1e-3,
    weight_decay: float = 0.0,
    every: int = 1,
    adaptive: bool = False,
    warmup: int = 10,
) -> np.ndarray:
    """OASIS as the paper's Algorithm 1 writes it, counted from w_0; returns w after every step (steps, n)."""

    def slope(w: np.ndarray) -> np.ndarray:
        return gradient(case, w) + weight_decay * w

    def estimate(w: np.ndarray) -> np.ndarray:
        z = next(probes)
        return z * (hessian(case, w) @ z) + weight_decay

    ws = [case.start.numpy().copy()]
    D = sum(estimate(ws[0]) for _ in range(warmup)) / warmup
    eta, theta = lr, np.inf
    ws.append(ws[0] - eta * slope(ws[0]) / np.maximum(np.abs(D), alpha))
    for k in range(1, steps):
        w, before = ws[k], ws[k - 1]
        if k % every == 0:
            D = beta2 * D + (1 - beta2) * estimate(w)
        D_hat = np.maximum(np.abs(D), alpha)
        if adaptive:
            moved = np.sqrt(sum(D_hat[i] * (w - before)[i] ** 2 for i in range(len(w))))
            turned = np.sqrt(sum((slope(w) - slope(before))[i] ** 2 / D_hat[i] for i in range(len(w))))
            new = min(np.sqrt(1 + theta) * eta, moved / (2 * turned))
            theta, eta = new / eta, new
        ws.append(w - eta * slope(w) / D_hat)
    return np.array(ws[1:])


def sophia(
    case: Case,
    estimates: Iterator[Callable[[np.ndarray], np.ndarray]],
    *,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.96, 0.99),
    eps: float = 1e-12,
    weight_decay: float = 0.0,
    gamma: float = 0.01,
    rho: float = 1.0,
    every: int = 10,
) -> np.ndarray:
    """Sophia as the paper's Algorithm 3 writes it; `estimates` are functions of theta. Theta after every step (steps, n)."""
    theta = case.start.numpy().copy()
    n = len(theta)
    m, h, path = np.zeros(n), np.zeros(n), []
    beta1, beta2 = betas
    for t in range(1, steps + 1):
        g = gradient(case, theta)
        for i in range(n):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
        if t % every == 1 % every:
            D = next(estimates)(theta)
            for i in range(n):
                h[i] = beta2 * h[i] + (1 - beta2) * D[i]
        theta = theta - lr * weight_decay * theta
        for i in range(n):
            ratio = m[i] / max(gamma * h[i], eps)
            theta[i] -= lr * max(min(ratio, rho), -rho)
        path.append(theta.copy())
    return np.array(path)
