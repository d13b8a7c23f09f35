"""When a course of values arrives: epochs of boolean arrays `holds` (epochs + 1, ...), inf where it never does."""

import numpy as np


def from_then_on(holds: np.ndarray) -> np.ndarray:
    """The first epoch from which `holds` is true to the end."""
    epochs = len(holds) - np.argmin(holds[::-1], axis=0).astype(float)
    return np.select([holds.all(axis=0), ~holds[-1]], [0.0, np.inf], epochs)


def first(holds: np.ndarray) -> np.ndarray:
    """The first epoch at which `holds` is true, even if it is not true for long."""
    return np.where(holds.any(axis=0), np.argmax(holds, axis=0), np.inf)
