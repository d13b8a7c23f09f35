r"""Ridge regression over a range of penalties, from one decomposition.

    theta(s) = (A^T A / N + s I)^-1 A^T y / N,     y = A theta_0 + noise
    risk     = (theta - theta_0)^T S (theta - theta_0),  S = diag(i^-decay) the covariance of the examples: the excess of the
               expected squared error over that of theta_0

theta_0 has entries of random sign and size i^-smoothness, scaled so that theta_0^T S theta_0 = 1.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Regression:
    """A (N, n), the covariance's diagonal (n,) and theta_0 (n,)."""

    A: np.ndarray
    covariance: np.ndarray
    truth: np.ndarray

    def risk(self, theta: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        """Of theta (S, n), against theta_0 or another `truth`."""
        return (theta - (self.truth if truth is None else truth)) ** 2 @ self.covariance


def instance(examples: int, dimension: int, decay: float, smoothness: float, rng: np.random.Generator) -> Regression:
    i = np.arange(1.0, dimension + 1)
    covariance = i**-decay
    truth = rng.choice([-1.0, 1.0], dimension) * i**-smoothness
    truth /= np.sqrt(truth**2 @ covariance)
    return Regression(rng.standard_normal((examples, dimension)) * np.sqrt(covariance), covariance, truth)


def solutions(A: np.ndarray, y: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """theta(s) (S, n) for `strengths` (S,); a strength of zero is least squares."""
    U, d, Vt = np.linalg.svd(A / np.sqrt(len(A)), full_matrices=False)
    return (d / (d**2 + strengths[:, None]) * (U.T @ y / np.sqrt(len(A)))) @ Vt
