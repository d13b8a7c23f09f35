r"""Newton's method with the exact Hessian, for small models.

    g_t     = gradient of the loss at theta_{t-1},   H_t its Hessian, or its blocks on the diagonal
    p_t     = direction(g_t, H_t)                                                                  see `directions`
    theta_t = theta_{t-1} + lr p_t

LevenbergMarquardt and TrustRegion try the step and judge it by what the quadratic model promised (Nocedal and Wright (2006),
algorithm 4.1):

    ratio = (L(theta) - L(theta + lr p)) / -(lr g^T p + lr^2 p^T H p / 2)

    ratio <= accept        theta goes back to what it was, bit for bit

A step for which the model promises no more than 10 eps |L|, eps that of the loss's type, is not tried and changes nothing: the
loss could not tell (compare Conn, Gould and Toint (2000), section 17.4.2). A ratio or loss that is not finite is a refusal.

Cost of a step: a gradient, and what the direction costs; with a ratio one more loss. A refused step costs the same.
Memory: that of the direction.
Deviations: none but those of the directions.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

from secondlook.arguments import NOT_NEGATIVE
from secondlook.curvature.blocks import BlockHessian, Blocks, whole
from secondlook.curvature.products import refuse_hidden
from secondlook.curvature.vectors import flat, split
from secondlook.optim.base import Checked, evaluate, refuse_sparse_and_complex
from secondlook.optim.directions import Adaptive, Direction, Plain


class Newton(Checked):
    """Newton's method. The closure computes and returns the loss, and does not differentiate it:

        optimizer = Newton(model.parameters(), direction=TrustRegion())
        loss = optimizer.step(lambda: criterion(model(x), y))

    Arguments:
        params      parameters, in one group
        lr          factor of every step, also of those that a ratio judges
        direction   `Plain`, `Damped`, `LevenbergMarquardt`, `Absolute` or `TrustRegion`, with their options; or any such
        blocks      None for the whole Hessian; `tensors` or `neurons` of `curvature.blocks` for block-diagonal Newton, or any
                    function from the parameters that take part to lists of entries

    State, in that of the first parameter: `step` (t); `size`, the radius or damping for the next step; `accepted`, whether the
    last step was taken; its `ratio`, NaN where none was computed; `products`, the Hessian-vector products made so far.
    Parameters that are frozen, or that the loss does not use, rest. `.grad` is left as it was. A ratio needs a closure that
    returns the same loss twice: no dropout, one batch. Where the closure raises, the parameters are what they were.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], blocks=blocks.tensors)
    >>> optimizer.step(lambda: ((w - 3) ** 2).sum())  # the loss before the step
    tensor(5.)
    >>> w.detach().round(decimals=3)
    tensor([3., 3.])
    """

    OPTIONS = {"lr": NOT_NEGATIVE}

    def __init__(
        self,
        params: Iterable,
        lr: float = 1.0,
        *,
        direction: Direction | Adaptive = Plain(),
        blocks: Callable[[Sequence[Tensor]], Blocks] | None = None,
    ):
        super().__init__(params, {"lr": lr})
        if not callable(direction):
            raise ValueError(f"direction must be a Direction, such as Plain() or TrustRegion(), got {direction!r}")
        if not (blocks is None or callable(blocks)):
            raise ValueError(f"blocks must be None or a function of the parameters, such as tensors, got {blocks!r}")
        self.direction = direction
        self.blocks = blocks

    def add_param_group(self, param_group: dict) -> None:
        if self.param_groups:
            raise ValueError("params must be one group: Newton's step is one for all parameters")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override] # torch has numbers
        """One step; the loss before it, without its graph."""
        (group,) = self.param_groups
        loss, differentiated = evaluate(closure, group["params"])
        if differentiated:
            raise RuntimeError("closure must compute the loss and not call loss.backward(): step differentiates it, twice")
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise RuntimeError("the loss has no graph: compute it from the parameters, with gradients enabled")
        params, gradients = self._differentiate(loss, [p for p in group["params"] if p.requires_grad])
        state = self.state[group["params"][0]]
        if not state:
            state.update(step=0, size=self.direction.start, accepted=True, ratio=math.nan, products=0)
        if params:
            H = BlockHessian(gradients, params, (self.blocks or whole)(params))
            self._update(float(group["lr"]), loss.detach(), params, flat(gradients).detach(), H, state, closure)
            state["products"] += H.products
        state["step"] += 1
        return loss.detach()

    def _differentiate(self, loss: Tensor, params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        with torch.enable_grad():
            found = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True) if params else ()
        if any(g is None for g in found):
            refuse_hidden(loss)
        used = [(p, g) for p, g in zip(params, found, strict=True) if g is not None]
        refuse_sparse_and_complex(self, [g for _, g in used])
        return [p for p, _ in used], [g for _, g in used]

    def _update(
        self,
        lr: float,
        loss: Tensor,
        params: list[Tensor],
        g: Tensor,
        H: BlockHessian,
        state: dict,
        closure: Callable[[], Tensor],
    ) -> None:
        p = self.direction(g, H, state["size"])
        if p is not None and state["size"] is None:
            torch._foreach_add_(params, split(lr * p, params))
            return
        adaptive = cast(Adaptive, self.direction)  # as it has a size
        ratio = -math.inf if p is None else self._try(lr * p, loss, params, g, H, adaptive.accept, closure)
        state["ratio"], state["accepted"] = ratio, ratio > adaptive.accept
        if not math.isnan(ratio):
            state["size"] = adaptive.resize(state["size"], ratio, 0.0 if p is None else p.norm().item())

    def _try(
        self,
        p: Tensor,
        loss: Tensor,
        params: list[Tensor],
        g: Tensor,
        H: BlockHessian,
        accept: float,
        closure: Callable[[], Tensor],
    ) -> float:
        """The ratio for the step p, and the step where it is good enough; NaN where p was not tried, nor is it then taken."""
        promised = -(g @ p + p @ (H @ p) / 2).item()
        rounding = 10 * torch.finfo(loss.dtype).eps * abs(loss.item())
        if abs(promised) <= rounding:
            return math.nan
        if promised < 0:  # the lr is so large that the model itself rises
            return -math.inf
        before, ratio = [theta.clone() for theta in params], -math.inf
        torch._foreach_add_(params, split(p, params))
        try:
            with torch.enable_grad():  # of a loss that differentiates by its inputs
                trial = closure()
            ratio = (loss - trial.detach()).item() / promised
        finally:  # also where the closure raises
            if not (math.isfinite(ratio) and ratio > accept):
                torch._foreach_copy_(params, before)
        return ratio if math.isfinite(ratio) else -math.inf

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"direction": self.direction, "blocks": self.blocks}
