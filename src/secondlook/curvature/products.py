"""Hessian-vector products by differentiating twice in reverse mode, and the matrix that is known by them alone.

    (H v)_i = d(g^T v) / d theta_i,    g = gradient with a graph, v constant          (Pearlmutter 1994)

Cost: one backward pass through the graph of g, about two gradients. The Hessian itself is never formed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

Vector = list[Tensor] | tuple[Tensor, ...]  # n numbers, in the shapes of the parameters


class Operator(Protocol):
    """A symmetric (n, n) matrix that is known by its products with vectors; `params` give the vectors' shapes.

    >>> class Twice:
    ...     params = [torch.zeros(3)]
    ...
    ...     def products(self, vectors):
    ...         yield from ((v, [2 * part for part in v]) for v in vectors)
    ...
    ...     def kept(self):
    ...         return self
    >>> hessian_diagonal(Twice(), method=Exact())
    [tensor([2., 2., 2.])]
    """

    @property
    def params(self) -> Vector: ...

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        """(v, H v) for every v in turn; the results have no graph."""

    def kept(self) -> "Operator":
        """The same matrix, whose products leave everything in place for more of them."""


@dataclass(frozen=True)
class GraphHessian:
    """H of a loss from the graph of its `gradients`, which the last product frees unless `retain_graph`.

    `gradients` and `params` match in number and shape. Given some of a model's parameters, it is their block of H.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> g = torch.autograd.grad((w**3).sum(), [w], create_graph=True)
    >>> [Hv for v, Hv in GraphHessian(g, [w]).products([[torch.ones(2)]])]
    [[tensor([ 6., 12.])]]
    """

    gradients: Vector
    params: Vector
    retain_graph: bool = False

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        before = None
        for v in vectors:
            if before is not None:
                yield before, hvp(self.gradients, self.params, before, retain_graph=True)
            before = v
        if before is not None:
            yield before, hvp(self.gradients, self.params, before, retain_graph=self.retain_graph)

    def kept(self) -> "GraphHessian":
        """The same, for further use of the graph."""
        return replace(self, retain_graph=True)


def hvp(
    gradients: Vector, params: Vector, vectors: Vector, *, retain_graph: bool = False, batched: bool = False
) -> list[Tensor]:
    """H v, block by block: result i has the shape of `params[i]` and no graph.

    `gradients` and `vectors` match in number and shape, and the gradients carry a graph (`create_graph=True`). Those of some
    parameters only give the product with their rows of H. Where no gradient depends on a parameter, the result is zero. The
    graph is freed unless `retain_graph`. With `batched`, vectors and results have one more dimension in front, of k vectors,
    and all k products are taken in one pass.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> g = torch.autograd.grad((w**3).sum(), [w], create_graph=True)
    >>> hvp(g, [w], [torch.ones(2)])
    [tensor([ 6., 12.])]
    """
    k = vectors[0].shape[:1] if batched else ()
    live = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    found = [None] * len(params)
    if live:
        g, v = zip(*live, strict=True)
        try:
            found = torch.autograd.grad(g, params, v, retain_graph=retain_graph, allow_unused=True, is_grads_batched=batched)
        except RuntimeError as error:
            raise RuntimeError(_advice(str(error))) from error
    return [p.new_zeros((*k, *p.shape)) if Hv is None else Hv for Hv, p in zip(found, params, strict=True)]


def refuse_hidden(loss: Tensor) -> None:
    """RuntimeError where parameters may hide from torch.autograd.grad: behind a checkpoint that is reentrant.

    A reentrant checkpoint starts a pass backward of its own, which reaches parameters that the loss's graph does not show.
    """
    seen, fresh = set(), [loss.grad_fn]
    while fresh:
        node = fresh.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "CheckpointFunctionBackward":
            raise RuntimeError(
                "parameters behind a reentrant checkpoint get no gradient here: call checkpoint(..., use_reentrant=False)"
            )
        fresh += [parent for parent, _ in node.next_functions]


def _advice(message: str) -> str:
    """What to do about an error of torch in a second derivative; `message` itself where it needs no advice."""
    if "scaled_dot_product" in message:
        return (
            "this kernel of scaled-dot-product attention has no second derivative: run the forward pass under"
            " torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        )
    if "aot_autograd" in message:
        return "a compiled model cannot be differentiated twice: take the loss of the model as it was, or optim.compiled_step"
    if "CuDNN RNN" in message:
        return "cuDNN's recurrent layers have no second derivative: run them under torch.backends.cudnn.flags(enabled=False)"
    if "is not implemented" in message:
        function = message.removeprefix("derivative for ").split()[0]
        return (
            f"{function} has no derivative in torch, so that the loss has no second one: compute it by other operations, or"
            " take a curvature from first derivatives, such as GaussNewtonBartlett or K-FAC"
        )
    return message


def in_chunks(
    product: Callable[[list[Tensor], bool], list[Tensor]], vectors: Iterable[Vector], size: int
) -> Iterator[tuple[Vector, list[Tensor]]]:
    """(v, M v) for every v in turn, `size` at a time, from `product(V, batched)`, which takes and gives what `hvp` does."""
    vectors = iter(vectors)
    while chunk := list(islice(vectors, size)):
        if len(chunk) == 1:
            yield chunk[0], product(list(chunk[0]), False)
        else:
            found = product([torch.stack(parts) for parts in zip(*chunk, strict=True)], True)  # (k, *shape) each
            yield from ((v, list(Mv)) for v, Mv in zip(chunk, zip(*found, strict=True), strict=True))
