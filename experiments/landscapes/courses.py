"""What a path says about its optimiser: when it arrives, how it turns, overshoots and jitters, how it leaves a saddle.

theta: (T + 1, ..., 2); distance to the nearest minimum: (T + 1, ...). Results are (...). Epochs are inf where a run does not
get there; a run that overflows never arrives.
"""

import numpy as np


def overshoot(distance: np.ndarray, radius: float) -> np.ndarray:
    """How far the path goes away from the minima after it first came within `radius`, beyond that radius; 0 if it stays."""
    touched = np.maximum.accumulate(distance <= radius, axis=0)
    return np.where(touched, np.maximum(distance - radius, 0), 0).max(axis=0)


def turning(theta: np.ndarray, until: np.ndarray) -> np.ndarray:
    """The mean angle between a step and the next, in degrees, over the steps up to epoch `until` (...). NaN below two steps."""
    with np.errstate(all="ignore"):
        step = np.diff(theta, axis=0)
        length = np.linalg.norm(step, axis=-1)
        cosine = (step[1:] * step[:-1]).sum(-1) / (length[1:] * length[:-1])
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        counted = (np.arange(len(angle)).reshape(-1, *[1] * (angle.ndim - 1)) + 2 <= until) & np.isfinite(angle)
        return np.where(counted, angle, 0).sum(axis=0) / counted.sum(axis=0)


def jitter(theta: np.ndarray, steps: int) -> np.ndarray:
    """Root mean square length of the last `steps` steps."""
    with np.errstate(all="ignore"):
        return np.sqrt((np.diff(theta[-steps - 1 :], axis=0) ** 2).sum(-1).mean(axis=0))


def crossings(theta: np.ndarray, until: np.ndarray, least: float) -> np.ndarray:
    """How often the first coordinate changes its sign, up to epoch `until` (...), with at least `least` of its first size on
    both sides: swings, not rounding errors or overflow."""
    x = theta[..., 0] / np.abs(theta[0, ..., 0])
    epoch = np.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))
    side = np.where((np.abs(x) >= least) & (epoch <= until), np.sign(x), 0)
    count, current = np.zeros(x.shape[1:]), side[0]
    for now in side[1:]:
        count += now * current < 0
        current = np.where(now != 0, now, current)
    return count
