r"""Sophia: momentum over a diagonal of the curvature that is estimated now and then, each entry clipped (Liu et al.,
arXiv 2305.14342, Algorithm 3, in its notation with gamma).

For every parameter, t = 1, 2, ..., with all products and quotients element by element:

    g_t     = gradient of the loss at theta_{t-1}
    m_t     = beta1 m_{t-1} + (1 - beta1) g_t
    h_t     = beta2 h_{t-1} + (1 - beta2) D_t                      every `every` steps, from the first;  else h_{t-1}
    theta_t = theta_{t-1} - lr ( clip(m_t / max(gamma h_t, eps), rho) + weight_decay theta_{t-1} )

with clip(x, rho) = min(max(x, -rho), rho), and D_t from

    Sophia-H    diagonal=Hutchinson()            z * H z                     Algorithm 1
    Sophia-G    diagonal=GaussNewtonBartlett()   B g^ * g^, sampled labels   Algorithm 2

No entry moves by more than lr rho in a step (without decay). Where h is small or negative, the step is lr rho sign(m).

Cost:    a gradient, and every `every` steps a Hessian-vector product for each probe (H), or one more gradient (G).
Memory:  2 n of state (m, h). Inside `step` 2 n. Where an estimate is due, from `backward` to `step` n for D; inside `backward`
         for H the graph of the gradient, and 2 n for a probe and its product, and for G n for g^.

Notation: with rho = 1 this is the form with gamma. The form without gamma, clip(m / max(h, eps), rho), is gamma = 1.

Deviations from the paper
    D       The paper estimates it from part of the batch; here it comes from all of it, as the gradient does.
    eps     The authors' code divides by gamma h + 1e-15 in place of the maximum.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from secondlook.arguments import BETAS, COUNT, NOT_NEGATIVE, POSITIVE
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.optim.base import SecondOrder


class Sophia(SecondOrder):
    """Sophia. Use it as any optimiser, with `optimizer.backward` where `loss.backward()` stood:

        loss = criterion(model(x), y)
        optimizer.zero_grad()
        optimizer.backward(loss)
        optimizer.step()

    and for Sophia-G, whose labels are drawn from the model's own softmax, with the logits:

        optimizer = Sophia(model.parameters(), gamma=0.05, diagonal=GaussNewtonBartlett())
        logits = model(x)
        optimizer.zero_grad()
        optimizer.backward(functional.cross_entropy(logits, y), curvature_of=logits)
        optimizer.step()

    Arguments:
        params          parameters, or groups of them; all but `diagonal` and `generator` may differ between groups
        lr              largest change of an entry in a step, where rho is 1
        betas, eps      as in the update rule; the defaults are the paper's
        weight_decay    decay, decoupled
        gamma, rho      as in the update rule; the paper's gamma is 0.01 for Sophia-H and 0.05 for Sophia-G
        diagonal        estimator of the curvature: `Hutchinson`, `GaussNewtonBartlett`, `Exact`, or any other `Diagonal`
        every           steps from one estimate to the next (the paper's k)
        generator       see `SecondOrder`

    State of a parameter: `step` (t), `estimates` (how many D are in h), `exp_avg` (m), `exp_hessian_diag` (h).

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Sophia([w], lr=0.1)
    >>> optimizer.backward((w**2).sum())
    >>> optimizer.step()
    >>> w.detach().round(decimals=3)
    tensor([0.9000, 1.9000])
    """

    OPTIONS = {
        "lr": NOT_NEGATIVE,
        "betas": BETAS,
        "eps": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
        "gamma": NOT_NEGATIVE,
        "rho": POSITIVE,
        "every": COUNT,
    }
    KEPT = ("exp_avg", "exp_hessian_diag")

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.96, 0.99),
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        *,
        gamma: float = 0.01,
        rho: float = 1.0,
        diagonal: Diagonal = ONE_PROBE,
        every: int = 10,
        generator: torch.Generator | None = None,
    ):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, gamma=gamma, rho=rho, every=every)
        super().__init__(params, defaults, diagonal, generator)

    def _update(self, group: dict, params: list[Tensor], curvature: dict[Tensor, Tensor]) -> None:
        lr, (beta1, beta2), decay = float(group["lr"]), group["betas"], group["weight_decay"]
        m, h = self._of("exp_avg", params), self._of("exp_hessian_diag", params)
        torch._foreach_lerp_(m, [g for p in params if (g := p.grad) is not None], 1 - beta1)
        if fresh := [p for p in params if p in curvature]:
            torch._foreach_lerp_(self._of("exp_hessian_diag", fresh), [curvature[p] for p in fresh], 1 - beta2)

        denominator = torch._foreach_mul(h, group["gamma"])
        torch._foreach_clamp_min_(denominator, group["eps"])
        ratio = torch._foreach_div(m, denominator)
        torch._foreach_clamp_min_(ratio, -group["rho"])
        torch._foreach_clamp_max_(ratio, group["rho"])
        if decay:
            torch._foreach_mul_(params, 1 - lr * decay)
        torch._foreach_add_(params, ratio, alpha=-lr)
