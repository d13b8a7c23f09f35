"""A saddle between two minima.

    f(theta) = theta_1^4 / 4 - theta_1^2 / 2 + theta_2^2 / 2        H = diag(3 theta_1^2 - 1, 1)

Minima at (-1, 0) and (1, 0) with f = -1/4; a saddle at the origin with f = 0; H is indefinite for |theta_1| < 1/sqrt(3).
"""

from collections.abc import Callable, Iterator

import numpy as np

SADDLE = (0.0, 0.0)
MINIMA = ((-1.0, 0.0), (1.0, 0.0))

Stepper = Callable[[np.ndarray], np.ndarray]  # theta (2,) -> next theta (2,)


def value(theta):
    """f of theta (2,): of an array, or of a tensor with its graph."""
    return theta[0] ** 4 / 4 - theta[0] ** 2 / 2 + theta[1] ** 2 / 2


def gradient(theta: np.ndarray) -> np.ndarray:
    return np.array([theta[0] ** 3 - theta[0], theta[1]])


def hessian(theta: np.ndarray) -> np.ndarray:
    return np.diag([3 * theta[0] ** 2 - 1, 1.0])


def walk(theta: np.ndarray, step: Stepper, max_steps: int, tolerance: float) -> Iterator[np.ndarray]:
    """theta (2,) and what follows it, until the gradient's norm falls below `tolerance` or `max_steps` are taken."""
    yield theta
    for _ in range(max_steps):
        if np.linalg.norm(gradient(theta)) < tolerance:
            return
        theta = step(theta)
        yield theta
