"""The document's points, and what is known about a straight line through points in closed form.

    y = (m + dm) x + (b + db),    x ~ U(0, 1),    dm, db ~ U(-spread, spread) for each point

The document seeds NumPy with 0. In that stream number 1 is its m, 0.54881, and number 10,502 its b, 0.54971: so m was drawn
first, then x of all 10,500 points, then b. In which order the dm and db followed is not said; READINGS has four.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STREAM = 0  # the document's seed

READINGS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {  # 2 N numbers to dm (N,) and db (N,)
    "by point": lambda u: (u[0::2], u[1::2]),
    "by point, db first": lambda u: (u[1::2], u[0::2]),
    "all dm first": lambda u: (u[: len(u) // 2], u[len(u) // 2 :]),
    "all db first": lambda u: (u[len(u) // 2 :], u[: len(u) // 2]),
}


def points(count: int, spread: float, reading: str = "by point", seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """x and y (count,) of the document; with `seed`, other dm and db on the same line and at the same x."""
    stream = np.random.RandomState(STREAM)
    m, x, b = stream.rand(), stream.rand(count), stream.rand()
    noise = stream if seed is None else np.random.RandomState([seed, count])
    dm, db = READINGS[reading](noise.uniform(-spread, spread, 2 * count))
    return x, (m + dm) * x + b + db


@dataclass(frozen=True)
class Line:
    """The mean squared error of m x + b as a function of theta = (m, b): floor + (theta - minimum)^T H (theta - minimum) /
    2."""

    H: np.ndarray
    minimum: np.ndarray
    floor: float

    @classmethod
    def through(cls, x: np.ndarray, y: np.ndarray) -> "Line":
        X = np.stack([x, np.ones_like(x)], axis=1)
        minimum = np.linalg.solve(X.T @ X, X.T @ y)
        return cls(2 * X.T @ X / len(x), minimum, float(np.mean((X @ minimum - y) ** 2)))

    def excess(self, theta: np.ndarray) -> np.ndarray:
        """Loss above the floor, at theta (..., 2)."""
        away = theta - self.minimum
        return np.einsum("...i,ij,...j->...", away, self.H, away) / 2
