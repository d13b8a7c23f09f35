"""Forecast and update in turn, for many runs at once: how far the mean of the ensemble is from the truth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .analysis import enkf, etkf, everything, gain, inflated, redrawn, ring
from .networks import Training, conditional_mean, learn
from .systems import System


@dataclass(frozen=True)
class Followed:
    """Of every run (S,), means over the cycles after the spin-up: root mean square error of the mean of the ensemble, and the
    ensemble's own spread; of a filter that learns, the share of components that took the network, and their squared error on
    held-out members with it over that without."""

    rmse: Tensor
    spread: Tensor
    used: Tensor
    held_out: Tensor


def follow(
    system: System,
    truth: tuple[Tensor, Tensor, Tensor],
    method: str,
    members: int,
    inflation: Tensor,
    radius: float,
    spin_up: int,
    generator: torch.Generator,
    how: Training | None = None,
) -> Followed:
    """Run the filter `method`, 'EnKF', 'ETKF' or 'learnt' (which takes `how`), with factors `inflation` (S,) on the anomalies
    after every update. `radius`: of the windows, on a ring. The first members scatter around a guess that is off by as much."""
    first, states, observations = truth
    q, r = len(system.observed), system.r
    windows = ring(system.d, torch.tensor(system.observed), radius) if system.ring else everything(q)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X = first[:, None] + noise(len(first), 1, system.d) + noise(len(first), members, system.d)
    sums = torch.zeros(4, len(first), dtype=torch.float64)
    for cycle, (state, y) in enumerate(zip(states, observations, strict=True)):
        X = system.forward(X)
        H, local = system.predicted(X), windows.observed(y)
        if method == "ETKF":
            X = redrawn(windows.whole(etkf(windows.states(X), windows.members(H), local, r, windows.rho)), generator)
        else:
            eps = noise(*H.shape)
            Y = windows.members(H + r * (eps - eps.mean(-2, keepdim=True)))
            if method == "EnKF":
                K = gain(windows.states(X), windows.members(H), r, windows.rho)
                X = windows.whole(enkf(windows.states(X), Y, local, K))
            else:
                phi = learn(X, H, r, windows, how, generator)
                X = windows.whole(conditional_mean(windows.states(X), Y, local, phi))
                if cycle >= spin_up:
                    sums[2] += phi.used.double().flatten(1).mean(1)
                    sums[3] += phi.held_out.double().flatten(1).mean(1)
        if cycle >= spin_up:
            sums[0] += (X.mean(1) - state).square().mean(-1).sqrt()
            sums[1] += X.var(1).mean(-1).sqrt()
        X = inflated(X, inflation[:, None, None])
    return Followed(*sums / (len(states) - spin_up))
