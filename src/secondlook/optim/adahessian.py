r"""AdaHessian: Adam with an estimate of the Hessian's diagonal in place of the gradient (Yao et al., arXiv 2006.00719).

For every parameter, t = 1, 2, ..., with all products, powers and quotients element by element:

    g_t     = gradient of the loss at theta_{t-1}
    D_t     = (1/s) sum_j z_j * H_t z_j                                      Eq. 9, one probe by default
    D^(s)_t = mean of D_t over its block                                     Eq. 10
    m_t     = beta1 m_{t-1} + (1 - beta1) g_t                                Algorithm 1
    v_t     = beta2 v_{t-1} + (1 - beta2) D^(s)_t * D^(s)_t                  Algorithm 1, 'Hessian momentum'
    m^_t    = m_t / (1 - beta1^t),   v^_t = v_t / (1 - beta2^t)
    theta_t = theta_{t-1} - lr ( m^_t / (sqrt(v^_t)^k + eps) + weight_decay theta_{t-1} )

With `decoupled=False` the decay is an L2 penalty, as if (weight_decay / 2) |theta|^2 stood in the loss: the last term goes,
g_t gains weight_decay theta_{t-1}, and D_t gains weight_decay.

Cost:    a gradient and one Hessian-vector product for each probe, every `every` steps; a gradient in between.
         The update reads and writes 16 n numbers: 3 for m, 5 for v, 4 for the denominator, 4 for theta. That of a fused Adam,
         which is one kernel, reads and writes 7 n.
Memory:  2 n of state (m, v). From `backward` to `step` n for D; n more inside `step`; inside `backward` the graph of the
         gradient, and 2 n for a probe and its product.

Deviations from the paper
    every        The paper does not say what v does between two estimates. Here it rests: beta2 and its correction count
                 estimates, not steps. Public implementations feed the last estimate in again at every step.
    averaging    'signed' is Eq. 10; the authors' code averages |D_t| ('absolute').
    block_size   Counts for vectors and matrices; weights of three or more dimensions are averaged over their kernels, as in
                 the paper.
    zero v       Where v is zero, the step is lr m^ / eps, as the rule says: large. Parameters in which the loss is linear want
                 a group of their own, with a larger eps. In the first steps an estimate near zero by chance does the same,
                 as v^ has nothing else to average: eps alone bounds the step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from secondlook.arguments import BETAS, COUNT, FLAG, NOT_NEGATIVE, Must, one_of
from secondlook.curvature.averaging import AVERAGING, spatial_average
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.optim.base import SecondOrder


class AdaHessian(SecondOrder):
    """AdaHessian. Use it as any optimiser, with `optimizer.backward(loss)` where `loss.backward()` stood:

        loss = criterion(model(x), y)
        optimizer.zero_grad()
        optimizer.backward(loss)
        optimizer.step()

    Arguments:
        params          parameters, or groups of them; all but `diagonal` and `generator` may differ between groups
        lr, betas, eps  as in the update rule; the defaults are the paper's
        weight_decay    decay; `decoupled` or as a penalty in the loss
        hessian_power   k, from 0 (gradient descent with momentum) to 1
        diagonal        estimator of the curvature: `Hutchinson`, `GaussNewtonBartlett`, `Exact`, or any other `Diagonal`
        block_size      entries averaged in vectors and matrices; a ValueError where it does not divide their number
        averaging       'signed' or 'absolute'
        every           steps of a parameter from one estimate of its curvature to the next; the first step has one
        generator       source of the probes; see `SecondOrder`

    State of a parameter: `step` (t), `estimates` (how many D are in v), `exp_avg` (m), `exp_hessian_diag_sq` (v). Frozen
    parameters, mixed precision and what else holds for all optimisers of second order: see `SecondOrder`.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = AdaHessian([w], lr=1.0)
    >>> optimizer.backward((w**2).sum())
    >>> optimizer.step()
    >>> w.detach().round(decimals=3)
    tensor([0., 0.])
    """

    OPTIONS = {
        "lr": NOT_NEGATIVE,
        "betas": BETAS,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "decoupled": FLAG,
        "hessian_power": Must("a number from 0 to 1", lambda x: 0 <= x <= 1),
        "block_size": COUNT,
        "averaging": one_of(AVERAGING),
        "every": COUNT,
    }
    KEPT = ("exp_avg", "exp_hessian_diag_sq")

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.15,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = True,
        hessian_power: float = 1.0,
        diagonal: Diagonal = ONE_PROBE,
        block_size: int = 1,
        averaging: str = "signed",
        every: int = 1,
        generator: torch.Generator | None = None,
    ):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled=decoupled)
        defaults |= dict(hessian_power=hessian_power, block_size=block_size, averaging=averaging, every=every)
        super().__init__(params, defaults, diagonal, generator)

    def _check(self, group: dict) -> None:
        super()._check(group)
        for p in group["params"]:
            if p.dim() < 3 and p.numel() % group["block_size"]:
                raise ValueError(
                    f"block_size {group['block_size']} does not divide the {p.numel()} entries of a parameter of shape"
                    f" {tuple(p.shape)}: put it in a group with another block_size"
                )

    def _update(self, group: dict, params: list[Tensor], curvature: dict[Tensor, Tensor]) -> None:
        lr, (beta1, beta2), k = float(group["lr"]), group["betas"], group["hessian_power"]
        decay = group["weight_decay"]
        penalty = 0.0 if group["decoupled"] else decay

        g, m = [p.grad for p in params], self._of("exp_avg", params)
        if penalty:
            g = torch._foreach_add(g, params, alpha=penalty)
        torch._foreach_lerp_(m, g, 1 - beta1)

        if fresh := [p for p in params if p in curvature]:
            D, v = [curvature[p] for p in fresh], self._of("exp_hessian_diag_sq", fresh)
            if penalty:
                D = torch._foreach_add(D, penalty)
            D = [spatial_average(d, group["block_size"], group["averaging"]) for d in D]
            torch._foreach_mul_(v, beta2)
            torch._foreach_addcmul_(v, D, D, 1 - beta2)

        # m^ / (sqrt(v^)^k + eps) with numerator and denominator times c, so that v^ takes no pass over memory of its own
        c = [(1 - beta2**estimates) ** (k / 2) for estimates in self._of("estimates", params)]
        denominator = torch._foreach_pow(self._of("exp_hessian_diag_sq", params), k / 2)
        torch._foreach_add_(denominator, [group["eps"] * ci for ci in c])
        if decay and group["decoupled"]:
            torch._foreach_mul_(params, 1 - lr * decay)
        rates = [-lr * ci / (1 - beta1**t) for ci, t in zip(c, self._of("step", params), strict=True)]
        torch._foreach_addcdiv_(params, m, denominator, rates)
