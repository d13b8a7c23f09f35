r"""One update of an ensemble by an observation, three ways, for many ensembles at once.

Axes: S runs, M members, d components of the state, q observations; ... any number of leading axes. h_i = h(x_i) is what a
member predicts, y_i = h_i + r eps_i its simulated observation, y the real one, rho (q,) in [0, 1] a taper of the observations.

    a_i = x_i - mean x,   s_i = sqrt(rho) (h_i - mean h) / r              anomalies
    K   = (sqrt(rho) / r) (sum_i s_i s_i^T + (M - 1) I)^-1 sum_i s_i a_i^T   gain, transposed (q, d)

    ensemble Kalman filter      x_i <- x_i + K^T (y - y_i)                                     perturbed observations
    conditional mean filter     x_i <- x_i + phi(y) - phi(y_i),   phi(y) ~ E[X | Y = y]        phi(y) = K^T y + network(y)
    square root filter (ETKF)   mean x + K^T (y - mean h);  a_i <- a_i - sum_j (s_i^T U f U^T s_j) a_j

with sum_i s_i s_i^T = (M - 1) U lambda U^T and f = 1 / (M - 1) / (1 + lambda + sqrt(1 + lambda)), which is the symmetric root
of the Kalman filter's covariance. The members are then drawn anew with exactly that covariance (`redrawn`), as a random
rotation that keeps the mean would: without it a square root filter of many members grows outliers.

Sources: Evensen (1994), Burgers and others (1998); Hoang and others (2021); Bishop and others (2001), Sakov and Oke (2008).
Deviations: localisation is by windows (`Windows`), in which the taper multiplies 1 / r^2, as in the local ETKF of Hunt and
others (2007).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-2, keepdim=True)


def gain(X: Tensor, H: Tensor, r: float, rho: Tensor) -> Tensor:
    """K (..., q, d) of the ensemble X (..., M, d) with predictions H (..., M, q)."""
    s = centred(H) * (rho.sqrt() / r)[..., None, :]
    gram = s.mT @ s + (X.shape[-2] - 1) * torch.eye(s.shape[-1], dtype=X.dtype)
    return (rho.sqrt() / r)[..., None] * torch.linalg.solve(gram, s.mT @ centred(X))


def enkf(X: Tensor, Y: Tensor, y: Tensor, K: Tensor) -> Tensor:
    """The members (..., M, d) after the observation y (..., q), with simulated observations Y (..., M, q)."""
    return X + (y[..., None, :] - Y) @ K


def etkf(X: Tensor, H: Tensor, y: Tensor, r: float, rho: Tensor) -> Tensor:
    """The members (..., M, d), of the symmetric square root filter."""
    s, a, M = centred(H) * (rho.sqrt() / r)[..., None, :], centred(X), X.shape[-2]
    lam, U = torch.linalg.eigh(s.mT @ s / (M - 1))
    lam = lam.clamp(min=0)
    f = 1 / (M - 1) / (1 + lam + (1 + lam).sqrt())
    mean = X.mean(-2, keepdim=True) + (y[..., None, :] - H.mean(-2, keepdim=True)) @ gain(X, H, r, rho)
    return mean + a - s @ (U * f[..., None, :]) @ U.mT @ (s.mT @ a)


def redrawn(X: Tensor, generator: torch.Generator) -> Tensor:
    """Other members (..., M, d) with the same mean and covariance; M > d."""
    a = centred(X)
    lam, V = torch.linalg.eigh(a.mT @ a)
    Q, _ = torch.linalg.qr(centred(torch.randn(X.shape, generator=generator, dtype=X.dtype)))
    return X.mean(-2, keepdim=True) + Q @ (V * lam.clamp(min=0).sqrt()[..., None, :]).mT


def inflated(X: Tensor, factor: Tensor | float) -> Tensor:
    """The anomalies times a factor, (S, 1, 1) where every run has its own."""
    return X.mean(-2, keepdim=True) + factor * centred(X)


def taper(distance: Tensor, radius: float) -> Tensor:
    """Gaspari and Cohn's correlation (1999, Eq. 4.10), which ends at `radius`."""
    z = 2 * distance / radius
    near = 1 - z**2 * (5 / 3 - z * (5 / 8 + z * (1 / 2 - z / 4)))
    far = 4 - z * (5 - z * (5 / 3 + z * (5 / 8 - z * (1 / 2 - z / 12)))) - 2 / (3 * z.clamp(min=1))
    return torch.where(z < 1, near, torch.where(z < 2, far, 0.0)).clamp(min=0)


@dataclass(frozen=True)
class Windows:
    """Which observations update what. `index` (d, w): component j of a ring is updated from the w observations index[j], with
    taper `rho` (d, w). Without an index all are updated together from all, rho (q,) being ones."""

    rho: Tensor
    index: Tensor | None = None

    def states(self, X: Tensor) -> Tensor:
        """(S, M, d) to (S, d, M, 1)."""
        return X if self.index is None else X.mT[..., None]

    def whole(self, X: Tensor) -> Tensor:
        """(S, d, M, 1) to (S, M, d)."""
        return X if self.index is None else X[..., 0].mT

    def members(self, Y: Tensor) -> Tensor:
        """(S, M, q) to (S, d, M, w)."""
        return Y if self.index is None else Y[..., self.index].movedim(-2, -3)

    def observed(self, y: Tensor) -> Tensor:
        """(S, q) to (S, d, w)."""
        return y if self.index is None else y[..., self.index]


def everything(q: int, dtype: torch.dtype = torch.float64) -> Windows:
    return Windows(torch.ones(q, dtype=dtype))


def ring(d: int, observed: Tensor, radius: float, dtype: torch.dtype = torch.float64) -> Windows:
    """Around every component the observed ones that are nearer than `radius`; where there is one less, a weight is 0."""
    apart = (torch.arange(d)[:, None] - observed).abs()
    distance, order = torch.minimum(apart, d - apart).to(dtype).sort(dim=1, stable=True)
    most = int((distance < radius).sum(1).max())
    return Windows(taper(distance[:, :most], radius), order[:, :most])
