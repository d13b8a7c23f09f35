r"""The Hessian in blocks on its diagonal, each exact; one block of everything is the Hessian itself.

    H_B = E_B^T H E_B,    E_B = the basis vectors of the entries in block B

Column j of H_B is a Hessian-vector product with e_j, restricted to the parameters of the block. What lies outside the blocks is
taken as zero. The blocks together hold every entry of theta once.

    whole      one block of n                     n^2 numbers
    tensors    one block for each parameter       sum of their sizes squared
    neurons    one block for each row of a weight of two or more dimensions (what feeds one output), with the bias of that
               output if `bias`; every entry of any other parameter is a block of its own

Cost: n Hessian-vector products, one at a time, for every partition. Deviations: none.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from secondlook.curvature.products import hvp
from secondlook.curvature.vectors import flat, split

Blocks = list[list[int]]  # entries of theta, the parameters flattened one after the other, in each block


def whole(params: Sequence[Tensor]) -> Blocks:
    """One block of everything.

    >>> blocks.whole([torch.ones(1, 2), torch.ones(1)])
    [[0, 1, 2]]
    """
    return [list(range(sum(p.numel() for p in params)))]


def tensors(params: Sequence[Tensor]) -> Blocks:
    """A block for each tensor.

    >>> blocks.tensors([torch.ones(1, 2), torch.ones(1)])
    [[0, 1], [2]]
    >>> optimizer = Newton([torch.ones(2, requires_grad=True)], blocks=blocks.tensors)
    """
    return [list(entries) for entries in _entries(params)]


def neurons(params: Sequence[Tensor], bias: bool = True) -> Blocks:
    """Blocks of neurons; the bias of a weight is the vector, as long as the weight has rows, that directly follows it.

    >>> blocks.neurons([torch.ones(2, 2), torch.ones(2)])
    [[0, 1, 4], [2, 3, 5]]
    """
    blocks: Blocks = []
    before = None  # the weight just before
    for p, entries in zip(params, _entries(params), strict=True):
        if p.dim() >= 2:
            width = p.numel() // len(p)
            blocks += [list(entries[i * width : (i + 1) * width]) for i in range(len(p))]
        elif bias and before is not None and before.dim() >= 2 and p.shape == before.shape[:1]:
            for block, entry in zip(blocks[-len(p) :], entries, strict=True):
                block.append(entry)
        else:
            blocks += [[entry] for entry in entries]
        before = p
    return blocks


def _entries(params: Sequence[Tensor]) -> list[range]:
    first, found = 0, []
    for p in params:
        found.append(range(first, first + p.numel()))
        first += p.numel()
    return found


class BlockHessian:
    """H at one theta, from `gradients` with a graph; formed only where a matrix is asked for.

    groups      blocks of one size b each: their entries (blocks, b) and their matrices (blocks, b, b)
    H @ v       the product, (n,) to (n,); of the whole Hessian, while it is not formed, one Hessian-vector product
    products    how many Hessian-vector products were made

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> H = blocks.BlockHessian(torch.autograd.grad((w**3).sum(), [w], create_graph=True), [w], blocks=[[0], [1]])
    >>> H @ torch.ones(2)
    tensor([ 6., 12.])
    """

    def __init__(self, gradients: Sequence[Tensor], params: Sequence[Tensor], blocks: Blocks):
        if sorted(entry for block in blocks for entry in block) != list(range(sum(p.numel() for p in params))):
            raise ValueError("blocks must hold every entry of the parameters once")
        self.gradients, self.params, self.blocks = gradients, params, blocks
        self.products = 0

    @cached_property
    def groups(self) -> list[tuple[Tensor, Tensor]]:
        by_size = defaultdict(list)
        for block in self.blocks:
            by_size[len(block)].append(block)
        groups = []
        for blocks in by_size.values():
            H = torch.stack([self._matrix(block) for block in blocks])
            groups.append((torch.tensor(blocks, device=H.device), (H + H.mT) / 2))
        return groups

    def _matrix(self, block: list[int]) -> Tensor:
        spans = _entries(self.params)
        inside = [i for i, span in enumerate(spans) if any(entry in span for entry in block)]
        params, g = [self.params[i] for i in inside], [self.gradients[i] for i in inside]
        theirs = [entry for i in inside for entry in spans[i]]  # entries of the parameters that the block touches
        place = {entry: j for j, entry in enumerate(theirs)}
        rows = torch.tensor([place[entry] for entry in block], device=params[0].device)
        columns = []
        for j in rows.tolist():
            e = params[0].new_zeros(len(theirs))
            e[j] = 1
            columns.append(self._product(g, params, e)[rows])
        return torch.stack(columns, dim=1)

    def _product(self, gradients: Sequence[Tensor], params: Sequence[Tensor], v: Tensor) -> Tensor:
        self.products += 1
        return flat(hvp(gradients, params, split(v, params), retain_graph=True))

    def __matmul__(self, v: Tensor) -> Tensor:
        if len(self.blocks) == 1 and "groups" not in self.__dict__:
            return self._product(self.gradients, self.params, v)
        return self.map(lambda H, x: torch.einsum("kij,kj->ki", H, x), v)

    def map(self, function: Callable[[Tensor, Tensor], Tensor], v: Tensor) -> Tensor:
        """`function` of the matrices (blocks, b, b) and of v in each block (blocks, b), put together again (n,)."""
        result = torch.empty_like(v)
        for entries, H in self.groups:
            result[entries] = function(H, v[entries])
        return result
