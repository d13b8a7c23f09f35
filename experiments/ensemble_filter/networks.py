r"""A small network for every ensemble at once, trained on it at every update, and trusted only where it proves itself.

The conditional mean is the function phi with the least E |X - phi(Y)|^2. Here phi(y) = K^T y + sigma N(z), where K is the
Kalman gain, z the observation in units of its own spread, times sqrt(rho), and

    N(z) = tanh(z W + b) V + c,    V = c = 0 at first: the training begins at the ensemble Kalman filter.

N learns the residual (x_i - mean x - K^T (y_i - mean h)) / sigma of the members from y_i = h_i + r eps_i. The noise eps is
drawn several times, which lowers the variance of the loss and costs no forecast: a gradient is of one draw, in turn, or of all.
The last HELD_OUT of the members are not trained on: a component of the state takes the network only where it lowers the squared
error of these, over as many draws.

Axes: as in analysis.py; h hidden units. Every ensemble of the leading axes has weights of its own, and the loss is the sum of
their mean squares, so that each is trained as if it were alone.

Source: Hoang and others (2021), of which the abstract could be read: linear part, reduced variance, choice by component. Size,
training and the share that is held out are ours.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.optim import AdaHessian

from .analysis import Windows, centred, gain

HELD_OUT = 0.2
GRADIENTS = {"Adam": 1, "AdaHessian": 3, "L-BFGS": 1}  # a step or evaluation in gradients: a product with the Hessian is two
Batch = tuple[Tensor, Tensor]  # inputs z (..., M, q) and residuals (..., M, d)


@dataclass(frozen=True)
class Training:
    """How a network is trained: hidden units, the optimiser, its rate, the gradients that it may take at an update, draws of
    the noise, and whether every gradient is `whole`, of all draws."""

    hidden: int
    method: str
    lr: float
    gradients: int
    draws: int
    whole: bool = False


def start(shape: Iterable[int], q: int, d: int, hidden: int, generator: torch.Generator) -> list[Tensor]:
    """W (..., q, h), b (..., 1, h), V (..., h, d), c (..., 1, d)."""
    W = torch.randn(*shape, q, hidden, generator=generator) / q**0.5
    b = torch.randn(*shape, 1, hidden, generator=generator)
    return [W, b, torch.zeros(*shape, hidden, d), torch.zeros(*shape, 1, d)]


def network(theta: list[Tensor], z: Tensor) -> Tensor:
    W, b, V, c = theta
    return torch.tanh(z @ W + b) @ V + c


def loss(theta: list[Tensor], z: Tensor, target: Tensor) -> Tensor:
    """The sum over ensembles of the mean square."""
    return (network(theta, z) - target).square().sum(-1).mean(-1).sum()


def train(theta: list[Tensor], batches: list[Batch], how: Training, generator: torch.Generator) -> list[Tensor]:
    """The weights after `how.gradients` gradients, or as many steps as fit into them, on the batches in turn."""
    if how.method == "L-BFGS":
        return lbfgs(theta, *batches[0], how.gradients)
    theta = [part.requires_grad_() for part in theta]
    if how.method == "Adam":
        optimizer = torch.optim.Adam(theta, how.lr, fused=True)
    else:
        optimizer = AdaHessian(theta, how.lr, generator=generator)
    backward = getattr(optimizer, "backward", Tensor.backward)
    for i in range(how.gradients // GRADIENTS[how.method]):
        optimizer.zero_grad()
        backward(loss(theta, *batches[i % len(batches)]))
        optimizer.step()
    return [part.detach() for part in theta]


def lbfgs(theta: list[Tensor], z: Tensor, target: Tensor, evaluations: int) -> list[Tensor]:
    """Torch's L-BFGS with its line search, for one ensemble (the first axis) after the other."""
    found = []
    for i in range(len(z)):
        own = [part[i].clone().requires_grad_() for part in theta]
        limits = {"max_iter": evaluations, "max_eval": evaluations}
        optimizer = torch.optim.LBFGS(own, history_size=10, line_search_fn="strong_wolfe", **limits)

        def evaluate(own=own, i=i, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            value = loss(own, z[i], target[i])
            value.backward()
            return value

        optimizer.step(evaluate)
        found.append([part.detach() for part in own])
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


@dataclass(frozen=True)
class Learnt:
    """phi less a constant, for every ensemble: `correction` is its nonlinear part, `used` (..., d) says which components take
    it, and `held_out` (..., d) is their squared error with it over that without."""

    K: Tensor
    correction: Callable[[Tensor], Tensor]
    used: Tensor
    held_out: Tensor

    def __call__(self, Y: Tensor) -> Tensor:
        """(..., M, q) to (..., M, d)."""
        return Y @ self.K + self.used[..., None, :] * self.correction(Y)


def learn(X: Tensor, H: Tensor, r: float, windows: Windows, how: Training, generator: torch.Generator) -> Learnt:
    """Fit phi to the members X (S, M, d) and their predictions H (S, M, q); the result takes windows of observations. Networks
    are in single precision."""
    x, local, rho = windows.states(X), windows.members(H), windows.rho
    K, h, a = gain(x, local, r, rho), local.mean(-2, keepdim=True), centred(x)
    sigma, scale = x.std(-2, keepdim=True), (local.var(-2, keepdim=True) + r**2).rsqrt() * rho.sqrt()[..., None, :]

    def batch(members: slice) -> Batch:
        H_, a_ = H[:, members], a[..., members, :]
        eps = torch.randn(how.draws, *H_.shape, generator=generator, dtype=H.dtype)
        dy = windows.members(H_ + r * eps) - h
        return (dy * scale).float(), ((a_ - dy @ K) / sigma).float()

    kept = round(X.shape[-2] * (1 - HELD_OUT))
    drawn, (z, target) = batch(slice(kept)), batch(slice(kept, None))
    batches = [tuple(torch.cat(tuple(part), -2) for part in drawn)] if how.whole else list(zip(*drawn, strict=True))
    theta = start(x.shape[:-2], K.shape[-2], x.shape[-1], how.hidden, generator)
    theta = train(theta, batches, how, generator)
    held_out = (network(theta, z) - target).square().mean((0, -2)) / target.square().mean((0, -2))
    return Learnt(K, lambda y: sigma * network(theta, ((y - h) * scale).float()).to(X.dtype), held_out < 1, held_out)


def better(one: Learnt, other: Learnt) -> Learnt:
    """Of two networks on one linear part: every component has that with the lower squared error on held-out members."""
    first = one.held_out < other.held_out

    def correction(y: Tensor) -> Tensor:
        return torch.where(first[..., None, :], one.correction(y), other.correction(y))

    held_out = torch.minimum(one.held_out, other.held_out)
    return Learnt(one.K, correction, held_out < 1, held_out)


def conditional_mean(X: Tensor, Y: Tensor, y: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
    """The members (..., M, d) after y (..., q): x_i + phi(y) - phi(y_i), with simulated observations Y (..., M, q)."""
    return X + phi(y[..., None, :]) - phi(Y)
