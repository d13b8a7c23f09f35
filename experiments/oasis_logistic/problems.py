r"""Regularised logistic regression and non-linear least squares, on data at hand and on generated ones.

    logistic    f(theta) = 1/N sum_i [ log(1 + e^{u_i}) - y_i u_i ] + penalty/2 |theta|^2,      u = X theta,  y_i in {0, 1}
    squares     f(theta) = 1/N sum_i ( y_i - sigma(u_i) )^2         + penalty/2 |theta|^2,      sigma(u) = 1 / (1 + e^{-u})

Squares are not convex. All descents start at theta_0 = 0, of the network at random, and are judged by the gap, the share of the
way that is left:

    gap(theta) = ( f(theta) - f* ) / ( f(theta_0) - f* )

with f* = f(theta*) where the gradient vanishes to rounding (`newton`). Everything is in float64.

    cancer, digits      drawn from the data that scikit-learn carries: tumours (569 x 30, standardised), odd and even digits
                        (1797 x 64, pixels from 0 to 1); a column of ones is added, and penalty = 1/N
    rotated             generated: the logistic Hessian at 0 has the eigenvalues h_1 ... h_n, spaced evenly in the logarithm
                        from 1 to 1/condition, along random directions
    sparse              generated: features are there in a share of the examples that falls evenly in the logarithm from 1/2
                        to 1/20; the Hessian at 0 has the diagonal h_1 ... h_n, and beside it only what features share

    network             a perceptron with tanh on the ten digits, mean cross-entropy, no penalty: not convex; its least loss is
                        not known, so that f* = 0 and gap = f(theta) / f(theta_0)

For generated data penalty = 1/(2 condition), and labels are drawn with P(y = 1) = sigma(x^T theta_true), where every direction
(rotated) or feature (sparse) has the same expected part in the spread of x^T theta_true, so that none is negligible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, softplus

from secondlook.problems.quadratics import rotation, spectrum

FITS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # loss of an example from u and y
    "logistic": lambda u, y: softplus(u, threshold=40) - y * u,
    "squares": lambda u, y: (y - u.sigmoid()).square(),
}
STEEPEST = {"logistic": 1 / 4, "squares": 0.1541}  # upper bounds of |d^2 loss / du^2|; the second is 2 s^2 (1 - s)(2 - 3 s) at
# s = (15 - sqrt 33)/24, rounded up
COMMON, RARE = 0.5, 0.05  # shares of examples that have the first and the last sparse feature
SPREAD = 2.0  # of x^T theta_true: its standard deviation
ARMIJO = 1e-4
STEPS = 200  # of Newton's method, at most
HIDDEN, CLASSES = 32, 10  # of the network


@dataclass(frozen=True)
class Problem:
    """X: (N, n). y: (N,), zeros and ones. penalty: of theta's square, halved."""

    X: Tensor
    y: Tensor
    penalty: float
    fit: str = "logistic"

    def losses(self, theta: Tensor, batch: Tensor | slice = slice(None)) -> Tensor:
        """f at each column of theta (n, R), on the examples `batch`: (R,)."""
        u = self.X[batch] @ theta  # (N_b, R)
        return FITS[self.fit](u, self.y[batch, None]).mean(0) + self.penalty / 2 * theta.square().sum(0)

    def loss(self, theta: Tensor) -> Tensor:
        """f at theta (n,), a scalar."""
        return self.losses(theta[:, None])[0]

    @property
    def start(self) -> Tensor:
        """theta_0: (n,)."""
        return torch.zeros_like(self.X[0])

    @cached_property
    def smoothness(self) -> float:
        """L: no eigenvalue of the Hessian is larger anywhere."""
        return STEEPEST[self.fit] * torch.linalg.matrix_norm(self.X, 2).item() ** 2 / len(self.X) + self.penalty

    @cached_property
    def minimum(self) -> Tensor:
        """theta*: (n,)."""
        return newton(self.loss, self.start)

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """f(theta_0) and f*."""
        return self.loss(self.start), self.loss(self.minimum)

    def gaps(self, losses: Tensor) -> Tensor:
        """The gap of every loss."""
        first, least = self.ends
        return (losses - least) / (first - least)

    def hessian(self, theta: Tensor) -> Tensor:
        """H at theta: (n, n)."""
        return hessian(self.loss, theta)


@dataclass(frozen=True)
class Network:
    """theta holds W (hidden, pixels), b (hidden,), V (classes, hidden), c (classes,); the outputs of x are V tanh(W x + b) + c.

    X: (N, pixels). y: (N,), the classes. start: theta_0 (n,).
    """

    X: Tensor
    y: Tensor
    start: Tensor
    smoothness: float = 1.0  # not known: rates of gradient descent are in units of 1

    def losses(self, theta: Tensor, batch: Tensor | slice = slice(None)) -> Tensor:
        """f at each column of theta (n, R), on the examples `batch`: (R,)."""
        return torch.stack([self.loss(column, batch) for column in theta.T])

    def loss(self, theta: Tensor, batch: Tensor | slice = slice(None)) -> Tensor:
        """f at theta (n,), a scalar."""
        pixels = self.X.shape[1]
        W, b, V, c = theta.split([HIDDEN * pixels, HIDDEN, CLASSES * HIDDEN, CLASSES])
        h = torch.tanh(linear(self.X[batch], W.unflatten(0, (HIDDEN, pixels)), b))  # (N_b, hidden)
        return cross_entropy(linear(h, V.unflatten(0, (CLASSES, HIDDEN)), c), self.y[batch])

    @cached_property
    def first(self) -> Tensor:
        """f(theta_0)."""
        return self.loss(self.start)

    def gaps(self, losses: Tensor) -> Tensor:
        """The gap of every loss."""
        return losses / self.first


def hessian(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return torch.func.jacrev(torch.func.grad(loss))(theta)


def newton(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """A minimum of `loss` to rounding, from theta (n,): steps |H|^-1 g, halved until the loss falls enough; where rounding lets
    it fall no more, whole steps as long as they halve the gradient. RuntimeError after STEPS steps."""
    gradient = torch.func.grad(loss)
    for _ in range(STEPS):
        g, f = gradient(theta), loss(theta)
        eigenvalues, Q = torch.linalg.eigh(hessian(loss, theta))
        step = -Q @ ((Q.T @ g) / eigenvalues.abs())
        length = 1.0
        while length > 1e-3 and not loss(theta + length * step) < f + ARMIJO * length * (g @ step):
            length /= 2
        if length <= 1e-3:
            if not gradient(theta + step).norm() < g.norm() / 2:
                return theta
            length = 1.0
        theta = theta + length * step
    raise RuntimeError(f"Newton's method has found no minimum in {STEPS} steps: the gradient's norm is {g.norm().item():.1e}")


@cache
def _shipped(name: str) -> tuple[Tensor, Tensor]:
    """x, scaled, and y of all examples."""
    from sklearn import datasets

    if name == "cancer":
        x, y = map(torch.from_numpy, datasets.load_breast_cancer(return_X_y=True))
        return (x - x.mean(0)) / x.std(0), y
    x, y = map(torch.from_numpy, datasets.load_digits(return_X_y=True))
    return x / 16, y


def _drawn(name: str, seed: int, examples: int) -> tuple[Tensor, Tensor]:
    """x and y of so many of the examples."""
    x, y = _shipped(name)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:examples]
    return x[chosen], y[chosen]


def shipped(seed: int, examples: int, features: int, *, name: str, fit: str) -> Problem:
    """So many of the examples, drawn; they have their own number of features."""
    x, y = _drawn(name, seed, examples)
    return Problem(torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1), (y % 2).to(x.dtype), 1 / len(x), fit)


def network(seed: int, examples: int, features: int) -> Network:
    """So many of the digits, drawn; every layer starts at U(-1, 1) / sqrt(its inputs), as torch's own do."""
    x, y = _drawn("digits", seed, examples)
    generator = torch.Generator().manual_seed(seed)
    pixels = x.shape[1]
    layers = [(HIDDEN * (pixels + 1), pixels), (CLASSES * (HIDDEN + 1), HIDDEN)]  # numbers, inputs
    start = [(2 * torch.rand(count, generator=generator, dtype=x.dtype) - 1) / inputs**0.5 for count, inputs in layers]
    return Network(x, y, torch.cat(start))


def rotated(seed: int, examples: int, features: int, *, condition: float) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    h, penalty = _curvatures(condition, features)
    Q, _ = torch.linalg.qr(torch.randn(examples, features, generator=generator, dtype=h.dtype))
    V = rotation(features, generator)
    scores = Q * (4 * examples * (h - penalty)).sqrt()  # (N, n): x in the eigenbasis of the Hessian at 0
    return Problem(scores @ V.T, _labels(scores, generator), penalty)


def sparse(seed: int, examples: int, features: int, *, condition: float) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    h, penalty = _curvatures(condition, features)
    shares = COMMON * spectrum(RARE / COMMON, features)
    values = torch.randn(examples, features, generator=generator, dtype=h.dtype)
    present = torch.rand(examples, features, generator=generator, dtype=h.dtype) < shares
    X = values * present
    X = X * ((4 * examples * (h - penalty)).sqrt() / X.norm(dim=0))
    shuffled = X[:, torch.randperm(features, generator=generator)]  # rare features are not always the small ones
    return Problem(shuffled, _labels(shuffled, generator), penalty)


def _curvatures(condition: float, features: int) -> tuple[Tensor, float]:
    """h: (n,), and the penalty."""
    return 1 / spectrum(condition, features), 1 / (2 * condition)


def _labels(X: Tensor, generator: torch.Generator) -> Tensor:
    """y from a theta_true whose components have the same part in the spread SPREAD of X theta_true."""
    root = X.square().mean(0).sqrt()
    theta = SPREAD * torch.randn(X.shape[1], generator=generator, dtype=X.dtype) / (root * X.shape[1] ** 0.5)
    return torch.bernoulli((X @ theta).sigmoid(), generator=generator)


PROBLEMS: dict[str, Callable[[int, int, int], Problem | Network]] = {  # of (seed, examples, features)
    "cancer": partial(shipped, name="cancer", fit="logistic"),
    "digits": partial(shipped, name="digits", fit="logistic"),
    "cancer, squares": partial(shipped, name="cancer", fit="squares"),
    "digits, squares": partial(shipped, name="digits", fit="squares"),
    "rotated 1e2": partial(rotated, condition=1e2),
    "rotated 1e3": partial(rotated, condition=1e3),
    "rotated 1e4": partial(rotated, condition=1e4),
    "sparse 1e2": partial(sparse, condition=1e2),
    "sparse 1e4": partial(sparse, condition=1e4),
    "sparse 1e6": partial(sparse, condition=1e6),
    "network": network,
}
