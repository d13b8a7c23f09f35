"""What a path and its losses say: when the loss stabilises, when a target is reached, how long the way was.

All take arrays with the epoch first, (epochs + 1, C) or (epochs + 1, C, 2), and return (C,). A run that never gets there has
epoch inf.
"""

import numpy as np


def _from_then_on(holds: np.ndarray) -> np.ndarray:
    """First epoch from which `holds` is true to the end."""
    epochs = len(holds) - np.argmin(holds[::-1], axis=0).astype(float)
    return np.select([holds.all(axis=0), ~holds[-1]], [0.0, np.inf], epochs)


def stabilised(loss: np.ndarray, share: float) -> np.ndarray:
    """The article's reading: the epoch from which the loss stays within `share` of |first - last| of its last value."""
    return _from_then_on(np.abs(loss - loss[-1]) <= share * np.abs(loss[0] - loss[-1]))


def arrived(loss: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The epoch from which the loss stays at `target` (C,) or below."""
    return _from_then_on(loss <= target)


def touched(loss: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The first epoch at which the loss is at `target` (C,) or below, even if it leaves again."""
    holds = loss <= target
    return np.where(holds.any(axis=0), np.argmax(holds, axis=0), np.inf)


def detour(path: np.ndarray) -> np.ndarray:
    """Length of the path over the distance between its ends: 1 for a straight line."""
    length = np.linalg.norm(np.diff(path, axis=0), axis=-1).sum(axis=0)
    return length / np.linalg.norm(path[-1] - path[0], axis=-1)
