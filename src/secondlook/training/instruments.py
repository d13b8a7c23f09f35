r"""Instruments for any training loop: how far each epoch goes, where it points, and what the loss looks like along it.

    recorder = Recorder(optimizer, size=1000)
    for epoch in range(epochs):
        ...                                     # any loop that calls optimizer.step(); nothing in it changes
        rows += recorder.epoch()

The recorder hears of every step of the optimiser through torch's hook. Rows are dictionaries with step (the epoch e, from 1),
metric, value and, where it is named below, `at`:

    step size           |s_e|,  s_e = theta at the end of epoch e minus theta at its start
    travelled           sum of |s_1| ... |s_e|
    displacement        |theta_e - theta_0|
    cosine              cos(s_e, s_j) for every earlier epoch j; at: j
    inner step size     mean norm of the optimiser's steps inside the epoch, of those that are looked at
    inner cosine        mean cosine of neighbouring ones

and those of a `LocalShape`, every so many epochs, from an `Objective` over the data that it is given:

    loss along          L(theta_e + a s_e); at: a
    curvature along     s_e^T H s_e / s_e^T s_e
    noise scale         tr(Sigma) / |g|^2, Sigma the covariance of one example's gradient: the batch whose noise equals |g|
    top eigenvalue      of H
    trace               of H, by Hutch++

The noise scale is the "simple" one of McCandlish et al. (2018), "An empirical model of large-batch training". From M batches
of b examples with gradients g_i, as in their appendix A.1,

    |g|^2 ~ (M |g_mean|^2 - mean |g_i|^2) / (M - 1),    tr(Sigma) ~ b M / (M - 1) (mean |g_i|^2 - |g_mean|^2)

each unbiased, their ratio not.

Cost: a step costs a point of a `Path`, or three points in `every` steps. An epoch costs one point more and T inner products of
k numbers. A LocalShape takes a pass over its data for every loss, M gradients, and the products of Lanczos and Hutch++ and one
more. Memory: two paths, with 4 n numbers each. On a CPU a point is dear beside a step that does little with each parameter: an
SGD step of a perceptron 784-256-256-10 on 128 examples, with epochs of 100 steps, took 1.18 times as long with a recorder that
looks at every step, and 1.05 times with every=10 (size 1000, medians).

Deviations: none. A step that does not go through `optimizer.step`, as one compiled in another object, is not heard of.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from secondlook.arguments import COUNT, Must
from secondlook.curvature.batches import count
from secondlook.curvature.objective import Objective
from secondlook.curvature.products import Operator
from secondlook.curvature.spectrum import eigenpairs, trace
from secondlook.curvature.vectors import split
from secondlook.training.path import Path

MULTIPLES = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)  # -1 is the start of the epoch, 0 its end
EVERY = Must("1 or an integer above 2", lambda x: isinstance(x, int) and (x == 1 or x > 2))


class LocalShape:
    """What the loss of `objective` looks like where the parameters are, along a step s.

    Arguments:
        objective   at the parameters of the optimiser, in its order; several batches of one size, for the noise scale
        every       epochs from one look to the next; the first is after epoch `every`
        products    Hessian-vector products for the trace, and at most for the eigenvalue
        tolerance   of the eigenvalue, relative
        multiples   a, in units of s
        generator   of the probes
    """

    def __init__(
        self,
        objective: Objective,
        every: int = 1,
        *,
        products: int = 60,
        tolerance: float = 1e-2,
        multiples: tuple[float, ...] = MULTIPLES,
        generator: torch.Generator | None = None,
    ):
        COUNT.check(every=every)
        self.objective, self.every, self.products, self.tolerance = objective, every, products, tolerance
        self.multiples, self.generator = multiples, generator

    def __call__(self, step: Tensor) -> Iterator[dict]:
        H, least = self.objective, min(self.products, len(step))
        for a, loss in zip(self.multiples, losses_along(H, step, self.multiples), strict=True):
            yield {"metric": "loss along", "at": a, "value": loss}
        top = eigenpairs(H, tolerance=self.tolerance, most_products=least, generator=self.generator)[0].item()
        found = {
            "curvature along": curvature_along(H, step),
            "noise scale": noise_scale(H),
            "top eigenvalue": top,
            "trace": trace(H, products=self.products, generator=self.generator),
        }
        yield from ({"metric": metric, "value": value} for metric, value in found.items())


class Recorder:
    """Rows of every epoch of a training run with `optimizer`; see the top of this file.

    Arguments:
        optimizer   any, with all its groups; its step is listened to until `remove()`
        size, seed  what is kept of an epoch's step: see `Path`. 0 keeps nothing, and gives no cosines of epochs
        shape       a `LocalShape`, or None
        every       1 looks at every step of the optimiser, k > 2 at the last two of every k: cheaper for a large model
    """

    def __init__(
        self,
        optimizer: Optimizer,
        size: int | None = None,
        seed: int = 0,
        shape: LocalShape | None = None,
        every: int = 1,
    ):
        EVERY.check(every=every)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self.epochs = Path(params, size, seed)
        self.inner = Path(params, size=0)  # of this epoch
        self.shape, self.every = shape, every
        self._heard = 0  # steps of this epoch
        self._hook = optimizer.register_step_post_hook(self._listen)

    def _listen(self, *_) -> None:
        self._heard += 1
        before_last = -self._heard % self.every  # steps until the last of these `every`
        if before_last < 2:
            self.inner.record()
        elif before_last == 2:
            self.inner.jump()

    def epoch(self) -> list[dict]:
        """The rows of the epoch that ends here; the next one begins."""
        self.epochs.record()
        e = len(self.epochs)
        found = {
            "step size": self.epochs.norms[-1].item(),
            "travelled": self.epochs.travelled,
            "displacement": self.epochs.displacement,
            "inner step size": self.inner.norms.mean().item(),
            "inner cosine": self.inner.cosines.nanmean().item(),
        }
        rows = [{"metric": metric, "value": value} for metric, value in found.items()]
        if self.epochs.size != 0:
            *earlier, last = self.epochs.kept
            rows += ({"metric": "cosine", "at": j, "value": _cosine(last, s)} for j, s in enumerate(earlier, 1))
        if self.shape and e % self.shape.every == 0:
            rows += self.shape(self.epochs.step)
        self.inner.restart()
        self._heard = 0
        return [{"step": e, **row} for row in rows]

    def remove(self) -> None:
        """Stop listening."""
        self._hook.remove()


def _cosine(s: Tensor, t: Tensor) -> float:
    return (s @ t / (s.norm() * t.norm())).item()


@torch.no_grad()
def losses_along(objective: Objective, step: Tensor, multiples: tuple[float, ...]) -> list[float]:
    """L(theta + a step) for each a of `multiples`; step (n,). The parameters stay as they are."""
    parts = split(step, objective.params)
    found = []
    for a in multiples:
        theta = [p + a * s.to(p.dtype) for p, s in zip(objective.params, parts, strict=True)]
        found.append(sum(w * objective.loss_fn(theta, x, y).item() for w, x, y in objective.weighted()))
    return found


def curvature_along(H: Operator, step: Tensor) -> float:
    """step^T H step / step^T step, by one product; step (n,), not zero."""
    ((v, Hv),) = H.products([[s.to(p.dtype) for s, p in zip(split(step, H.params), H.params, strict=True)]])
    inner, square = (sum((a * b).sum().item() for a, b in zip(v, other, strict=True)) for other in (Hv, v))
    return inner / square


def noise_scale(objective: Objective) -> float:
    """tr(Sigma) / |g|^2 in examples, from the objective's batches; infinite where the gradient is lost in the noise.

    Raises ValueError for fewer than two batches, batches of different sizes, or a loss that is a sum over examples.
    """
    each = [count(x) for x, _ in objective.batches]
    sizes, M = set(each), len(each)
    if M < 2 or len(sizes) > 1 or objective.reduction != "mean":
        raise ValueError(
            f"a noise scale needs a mean loss over two or more batches of one size, got {M} of sizes {sorted(sizes)}"
        )
    (b,) = sizes
    theta = objective.at()
    total, squares = [torch.zeros_like(p) for p in theta], 0.0
    for _, x, y in objective.weighted():
        g = torch.autograd.grad(objective.loss_fn(theta, x, y), theta, allow_unused=True, materialize_grads=True)
        torch._foreach_add_(total, g, alpha=1 / M)
        squares += sum(part.square().sum().item() for part in g) / M
    objective.spend(gradients=1)
    of_mean = sum(part.square().sum().item() for part in total)
    g_square = (M * of_mean - squares) / (M - 1)
    of_noise = b * M / (M - 1) * (squares - of_mean)
    return of_noise / g_square if g_square > 0 else math.inf
