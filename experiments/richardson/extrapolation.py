r"""Richardson's extrapolation: cancel the first terms of an error whose form is known, without knowing its coefficients.

    in the iteration    x_k = x* + a / k + ...              2 x_k - x_{k/2}
    in a strength       x(s) = x* + a_1 s + a_2 s^2 + ...   R_0(s) = x(s)
                                                            R_j(s) = R_{j-1}(s) + (R_{j-1}(s) - R_{j-1}(2 s)) / (2^j - 1)

R_j has an error of order s^{j+1} and takes j + 1 solutions, at s, 2 s, ..., 2^j s. Source: Bach (2020); Richardson (1911).
Deviations: Bach takes s, 2 s, 3 s, ..., with larger weights.
"""

import numpy as np


def in_iterations(path: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """2 x_k - x_{k/2} for each k of `steps`, even numbers. `path` (K + 1, n): x_0, x_1, ..., x_K. Returns (steps, n)."""
    return 2 * path[steps] - path[steps // 2]


def in_strength(solutions: np.ndarray, order: int) -> np.ndarray:
    """R_order at each strength s that has a 2^order s. `solutions` (S, ...) at strengths that double from one to the next.
    Returns (S - order, ...)."""
    found = solutions
    for j in range(1, order + 1):
        found = found[:-1] + (found[:-1] - found[1:]) / (2**j - 1)
    return found


def even_steps(first: int, last: int, number: int) -> np.ndarray:
    """At most `number` even numbers from `first` to `last`, evenly in the logarithm."""
    return np.unique(2 * np.round(np.geomspace(first, last, number) / 2).astype(int))
