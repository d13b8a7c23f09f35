r"""A loss over a data set, at some parameters: what curvature is asked of.

    L(theta) = sum_b w_b loss_fn(theta, x_b, y_b),    w_b = N_b / N if loss_fn is a mean over examples, 1 if a sum

over batches b of N_b examples, N in all (see `batches`). Products with its Hessian go over the batches and are added up:

    H v = sum_b w_b H_b v

Every example must count for itself. A loss that mixes the examples of a batch, as batch normalisation does in training, is not
such a sum, and one with dropout is another function at every call: `of_module` refuses both, and a function of your own is
taken at its word.

Cost of k products: one gradient for every `chunk_size` of them, and the k products, in either mode:

    reverse   back through the graph of the gradient                     (d/d theta) g^T v
    forward   the gradient of dual numbers, forward over reverse         (d/d eps) g(theta + eps v) at eps = 0

Memory: 3 n `chunk_size` numbers, and for one batch the graph of the gradient or, forward, its activations with their
derivatives for each vector. Products with a part of the data's Hessian are those of an objective on that part.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secondlook.arguments import COUNT, one_of
from secondlook.curvature.batches import Batches, Nested, apart, count
from secondlook.curvature.products import GraphHessian, Operator, Vector, hvp, in_chunks, refuse_hidden

LossFn = Callable[[list[Tensor], Nested, Nested], Tensor]  # (theta, x (N_b, ...), y (N_b, ...)) -> scalar
Model = Callable[[list[Tensor], Nested], Tensor]  # (theta, x (N_b, ...)) -> outputs (N_b, ...), each example for itself


@dataclass(frozen=True)
class Composed:
    """A loss in two parts, for estimators that ask for the model's outputs: criterion(model(theta, x), y).

    >>> loss = Composed(lambda theta, x: x @ theta[0], torch.nn.functional.mse_loss)
    >>> loss([torch.tensor([2.0])], torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 3.0]))
    tensor(5.)
    """

    model: Model
    criterion: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, theta: list[Tensor], x: Nested, y: Nested) -> Tensor:
        return self.criterion(self.model(theta, x), y)


@dataclass(frozen=True)
class ModuleLoss(Composed):
    """What `of_module` makes: called, a function of the module's trainable parameters in their order."""

    module: nn.Module

    def of(self, params: Sequence[Tensor], x: Nested, y: Nested) -> Composed:
        """The same as a function of `params`, any of the module's own: some, frozen ones too, in any order.

        Raises ValueError where one is not the module's, or where two evaluations on the batch (x, y) differ.
        """
        names = {id(p): name for name, p in self.module.named_parameters()}
        for i, p in enumerate(params):
            if id(p) not in names:
                raise ValueError(
                    f"params[{i}] of shape {tuple(p.shape)} is no parameter of the module: hand over its own, and no copies"
                )
        loss = Composed(_function(self.module, [names[id(p)] for p in params]), self.criterion)
        _refuse_random(self.module, loss, params, x, y)
        return loss


def of_module(module: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> ModuleLoss:
    """criterion(module(x), y) as a function of the module's parameters: of those that an `Objective` is given.

    Raises ValueError where a layer in training mode mixes examples or is random (batch normalisation, dropout), and where two
    evaluations of one batch differ, as with the dropout of other layers, with functional.dropout, or with spectral_norm in
    training. An `Objective` makes these two; they change neither buffers nor the global random state.

    >>> layers = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    >>> loss = of_module(torch.nn.Sequential(*layers), torch.nn.functional.mse_loss)
    >>> data = torch.ones(4, 2), torch.ones(4, 1)
    >>> [d.shape for d in Objective(loss, layers[1].parameters(), data).gradient()]  # of one layer
    [torch.Size([1, 3]), torch.Size([1])]
    """
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    return ModuleLoss(_function(module, names), criterion, module)


def _function(module: nn.Module, names: Sequence[str]) -> Model:
    """module(x) as a function of the parameters of these names."""

    def model(theta: list[Tensor], x: Nested) -> Tensor:
        for name, layer in module.named_modules():
            if layer.training and isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
                raise ValueError(f"{type(layer).__name__} '{name}' is in training mode: curvature needs module.eval()")
        return functional_call(module, dict(zip(names, theta, strict=True)), (x,))

    return model


def _refuse_random(module: nn.Module, loss: Composed, params: Sequence[Tensor], x: Nested, y: Nested) -> None:
    """ValueError where two evaluations differ by more than rounding; buffers and random state end as they were."""
    buffers = [(b, b.clone()) for b in module.buffers()]
    theta = [p.detach().requires_grad_() for p in params]
    kind = params[0].device.type
    with torch.enable_grad(), torch.random.fork_rng([] if kind == "cpu" else [params[0].device], device_type=kind):
        one, two = (loss(theta, x, y).detach() for _ in range(2))
    with torch.no_grad():
        for b, before in buffers:
            if not torch.equal(b, before):  # a copy of the same would spoil graphs that hold the buffer
                b.copy_(before)
    rounding = 1000 * torch.finfo(one.dtype).eps
    if not torch.allclose(one, two, rtol=rounding, atol=0, equal_nan=True):
        raise ValueError(
            f"two evaluations of one batch differ, {one.item():.6g} and {two.item():.6g}: a random layer, or one that changes a"
            " buffer; curvature needs module.eval(), and functional.dropout training=self.training"
        )


@dataclass(frozen=True)
class Cost:
    """Work done, in passes over all of the data: `gradients`, and Hessian-vector products of two gradients' work each.

    >>> (Cost(gradients=1, products=2) + Cost(gradients=1)).in_gradients
    6.0
    """

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
        loss_fn     (theta, x, y) -> scalar; a `Composed` where the outputs are asked for; what `of_module` makes, for whose
                    theta `params` stand by identity
        params      tensors, n numbers in all; they are neither changed nor given gradients. Frozen ones count
        data        a batch (x, y), or several: see `batches`
        reduction   of `loss_fn` over the examples of a batch: 'mean' or 'sum'. Every example counts the same: a mean that
                    weighs classes, or leaves targets out, is right for one batch alone
        chunk_size  vectors that share one pass over the data; more than one are taken at once, by vmap
        mode        how products are taken: 'reverse' or 'forward', for which every part of the loss must have a forward
                    derivative of its gradient; torch's mse_loss with reduction 'mean' has none

    >>> H = Objective(lambda theta, x, y: (y * theta[0] ** 3).mean(), [torch.tensor(2.0)], (torch.ones(4), torch.ones(4)))
    >>> [Hv for v, Hv in H.products([[torch.tensor(1.0)]])]  # 6 theta
    [[tensor(12.)]]
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
        one_of(("reverse", "forward")).check(mode=mode)
        one_of(("mean", "sum")).check(reduction=reduction)
        COUNT.check(chunk_size=chunk_size)
        if isinstance(loss_fn, nn.Module) or not callable(loss_fn):
            raise TypeError(
                f"loss_fn must be a function (theta, x, y), or of_module(module, criterion), got {type(loss_fn).__name__}"
            )
        criterion = loss_fn.criterion if isinstance(loss_fn, Composed) else loss_fn
        if (its := getattr(criterion, "reduction", reduction)) != reduction:
            raise ValueError(f"reduction must be that of the criterion, {its!r}, got {reduction!r}")
        self.params = checked(params)
        self.batches = Batches(data)
        self.examples = self.batches.examples  # N
        self.loss_fn: Any = loss_fn.of(self.params, *next(iter(self.batches))) if isinstance(loss_fn, ModuleLoss) else loss_fn
        self.reduction = reduction
        self.chunk_size = chunk_size
        self.mode = mode
        self.cost = Cost()

    def weighted(self) -> Iterator[tuple[float, Nested, Nested]]:
        """(w_b, x_b, y_b) of every batch."""
        for x, y in self.batches:
            yield (count(x) / self.examples if self.reduction == "mean" else 1.0), x, y

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
            torch._foreach_add_(total, _gradients(self.loss_fn(theta, x, y), theta), alpha=w)
        self.spend(gradients=1)
        return total

    def graphs(self) -> Iterator[tuple[float, GraphHessian]]:
        """(w_b, H_b) of every batch; the last product frees its graph. What they are used for, they do not count."""
        theta = self.at()
        for w, x, y in self.weighted():
            yield w, GraphHessian(_gradients(self.loss_fn(theta, x, y), theta, create_graph=True), theta)

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        """(v, H v) for every v in turn, `chunk_size` of them to a pass over the data."""
        return in_chunks(self._products, vectors, self.chunk_size)

    def _products(self, V: list[Tensor], batched: bool) -> list[Tensor]:
        theta, total = self.at(), [torch.zeros_like(v) for v in V]
        for w, x, y in self.weighted():
            if self.mode == "forward":
                found = self._forward(x, y, V, batched)
            else:
                found = hvp(_gradients(self.loss_fn(theta, x, y), theta, create_graph=True), theta, V, batched=batched)
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
        """H_i v for every example i alone, batch by batch, (N_b, *shape) each: H v is their mean, or their sum.

        >>> x, y = torch.arange(3.0), torch.ones(3)
        >>> H = Objective(lambda theta, x, y: (x * theta[0] ** 2).mean(), [torch.tensor(1.0)], (x, y))
        >>> list(H.of_examples([torch.tensor(1.0)]))  # 2 x
        [[tensor([0., 2., 4.])]]
        """
        for batch in self.batches:
            x, y = apart(batch, "of_examples")
            self.spend(gradients=1, products=1, examples=len(x))
            yield list(torch.func.vmap(lambda x, y: self._alone(x[None], y[None], tuple(v)))(x, y))

    def kept(self) -> "Objective":
        """Itself: it has no graph that a product could free."""
        return self


def checked(params: Iterable[Tensor]) -> list[Tensor]:
    """`params` as a list. Raises TypeError or ValueError unless they are some dense real tensors, each one once."""
    if isinstance(params, Tensor):
        raise TypeError("params must be tensors in a list, got one tensor")
    params = list(params)
    if not params:
        raise ValueError("params holds no tensor; an iterator, such as module.parameters(), is used up by one pass")
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise TypeError(f"params must be tensors, got {type(p).__name__}")
        if p.layout is not torch.strided or not p.is_floating_point():
            raise TypeError(f"params must be dense real tensors, got {p.layout} of type {p.dtype} for params[{i}]")
    if len({id(p) for p in params}) < len(params):
        raise ValueError("params holds a tensor twice")
    return params


def hessian_of(
    loss: Operator | Tensor | Callable[..., Tensor], params: Iterable[Tensor] | None = None, data: object = None, **options: Any
) -> Operator:
    """The Hessian of a loss, given in any of these forms, which every function of a Hessian takes:

        H                       an `Operator`, as it is
        loss, params            a scalar tensor that was computed from the parameters, with its graph; which is kept
        function, params        function(theta) -> scalar, with theta a list of tensors like `params`
        function, params, data  an `Objective`, to which `options` go: function(theta, x, y), `of_module(module, criterion)`

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> [Hv for v, Hv in hessian_of((w**3).sum(), [w]).products([[torch.ones(2)]])]
    [[tensor([ 6., 12.])]]
    """
    if data is None and options:
        raise TypeError(f"{', '.join(options)} are options of a loss over data")
    if params is None:
        if data is not None or not hasattr(loss, "products"):
            raise TypeError(
                f"a Hessian needs (loss, params), (loss, params, data) or an operator, got {type(loss).__name__} alone"
            )
        return cast(Operator, loss).kept()
    if data is not None:
        return Objective(loss, params, data, **options)
    params = checked(params)
    if not isinstance(loss, Tensor):
        params = [p.detach().requires_grad_() for p in params]
        loss = cast(Callable[..., Tensor], loss)(params)
    elif frozen := [i for i, p in enumerate(params) if not p.requires_grad]:
        raise ValueError(f"params[{frozen[0]}] is frozen, and the loss knows nothing of it: leave it out")
    return GraphHessian(_gradients(loss, params, create_graph=True), params, retain_graph=True)


def _gradients(loss: Tensor, theta: Sequence[Tensor], create_graph: bool = False) -> Vector:
    """g, zero for what has no part in the loss. Raises RuntimeError where nothing has."""
    if not loss.requires_grad:
        raise RuntimeError("the loss has no graph: compute it from the parameters, with gradients enabled")
    if loss.numel() != 1:
        raise RuntimeError(f"the loss must be one number, got shape {tuple(loss.shape)}: take its mean or sum")
    found = torch.autograd.grad(loss, theta, create_graph=create_graph, allow_unused=True)
    if all(g is None for g in found):
        raise RuntimeError("the loss does not depend on the parameters: compute it from those that it is given")
    if any(g is None for g in found):
        refuse_hidden(loss)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, theta, strict=True)]
