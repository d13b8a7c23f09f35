"""What a path and its losses say: when the loss stabilises, when a target is reached, how long the way was.

All take arrays with the epoch first, (epochs + 1, C) or (epochs + 1, C, 2), and return (C,). A run that never gets there has
epoch inf.
"""

import numpy as np

from secondlook.study.arrivals import from_then_on


def stabilised(loss: np.ndarray, share: float) -> np.ndarray:
    """The article's reading: the epoch from which the loss stays within `share` of |first - last| of its last value."""
    return from_then_on(np.abs(loss - loss[-1]) <= share * np.abs(loss[0] - loss[-1]))


def arrived(loss: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The epoch from which the loss stays at `target` (C,) or below."""
    return from_then_on(loss <= target)


def detour(path: np.ndarray) -> np.ndarray:
    """Length of the path over the distance between its ends: 1 for a straight line."""
    length = np.linalg.norm(np.diff(path, axis=0), axis=-1).sum(axis=0)
    return length / np.linalg.norm(path[-1] - path[0], axis=-1)
