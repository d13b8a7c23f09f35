r"""AdaBelief: Adam with the deviation of the gradient from its running mean in place of the gradient (Zhuang et al.,
arXiv 2010.07468, Algorithm 2).

For every parameter, t = 1, 2, ..., with all products, roots and quotients element by element:

    g_t     = gradient of the loss at theta_{t-1}
    m_t     = beta1 m_{t-1} + (1 - beta1) g_t
    s_t     = beta2 s_{t-1} + (1 - beta2) (g_t - m_t) * (g_t - m_t) + eps
    m^_t    = m_t / (1 - beta1^t),   s^_t = s_t / (1 - beta2^t)
    theta_t = theta_{t-1} - lr ( m^_t / (sqrt(s^_t) + eps) + weight_decay theta_{t-1} )

With `decoupled=False` the decay is an L2 penalty: the last term goes, and g_t gains weight_decay theta_{t-1}.

eps is added to s at every step and stays there: it adds eps (1 - beta2^t) / (1 - beta2) to s_t, eps / (1 - beta2) to s^_t. At
eps = 1e-8 and beta2 = 0.999, sqrt(s^_t) is never below 0.003, so eps is a setting that matters.

With `rectify=True`, as by default in the authors' package (0.2.0), steps are those of RAdam:

    N       = 2 / (1 - beta2) - 1,   N_t = N - 2 t beta2^t / (1 - beta2^t)
    r_t     = sqrt( (N_t - 4) (N_t - 2) N / ((N - 4) (N - 2) N_t) )
    theta_t = theta_{t-1} - lr r_t m^_t / (sqrt(s^_t) + eps)     where N_t >= 5,    - lr m^_t before

Cost:    a gradient.
Memory:  2 n of state (m, s); inside `step` n for g - m or the denominator.

Deviations: the default eps is the package's 1e-16. While it rectifies, the package leaves eps out of the correction of s, which
divides its eps by sqrt(1 - beta2^t). Left out: the package's `amsgrad`, `fixed_decay`, and `degenerated_to_sgd=False`.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from secondlook.arguments import BETAS, FLAG, NOT_NEGATIVE
from secondlook.optim.base import Checked, refuse_sparse_and_complex


class AdaBelief(Checked):
    """AdaBelief. Use it as any optimiser of torch.

    Arguments:
        params          parameters, or groups of them; all other arguments may differ between groups
        lr, betas, eps  as in the update rule
        weight_decay    decay; `decoupled` or as a penalty in the loss
        rectify         shorten the first steps, and take them without s as long as N_t < 5

    State of a parameter: `step` (t), `exp_avg` (m), `exp_avg_var` (s), the last two in the parameter's type.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = AdaBelief([w], lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> w.detach() < torch.tensor([1.0, 2.0])
    tensor([True, True])
    """

    OPTIONS = {
        "lr": NOT_NEGATIVE,
        "betas": BETAS,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "decoupled": FLAG,
        "rectify": FLAG,
    }

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = True,
        rectify: bool = False,
    ):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled=decoupled, rectify=rectify)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override] # torch has numbers
        """Update the parameters that have a gradient. A `closure` returns the loss, and may have differentiated it."""
        loss = None if closure is None else self._loss_of(closure)
        active = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        refuse_sparse_and_complex(self, (p.grad for params in active for p in params))
        for group, params in zip(self.param_groups, active, strict=True):
            if params:
                self._update(group, params)
        return loss if loss is None else loss.detach()

    def _update(self, group: dict, params: list[Tensor]) -> None:
        lr, (beta1, beta2), eps, decay = float(group["lr"]), group["betas"], group["eps"], group["weight_decay"]
        for p in params:
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_var=torch.zeros_like(p))
            state["step"] += 1
        g, m, s = [p.grad for p in params], self._of("exp_avg", params), self._of("exp_avg_var", params)
        if decay and not group["decoupled"]:
            g = torch._foreach_add(g, params, alpha=decay)
        torch._foreach_lerp_(m, g, 1 - beta1)
        away = torch._foreach_sub(g, m)
        torch._foreach_mul_(s, beta2)
        torch._foreach_addcmul_(s, away, away, 1 - beta2)
        torch._foreach_add_(s, eps)
        del away

        if decay and group["decoupled"]:
            torch._foreach_mul_(params, 1 - lr * decay)
        for t in sorted(set(self._of("step", params))):  # one, unless some had no gradient at times
            now = [p for p in params if self.state[p]["step"] == t]
            r = rectification(beta2, t) if group["rectify"] else 1.0
            rate, m = -lr / (1 - beta1**t), self._of("exp_avg", now)
            if r is None:
                torch._foreach_add_(now, m, alpha=rate)
            else:
                denominator, c = torch._foreach_sqrt(self._of("exp_avg_var", now)), math.sqrt(1 - beta2**t)
                torch._foreach_add_(denominator, eps * c)  # times c: the correction of s takes no pass over memory
                torch._foreach_addcdiv_(now, m, denominator, r * c * rate)


def rectification(beta2: float, t: int) -> float | None:
    """r_t; None where too few gradients went into s for its variance to be known (N_t < 5)."""
    N = 2 / (1 - beta2) - 1
    Nt = N - 2 * t * beta2**t / (1 - beta2**t)
    return math.sqrt((Nt - 4) * (Nt - 2) * N / ((N - 4) * (N - 2) * Nt)) if Nt >= 5 else None
