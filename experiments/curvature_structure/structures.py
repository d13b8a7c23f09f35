"""Approximations of a symmetric matrix M that store fewer numbers, and the step that each gives.

All are kept as pieces of a spectral decomposition, so that one formula serves them all: on the rows and columns `at`

    M ~ V diag(w) V^T,      step = -(|M| + damping I)^-1 g = -g / damping + V [1 / damping - 1 / (|w| + damping)] V^T g .

|M| has the same eigenvectors and the absolute eigenvalues, so that a step always descends; M = |M| for the Gauss-Newton matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secondlook.problems.networks import Network


@dataclass(frozen=True)
class Block:
    """V (m, k) and w (k,) on the rows and columns `at` of the whole matrix, m of them."""

    at: slice
    w: Tensor
    V: Tensor


@dataclass(frozen=True)
class Structure:
    """`stored`: numbers to keep, symmetric halves once. `work`: sum of the cubes of the sizes of what is inverted."""

    n: int
    blocks: list[Block]
    stored: int
    work: int

    def dense(self) -> Tensor:
        """The approximation as a matrix (n, n)."""
        M = torch.zeros(self.n, self.n, dtype=torch.float64)
        for b in self.blocks:
            M[b.at, b.at] = (b.V * b.w) @ b.V.T
        return M

    def step(self, g: Tensor, damping: float) -> Tensor:
        """-(|M| + damping I)^-1 g, (n,)."""
        step = -g / damping
        for b in self.blocks:
            step[b.at] += b.V @ ((1 / damping - 1 / (b.w.abs() + damping)) * (b.V.T @ g[b.at]))
        return step


def spans(sizes: Sequence[int]) -> list[slice]:
    """Consecutive slices of these lengths."""
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [slice(first, last) for first, last in zip(ends[:-1], ends[1:], strict=True)]


def triangle(m: int) -> int:
    """Numbers in a symmetric (m, m) matrix."""
    return m * (m + 1) // 2


def nothing(n: int) -> Structure:
    """M ~ 0: the step is the gradient's."""
    return Structure(n, [], 0, 0)


def diagonal(D: Tensor) -> Structure:
    """diag(D)."""
    return Structure(len(D), [Block(slice(0, len(D)), D, torch.eye(len(D), dtype=D.dtype))], len(D), len(D))


def in_blocks(M: Tensor, sizes: Sequence[int]) -> Structure:
    """M inside consecutive diagonal blocks of these sizes, zero outside."""
    blocks = [Block(at, *torch.linalg.eigh(M[at, at])) for at in spans(sizes)]
    return Structure(len(M), blocks, sum(map(triangle, sizes)), sum(m**3 for m in sizes))


def low_rank(full: Structure, budget: int) -> Structure:
    """The eigenpairs of largest |w|, as many as `budget` numbers can hold, at least one."""
    (whole,) = full.blocks
    k = max(1, round(budget / (full.n + 1)))
    top = whole.w.abs().argsort(descending=True)[:k]
    return Structure(full.n, [Block(whole.at, whole.w[top], whole.V[:, top])], k * (full.n + 1), k**3)


def kronecker(pairs: Sequence[tuple[Tensor, Tensor]]) -> Structure:
    """One block S (x) A a layer: S (out, out), A (in + 1, in + 1), symmetric; entry (o, i) of W is number o (in + 1) + i."""
    sizes = [len(S) * len(A) for S, A in pairs]
    blocks = []
    for at, (S, A) in zip(spans(sizes), pairs, strict=True):
        (w, V), (u, U) = torch.linalg.eigh(S), torch.linalg.eigh(A)
        blocks.append(Block(at, torch.kron(w, u), torch.kron(V, U)))
    stored = sum(triangle(len(S)) + triangle(len(A)) for S, A in pairs)
    return Structure(sum(sizes), blocks, stored, sum(len(S) ** 3 + len(A) ** 3 for S, A in pairs))


def nearest_kronecker(M: Tensor, shapes: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """S, A symmetric with the least |block - S (x) A|_F of each layer's block: the first singular pair of the block rearranged.

    Source: Van Loan and Pitsianis (1993), "Approximation with Kronecker products".
    """
    pairs = []
    for at, (out, inputs) in zip(spans([out * inputs for out, inputs in shapes]), shapes, strict=True):
        R = M[at, at].reshape(out, inputs, out, inputs).permute(0, 2, 1, 3)  # (o, o', i, i')
        R = ((R + R.transpose(0, 1)) / 2).reshape(out**2, inputs**2)
        _, left = torch.linalg.eigh(R @ R.T)
        S = left[:, -1]
        pairs.append((S.reshape(out, out), (S @ R).reshape(inputs, inputs)))
    return [((S + S.T) / 2, (A + A.T) / 2) for S, A in pairs]


def kfac(network: Network, params: Sequence[Tensor], x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """K-FAC's S and A of each layer, with the expectation over the model's labels y taken exactly.

        A = (1/N) sum_b sum_t a_bt a_bt^T        S = (1/(N T)) sum_b sum_t E_y[ d_bt d_bt^T ],    d = d log p(y | x_b) / d s

    Source: Martens and Grosse (2015), arXiv 1503.05671, section 3; for convolutions Grosse and Martens (2016), arXiv
    1602.01407, section 3.
    """
    trace = network.trace([W.detach().requires_grad_() for W in params], x)
    p = torch.softmax(trace.logits.detach(), dim=1)
    S = [torch.zeros(out, out, dtype=x.dtype) for out, _ in network.shapes]
    for y in range(p.shape[1]):
        score = torch.nn.functional.one_hot(torch.tensor(y), p.shape[1]) - p  # d log p(y) / d logits, (N, C)
        root = p[:, y, None].sqrt()  # S is quadratic in d
        derivatives = torch.autograd.grad(trace.logits, trace.sums, root * score, retain_graph=True)
        for total, d in zip(S, derivatives, strict=True):
            total += torch.einsum("nto,ntp->op", d, d) / (d.shape[0] * d.shape[1])
    A = [torch.einsum("nti,ntj->ij", a, a).detach() / len(x) for a in trace.inputs]
    return list(zip(S, A, strict=True))
