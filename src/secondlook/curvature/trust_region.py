r"""The trust-region subproblem: the best step of a quadratic model inside a ball, exactly or by conjugate gradients.

    minimise  m(p) = g^T p + p^T H p / 2   over   |p| <= radius                       Nocedal and Wright (2006), chapter 4

p is the solution if and only if, for some mu >= 0, with H + mu I positive semidefinite (their theorem 4.1),

    (H + mu I) p = -g    and    mu (radius - |p|) = 0

Exact:      in H's eigenbasis, with eigenvalues lambda_1 <= lambda_2 <= ... and gamma = Q^T g,

                p_i = -gamma_i / (lambda_i - lambda_1 + sigma),    sigma = mu + lambda_1 >= max(0, lambda_1)

            and sigma is the least one for which |p| <= radius: where that is not the bound itself, the root of
            1/|p| = 1/radius by Newton's method (their algorithm 4.3), which rises to it from a sigma too small.
            Hard case: lambda_1 < 0, gamma_1 = 0 and |p| < radius at sigma = 0. Then p_1 = sqrt(radius^2 - |p|^2), of either
            sign, takes p to the edge. Written in sigma and not in mu, cases that are almost hard lose no digits.
            Eigenvalues below n eps max |lambda| count as zero, and there parts of g below n eps max |gamma| too: a
            direction that neither bends nor slopes but for rounding is not walked.

Steihaug:   conjugate gradients from p = 0 (their algorithm 7.2), which stop at a residual of min(tolerance, sqrt(|g|)) |g| or
            at the edge and, with negative curvature, go to the edge along that direction. H is never formed. The step reduces
            m at least as much as the best one along -g; where g is zero it is zero, also at a saddle.

Cost: an eigendecomposition of n^3; or one product H d for every step of the conjugate gradients, at most n in exact arithmetic.
Deviations: none.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def trust_region_step(g: Tensor, H: Tensor, radius: float) -> Tensor:
    """The exact p (n,) for g (n,) and symmetric H (n, n).

    >>> trust_region_step(torch.tensor([4.0]), torch.eye(1), radius=1.0)
    tensor([-1.])
    """
    eigenvalues, Q = torch.linalg.eigh(H)
    return Q @ in_eigenbasis(Q.T @ g, eigenvalues, radius)


def in_eigenbasis(gamma: Tensor, eigenvalues: Tensor, radius: float) -> Tensor:
    """The exact p (n,) in the eigenbasis; `eigenvalues` (n,) in any order."""
    rounding = len(gamma) * torch.finfo(gamma.dtype).eps
    null = eigenvalues.abs() <= rounding * eigenvalues.abs().max()
    eigenvalues = torch.where(null, 0, eigenvalues)
    gamma = torch.where(null & (gamma.abs() <= rounding * gamma.abs().max()), 0, gamma)
    lowest = int(eigenvalues.argmin())
    least = eigenvalues[lowest].item()
    gaps = eigenvalues - least
    sigma, last = max(0.0, least, (gamma.abs() / radius - gaps).max().item()), -1.0  # below it, a single p_i is too long
    while sigma > last:
        shifted = gaps + sigma
        inverse = torch.where(shifted > 0, 1 / shifted, 0)  # where it is zero, so is gamma
        p = -inverse * gamma
        length = p.norm().item()
        last = sigma
        if length > radius * (1 + 1e-12):
            sigma += length**2 / (inverse @ p**2).item() * (length / radius - 1)
    if least < 0 and length < radius:
        p[lowest] = 0
        p[lowest] = math.copysign(math.sqrt(max(0.0, radius**2 - (p @ p).item())), -gamma[lowest].item())
    return p


def steihaug(
    g: Tensor, product: Callable[[Tensor], Tensor], radius: float, tolerance: float = 0.5, max_products: int | None = None
) -> Tensor:
    """p (n,) by truncated conjugate gradients; `product` maps v (n,) to H v (n,). `max_products` is n by default.

    >>> steihaug(torch.tensor([4.0, 0.0]), lambda v: 2 * v, radius=10.0)  # Newton's step
    tensor([-2.,  0.])
    """
    p, r, d = torch.zeros_like(g), g, -g
    rr = (r @ r).item()
    stop = min(tolerance, rr**0.25) ** 2 * rr
    for _ in range(g.numel() if max_products is None else max_products):
        if rr <= stop:
            break
        Hd = product(d)
        curvature = (d @ Hd).item()
        if curvature <= 0:
            return p + min(_to_the_edge(p, d, radius), key=lambda tau: tau**2 * curvature / 2 - tau * rr) * d
        alpha = rr / curvature
        if (p + alpha * d).norm() >= radius:
            return p + max(_to_the_edge(p, d, radius)) * d
        p = p + alpha * d
        r = r + alpha * Hd
        rr, last = (r @ r).item(), rr
        d = rr / last * d - r
    return p


def _to_the_edge(p: Tensor, d: Tensor, radius: float) -> tuple[float, float]:
    """Both tau with |p + tau d| = radius, for p inside."""
    a, b, c = (d @ d).item(), (p @ d).item(), (p @ p).item() - radius**2
    root = math.sqrt(max(0.0, b * b - a * c))
    q = -(b + math.copysign(root, b))  # no difference of near numbers
    return (q / a, c / q) if q else (-root / a, root / a)
