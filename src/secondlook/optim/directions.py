r"""Newton's directions: five answers to a Hessian that is singular or indefinite. `newton` takes the steps.

    Plain                p = -H^-1 g
    Damped               p = -(H + lambda I)^-1 g,  fixed lambda
    LevenbergMarquardt   the same, lambda by the ratio of `newton`
    Absolute             p = -Q diag(1 / max(|lambda_i|, floor)) Q^T g,  H = Q diag(lambda_i) Q^T        Dauphin et al. (2014)
    TrustRegion          p = argmin g^T p + p^T H p / 2 over |p| <= radius, radius by the ratio          Conn et al. (2000)
                         exactly, or by truncated conjugate gradients, where H is never formed

    ratio < 1/4          radius = radius / 4;                               lambda = factor lambda
    ratio > 3/4          radius = 2 radius, if |p| = radius, up to a limit; lambda = lambda / factor

Cost: n Hessian-vector products and an eigendecomposition or factorisation of n^3 (of each block: sum of b^3); with `Steihaug`
one product for each of its steps instead.
Memory: n^2 numbers, a few times; with blocks the sum of b^2; with `Steihaug` a few n.

Deviations
    LevenbergMarquardt  Marquardt (1963) raises lambda whenever the loss rises; the thresholds here are those of the trust
                        region, as in Martens (2010), section 4.1. His factor is 3/2; Marquardt's, the default here, is 10.
    Absolute            Dauphin et al. add a damping to |lambda_i|; the floor changes only what is below it.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secondlook.arguments import BETWEEN, COUNT, FLAG, NOT_NEGATIVE, POSITIVE, Must
from secondlook.curvature.blocks import BlockHessian
from secondlook.curvature.trust_region import in_eigenbasis, steihaug

ACCEPT = Must("a number in [0, 1/4)", lambda x: 0 <= x < 1 / 4)
ABOVE_ONE = Must("a finite number above one", lambda x: 1 < x < math.inf)


class Direction(Protocol):
    """p (n,) from g (n,) and H. With `start` None there is nothing to adapt, and every step is taken."""

    @property
    def start(self) -> float | None: ...

    def __call__(self, g: Tensor, H: BlockHessian, size: float | None) -> Tensor: ...


class Adaptive(Protocol):
    """A direction with a radius or damping `size`, first `start`, that follows the ratio; p is None where there is no step."""

    @property
    def start(self) -> float: ...

    @property
    def accept(self) -> float:
        """A ratio above it takes the step."""

    def __call__(self, g: Tensor, H: BlockHessian, size: float) -> Tensor | None: ...

    def resize(self, size: float, ratio: float, length: float) -> float:
        """The next size, after a step p of this length |p|."""


class _Part:
    """A frozen dataclass whose fields are checked by the rules in RULES."""

    RULES: dict[str, Must] = {}

    @property
    def start(self) -> float | None:
        return None

    def __post_init__(self) -> None:
        for name, must in self.RULES.items():
            must.check(**{name: getattr(self, name)})


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

    RULES = {"tolerance": BETWEEN, "max_products": COUNT.or_none()}

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
