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

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from secondlook.curvature.averaging import spatial_average
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.hutchinson import Hutchinson

SEED = 200600719  # of the probes, where no generator is given: the paper's number
ONE_PROBE = Hutchinson()

NOT_NEGATIVE = ("a finite number, zero or more", lambda x: 0 <= x < math.inf)
COUNT = ("a positive integer", lambda x: isinstance(x, int) and x >= 1)
OPTIONS = {  # of a group: what each must be, and the test
    "lr": NOT_NEGATIVE,
    "betas": ("two numbers in [0, 1)", lambda x: len(x) == 2 and all(0 <= beta < 1 for beta in x)),
    "eps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "decoupled": ("True or False", lambda x: isinstance(x, bool)),
    "hessian_power": ("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "block_size": COUNT,
    "averaging": ("'signed' or 'absolute'", lambda x: x in ("signed", "absolute")),
    "every": COUNT,
}


def _check(group: dict) -> None:
    for name, (be, holds) in OPTIONS.items():
        try:
            valid = holds(group[name])
        except TypeError:
            valid = False
        if not valid:
            raise ValueError(f"{name} must be {be}, got {group[name]!r}")
    for p in group["params"]:
        if p.dim() < 3 and p.numel() % group["block_size"]:
            raise ValueError(
                f"block_size {group['block_size']} does not divide the {p.numel()} entries of a parameter of shape"
                f" {tuple(p.shape)}: put it in a group with another block_size"
            )


class AdaHessian(torch.optim.Optimizer):
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
        diagonal        estimator of the Hessian's diagonal: `Hutchinson`, `Exact`, or any other `Diagonal`
        block_size      entries averaged in vectors and matrices; a ValueError where it does not divide their number
        averaging       'signed' or 'absolute'
        every           steps of a parameter from one estimate of its curvature to the next; the first step has one
        generator       source of the probes; by default one on the first parameter's device, seeded with SEED. The global
                        random state is never touched. Its state is in `state_dict`, so a run resumes bit for bit

    State of a parameter: `step` (t), `estimates` (how many D are in v), `exp_avg` (m), `exp_hessian_diag_sq` (v), the last two
    in the parameter's type. Parameters that are frozen or have no gradient rest. Freeze those that the loss never uses: where
    `every` > 1 they would keep asking for an estimate.

    Mixed precision: autocast to bfloat16. A gradient scaler would rescale the gradients and not the curvature.
    """

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
        super().__init__(params, defaults)
        if generator is None:
            device = next((p.device for group in self.param_groups for p in group["params"]), "cpu")
            generator = torch.Generator(device).manual_seed(SEED)
        self.diagonal = diagonal
        self.generator = generator
        self._curvature: dict[Tensor, Tensor] | None = None  # D since the last step; None: no backward since then

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        """Add the gradients of `loss` to `.grad` and, where it is due, the curvature to what the next step uses.

        Called several times before a step, gradients and curvature add up: they are those of the summed loss. Only the
        optimiser's own parameters get gradients; these carry no graph.
        """
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise RuntimeError("the loss has no graph: compute it from the parameters, with gradients enabled")
        owners = {p: group for group in self.param_groups for p in group["params"] if p.requires_grad}
        second = any(self._due(p, group) for p, group in owners.items())
        keep = {"create_graph": second, "retain_graph": second or retain_graph}
        found = torch.autograd.grad(loss, list(owners), allow_unused=True, **keep) if owners else ()
        gradients = {p: g for p, g in zip(owners, found, strict=True) if g is not None}
        for g in gradients.values():
            if g.layout is not torch.strided or g.is_complex():
                raise RuntimeError(f"AdaHessian needs dense real gradients, got {g.layout} of type {g.dtype}")
        # A gradient left at zero by zero_grad(set_to_none=False), which this loss does not use.
        gradients |= {p: torch.zeros_like(p) for p in owners if p.grad is not None and p not in gradients}
        due = [p for p in gradients if self._due(p, owners[p])]
        D = self.diagonal([gradients[p] for p in due], due, self.generator, retain_graph=retain_graph) if due else []
        self._accumulate(gradients, dict(zip(due, D, strict=True)))

    @torch.no_grad()
    def _accumulate(self, gradients: dict[Tensor, Tensor], curvature: dict[Tensor, Tensor]) -> None:
        kept = self._curvature or {}
        for p, g in gradients.items():
            if p.grad is None:
                p.grad = g.clone()  # two gradients, or a gradient and a constant of the loss, may share memory
                kept.pop(p, None)  # of a step that was skipped
            else:
                p.grad.add_(g)
        for p, D in curvature.items():
            kept[p] = kept[p] + D if p in kept else D
        self._curvature = kept

    def _due(self, p: Tensor, group: dict) -> bool:
        return p not in self.state or self.state[p]["step"] % group["every"] == 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update the parameters, once for every `backward`, or for the sum of several.

        A `closure` computes and returns the loss, and does not differentiate it: `step` clears the gradients, calls the
        closure, calls `backward`, and returns the loss without its graph.
        """
        loss = None
        if closure is not None:
            self.zero_grad()
            with torch.enable_grad():
                loss = closure()
            self.backward(loss)
        active = [[p for p in group["params"] if p.requires_grad and p.grad is not None] for group in self.param_groups]
        for group, params in zip(self.param_groups, active, strict=True):
            if self._curvature is None or any(self._due(p, group) and p not in self._curvature for p in params):
                raise RuntimeError("no curvature for this step: call optimizer.backward(loss), not loss.backward(), before it")
        for group, params in zip(self.param_groups, active, strict=True):
            if params:
                self._update(group, params, self._curvature)
        self._curvature = None
        return loss if loss is None else loss.detach()

    def _update(self, group: dict, params: list[Tensor], curvature: dict[Tensor, Tensor]) -> None:
        lr, (beta1, beta2), k = float(group["lr"]), group["betas"], group["hessian_power"]
        decay = group["weight_decay"]
        penalty = 0.0 if group["decoupled"] else decay
        fresh = [p for p in params if p in curvature]
        for p in params:
            state = self.state[p]
            if not state:
                state.update(step=0, estimates=0, exp_avg=torch.zeros_like(p), exp_hessian_diag_sq=torch.zeros_like(p))
            state["step"] += 1
            state["estimates"] += p in curvature

        def of(name: str, some: list[Tensor] = params) -> list:
            return [self.state[p][name] for p in some]

        g = [p.grad for p in params]
        if penalty:
            g = torch._foreach_add(g, params, alpha=penalty)
        torch._foreach_lerp_(of("exp_avg"), g, 1 - beta1)
        if fresh:
            D = [curvature[p] for p in fresh]
            if penalty:
                D = torch._foreach_add(D, penalty)
            D = [spatial_average(d, group["block_size"], group["averaging"]) for d in D]
            torch._foreach_mul_(of("exp_hessian_diag_sq", fresh), beta2)
            torch._foreach_addcmul_(of("exp_hessian_diag_sq", fresh), D, D, 1 - beta2)

        denominator = torch._foreach_sqrt(of("exp_hessian_diag_sq"))
        torch._foreach_div_(denominator, [math.sqrt(1 - beta2**c) for c in of("estimates")])
        if k != 1:
            torch._foreach_pow_(denominator, k)
        torch._foreach_add_(denominator, group["eps"])
        if decay and group["decoupled"]:
            torch._foreach_mul_(params, 1 - lr * decay)
        torch._foreach_addcdiv_(params, of("exp_avg"), denominator, [-lr / (1 - beta1**t) for t in of("step")])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, and the curvature that came with them."""
        super().zero_grad(set_to_none)
        self._curvature = None

    def state_dict(self) -> dict:
        """As torch's, with the state of the probes' generator."""
        generator = {"device": self.generator.device.type, "state": self.generator.get_state()}
        return super().state_dict() | {"generator": generator}

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's. Without the key 'generator' in `state_dict`, the optimiser's own generator goes on."""
        saved = state_dict.get("generator")
        if saved is not None and saved["device"] != self.generator.device.type:
            raise ValueError(
                f"the probes were drawn on {saved['device']}, and generator is on {self.generator.device.type}: build the"
                f" optimiser with generator=torch.Generator('{saved['device']}'), or remove 'generator' from the state_dict"
            )
        super().load_state_dict(state_dict)
        if saved is not None:
            self.generator.set_state(saved["state"].cpu())
        self._curvature = None

    def __getstate__(self) -> dict:
        own = ("diagonal", "generator", "_curvature")  # for copies and pickles, which torch makes of three fields alone
        return super().__getstate__() | {name: getattr(self, name) for name in own}
