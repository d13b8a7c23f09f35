r"""Gradient descent on logistic regression, with all of its iterates.

    f(theta) = (1/N) sum_i log(1 + exp(-a_i^T theta)),   a_i the example times its label

    theta_t = theta_{t-1} - lr (g_t + noise),  lr = 1 / L,  L = the largest eigenvalue of A^T A / (4 N)

f is strictly convex where the classes overlap, so that theta* is unique and its Hessian positive definite. Then the mean of the
iterates is theta* + a/k but for a remainder that falls exponentially, and 2 mean_k - mean_{k/2} is the mean over the second
half of the iterates.
"""

import numpy as np


def data(examples: int, dimension: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A (examples, dimension): Gaussian with the variances i^-decay, i = 1, 2, ..., times labels drawn from the logistic model
    of a random theta with a'theta of variance 1 or less."""
    spread = np.arange(1, dimension + 1) ** (-decay / 2)
    A = rng.standard_normal((examples, dimension)) * spread
    theta = rng.standard_normal(dimension) / np.sqrt(dimension)
    return A * np.where(rng.uniform(size=examples) < sigmoid(A @ theta), 1.0, -1.0)[:, None]


def sigmoid(u: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-u))


def gradient(A: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """(n, ...) for theta (n, ...): several columns at once."""
    return A.T @ sigmoid(-(A @ theta)) / -len(A)


def hessian(A: np.ndarray, theta: np.ndarray) -> np.ndarray:
    p = sigmoid(A @ theta)
    return (A.T * (p * (1 - p))) @ A / len(A)


def minimum(A: np.ndarray) -> np.ndarray:
    """theta* (n,) by Newton's method, halving a step that does not shorten the gradient. Raises ValueError where there is none,
    as some theta separates the classes."""
    theta = np.zeros(A.shape[1])
    for _ in range(100):
        if (A @ theta).min() > 0:
            break
        g = gradient(A, theta)
        p = np.linalg.solve(hessian(A, theta), -g)
        while np.linalg.norm(gradient(A, theta + p)) > np.linalg.norm(g) and np.linalg.norm(p) > 1e-14:
            p = p / 2
        theta = theta + p
        if np.linalg.norm(p) <= 1e-14 * (1 + np.linalg.norm(theta)):
            return theta
    raise ValueError("A must hold classes that overlap: Newton's method finds no minimum")


def gap(A: np.ndarray, theta: np.ndarray, best: np.ndarray) -> np.ndarray:
    """f(theta) - f(best) for each row of theta (K, n), best the minimum. Written as the sum of log(1 + q (e^d - 1)) - q d with
    q = sigmoid(-a^T best), d = -a^T (theta - best), it keeps its digits where it is small: g is zero at the minimum."""
    q, d = sigmoid(-(A @ best)), -(theta - best) @ A.T
    return (np.log1p(q * np.expm1(d)) - q * d).mean(1)


def descend(A: np.ndarray, steps: int, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """theta_0 = 0, ..., theta_steps as (steps + 1, n, runs); run r has Gaussian noise of deviation noise[r] in every entry of
    its gradients."""
    lr = 4 * len(A) / np.linalg.eigvalsh(A.T @ A)[-1]
    path = np.zeros((steps + 1, A.shape[1], len(noise)))
    for t in range(1, steps + 1):
        g = gradient(A, path[t - 1]) + noise * rng.standard_normal(path.shape[1:])
        path[t] = path[t - 1] - lr * g
    return path


def averages(path: np.ndarray) -> np.ndarray:
    """The mean of theta_0, ..., theta_{k-1} at index k, theta_0 at index 0; in the shape of `path`."""
    counts = np.arange(1, len(path)).reshape(-1, *[1] * (path.ndim - 1))
    return np.concatenate([path[:1], path[:-1].cumsum(0) / counts])
