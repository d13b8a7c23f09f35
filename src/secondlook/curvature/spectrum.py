r"""Eigenvalues of a matrix that is known by its products: its ends, its density, its trace, its condition number.

    Lanczos             H Q = Q T + beta_{m+1} q_{m+1} e_m^T,    Q (n, m) orthonormal, T (m, m) tridiagonal
                        An eigenpair (mu, s) of T gives the Ritz pair (mu, Q s), |H Q s - mu Q s| = beta_{m+1} |s_m|.
    spectral density    (1/n) sum_i delta(x - lambda_i)  ~  (1/s) sum_j sum_k (S^(j)_{1k})^2 delta(x - mu^(j)_k)
                        with T^(j) = S diag(mu) S^T after m steps from the probe z_j / sqrt(n). Its moments
                        integral x^p = tr(H^p) / n are right in expectation for p < 2m.
    trace (Hutch++)     tr(Q^T H Q) + (1/s) sum_j u_j^T H u_j,    Q = orth(H Z), Z of s probes,
                                                                 u_j = (I - Q Q^T) z_j of s others

Bias: none in the trace. Variance with signs z: (2/s) sum_{i != j} M_ij^2 for M = (I - Q Q^T) H (I - Q Q^T), what Q leaves of H;
zero for a rank of at most s. Hutchinson's trace, with H for M, is the sum of `Hutchinson`'s diagonal.

Sources: Lanczos (1950); Golub and Meurant (1994) and Ubaru, Chen and Saad (2017) for the density; Meyer, Musco, Musco and
Woodruff (2021), "Hutch++: optimal stochastic trace estimation", algorithm 1.

Cost: one product a step of Lanczos, and 4 m^2 n multiplications to keep m vectors orthogonal; memory m n. A trace takes the
products that it is given. Deviations: every q is made orthogonal to all before, twice, so that rounding makes no copies of an
eigenvalue. Where the steps span all that the start can reach, they go on from a new random vector. One copy of a repeated
eigenvalue is found before that and the others after, so that all of them are certain only after n steps.

The matrix is the Hessian of a loss, in any form that `hessian_of` takes, or another `Operator`, such as a `GaussNewton`. Random
numbers come from `generator` alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secondlook.arguments import COUNT, Must, at_least, one_of
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import hessian_of
from secondlook.curvature.products import Operator
from secondlook.curvature.vectors import finite, flat, full_precision, split

CHECK_EVERY = 5  # steps of Lanczos between two looks at the Ritz pairs
ENDS = ("largest", "smallest", "magnitude")

Loss = Operator | Tensor | Callable[..., Tensor]  # as `hessian_of` takes it, with `params` and `data`


@dataclass(frozen=True)
class Tridiagonal:
    """T after m steps: its diagonal (m,), what stands beside it (m,), whose last is beta_{m+1}, and Q^T (m, n)."""

    diagonal: Tensor
    beside: Tensor
    Q: Tensor

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """mu (m,) in ascending order, S (m, m), and the residuals (m,) of the pairs."""
        beside = self.beside[:-1].diag(1)
        mu, S = torch.linalg.eigh(self.diagonal.diag() + beside + beside.T)
        return mu, S, (self.beside[-1] * S[-1]).abs()


def lanczos(H: Operator, start: Tensor, generator: torch.Generator | None = None) -> Iterator[Tridiagonal]:
    """T after 1, 2, ..., n steps from `start` (n,)."""
    n, tiny = len(start), torch.finfo(start.dtype).eps
    diagonal, beside, Q = [], [], start.new_zeros(0, n)
    q, scale = start / start.norm(), 0.0
    for m in range(1, n + 1):
        Q = torch.cat([Q, q[None]])
        w = _times(H, q[None])[0]
        scale = max(scale, w.norm().item())
        diagonal.append(q @ w)
        beta, q = _beyond(Q, w)
        if beta <= n * tiny * scale:  # the steps so far span an invariant space
            beta = torch.zeros_like(beta)
            q = _beyond(Q, _normal(start, generator))[1] if m < n else q
        beside.append(beta)
        yield Tridiagonal(torch.stack(diagonal), torch.stack(beside), Q)


def eigenpairs(
    loss: Loss,
    params: Iterable[Tensor] | None = None,
    data: object = None,
    *,
    count: int = 1,
    which: str = "largest",
    tolerance: float = 1e-6,
    most_products: int | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """`count` eigenvalues (count,) from one end of the spectrum, or the largest in magnitude, and eigenvectors (count, n).

    The one furthest out comes first. Residuals are at most `tolerance` times the eigenvalue, or rounding: n eps |H|. Raises
    RuntimeError where `most_products`, n by default, are not enough. `options` are those of an `Objective`.

    >>> values, vectors = eigenpairs(lambda theta: 3 * theta[0][0] ** 2 - theta[0][1] ** 2, [torch.ones(2)], count=2)
    >>> values.round(decimals=4)
    tensor([ 6., -2.])
    """
    H = _operator(loss, params, data, **options)
    n = _size(H)
    most = n if most_products is None else min(n, most_products)
    one_of(ENDS).check(which=which)
    Must(f"an integer from 1 to {n}", lambda x: COUNT.admits(x) and x <= n).check(count=count)
    for m, T in enumerate(lanczos(H, _normal(flat(H.params), generator), generator), 1):
        if m >= count and (m % CHECK_EVERY == 0 or m == most):
            mu, S, residuals = T.ritz()
            far = {"largest": -mu, "smallest": mu, "magnitude": -mu.abs()}[which].argsort()[:count]
            rounding = n * torch.finfo(mu.dtype).eps * mu.abs().max()
            if (residuals[far] <= (tolerance * mu[far].abs()).clamp(min=rounding)).all():
                return mu[far], S[:, far].T @ T.Q
        if m == most:
            break
    raise RuntimeError(f"{count} eigenpairs did not converge in {most} products: allow more, or a larger tolerance")


def condition_number(
    loss: Loss,
    params: Iterable[Tensor] | None = None,
    data: object = None,
    *,
    tolerance: float = 1e-6,
    most_products: int | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> float:
    """Largest over smallest eigenvalue of a positive definite H, by `eigenpairs`. Raises ValueError where it is not.

    >>> round(condition_number(lambda theta: 3 * theta[0] ** 2 + theta[1] ** 2, [torch.tensor(1.0), torch.tensor(1.0)]), 4)
    3.0
    """
    H = _operator(loss, params, data, **options)
    search = {"tolerance": tolerance, "most_products": most_products, "generator": generator}
    smallest, largest = (eigenpairs(H, which=which, **search)[0].item() for which in ("smallest", "largest"))
    if smallest <= _size(H) * torch.finfo(H.params[0].dtype).eps * largest:
        raise ValueError(f"a condition number needs a positive definite matrix, smallest eigenvalue {smallest:.3g}")
    return largest / smallest


@dataclass(frozen=True)
class Density:
    """A spectral density: `nodes` (s, m) with `weights` (s, m), whose sum over m is one."""

    nodes: Tensor
    weights: Tensor

    def moment(self, p: int) -> float:
        """tr(H^p) / n, estimated."""
        return (self.weights * self.nodes**p).sum(1).mean().item()

    def at(self, x: Tensor, width: float) -> Tensor:
        """The density at x (k,), each node widened to a normal curve of standard deviation `width`."""
        away = (x[:, None, None] - self.nodes) / width  # (k, s, m)
        return (self.weights * torch.exp(-(away**2) / 2)).sum(2).mean(1) / (width * math.sqrt(2 * math.pi))


def spectral_density(
    loss: Loss,
    params: Iterable[Tensor] | None = None,
    data: object = None,
    *,
    steps: int,
    probes: int = 1,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Density:
    """The density from `probes` runs of Lanczos, each of `steps` products or, for a smaller H, n.

    >>> density = spectral_density(lambda theta: (theta[0] ** 2).sum(), [torch.ones(5)], steps=3)  # five eigenvalues of 2
    >>> round(density.moment(1), 4), round(density.moment(2), 4)
    (2.0, 4.0)
    """
    COUNT.check(steps=steps, probes=probes)
    H, found = _operator(loss, params, data, **options), []
    for _ in range(probes):
        *_, T = (T for T, _ in zip(lanczos(H, _signs(H, 1, generator)[0], generator), range(steps), strict=False))
        mu, S, _ = T.ritz()
        found.append((mu, S[0] ** 2))
    return Density(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def trace(
    loss: Loss,
    params: Iterable[Tensor] | None = None,
    data: object = None,
    *,
    products: int = 60,
    generator: torch.Generator | None = None,
    **options: Any,
) -> float:
    """The trace by Hutch++, from three times s products, as many as fit into `products`: for Q, for its part, and for the rest.

    It is exact where H has a rank of at most s.

    >>> round(trace(lambda theta: theta[0][0] ** 2 + 2 * theta[0][1] ** 2, [torch.ones(2)]), 4)
    6.0
    """
    at_least(3).check(products=products)
    H = _operator(loss, params, data, **options)
    s = min(products // 3, _size(H))
    Q = torch.linalg.qr(_times(H, _signs(H, s, generator)).T).Q.T  # (s, n), orthonormal rows
    Z = _signs(H, s, generator)
    U = Z - Z @ Q.T @ Q
    return _inner(Q, _times(H, Q)) + _inner(U, _times(H, U)) / s


def _operator(*loss: object, **options: Any) -> Operator:
    H = hessian_of(*loss, **options)
    full_precision(H.params, "a spectrum")
    return H


def _times(H: Operator, V: Tensor) -> Tensor:
    """V H (k, n) for the rows of V (k, n)."""
    return torch.stack([finite(flat(Hv)) for _, Hv in H.products(split(v, H.params) for v in V)])


def _beyond(Q: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Length and direction of what is left of w (n,) beside the rows of Q; taken away twice, against rounding."""
    for _ in range(2):
        w = w - (Q @ w) @ Q
    beta = w.norm()
    return beta, w / beta


def _inner(A: Tensor, B: Tensor) -> float:
    return (A * B).sum().item()


def _size(H: Operator) -> int:
    return sum(p.numel() for p in H.params)


def _signs(H: Operator, count: int, generator: torch.Generator | None) -> Tensor:
    """Probes z (count, n)."""
    return torch.stack([flat(Hutchinson().probe(H.params, generator)) for _ in range(count)])


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.empty(like.shape, dtype=like.dtype, device=device).normal_(generator=generator).to(like.device)
