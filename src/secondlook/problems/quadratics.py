"""Quadratics with a chosen spectrum: the one family on which every optimiser's course can be checked by hand.

    f(theta) = (theta - minimum)^T H (theta - minimum) / 2        g = H (theta - minimum)

H = Q diag(eigenvalues) Q^T with Q uniform among the orthogonal matrices, so that no coordinate axis is special.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quadratic:
    """`H`: (n, n), symmetric. `minimum`: (n,), where f is zero."""

    H: Tensor
    minimum: Tensor

    def value(self, theta: Tensor) -> Tensor:
        """f(theta), a scalar; theta: (n,)."""
        return (theta - self.minimum) @ self.H @ (theta - self.minimum) / 2

    def gradient(self, theta: Tensor) -> Tensor:
        """g, (n,); theta: (n,)."""
        return self.H @ (theta - self.minimum)


def spectrum(condition: float, n: int) -> Tensor:
    """n eigenvalues from 1 to `condition`, evenly spaced in the logarithm. Float64."""
    return torch.logspace(0, torch.log10(torch.tensor(condition, dtype=torch.float64)).item(), n, dtype=torch.float64)


def rotation(n: int, generator: torch.Generator) -> Tensor:
    """An orthogonal (n, n) matrix, uniform (Haar): Q of a Gaussian matrix's QR, with the signs that make diag(R) positive.

    Source: Mezzadri (2007), "How to generate random matrices from the classical compact groups", section 5.
    """
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def rotated(eigenvalues: Tensor, generator: torch.Generator) -> Quadratic:
    """The quadratic with these eigenvalues (n,), a random rotation, and its minimum at the origin."""
    q = rotation(len(eigenvalues), generator)
    H = (q * eigenvalues) @ q.T
    return Quadratic((H + H.T) / 2, torch.zeros_like(eigenvalues))
