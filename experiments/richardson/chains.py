r"""Stochastic steps at a constant learning rate, many chains at once, and where their iterates are on average.

Every chain draws an example i at random and steps on its logistic loss f_i. Around the minimum theta* of the mean of the f_i
the chains settle into a stationary distribution, whose mean is theta* + a lr + O(lr^2) for SGD: 2 mean(lr) - mean(2 lr)
removes the first term. To see that bias through the noise of finite chains, H^-1 times the mean of the gradients g_i(theta*)
that were drawn is added: its expectation is exactly zero, and to first order it is what the noise did to the average.

Source: Dieuleveut, Durmus and Bach (2020). Deviations: none.
"""

import numpy as np
import torch
from torch.nn import functional

from secondlook.optim import AdaHessian

from . import logistic

BETA2 = {"AdaHessian": 0.999, "AdaHessian, beta2 0.99": 0.99}  # the first is the default


def mean_bias(
    method: str, A: np.ndarray, lrs: tuple[float, ...], chains: int, steps: int, burn_in: int, warm_up: int, seed: int
) -> np.ndarray:
    """The mean of theta - theta* over the chains and the steps after `burn_in`, for each learning rate (lrs, n), the noise
    removed as above. `method`: SGD or one of BETA2. All learning rates see the same examples and start at theta*. In the
    first `warm_up` steps the rate is zero: AdaHessian's mean of squares, near zero by chance after one estimate, fills first.
    """
    generator = torch.Generator().manual_seed(seed)
    best = logistic.minimum(A)
    examples = torch.from_numpy(A)
    at_best = -examples * torch.sigmoid(-examples @ torch.from_numpy(best))[:, None]  # g_i(theta*) (N, n)
    theta = [torch.from_numpy(best).repeat(chains, 1).requires_grad_() for _ in lrs]
    optimizer = _optimizer(method, [{"params": [p], "lr": 0.0} for p in theta], generator)
    iterates, drawn = torch.zeros(len(lrs), len(best), dtype=torch.float64), torch.zeros(len(best), dtype=torch.float64)
    for t in range(steps):
        if t == warm_up:
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr
        i = torch.randint(len(A), (chains,), generator=generator)
        now = torch.stack(theta)  # (lrs, chains, n)
        if t >= burn_in:
            iterates += now.detach().mean(1)
            drawn += at_best[i].mean(0)
        loss = functional.softplus(-(now * examples[i]).sum(-1)).sum()
        optimizer.zero_grad()
        optimizer.backward(loss) if method in BETA2 else loss.backward()
        optimizer.step()
    noise = np.linalg.solve(logistic.hessian(A, best), drawn.numpy() / (steps - burn_in))
    return iterates.numpy() / (steps - burn_in) - best + noise


def _optimizer(method: str, groups: list[dict], generator: torch.Generator) -> torch.optim.Optimizer:
    if method == "SGD":
        return torch.optim.SGD(groups)
    return AdaHessian(groups, betas=(0.9, BETA2[method]), generator=generator)
