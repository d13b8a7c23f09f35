r"""The optimisers of the comparison: torch's, the library's, and adaptive gradient descent.

AdGD, for t = 1, 2, ..., with g_t the gradient at theta_{t-1}:

    theta_t = theta_{t-1} - eta_t g_t
    eta_1 = lr,  q_1 = infinity,  and for t > 1
    eta_t = min( sqrt(1 + q_{t-1}) eta_{t-1},  |theta_{t-1} - theta_{t-2}| / (2 |g_t - g_{t-1}|) ),     q_t = eta_t / eta_{t-1}

Source: Malitsky and Mishchenko, ICML 2020, Algorithm 1; its theta is q. It is OASIS' rule in the metric of the identity.
Memory: 2 n of state. Deviations: where theta has not changed, or g has not, eta_t = eta_{t-1}, as in the library's OASIS.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from secondlook.optim import OASIS, AdaHessian

from .names import WARM_UP
from .problems import Network, Problem


class AdGD(Optimizer):
    """One tensor of parameters; all of them share the rate. Its state has the names of OASIS'."""

    def __init__(self, params: Iterable, lr: float = 0.1):
        super().__init__(params, dict(lr=lr, growth=math.inf))
        if len(self.param_groups) != 1 or len(self.param_groups[0]["params"]) != 1:
            raise ValueError("params must be one tensor")

    @torch.no_grad()
    def step(self) -> None:
        (group,) = self.param_groups
        (p,) = group["params"]
        eta, q, state = group["lr"], group["growth"], self.state[p]
        if state:
            moved, turned = (p - state["last_param"]).norm().item(), (p.grad - state["last_grad"]).norm().item()
            new = min(math.sqrt(1 + q) * eta, moved / (2 * turned)) if moved > 0 and turned > 0 else eta
            group.update(lr=new, growth=new / eta)
        state.update(last_param=p.clone(), last_grad=p.grad.clone())
        p -= group["lr"] * p.grad


Make = Callable[[list[dict], torch.Generator], Optimizer]  # of groups with their rates, and the source of the probes


def methods(beta2: float, alpha: float) -> dict[str, Make]:
    """Every optimiser by name, with OASIS' constants; all else is torch's default, or the library's. Where the rate adapts,
    that of the group is the first."""

    def oasis(adaptive: bool) -> Make:
        return lambda groups, generator: OASIS(
            groups, beta2=beta2, alpha=alpha, adaptive=adaptive, warmup=WARM_UP, generator=generator
        )

    def adgd(groups: list[dict], generator: torch.Generator) -> Optimizer:
        return AdGD(groups)

    return {
        "GD": lambda groups, generator: SGD(groups),
        "Adam": lambda groups, generator: Adam(groups),
        "AdaHessian": lambda groups, generator: AdaHessian(groups, generator=generator),
        "OASIS, fixed": oasis(adaptive=False),
        "OASIS": oasis(adaptive=True),
        "OASIS, same batch": oasis(adaptive=True),
        "AdGD": adgd,
        "AdGD, same batch": adgd,
    }


def compare_on_this_batch(optimizer: Optimizer, problem: Problem | Network, batch: Tensor | slice) -> None:
    """Before a step of OASIS or AdGD: let its last gradient be that of the present batch, at the last theta.

    As in the stochastic version of Malitsky and Mishchenko (their section on it); costs a gradient.
    """
    for state in optimizer.state.values():
        theta = state["last_param"].detach().requires_grad_()
        (state["last_grad"],) = torch.autograd.grad(problem.losses(theta[:, None], batch).sum(), theta)
