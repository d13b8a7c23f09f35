"""A saddle between two minima, and six ways to step on it.

    f(theta) = theta_1^4 / 4 - theta_1^2 / 2 + theta_2^2 / 2        H = diag(3 theta_1^2 - 1, 1)

Minima at (-1, 0) and (1, 0) with f = -1/4; a saddle at the origin with f = 0; H is indefinite for |theta_1| < 1/sqrt(3).
A step p is made from g and H = Q diag(lambda) Q^T alone:

    GD                      p = -lr g
    Newton                  p = -H^-1 g
    damped Newton           p = -lr H^-1 g
    Levenberg               p = -(H + mu I)^-1 g,  mu = max(0, margin - lambda_min)
    absolute-value Newton   p = -Q diag(1/|lambda|) Q^T g
    trust-region Newton     p = argmin g^T p + p^T H p / 2  over  |p| <= radius

Source: Dauphin et al. (2014) for the absolute value; Nocedal and Wright (2006), algorithm 4.1 for the radius and section 4.3
for the subproblem (also Conn, Gould and Toint (2000), chapter 7). Deviations: none.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

SADDLE = (0.0, 0.0)
MINIMA = ((-1.0, 0.0), (1.0, 0.0))

Stepper = Callable[[np.ndarray], np.ndarray]  # theta (2,) -> next theta (2,)


def value(theta: np.ndarray) -> float:
    return theta[0] ** 4 / 4 - theta[0] ** 2 / 2 + theta[1] ** 2 / 2


def gradient(theta: np.ndarray) -> np.ndarray:
    return np.array([theta[0] ** 3 - theta[0], theta[1]])


def hessian(theta: np.ndarray) -> np.ndarray:
    return np.diag([3 * theta[0] ** 2 - 1, 1.0])


def gradient_descent(lr: float) -> Stepper:
    return lambda theta: theta - lr * gradient(theta)


def newton(lr: float) -> Stepper:
    return lambda theta: theta - lr * np.linalg.solve(hessian(theta), gradient(theta))


def levenberg(margin: float) -> Stepper:
    def step(theta):
        H = hessian(theta)
        mu = max(0.0, margin - np.linalg.eigvalsh(H)[0])
        return theta - np.linalg.solve(H + mu * np.eye(len(theta)), gradient(theta))

    return step


def absolute_value_newton() -> Stepper:
    def step(theta):
        eigenvalues, q = np.linalg.eigh(hessian(theta))
        return theta - q @ ((q.T @ gradient(theta)) / np.abs(eigenvalues))

    return step


def subproblem(g: np.ndarray, H: np.ndarray, radius: float) -> np.ndarray:
    """The p (n,) that minimises g^T p + p^T H p / 2 over |p| <= radius, exactly, also for an indefinite H.

    p(mu) = -(H + mu I)^-1 g with the smallest mu >= max(0, -lambda_min) that gives |p| <= radius. The first mu below gives
    |p| >= radius or is the answer; from there Newton's iteration on 1/|p(mu)| = 1/radius rises to the root. If g has no part
    along the lowest eigenvector, or next to none (the hard case), no mu leads to the edge: then walk there along that vector.
    """
    eigenvalues, q = np.linalg.eigh(H)
    gamma = q.T @ g
    mu, last = max(0.0, abs(gamma[0]) / radius - eigenvalues[0]), -1.0
    while mu > last:
        shifted = eigenvalues + mu
        inverse = np.divide(1, shifted, out=np.zeros_like(shifted), where=shifted > 0)
        p = -inverse * gamma
        length = np.linalg.norm(p)
        last = mu
        if length > radius * (1 + 1e-12):
            mu += length**2 / (inverse @ p**2) * (length / radius - 1)
    if mu > 0 and abs(length / radius - 1) > 1e-9:
        p[0] = math.copysign(math.sqrt(max(0.0, radius**2 - p[1:] @ p[1:])), p[0])
    return q @ p


def trust_region(radius: float, max_radius: float) -> Stepper:
    """Grow the radius where the quadratic model predicts well, shrink it and stay where it predicts badly."""

    def step(theta):
        nonlocal radius
        g, H = gradient(theta), hessian(theta)
        p = subproblem(g, H, radius)
        predicted = -(g @ p + p @ H @ p / 2)
        agreement = (value(theta) - value(theta + p)) / predicted
        if agreement < 1 / 4:
            radius /= 4
        elif agreement > 3 / 4 and np.linalg.norm(p) > 0.999 * radius:
            radius = min(2 * radius, max_radius)
        return theta + p if agreement > 0.1 else theta  # 0.1: any number from 0 to 1/4 will do

    return step


def walk(theta: np.ndarray, step: Stepper, max_steps: int, tolerance: float) -> Iterator[np.ndarray]:
    """theta (2,) and what follows it, until the gradient's norm falls below `tolerance` or `max_steps` are taken."""
    yield theta
    for _ in range(max_steps):
        if np.linalg.norm(gradient(theta)) < tolerance:
            return
        theta = step(theta)
        yield theta
