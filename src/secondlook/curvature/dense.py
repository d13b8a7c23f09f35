r"""Dense curvature matrices of small models: what every cheaper approximation is held against.

    Hessian          H = d^2 L / d theta^2
    Gauss-Newton     G = (1/N) sum_b J_b^T H_b J_b,      J_b = d f_b / d theta  (C, n),   H_b = d^2 l_b / d f_b^2  (C, C)
    Fisher           F = (1/N) sum_b E[s s^T],           s = d log p(y | f_b) / d theta,  y ~ p(. | f_b) = softmax(f_b)

for L = (1/N) sum_b l(f_b, y_b), with f_b = f(theta, x_b) the C outputs of example b. All are (n, n), symmetric, in the dtype
and on the device of the parameters, whose entries are numbered tensor by tensor, row by row.

    H - G = (1/N) sum_b sum_c (d l_b / d f_bc) d^2 f_bc / d theta^2,

so G = H where the outputs are linear in theta or d l_b / d f_b = 0, and G is positive semi-definite where l is convex in f. For
the cross-entropy of a softmax F = G: s = J_b^T (e_y - p), and E[(e_y - p)(e_y - p)^T] = diag(p) - p p^T = H_b.

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient descent"; Martens (2020), "New
insights and perspectives on the natural gradient method", sections 8 and 9.

Cost: H takes n Hessian-vector products, by symmetry only parts of them; G and F take C backward passes an example and N C n^2
multiplications. Memory is the n^2 numbers of the result and a chunk's intermediates. Deviations: none.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from secondlook.arguments import COUNT
from secondlook.curvature.exact import basis
from secondlook.curvature.objective import Objective, hessian_of
from secondlook.curvature.products import GraphHessian, Operator, hvp
from secondlook.curvature.vectors import flat

ROWS = 128  # symmetrised at a time

Model = Callable[[list[Tensor], Tensor], Tensor]  # (parameters, inputs (N, ...)) -> outputs (N, C), each example for itself


def hessian(
    loss: Operator | Tensor | Callable[..., Tensor],
    params: Iterable[Tensor] | None = None,
    data: object = None,
    *,
    chunk_size: int = 128,
    **options: Any,
) -> Tensor:
    """H (n, n) of a loss, `chunk_size` rows at a time. Arguments: see `hessian_of`.

    Rows of a tensor are taken by that tensor and those after it; the rest is known by symmetry. Of a network whose tensors
    come in the order of its layers, the later ones then never go back to the first: about half the work.

    >>> dense.hessian(lambda theta: theta[0] ** 2 * theta[1] ** 3, [torch.tensor(1.0), torch.tensor(2.0)])
    tensor([[16., 24.],
            [24., 12.]])
    """
    H = hessian_of(loss, params, data, **options)
    if isinstance(H, GraphHessian):
        return _from_graph(H, chunk_size)
    if isinstance(H, Objective) and H.mode == "reverse":
        parts = (w * _from_graph(graph, chunk_size) for w, graph in H.graphs())
        total = functools.reduce(Tensor.add_, parts)
        H.spend(gradients=1, products=len(total))
        return total
    return matrix(H)


def _from_graph(H: GraphHessian, chunk_size: int) -> Tensor:
    gradients, theta = H.gradients, H.params
    n = sum(p.numel() for p in theta)
    M = torch.zeros(n, n, dtype=theta[0].dtype, device=theta[0].device)
    first = 0
    for j, g in enumerate(gradients):
        last = first + g.numel()
        for i in range(first, last, chunk_size) if g.requires_grad else ():
            rows = M[i : min(i + chunk_size, last), first:]
            e = torch.zeros(len(rows), g.numel(), dtype=g.dtype, device=g.device)
            e.diagonal(i - first).fill_(1)  # row k of the chunk is basis vector i + k
            found = hvp([g], theta[j:], [e.view(-1, *g.shape)], retain_graph=True, batched=True)
            torch.cat([block.reshape(len(rows), -1) for block in found], dim=1, out=rows)
        _symmetric(M[first:last, first:last], chunk_size)
        M[last:, first:last] = M[first:last, last:].T
        first = last
    return M


def matrix(operator: Operator) -> Tensor:
    """The symmetric matrix (n, n) of any operator, row by row from n products.

    Of a loss over batches matrix(Objective(loss_fn, params, data, chunk_size=128)) takes 128 rows in a pass.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> dense.matrix(hessian_of((w**3).sum(), [w]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    rows = operator.products(basis(operator.params))
    n = sum(p.numel() for p in operator.params)
    M = torch.empty(n, n, dtype=operator.params[0].dtype, device=operator.params[0].device)
    for i, (_, row) in enumerate(rows):
        M[i] = flat(row)
    return _symmetric(M, ROWS)


def gauss_newton(
    model: Model,
    loss: Callable[[Tensor, Tensor], Tensor],
    params: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    *,
    chunk_size: int = 128,
) -> Tensor:
    """G (n, n) of the mean over examples of `loss(outputs (C,), target)`; `chunk_size` examples at a time.

    x: (N, ...), y: (N, ...).

    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    >>> line, square = (lambda theta, x: x @ theta[0]), torch.nn.functional.mse_loss
    >>> dense.gauss_newton(line, square, [torch.ones(1, 1)], x, y)  # the mean of 2 x^2
    tensor([[5.]])
    """

    def factors(J: Tensor, f: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return J, torch.func.vmap(torch.func.hessian(loss))(f, targets) @ J

    return _sum_over_examples(model, params, x, y, factors, chunk_size)


def fisher(
    model: Model,
    params: Sequence[Tensor],
    x: Tensor,
    *,
    draws: int | None = None,
    generator: torch.Generator | None = None,
    chunk_size: int = 128,
) -> Tensor:
    """F (n, n) of a softmax classifier: the expectation over its labels, or the mean over `draws` labels an example.

    Labels are drawn from the model with `generator`, on the generator's device. x: (N, ...).

    >>> dense.fisher(lambda theta, x: x * theta[0], [torch.zeros(2)], torch.ones(1, 1))  # diag(p) - p p^T
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    COUNT.or_none().check(draws=draws)

    def factors(J: Tensor, f: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.softmax(f, dim=1)
        scores = torch.eye(p.shape[1], dtype=p.dtype, device=p.device) - p[:, None]  # (B, y, C): e_y - p
        if draws is None:
            S = p.sqrt()[:, :, None] * scores @ J  # (B, y, n)
        else:
            device = p.device if generator is None else generator.device
            labels = torch.multinomial(p.to(device), draws, replacement=True, generator=generator).to(p.device)
            S = torch.take_along_dim(scores, labels[:, :, None], dim=1) @ J / draws**0.5  # (B, draws, n)
        return S, S

    return _sum_over_examples(model, params, x, x, factors, chunk_size)


def jacobians(model: Model, params: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """J (N, C, n), the outputs' derivatives example by example, and the outputs (N, C).

    >>> dense.jacobians(lambda theta, x: x @ theta[0], [torch.ones(1, 1)], torch.tensor([[3.0]]))
    (tensor([[[3.]]]), tensor([[3.]]))
    """
    theta = [p.detach() for p in params]

    def one(theta: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        f = model(theta, x[None])[0]
        return f, f

    parts, f = torch.func.vmap(torch.func.jacrev(one, has_aux=True), in_dims=(None, 0))(theta, x)
    return torch.cat([part.reshape(*f.shape, -1) for part in parts], dim=2), f


def _sum_over_examples(
    model: Model, params: Sequence[Tensor], x: Tensor, y: Tensor, factors: Callable, chunk_size: int
) -> Tensor:
    """(1/N) sum_b P_b^T Q_b, with P, Q = factors(J, f, y), each (B, rows, n) for a chunk of B examples."""
    n = sum(p.numel() for p in params)
    total = torch.zeros(n, n, dtype=params[0].dtype, device=params[0].device)
    for xs, ys in zip(x.split(chunk_size), y.split(chunk_size), strict=True):
        P, Q = factors(*jacobians(model, params, xs), ys)
        total.addmm_(P.reshape(-1, n).T, Q.reshape(-1, n), alpha=1 / len(x))
    return _symmetric(total, chunk_size)


def _symmetric(M: Tensor, chunk_size: int) -> Tensor:
    """(M + M^T) / 2 in place, against rounding, a chunk of rows at a time."""
    for first in range(0, len(M), chunk_size):
        last = first + chunk_size
        rows = (M[first:last, first:] + M[first:, first:last].T) / 2
        M[first:last, first:], M[first:, first:last] = rows, rows.T
    return M
