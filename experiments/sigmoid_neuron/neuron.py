"""One sigmoid neuron, and Adam and AdaHessian from scratch in NumPy, for many learning rates and starts at once.

    p = sigmoid(q),  q = w x + b,  theta = (w, b)        loss(theta) = c sum_i l(p_i, y_i)

    g = c sum_i l'(q_i) (x_i, 1)                         H = c sum_i l''(q_i) [[x_i^2, x_i], [x_i, 1]]

Adam and AdaHessian are one rule. They differ in the quantity d whose square is averaged over time:

    m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) d^2
    theta <- theta - lr m^ / (sqrt(v^)^k + eps)     with m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)

    Adam        d = g               Kingma and Ba 2015, Algorithm 1
    AdaHessian  d = diag(H)         Yao et al. 2021, Algorithm 1 (arXiv 2006.00719), or Hutchinson's z * (H z) in its place

Shapes: C cells (learning rates and starts), N data points; theta, g (C, 2); H (C, 2, 2). All in float64.
Deviations: the paper averages D over blocks of a tensor (Eq. 10). w and b are tensors of one number each, so that is left out;
`averaged` has it, for the check that it changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


def sigmoid(q: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(q / 2)) / 2


@dataclass(frozen=True)
class Loss:
    """A loss of one point as a function of q, with its derivatives, and the factor c(N) before the sum."""

    factor: Callable[[int], float]
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    first: Callable[[np.ndarray, np.ndarray], np.ndarray]
    second: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _square(q, y):
    return (sigmoid(q) - y) ** 2


def _square_first(q, y):
    p = sigmoid(q)
    return 2 * (p - y) * p * (1 - p)


def _square_second(q, y):
    p = sigmoid(q)
    slope = p * (1 - p)
    return 2 * slope * (slope + (p - y) * (1 - 2 * p))


def _entropy(q, y):
    return np.logaddexp(0, q) - y * q  # -y log p - (1 - y) log(1 - p), without overflow


LOSSES = {
    "SSE/2": Loss(lambda n: 1 / 2, _square, _square_first, _square_second),
    "MSE": Loss(lambda n: 1 / n, _square, _square_first, _square_second),
    "cross-entropy": Loss(lambda n: 1 / n, _entropy, lambda q, y: sigmoid(q) - y, lambda q, y: sigmoid(q) * sigmoid(-q)),
}


@dataclass(frozen=True)
class Neuron:
    """The loss of one sigmoid neuron on the points x, y (N,)."""

    x: np.ndarray
    y: np.ndarray
    loss: str

    def _q(self, theta):
        return theta[..., 0, None] * self.x + theta[..., 1, None]  # (C, N)

    def value(self, theta: np.ndarray) -> np.ndarray:
        """(C,)"""
        loss = LOSSES[self.loss]
        return loss.factor(len(self.x)) * loss.value(self._q(theta), self.y).sum(-1)

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """(C, 2)"""
        loss = LOSSES[self.loss]
        first = loss.factor(len(self.x)) * loss.first(self._q(theta), self.y)  # (C, N)
        return np.stack([first @ self.x, first.sum(-1)], -1)

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """(C, 2, 2)"""
        loss = LOSSES[self.loss]
        second = loss.factor(len(self.x)) * loss.second(self._q(theta), self.y)  # (C, N)
        ww, wb, bb = second @ self.x**2, second @ self.x, second.sum(-1)
        return np.stack([np.stack([ww, wb], -1), np.stack([wb, bb], -1)], -2)


def gradient(g: np.ndarray, H: np.ndarray) -> np.ndarray:
    """d of Adam."""
    return g


def exact(g: np.ndarray, H: np.ndarray) -> np.ndarray:
    """d of AdaHessian: the diagonal of H."""
    return np.diagonal(H, axis1=-2, axis2=-1)


def hutchinson(rng: np.random.Generator):
    """d of AdaHessian as the paper estimates it: z * (H z) with one Rademacher z for each cell and step."""

    def estimate(g, H):
        z = 2.0 * rng.integers(0, 2, g.shape) - 1
        return z * np.einsum("cij,cj->ci", H, z)

    return estimate


def averaged(block: int):
    """d of AdaHessian with Eq. 10: the mean of the diagonal over blocks of `block` parameters."""

    def estimate(g, H):
        D = exact(g, H)
        return np.repeat(D.reshape(len(D), -1, block).mean(-1), block, axis=-1)

    return estimate


def descend(neuron: Neuron, d, theta: np.ndarray, lr, steps: int, betas, eps: float, k: float = 1.0) -> np.ndarray:
    """The path (steps + 1, C, 2) from `theta` (C, 2) with learning rates `lr` (C,). Each step sees all data."""
    theta = np.array(theta, dtype=float)
    lr = np.asarray(lr, dtype=float)[:, None]
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    path = [theta]
    for t in range(1, steps + 1):
        g, H = neuron.gradient(theta), neuron.hessian(theta)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * d(g, H) ** 2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) ** k + eps)
        path.append(theta)
    return np.stack(path)


def minimum(neuron: Neuron, starts: np.ndarray, steps: int = 100) -> np.ndarray:
    """The lowest theta (2,) that Newton's method reaches from `starts` (C, 2).

    Each step solves with |H| (absolute eigenvalues, at least 1e-8), is at most 1 long, and is halved until the loss does not
    rise.
    """
    theta = np.array(starts, dtype=float)
    for _ in range(steps):
        values, vectors = np.linalg.eigh(neuron.hessian(theta))
        along = np.einsum("cij,ci->cj", vectors, neuron.gradient(theta)) / np.maximum(np.abs(values), 1e-8)
        step = np.einsum("cij,cj->ci", vectors, along)
        step /= np.maximum(np.linalg.norm(step, axis=-1, keepdims=True), 1)
        while (rises := neuron.value(theta - step) > neuron.value(theta)).any():
            step[rises] /= 2
        theta = theta - step
    return theta[np.argmin(neuron.value(theta))]
