r"""A loss over a data set, at some parameters: what curvature is asked of.

    L(theta) = sum_b w_b loss_fn(theta, x_b, y_b),    w_b = N_b / N if loss_fn is a mean over examples, 1 if a sum

over batches b of N_b examples, N in all. Products with its Hessian go over the batches and are added up:

    H v = sum_b w_b H_b v

Every example must count for itself. A loss that mixes the examples of a batch, as batch normalisation does in training, is not
such a sum, and one with dropout is another function at every call: `of_module` refuses both.

Cost of k products: one gradient for every `chunk_size` of them, and the k products, in either mode:

    reverse   back through the graph of the gradient                     (d/d theta) g^T v
    forward   the gradient of dual numbers, forward over reverse         (d/d eps) g(theta + eps v) at eps = 0

Memory: 3 n `chunk_size` numbers, and for one batch the graph of the gradient or, forward, its activations with their
derivatives for each vector. Products with a part of the data's Hessian are those of an objective on that part.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secondlook.curvature.products import Vector, hvp, in_chunks

LossFn = Callable[[list[Tensor], Tensor, Tensor], Tensor]  # (theta, x (N_b, ...), y (N_b, ...)) -> scalar
Model = Callable[[list[Tensor], Tensor], Tensor]  # (theta, x (N_b, ...)) -> outputs (N_b, ...), each example for itself


@dataclass(frozen=True)
class Composed:
    """A loss in two parts, for estimators that ask for the model's outputs: criterion(model(theta, x), y)."""

    model: Model
    criterion: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, theta: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.model(theta, x), y)


def of_module(module: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> Composed:
    """criterion(module(x), y) as a function of the module's trainable parameters, in their order.

    Raises ValueError where a layer in training mode is random or mixes examples (dropout, batch normalisation).
    """
    names = [name for name, p in module.named_parameters() if p.requires_grad]

    def model(theta: list[Tensor], x: Tensor) -> Tensor:
        for name, layer in module.named_modules():
            if layer.training and isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
                raise ValueError(f"{type(layer).__name__} '{name}' is in training mode: curvature needs module.eval()")
        return functional_call(module, dict(zip(names, theta, strict=True)), (x,))

    return Composed(model, criterion)


@dataclass(frozen=True)
class Cost:
    """Work done, in passes over all of the data: `gradients`, and Hessian-vector products of two gradients' work each."""

    gradients: float = 0.0
    products: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.gradients + other.gradients, self.products + other.products)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.gradients - other.gradients, self.products - other.products)

    @property
    def in_gradients(self) -> float:
        """By the count of matrix products: 3 for a gradient, 6 more for a Hessian-vector product with that gradient's graph."""
        return self.gradients + 2 * self.products


class Objective:
    """The loss of `loss_fn` over `data`, at the values that `params` hold when it is asked; an `Operator`, its Hessian.

    Arguments:
        loss_fn     (theta, x, y) -> scalar; a `Composed`, such as `of_module` makes, where the outputs are asked for
        params      tensors, n numbers in all; they are neither changed nor given gradients
        data        a pair (x, y), or several such pairs: a list, or anything that can be gone through again and again
        reduction   of `loss_fn` over the examples of a batch: 'mean' or 'sum'
        chunk_size  vectors that share one pass over the data; more than one are taken at once, by vmap
        mode        how products are taken: 'reverse' or 'forward', for which every part of the loss must have a forward
                    derivative of its gradient; torch's mse_loss with reduction 'mean' has none
    """

    def __init__(
        self,
        loss_fn: LossFn,
        params: Iterable[Tensor],
        data: object,
        *,
        reduction: str = "mean",
        chunk_size: int = 1,
        mode: str = "reverse",
    ):
        if mode not in ("reverse", "forward"):
            raise ValueError(f"mode must be 'reverse' or 'forward', got {mode!r}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        if not (isinstance(chunk_size, int) and chunk_size >= 1):
            raise ValueError(f"chunk_size must be a positive integer, got {chunk_size!r}")
        self.loss_fn = loss_fn
        self.params = list(params)
        self.batches = [data] if isinstance(data, tuple) and isinstance(data[0], Tensor) else data
        self.reduction = reduction
        self.chunk_size = chunk_size
        self.mode = mode
        self.examples = sum(len(x) for x, _ in self.batches)  # N
        self.cost = Cost()
        if not self.params or not self.examples:
            raise ValueError("an objective needs parameters and data, got none")

    def weighted(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        """(w_b, x_b, y_b) of every batch."""
        for x, y in self.batches:
            yield (len(x) / self.examples if self.reduction == "mean" else 1.0), x, y

    def at(self) -> list[Tensor]:
        """theta as leaves of its own that ask for gradients; shares memory with `params`."""
        return [p.detach().requires_grad_() for p in self.params]

    def spend(self, gradients: float = 0.0, products: float = 0.0, examples: int | None = None) -> None:
        """Add to the cost work on `examples` of the data (by default all)."""
        share = 1.0 if examples is None else examples / self.examples
        self.cost += Cost(gradients * share, products * share)

    def gradient(self, theta: Sequence[Tensor] | None = None) -> list[Tensor]:
        """g at the parameters, or at `theta`."""
        theta = self.at() if theta is None else [t.detach().requires_grad_() for t in theta]
        total = [torch.zeros_like(p) for p in theta]
        for w, x, y in self.weighted():
            g = torch.autograd.grad(self.loss_fn(theta, x, y), theta, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(total, g, alpha=w)
        self.spend(gradients=1)
        return total

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        """(v, H v) for every v in turn, `chunk_size` of them to a pass over the data."""
        return in_chunks(self._products, vectors, self.chunk_size)

    def _products(self, V: list[Tensor], batched: bool) -> list[Tensor]:
        theta, total = self.at(), [torch.zeros_like(v) for v in V]
        for w, x, y in self.weighted():
            if self.mode == "forward":
                found = self._forward(x, y, V, batched)
            else:
                g = torch.autograd.grad(self.loss_fn(theta, x, y), theta, create_graph=True, materialize_grads=True)
                found = hvp(g, theta, V, batched=batched)
            torch._foreach_add_(total, found, alpha=w)
        self.spend(gradients=1, products=len(V[0]) if batched else 1)
        return total

    def _forward(self, x: Tensor, y: Tensor, V: list[Tensor], batched: bool) -> list[Tensor]:
        def product(*v: Tensor) -> tuple[Tensor, ...]:
            return self._alone(x, y, v)

        return list((torch.func.vmap(product) if batched else product)(*V))

    def _alone(self, x: Tensor, y: Tensor, v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """H v of the loss on (x, y), as a function that torch.func can transform."""
        theta = tuple(p.detach() for p in self.params)
        gradient = torch.func.grad(lambda theta: self.loss_fn(list(theta), x, y))
        if self.mode == "forward":
            return torch.func.jvp(gradient, (theta,), (v,))[1]
        return torch.func.vjp(gradient, theta)[1](v)[0]

    def of_examples(self, v: Vector) -> Iterator[list[Tensor]]:
        """H_i v for every example i alone, batch by batch, (N_b, *shape) each: H v is their mean, or their sum."""
        for x, y in self.batches:
            self.spend(gradients=1, products=1, examples=len(x))
            yield list(torch.func.vmap(lambda x, y: self._alone(x[None], y[None], tuple(v)))(x, y))

    def kept(self) -> "Objective":
        """Itself: it has no graph that a product could free."""
        return self
