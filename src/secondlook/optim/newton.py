r"""Newton's method with the exact Hessian, for small models: five answers to a Hessian that is singular or indefinite.

    g_t     = gradient of the loss at theta_{t-1},   H_t its Hessian, or its blocks on the diagonal
    p_t     = direction(g_t, H_t)
    theta_t = theta_{t-1} + lr p_t

    Plain                p = -H^-1 g
    Damped               p = -(H + lambda I)^-1 g,  fixed lambda
    LevenbergMarquardt   the same, lambda by the ratio below
    Absolute             p = -Q diag(1 / max(|lambda_i|, floor)) Q^T g,  H = Q diag(lambda_i) Q^T        Dauphin et al. (2014)
    TrustRegion          p = argmin g^T p + p^T H p / 2 over |p| <= radius, radius by the ratio below    Conn et al. (2000)
                         exactly, or by truncated conjugate gradients, where H is never formed

LevenbergMarquardt and TrustRegion try the step and judge it by what the quadratic model promised (Nocedal and Wright (2006),
algorithm 4.1):

    ratio = (L(theta) - L(theta + lr p)) / -(lr g^T p + lr^2 p^T H p / 2)

    ratio < 1/4            radius = radius / 4;                               lambda = factor lambda
    ratio > 3/4            radius = 2 radius, if |p| = radius, up to a limit; lambda = lambda / factor
    ratio <= accept        theta goes back to what it was, bit for bit

A step for which the model promises no more than 10 eps |L|, eps that of the loss's type, is not tried and changes nothing: the
loss could not tell (compare Conn, Gould and Toint (2000), section 17.4.2). A ratio or loss that is not finite is a refusal.

Cost of a step: a gradient; n Hessian-vector products and an eigendecomposition or factorisation of n^3 (of each block: sum of
b^3); with `Steihaug` one product for each of its steps instead; with a ratio one more loss. A refused step costs the same.
Memory: n^2 numbers, a few times; with blocks the sum of b^2; with `Steihaug` a few n.

Deviations
    LevenbergMarquardt  Marquardt (1963) raises lambda whenever the loss rises; the thresholds here are those of the trust
                        region, as in Martens (2010), section 4.1. His factor is 3/2; Marquardt's, the default here, is 10.
    Absolute            Dauphin et al. add a damping to |lambda_i|; the floor changes only what is below it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from secondlook.curvature.blocks import BlockHessian, Blocks, whole
from secondlook.curvature.products import refuse_hidden
from secondlook.curvature.trust_region import in_eigenbasis, steihaug
from secondlook.curvature.vectors import flat, split
from secondlook.optim.base import (
    COUNT,
    FLAG,
    NOT_NEGATIVE,
    POSITIVE,
    Checked,
    check,
    evaluate,
    refuse_sparse_and_complex,
)

ACCEPT = ("a number in [0, 1/4)", lambda x: 0 <= x < 1 / 4)
ABOVE_ONE = ("a finite number above one", lambda x: 1 < x < math.inf)
FORCING = ("a number in (0, 1)", lambda x: 0 < x < 1)
COUNT_OR_NONE = ("a positive integer or None", lambda x: x is None or COUNT[1](x))


class Direction(Protocol):
    """p (n,) from g (n,) and H. With `start` None there is nothing to adapt, and every step is taken."""

    start: float | None

    def __call__(self, g: Tensor, H: BlockHessian, size: float | None) -> Tensor: ...


class Adaptive(Protocol):
    """A direction with a radius or damping `size`, first `start`, that follows the ratio; p is None where there is no step."""

    start: float
    accept: float  # a ratio above it takes the step

    def __call__(self, g: Tensor, H: BlockHessian, size: float) -> Tensor | None: ...

    def resize(self, size: float, ratio: float, length: float) -> float:
        """The next size, after a step p of this length |p|."""


class _Part:
    """A frozen dataclass whose fields are checked by the rules in RULES."""

    RULES: dict = {}
    start: float | None = None

    def __post_init__(self) -> None:
        check({field.name: getattr(self, field.name) for field in fields(self)}, self.RULES)


@dataclass(frozen=True)
class Plain(_Part):
    """Newton's own step, to where the model is stationary: with an indefinite H a saddle or maximum of it, uphill or not.

    A singular H (a pivot of the LU factors below b eps times the largest) is refused with a RuntimeError; where `definite` is
    set, so is one that is not positive definite.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=Plain())
    >>> loss = optimizer.step(lambda: ((w - 3) ** 2).sum())
    >>> w.detach().round(decimals=3)
    tensor([3., 3.])
    """

    definite: bool = False

    RULES = {"definite": FLAG}

    def __call__(self, g: Tensor, H: BlockHessian, size: None = None) -> Tensor:
        return H.map(self._solve, g)

    def _solve(self, H: Tensor, g: Tensor) -> Tensor:
        if self.definite and torch.linalg.cholesky_ex(H).info.any():
            raise torch.linalg.LinAlgError(
                "the Hessian is not positive definite: use Absolute() or TrustRegion(), or Damped(...) with enough damping"
            )
        LU, pivots, _ = torch.linalg.lu_factor_ex(H)
        sizes = LU.diagonal(dim1=-2, dim2=-1).abs()
        if (sizes.amin(-1) <= H.shape[-1] * torch.finfo(H.dtype).eps * sizes.amax(-1)).any():
            raise torch.linalg.LinAlgError("the Hessian is singular: use Damped(...), Absolute() or TrustRegion()")
        return -torch.linalg.lu_solve(LU, pivots, g[..., None])[..., 0]


@dataclass(frozen=True)
class Damped(_Part):
    """Newton's step for H + damping I; a RuntimeError where that is not positive definite.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=Damped(2.0))
    >>> loss = optimizer.step(lambda: ((w - 3) ** 2).sum())
    >>> w.detach().round(decimals=3)
    tensor([2.0000, 2.5000])
    """

    damping: float

    RULES = {"damping": NOT_NEGATIVE}

    def __call__(self, g: Tensor, H: BlockHessian, size: None = None) -> Tensor:
        p = _damped(g, H, self.damping)
        if p is None:
            raise torch.linalg.LinAlgError(
                f"the Hessian with damping {self.damping} is not positive definite: raise it, or use Absolute()"
            )
        return p


@dataclass(frozen=True)
class LevenbergMarquardt(_Part):
    """Newton's step for H + lambda I, at first lambda = `damping`. Where that is not positive definite, lambda alone grows.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=LevenbergMarquardt(damping=2.0))
    >>> loss = optimizer.step(lambda: ((w - 3) ** 2).sum())
    >>> w.detach().round(decimals=3)
    tensor([2.0000, 2.5000])
    """

    damping: float = 1e-3
    factor: float = 10.0
    least: float = 1e-10  # lambda falls no lower
    accept: float = 0.0

    RULES = {"damping": POSITIVE, "factor": ABOVE_ONE, "least": POSITIVE, "accept": ACCEPT}

    @property
    def start(self) -> float:
        return self.damping

    def __call__(self, g: Tensor, H: BlockHessian, size: float) -> Tensor | None:
        return _damped(g, H, size)

    def resize(self, size: float, ratio: float, length: float) -> float:
        if ratio > 3 / 4:
            return max(size / self.factor, self.least)
        return size if ratio >= 1 / 4 else size * self.factor


@dataclass(frozen=True)
class Absolute(_Part):
    """Saddle-free Newton: every eigenvalue by its magnitude, at least `floor`. At a saddle itself, with g = 0, it stays.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=Absolute())
    >>> loss = optimizer.step(lambda: w[0] ** 2 - w[1] ** 2)  # away from the saddle at zero
    >>> w.detach().round(decimals=3)
    tensor([0., 4.])
    """

    floor: float = 1e-4

    RULES = {"floor": POSITIVE}

    def __call__(self, g: Tensor, H: BlockHessian, size: None = None) -> Tensor:
        return H.map(self._solve, g)

    def _solve(self, H: Tensor, g: Tensor) -> Tensor:
        eigenvalues, Q = torch.linalg.eigh(H)
        gamma = torch.einsum("kji,kj->ki", Q, g)
        return -torch.einsum("kij,kj->ki", Q, gamma / eigenvalues.abs().clamp(min=self.floor))


@dataclass(frozen=True)
class Eigen(_Part):
    """The subproblem by eigendecomposition, the hard case included; from a saddle it leaves along the lowest eigenvector.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=TrustRegion(radius=10.0, subproblem=Eigen()))
    >>> loss = optimizer.step(lambda: ((w - 3) ** 2).sum())
    >>> w.detach().round(decimals=3)
    tensor([3., 3.])
    """

    def __call__(self, g: Tensor, H: BlockHessian, radius: float) -> Tensor:
        spectra = [(entries, *torch.linalg.eigh(matrices)) for entries, matrices in H.groups]
        gamma = torch.cat([torch.einsum("kji,kj->ki", Q, g[entries]).reshape(-1) for entries, _, Q in spectra])
        best = in_eigenbasis(gamma, torch.cat([eigenvalues.reshape(-1) for _, eigenvalues, _ in spectra]), radius)
        p = torch.empty_like(g)
        for (entries, _, Q), part in zip(spectra, best.split([entries.numel() for entries, _, _ in spectra]), strict=True):
            p[entries] = torch.einsum("kij,kj->ki", Q, part.view(entries.shape))
        return p


@dataclass(frozen=True)
class Steihaug(_Part):
    """The subproblem by truncated conjugate gradients with Hessian-vector products; see `curvature.trust_region`.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=TrustRegion(radius=10.0, subproblem=Steihaug()))
    >>> loss = optimizer.step(lambda: ((w - 3) ** 2).sum())
    >>> w.detach().round(decimals=3)
    tensor([3., 3.])
    """

    tolerance: float = 0.5
    max_products: int | None = None

    RULES = {"tolerance": FORCING, "max_products": COUNT_OR_NONE}

    def __call__(self, g: Tensor, H: BlockHessian, radius: float) -> Tensor:
        return steihaug(g, lambda v: H @ v, radius, self.tolerance, self.max_products)


@dataclass(frozen=True)
class TrustRegion(_Part):
    """The best step of the model within a radius. With blocks the ball is still one ball of n dimensions.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = Newton([w], direction=TrustRegion(radius=10.0))
    >>> loss = optimizer.step(lambda: ((w - 3) ** 2).sum())
    >>> w.detach().round(decimals=3)
    tensor([3., 3.])
    """

    radius: float = 1.0
    max_radius: float = 100.0
    accept: float = 0.1
    subproblem: Eigen | Steihaug = Eigen()

    RULES = {"radius": POSITIVE, "max_radius": POSITIVE, "accept": ACCEPT}

    @property
    def start(self) -> float:
        return self.radius

    def __call__(self, g: Tensor, H: BlockHessian, size: float) -> Tensor:
        return self.subproblem(g, H, size)

    def resize(self, size: float, ratio: float, length: float) -> float:
        if ratio > 3 / 4:
            return max(size, min(2 * size, self.max_radius)) if length > 0.999 * size else size
        return size if ratio >= 1 / 4 else size / 4


def _damped(g: Tensor, H: BlockHessian, damping: float) -> Tensor | None:
    factors = []
    for _, matrices in H.groups:
        L, info = torch.linalg.cholesky_ex(matrices + damping * torch.eye(matrices.shape[-1], dtype=g.dtype, device=g.device))
        if info.any():
            return None
        factors.append(L)
    remaining = iter(factors)
    return H.map(lambda _, g: -torch.cholesky_solve(g[..., None], next(remaining))[..., 0], g)


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
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
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
        if state["size"] is None:
            torch._foreach_add_(params, split(lr * p, params))
            return
        ratio = -math.inf if p is None else self._try(lr * p, loss, params, g, H, closure)
        state["ratio"], state["accepted"] = ratio, ratio > self.direction.accept
        if not math.isnan(ratio):
            state["size"] = self.direction.resize(state["size"], ratio, 0.0 if p is None else p.norm().item())

    def _try(
        self, p: Tensor, loss: Tensor, params: list[Tensor], g: Tensor, H: BlockHessian, closure: Callable[[], Tensor]
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
            if not (math.isfinite(ratio) and ratio > self.direction.accept):
                torch._foreach_copy_(params, before)
        return ratio if math.isfinite(ratio) else -math.inf

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"direction": self.direction, "blocks": self.blocks}
