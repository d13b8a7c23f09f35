r"""Nesterov's smoothing of a lasso whose solution is known.

    F(x)   = (x - x*)^T Q (x - x*) / 2 - w u^T (x - x*) + w |x|_1      least squares and an l1 penalty
    F_s(x) = the same with sum_i h_s(x_i) in place of |x|_1,            s the strength of the smoothing

    log cosh   h_s(x) = s log cosh(x / s)                       gradient tanh(x / s)
    Huber      h_s(x) = x^2 / (2 s) to |x| = s, |x| - s/2 above   gradient x / s, cut to [-1, 1]

both are max_{|y| <= 1} x y - s phi(y) for a convex phi, and within s of |x|. u is a subgradient of |x|_1 at x*, strictly inside
(-1, 1) where x* is zero, and Q is positive definite, so that x* is the unique minimum and the minimum x(s) of F_s is expected
to have an expansion x* + a s + .... Source: Nesterov (2005); Beck and Teboulle (2009) for the accelerated method; Bach (2020).
Deviations: none.
"""

from dataclasses import dataclass

import numpy as np

SMOOTHINGS = {  # gradient and second derivative of h_s at x, element by element
    "log cosh": (lambda x, s: np.tanh(x / s), lambda x, s: (1 - np.tanh(x / s) ** 2) / s),
    "Huber": (lambda x, s: np.clip(x / s, -1, 1), lambda x, s: (np.abs(x) < s) / s),
}


@dataclass(frozen=True)
class Lasso:
    """Q (n, n), subgradient u (n,), solution `best` (n,) and the penalty's `weight` w."""

    Q: np.ndarray
    u: np.ndarray
    best: np.ndarray
    weight: float

    def gap(self, x: np.ndarray) -> np.ndarray:
        """F(x) - F(x*) for x (..., n), from terms that are all zero or more."""
        d = x - self.best
        penalty = np.where(self.best == 0, np.abs(x) - self.u * x, 2 * np.maximum(-self.u * x, 0)).sum(-1)
        return ((d @ self.Q) * d).sum(-1) / 2 + self.weight * penalty

    def gradient(self, x: np.ndarray, smoothing: str, s: float | np.ndarray) -> np.ndarray:
        """Of F_s at x (..., n)."""
        return (x - self.best) @ self.Q + self.weight * (SMOOTHINGS[smoothing][0](x, s) - self.u)


def instance(dimension: int, support: int, decay: float, weight: float, rng: np.random.Generator) -> Lasso:
    """A random one: Q with the eigenvalues i^-decay, x* with `support` entries from +-0.5 to +-1.5, u from -0.9 to 0.9 at
    the others."""
    V, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    Q = (V * np.arange(1, dimension + 1) ** -decay) @ V.T
    best, u = np.zeros(dimension), rng.uniform(-0.9, 0.9, dimension)
    on = rng.permutation(dimension)[:support]
    u[on] = rng.choice([-1.0, 1.0], support)
    best[on] = u[on] * rng.uniform(0.5, 1.5, support)
    return Lasso(Q, u, best, weight)


def minima(problem: Lasso, smoothing: str, strengths: np.ndarray) -> np.ndarray:
    """x(s) (S, n) for `strengths` (S,), ascending, by Newton's method from x*, halving steps that lengthen the gradient."""
    found, x = [], problem.best
    for s in strengths:
        for _ in range(200):
            g = problem.gradient(x, smoothing, s)
            H = problem.Q + problem.weight * np.diag(SMOOTHINGS[smoothing][1](x, s))
            p = np.linalg.solve(H, -g)
            while np.linalg.norm(problem.gradient(x + p, smoothing, s)) > np.linalg.norm(g) and np.linalg.norm(p) > 1e-15:
                p = p / 2
            x = x + p
            if np.linalg.norm(p) <= 1e-15 * np.linalg.norm(x):
                break
        found.append(x)
    return np.array(found)


def accelerated(problem: Lasso, smoothing: str, strengths: np.ndarray, steps: int) -> np.ndarray:
    """x_1, ..., x_steps of the accelerated gradient method on F_s from zero, with lr = 1/(L + w/s): (steps, S, n).

    x_t = y_t - lr grad F_s(y_t),  y_{t+1} = x_t + (c_t - 1)/c_{t+1} (x_t - x_{t-1}),  c_{t+1} = (1 + sqrt(1 + 4 c_t^2)) / 2
    """
    s = strengths[:, None]
    lr = 1 / (np.linalg.eigvalsh(problem.Q)[-1] + problem.weight / s)
    path = np.empty((steps, len(strengths), len(problem.best)))
    x = y = np.zeros(path.shape[1:])
    c = 1.0
    for t in range(steps):
        before, x = x, y - lr * problem.gradient(y, smoothing, s)
        c, last = (1 + np.sqrt(1 + 4 * c**2)) / 2, c
        y = x + (last - 1) / c * (x - before)
        path[t] = x
    return path


def proximal(problem: Lasso, steps: int) -> np.ndarray:
    """x_1, ..., x_steps (steps, n) of the accelerated proximal gradient method on F itself, which needs no smoothing here: the
    same as `accelerated`, with x_t = soft threshold of y_t - lr (the gradient without the penalty) at lr w, lr = 1 / L."""
    lr = 1 / np.linalg.eigvalsh(problem.Q)[-1]
    path = np.empty((steps, len(problem.best)))
    x = y = np.zeros_like(problem.best)
    c = 1.0
    for t in range(steps):
        moved = y - lr * ((y - problem.best) @ problem.Q - problem.weight * problem.u)
        before, x = x, np.sign(moved) * np.maximum(np.abs(moved) - lr * problem.weight, 0)
        c, last = (1 + np.sqrt(1 + 4 * c**2)) / 2, c
        y = x + (last - 1) / c * (x - before)
        path[t] = x
    return path
