r"""Probes at the layers' sums in place of the weights: the diagonal of a network from few products, exactly from enough.

    s_t = W a_t + c       a layer of example b, at positions t = 1..T (one for a dense layer; a_t a patch in a convolution)
    S_b                   Hessian of the batch's loss by all sums of example b, of all layers, taken as free: (U, U), and no
                          example's sums meet another's
    z, q = S_b z          signs and their product, in the shapes of the sums
    D_W = sum_b (sum_t z_t a_t^T) * (sum_t q_t a_t^T),       D_c = sum_b (sum_t z_t) * (sum_t q_t)

A sum is linear in its own layer's weights: with J = d s / d W the block of H at W is sum_b J_b^T S_b J_b, and D_W has the
diagonal of J_b^T E[z z^T] S_b J_b. For a dense layer D_W = sum_b (z * q) (a * a)^T: only outputs, not weights, make noise.
One product serves all examples, each with a probe of its own.

Unbiased:   by E[z z^T] = I.
Variance:   dense, H_b = S_b, e the entry of output o:  Var[D_oi] = c_k sum_b a_bi^4 sum_{u != e} (S_b)_eu^2
            with c_k = (m - k) / (k (m - 1)) for k probes, m = 2^ceil(log2 U)

    The k probes of an example are k rows, drawn without replacement, of the (m, m) matrix of Hadamard, with columns of random
    signs: z_u^(r) = eps_u (-1)^{popcount(r & u)}. Each is a probe of independent signs; the product of two of its entries has
    mean 0 over all m rows, so c_k is 1/k times the correction of a finite population. With k = m, D is exact.

Cost: 2/3 + k gradients, against 1 + 2k of Hutchinson. With weights as constants the gradient takes two of the three matrix
products of a gradient, a product with S takes two, and D one more. Convolutions take longer than that count, because their
weights have a part for every example. The objective's `chunk_size` probes are taken at once, always in reverse mode. Memory:
the graph of one batch, the sums for every probe at once and, for layers with positions, twice the weights of a layer for every
example.

Sources: Botev, Ritter and Barber (2017), "Practical Gauss-Newton optimisation for deep learning", for the block of a dense
layer, a a^T (x) S; Martens, Sutskever and Swersky (2012), "Estimating the Hessian by back-propagating curvature", for noise at
the units; Bekas, Kokiopoulou and Saad (2007) for Hadamard's rows. Deviations: put together here, no paper is followed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secondlook.arguments import COUNT
from secondlook.curvature.batches import Nested, count
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.products import Vector, hvp, in_chunks
from secondlook.curvature.source import Source

LAYERS = (functional.linear, functional.conv1d, functional.conv2d, functional.conv3d)


@dataclass(frozen=True)
class Preactivations:
    """D from `probes` products with S, or from the m that make it exact, if these are fewer.

    All parameters must be weights and biases of `functional.linear` and convolutions, each used once by the model, and every
    tensor that these layers see has the examples in front.

    >>> model, data = torch.nn.Linear(1, 1), (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    >>> loss = of_module(model, torch.nn.functional.mse_loss)
    >>> hessian_diagonal(loss, model.parameters(), data, method=Preactivations())  # one sum: one probe is exact
    [tensor([[10.]]), tensor([2.])]
    """

    probes: int = 1

    source = Source.LAYERS

    def __post_init__(self) -> None:
        COUNT.check(probes=self.probes)

    def cost(self, params: Vector) -> Cost:
        """See `Diagonal`."""
        raise ValueError("the cost of Preactivations depends on how many sums the layers have")

    def __call__(self, H: Objective, generator: torch.Generator | None) -> list[Tensor]:
        """D, one tensor for each parameter; see `Diagonal`. Raises ValueError for a parameter of another kind of layer."""
        self.source.check(self, H)
        D = [torch.zeros_like(p) for p in H.params]
        for w, x, y in H.weighted():
            examples = count(x)
            g, sums, layers = _at_sums(H, x, y, examples)
            product = partial(_product, g, sums)
            eps, rows = Hutchinson().probe(sums, generator), _rows(self.probes, sum(s[0].numel() for s in sums), generator)
            for z, q in in_chunks(product, (_times_hadamard(eps, r) for r in rows), H.chunk_size):
                for layer, zs, qs in zip(layers, z, q, strict=True):
                    layer.add(D, zs, qs, w / len(rows))
            H.spend(gradients=2 / 3 + len(rows), examples=examples)
        return D


@dataclass(frozen=True)
class Layer:
    """s = function(a, W, c), of the parameters with numbers `weight` and `bias`."""

    function: Callable[..., Tensor]
    a: Tensor
    W: Tensor
    weight: int | None
    bias: int | None

    def add(self, D: list[Tensor], z: Tensor, q: Tensor, alpha: float) -> None:
        """alpha times D_W and D_c, from z and q (N, ...) in the shape of the layer's sums."""
        dense = self.function is functional.linear
        if self.weight is not None and dense and self.a.dim() == 2:
            D[self.weight].add_((z * q).T @ self.a**2, alpha=alpha)
        elif self.weight is not None:
            D[self.weight].add_((self._gradients(z) * self._gradients(q)).sum(0), alpha=alpha)
        if self.bias is not None:
            positions = tuple(range(1, z.dim() - 1)) if dense else tuple(range(2, z.dim()))
            z, q = (s.sum(positions) if positions else s for s in (z, q))  # (N, out)
            D[self.bias].add_((z * q).sum(0), alpha=alpha)

    def _gradients(self, s: Tensor) -> Tensor:
        """sum_t s_t a_t^T of every example (N, *shape of W)."""
        if self.function is functional.linear:
            return torch.einsum("nto,nti->noi", s.flatten(1, -2), self.a.flatten(1, -2))

        def gradient(a: Tensor, s: Tensor) -> Tensor:
            return torch.func.vjp(lambda W: self.function(a[None], W), self.W)[1](s[None])[0]

        return torch.func.vmap(gradient)(self.a, s)


class _Recorder(TorchFunctionMode):
    """Adds zeros that ask for gradients, `at`, to the sums of every layer that has one of `theta`; notes the `layers`."""

    def __init__(self, theta: list[Tensor], examples: int):
        super().__init__()
        self.number = {id(p): i for i, p in enumerate(theta)}
        self.examples = examples
        self.layers: list[Layer] = []
        self.at: list[Tensor] = []
        self.seen: set[int] = set()

    def __torch_function__(self, function: Callable, types: Sequence, args: tuple = (), kwargs: dict | None = None) -> Any:
        named = kwargs or {}
        result = function(*args, **named)
        groups = [v if isinstance(v, list | tuple) else (v,) for v in (*args, *named.values())]
        used = {self.number[id(v)] for group in groups for v in group if id(v) in self.number}
        if not used or not isinstance(result, Tensor):
            return result
        if function not in LAYERS:
            raise _unfit(min(used), f"is used in {getattr(function, '__name__', function)}")
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | named
        a, W, bias = (named.pop(name, None) for name in ("input", "weight", "bias"))
        if again := self.seen & used:
            raise _unfit(min(again), "is used twice")
        if id(a) in self.number or len(result) != self.examples:
            raise _unfit(min(used), "is in a layer whose input's first dimension is not that of the examples")
        self.seen |= used
        call = function if function is functional.linear else partial(_without_bias, function, args[3:], named)
        self.layers.append(Layer(call, a.detach(), W.detach(), self.number.get(id(W)), self.number.get(id(bias))))
        self.at.append(torch.zeros_like(result, requires_grad=True))
        return result + self.at[-1]


def _unfit(number: int, how: str) -> ValueError:
    return ValueError(
        f"Preactivations takes weights and biases of linear layers and convolutions, used once: parameter {number} {how}"
    )


def _without_bias(function: Callable[..., Tensor], options: tuple, named: dict, a: Tensor, W: Tensor) -> Tensor:
    return function(a, W, None, *options, **named)


def _at_sums(H: Objective, x: Nested, y: Nested, examples: int) -> tuple[Vector, list[Tensor], list[Layer]]:
    """The gradients of a batch's loss by the sums of all examples, zeros that stand for the sums, and their layers."""
    theta = [p.detach() for p in H.params]
    with _Recorder(theta, examples) as recorder:
        f = H.loss_fn.model(theta, x)
    if missing := set(range(len(theta))) - recorder.seen:
        raise _unfit(min(missing), "is in none")
    g = torch.autograd.grad(H.loss_fn.criterion(f, y), recorder.at, create_graph=True, materialize_grads=True)
    return g, recorder.at, recorder.layers


def _product(g: Vector, sums: Vector, Z: Vector, batched: bool) -> list[Tensor]:
    """S z, of all examples in one."""
    return hvp(g, sums, Z, retain_graph=True, batched=batched)


def _rows(k: int, U: int, generator: torch.Generator | None) -> Sequence[int]:
    """k of the m >= U rows, every choice as likely, by Floyd's algorithm, which makes nothing of size m; at most all."""
    m = 1 << (U - 1).bit_length()
    if k >= m:
        return range(m)
    device = None if generator is None else generator.device
    chosen: list[int] = []
    for last in range(m - k, m):
        r = torch.randint(last + 1, (), generator=generator, device=device).item()
        chosen.append(last if r in chosen else r)
    return chosen


def _times_hadamard(eps: Vector, row: int) -> list[Tensor]:
    """eps (N, ...) with the entries of the matrix's `row` for an example's sums, numbered layer by layer."""
    sizes = [e[0].numel() for e in eps]
    entries = 1 - 2 * _parity(torch.arange(sum(sizes), device=eps[0].device) & row)
    return [e * entry.view(e.shape[1:]).to(e.dtype) for e, entry in zip(eps, entries.split(sizes), strict=True)]


def _parity(x: Tensor) -> Tensor:
    """Of the number of bits set in x >= 0."""
    for shift in (32, 16, 8, 4, 2, 1):
        x = x ^ (x >> shift)
    return x & 1
