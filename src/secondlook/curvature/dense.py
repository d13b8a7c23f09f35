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

Cost: H takes n Hessian-vector products, G and F take C backward passes an example and N C n^2 multiplications; memory is the
n^2 numbers of the result and a chunk's intermediates. Deviations: none.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Model = Callable[[list[Tensor], Tensor], Tensor]  # (parameters, inputs (N, ...)) -> outputs (N, C), each example for itself


def hessian(loss: Callable[[list[Tensor]], Tensor], params: Sequence[Tensor], *, chunk_size: int = 128) -> Tensor:
    """H (n, n) of `loss`, a scalar function of a list of tensors, at `params`; `chunk_size` rows at a time."""
    theta = [p.detach().requires_grad_() for p in params]
    gradients = torch.autograd.grad(loss(theta), theta, create_graph=True, allow_unused=True)
    g = torch.cat([_or_zeros(d, p.shape, p).reshape(-1) for d, p in zip(gradients, theta, strict=True)])
    H = torch.zeros(len(g), len(g), dtype=g.dtype, device=g.device)
    if not g.requires_grad:
        return H
    for first in range(0, len(g), chunk_size):
        rows = H[first : first + chunk_size]
        e = torch.zeros_like(rows)
        e.diagonal(first).fill_(1)  # row i of the chunk is basis vector first + i
        products = torch.autograd.grad(g, theta, e, retain_graph=True, allow_unused=True, is_grads_batched=True)
        blocks = [_or_zeros(block, (len(e), *p.shape), p) for block, p in zip(products, theta, strict=True)]
        torch.cat([block.reshape(len(e), -1) for block in blocks], dim=1, out=rows)
    return _symmetric(H, chunk_size)


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
    """
    if draws is not None and not (isinstance(draws, int) and draws >= 1):
        raise ValueError(f"draws must be a positive integer or None, got {draws!r}")

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
    """J (N, C, n), the outputs' derivatives example by example, and the outputs (N, C)."""
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


def _or_zeros(found: Tensor | None, shape: Sequence[int], like: Tensor) -> Tensor:
    """`found`, or zeros where the result does not depend on the parameter."""
    return like.new_zeros(shape) if found is None else found
