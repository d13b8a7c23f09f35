r"""The Frank-Wolfe method on quadratics whose constrained minimum is known.

    f(x) = g^T (x - x*) + (x - x*)^T Q (x - x*) / 2        minimised over C; f(x*) = 0
    v_k  = a point of C that minimises grad f(x_{k-1})^T v
    x_k  = x_{k-1} + rho_k (v_k - x_{k-1})                 rho_k = 1/k, 2/(k+1), or by exact line search

C is the unit simplex, the unit l1 ball or the unit Euclidean ball. x* minimises f over C if g^T (v - x*) >= 0 on C; Q is
positive definite, so it is unique. The instances:

    simplex, l1 ball     x* in the relative interior of a face with `support` vertices, g^T v strictly larger at all other
                         vertices: where an expansion of x_k in 1/k is expected
    simplex, degenerate  the same x*, but g = 0: every vertex is as good
    Euclidean ball       x* on the sphere, g = -margin x*; no polytope

With rho_k = 1/k the iterate is the plain mean of v_1, ..., v_k, and the few vertices outside the face that the first steps take
keep a weight of order 1/k. With rho_k = 2/(k+1) vertex v_i has the weight 2 i / (k (k+1)), and they keep one of order 1/k^2.
Source: Frank and Wolfe (1956); Bach (2020). Deviations: none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEPS: dict[str, Callable[[int], float] | None] = {
    "1/k": lambda k: 1 / k,
    "2/(k+1)": lambda k: 2 / (k + 1),
    "line search": None,
}


@dataclass(frozen=True)
class Instance:
    """`region` one of simplex, l1 ball, Euclidean ball; Q (n, n), g (n,), x* (n,) as `best`."""

    region: str
    Q: np.ndarray
    g: np.ndarray
    best: np.ndarray

    def gap(self, x: np.ndarray) -> np.ndarray:
        """f(x) - f(x*) for each row of x (K, n); negative values are possible outside C."""
        d = x - self.best
        return d @ self.g + np.einsum("ki,ij,kj->k", d, self.Q, d) / 2

    def vertex(self, gradient: np.ndarray) -> np.ndarray:
        """A point of C with the least gradient^T v."""
        if self.region == "Euclidean ball":
            return -gradient / np.linalg.norm(gradient)
        v = np.zeros(len(gradient))
        i = np.argmin(gradient) if self.region == "simplex" else np.argmax(np.abs(gradient))
        v[i] = 1.0 if self.region == "simplex" else -np.sign(gradient[i])
        return v

    def project(self, x: np.ndarray) -> np.ndarray:
        """The nearest points of C to the rows of x (K, n)."""
        length = np.linalg.norm(x, axis=1, ord=2 if self.region == "Euclidean ball" else 1)
        if self.region == "Euclidean ball":
            return x / np.maximum(length, 1)[:, None]
        if self.region == "simplex":
            return onto_simplex(x)
        return np.where((length <= 1)[:, None], x, np.sign(x) * onto_simplex(np.abs(x)))


def onto_simplex(x: np.ndarray) -> np.ndarray:
    """The nearest points (K, n) of the unit simplex: max(x - c, 0) with the c that makes the sum 1, found by sorting."""
    descending = -np.sort(-x, axis=1)
    c = (descending.cumsum(1) - 1) / np.arange(1, x.shape[1] + 1)
    last = (descending > c).sum(1) - 1  # the last entry that stays positive
    return np.maximum(x - c[np.arange(len(x)), last][:, None], 0)


def instance(kind: str, dimension: int, support: int, margin: float, rng: np.random.Generator) -> Instance:
    """A random instance of `kind`, as above. Q is a Gaussian second moment of 2 n examples; weights on the face from 0.5 to 1.5
    over their sum; g^T (v - x*) from margin/10 to margin at the other vertices."""
    A = rng.standard_normal((2 * dimension, dimension))
    Q = A.T @ A / len(A)
    if kind == "Euclidean ball":
        best = rng.standard_normal(dimension)
        best /= np.linalg.norm(best)
        return Instance(kind, Q, -margin * best, best)
    on_face = rng.permutation(dimension)[:support]
    best, g = np.zeros(dimension), rng.uniform(margin / 10, margin, dimension)
    best[on_face] = rng.uniform(0.5, 1.5, support)
    best /= best.sum()
    g[on_face] = 0
    if kind == "simplex, degenerate":
        return Instance("simplex", Q, np.zeros(dimension), best)
    if kind in ("simplex", "simplex, line search"):
        return Instance("simplex", Q, g, best)
    signs = rng.choice([-1.0, 1.0], dimension)
    return Instance("l1 ball", Q, -(1 - g) * signs, best * signs)


def walk(problem: Instance, rule: str, steps: int, rng: np.random.Generator) -> np.ndarray:
    """x_0, a vertex at random, x_1, ..., x_steps as (steps + 1, n). `rule` is one of STEPS."""
    path = np.empty((steps + 1, len(problem.best)))
    path[0] = problem.vertex(rng.standard_normal(len(problem.best)))
    for k in range(1, steps + 1):
        x = path[k - 1]
        gradient = problem.g + problem.Q @ (x - problem.best)
        d = problem.vertex(gradient) - x
        rho = STEPS[rule](k) if STEPS[rule] else _line_search(gradient, d, problem.Q)
        path[k] = x + rho * d
    return path


def _line_search(gradient: np.ndarray, d: np.ndarray, Q: np.ndarray) -> float:
    """The rho in [0, 1] with the least f(x + rho d)."""
    bend = d @ Q @ d
    return min(max(-(gradient @ d) / bend, 0.0), 1.0) if bend > 0 else 0.0
