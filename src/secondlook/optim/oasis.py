r"""OASIS: gradient descent in the metric of the Hessian's diagonal, with a rate that may adapt itself (Jahani et al.,
arXiv 2109.05198, Algorithm 1).

For t = 1, 2, ..., with g_t the gradient at theta_{t-1}, and products, magnitudes and quotients of vectors element by element:

    D_1     = mean of `warmup` estimates z * H z                          (the paper's D_0)
    D_t     = beta2 D_{t-1} + (1 - beta2) z * H_t z                       t > 1
    D^_t    = max(|D_t|, alpha)
    theta_t = theta_{t-1} - eta_t g_t / D^_t

    fixed:      eta_t = lr
    adaptive:   eta_1 = lr,  q_1 = infinity,  and for t > 1
                eta_t = min( sqrt(1 + q_{t-1}) eta_{t-1},
                             |theta_{t-1} - theta_{t-2}| / (2 |g_t - g_{t-1}|') )
                q_t   = eta_t / eta_{t-1}                                 (the paper's theta)

with |x|^2 = sum D^_t x^2 and |x|'^2 = sum x^2 / D^_t over all parameters of all groups. weight_decay is an L2 penalty, as if
(weight_decay / 2) |theta|^2 stood in the loss: g_t gains weight_decay theta_{t-1}, and D gains weight_decay.

Cost:    a gradient and a Hessian-vector product for each probe, every `every` steps; `warmup` of them at the first step.
Memory:  n of state (D); adaptive 3 n (D, the last theta and g). From `backward` to `step` n for D_t; inside `step` n for D^,
         adaptive 3 n; inside `backward` the graph of the gradient, and 2 n for a probe and its product, 3 n in the warm-up.

Deviations
    warm-up     A parameter is warmed up in its first backward, on that batch alone. The backward then takes `warmup` estimates
                of every parameter that is due, older ones too; their mean counts as one estimate.
    every       The paper takes an estimate at every step.
    adaptive    The rate stays where theta has not changed, or where no bound is finite. With mini-batches g_t - g_{t-1} is also
                the difference of two batches, which shortens the steps: the rule is made for the full gradient.
    momentum    The rule here has none.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from secondlook.arguments import BETA, COUNT, FLAG, NOT_NEGATIVE, POSITIVE
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.source import Given
from secondlook.optim.base import SecondOrder


class OASIS(SecondOrder):
    """OASIS. Use it as any optimiser, with `optimizer.backward(loss)` where `loss.backward()` stood:

        loss = criterion(model(x), y)
        optimizer.zero_grad()
        optimizer.backward(loss)
        optimizer.step()

    Arguments:
        params          parameters, or groups of them; all but the last four arguments may differ between groups
        lr              the rate; where it adapts, its first value
        beta2, alpha    as in the update rule
        weight_decay    decay, as a penalty in the loss
        every           steps from one estimate to the next
        adaptive        let the rate adapt. There is one for all groups, which starts from the `lr` of the first; each group's
                        `lr` shows it after a step. What a scheduler makes of it is eta_{t-1} at the next step
        warmup          estimates for D_1; for an estimator without chance, 1 is enough
        diagonal        estimator of the curvature: `Hutchinson`, `GaussNewtonBartlett`, `Exact`, or any other `Diagonal`
        generator       see `SecondOrder`

    State of a parameter: `step` (t), `estimates` (how many are in D), `exp_hessian_diag` (D), and, where the rate adapts,
    `last_param` (theta) and `last_grad` (g). A group has q as `growth`.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = OASIS([w], lr=1.0)
    >>> optimizer.backward((w**2).sum())
    >>> optimizer.step()
    >>> w.detach().round(decimals=3)
    tensor([0., 0.])
    """

    OPTIONS = {
        "lr": NOT_NEGATIVE,
        "beta2": BETA,
        "alpha": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
        "every": COUNT,
    }
    KEPT = ("exp_hessian_diag",)
    OWN = (*SecondOrder.OWN, "adaptive", "warmup")

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.1,
        beta2: float = 0.99,
        alpha: float = 1e-3,
        weight_decay: float = 0.0,
        *,
        every: int = 1,
        adaptive: bool = False,
        warmup: int = 10,
        diagonal: Diagonal = ONE_PROBE,
        generator: torch.Generator | None = None,
    ):
        FLAG.check(adaptive=adaptive)
        COUNT.check(warmup=warmup)
        self.adaptive = adaptive
        self.warmup = warmup
        defaults = dict(lr=lr, beta2=beta2, alpha=alpha, weight_decay=weight_decay, every=every, growth=math.inf)
        super().__init__(params, defaults, diagonal, generator)

    @property
    def estimates(self) -> int:
        """How many estimates there have been, with all those of the first step."""
        had = super().estimates
        return had + self.warmup - 1 if had else 0

    def _estimate(self, H: Given) -> dict[Tensor, Tensor]:
        draws = self.warmup if any(p not in self.state for p in H.params) else 1
        D = super()._estimate(H.kept() if draws > 1 else H)
        for left in reversed(range(draws - 1)):
            more = super()._estimate(H.kept() if left else H)
            D = {p: D[p] + more[p] for p in D}
        return {p: d / draws for p, d in D.items()} if draws > 1 else D

    def _updates(self, active: list[tuple[dict, list[Tensor]]], curvature: dict[Tensor, Tensor]) -> None:
        slopes: dict[Tensor, Tensor] = {}  # g of every parameter, as the rate is one for all
        metric: dict[Tensor, Tensor] = {}  # D^
        for group, params in active:
            g, D = [p.grad for p in params], self._of("exp_hessian_diag", params)
            decay = group["weight_decay"]
            if decay:
                g = torch._foreach_add(g, params, alpha=decay)
            if fresh := [p for p in params if p in curvature]:
                new = [curvature[p] for p in fresh]
                if decay:
                    new = torch._foreach_add(new, decay)
                weights = [1.0 if n == 1 else 1 - group["beta2"] for n in self._of("estimates", fresh)]
                torch._foreach_lerp_(self._of("exp_hessian_diag", fresh), new, weights)
            scale = torch._foreach_abs(D)
            torch._foreach_clamp_min_(scale, group["alpha"])
            slopes |= zip(params, g, strict=True)
            metric |= zip(params, scale, strict=True)
        if self.adaptive and slopes:
            self._adapt(slopes, metric)
        for group, params in active:
            rate = -float(group["lr"])
            torch._foreach_addcdiv_(params, [slopes[p] for p in params], [metric[p] for p in params], rate)

    def _adapt(self, g: dict[Tensor, Tensor], D: dict[Tensor, Tensor]) -> None:
        """Set every group's rate to eta_t, and keep theta_{t-1} and g_t for the next."""
        last = {p: self.state[p] for p in g if "last_param" in self.state[p]}
        moved = math.sqrt(sum(((p - s["last_param"]).square() * D[p]).sum().item() for p, s in last.items()))
        turned = math.sqrt(sum(((g[p] - s["last_grad"]).square() / D[p]).sum().item() for p, s in last.items()))
        eta, q = float(self.param_groups[0]["lr"]), self.param_groups[0]["growth"]
        new = min(math.sqrt(1 + q) * eta, moved / (2 * turned) if turned > 0 else math.inf)
        if not (moved > 0 and new < math.inf):
            new = eta
        for group in self.param_groups:
            group.update(lr=new, growth=new / eta if last and eta > 0 else math.inf)
        for p, gp in g.items():
            self.state[p].update(last_param=p.clone(), last_grad=gp.clone())
