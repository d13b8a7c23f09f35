r"""Priors whose conditional mean is known: scalar ones by quadrature, mixtures of Gaussians in many dimensions in closed form.

Scalar, on a grid of x:

    phi(y) = E[X | Y = y] = int x p(x) N(y; h(x), r^2) dx / int p(x) N(y; h(x), r^2) dx

by the trapezoidal rule, which is exact to rounding for smooth densities that fade towards both ends. E Var(X | Y) and the law
of Y come the same way.

Many dimensions, Y = X + r eps, with modes m_k of equal weight and covariance tau^2 I around them:

    E[X | Y = y] = sum_k w_k (m_k + tau^2 / (tau^2 + r^2) (y - m_k)),   w_k ~ N(y; m_k, (tau^2 + r^2) I)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

POINTS = 2001  # of each grid


@dataclass(frozen=True)
class Scalar:
    """A prior density (up to a factor) on [low, high], how it is drawn, and the observation h(x) + r eps."""

    density: Callable[[np.ndarray], np.ndarray]
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    low: float
    high: float
    r: float
    h: Callable[[np.ndarray], np.ndarray] = lambda x: x

    @cached_property
    def x(self) -> np.ndarray:
        return np.linspace(self.low, self.high, POINTS)

    @cached_property
    def y(self) -> np.ndarray:
        """Six deviations of the noise beyond what the prior can give."""
        seen = self.h(self.x)
        return np.linspace(seen.min() - 6 * self.r, seen.max() + 6 * self.r, POINTS)

    @cached_property
    def _joint(self) -> np.ndarray:
        """p(x) p(y | x) on the grids of y (rows) and x, up to a factor."""
        return self.density(self.x) * np.exp(-((self.y[:, None] - self.h(self.x)) ** 2) / (2 * self.r**2))

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """E[X | y] and Var(X | y) on the grid of y."""
        mass = self._joint.sum(1)
        mean = self._joint @ self.x / mass
        return mean, np.maximum((self._joint * (self.x - mean[:, None]) ** 2).sum(1) / mass, 0)

    @cached_property
    def law(self) -> np.ndarray:
        """Probabilities of the points of the grid of y."""
        mass = self._joint.sum(1)
        return mass / mass.sum()

    @property
    def expected_variance(self) -> float:
        """E Var(X | Y)."""
        return float(self.law @ self.moments[1])

    def conditional_mean(self, y: np.ndarray) -> np.ndarray:
        return np.interp(y, self.y, self.moments[0])

    def quantile(self, share: float) -> float:
        """Of Y."""
        return float(np.interp(share, self.law.cumsum(), self.y))


def _modes(x: np.ndarray) -> np.ndarray:
    return sum(np.exp(-((x - m) ** 2) / (2 * 0.5**2)) for m in (-1.5, 1.5))


SCALARS = {
    "skewed": Scalar(lambda x: x * np.exp(-x), lambda rng, shape: rng.gamma(2, size=shape), 0, 40, 1.0),
    "two modes": Scalar(
        _modes, lambda rng, shape: rng.choice((-1.5, 1.5), shape) + 0.5 * rng.standard_normal(shape), -6, 6, 1.0
    ),
    "square observed": Scalar(
        lambda x: np.exp(-((x - 0.5) ** 2) / 2), lambda rng, shape: 0.5 + rng.standard_normal(shape), -7, 8, 1.0, np.square
    ),
}


@dataclass(frozen=True)
class Mixture:
    """In d dimensions, tau = 0.5 and r = 1. 'joint': two modes, +-2 along the diagonal, so that phi bends in one direction;
    'components': every component has modes +-1.5 of its own, so that phi bends in all."""

    kind: str
    d: int
    tau: float = 0.5
    r: float = 1.0

    @property
    def mode(self) -> float:
        """Of every component."""
        return 2 / self.d**0.5 if self.kind == "joint" else 1.5

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(*shape, d)."""
        signs = torch.rand(*shape, 1 if self.kind == "joint" else self.d, generator=generator) < 0.5
        X = torch.where(signs, self.mode, -self.mode).double().expand(*shape, self.d)
        return X + self.tau * torch.randn(*shape, self.d, generator=generator, dtype=torch.float64)

    def conditional_mean(self, y: Tensor) -> Tensor:
        """(..., d) to (..., d). w_+ - w_- of a mode +-m is tanh(m^T y / (tau^2 + r^2))."""
        total = self.tau**2 + self.r**2
        score = self.mode * (y.sum(-1, keepdim=True) if self.kind == "joint" else y) / total
        shrink = self.tau**2 / total
        return shrink * y + (1 - shrink) * self.mode * torch.tanh(score)


def by_likelihood(X: Tensor, y: Tensor, r: float) -> Tensor:
    """The conditional mean by the members' own likelihoods, sum_i w_i x_i with w_i ~ N(y; x_i, r^2 I): X (M, d), y (T, d)."""
    weights = torch.softmax(-torch.cdist(y, X).square() / (2 * r**2), -1)
    return weights @ X
