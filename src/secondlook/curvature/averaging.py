"""Spatial averaging of a diagonal estimate: fewer degrees of freedom, less variance, some bias.

    D^(s)_i = (1/b) sum_{j in block of i} D_j          (Yao et al., arXiv 2006.00719, Eq. 10)

Deviations: the authors' code averages |D_j|, which is biased upwards: 'absolute' does the same, 'signed' is Eq. 10.
"""

import torch
from torch import Tensor

AVERAGING = ("signed", "absolute")


def spatial_average(D: Tensor, block_size: int = 1, averaging: str = "signed") -> Tensor:
    """Block means of D, in the shape of D.

    A tensor of three or more dimensions is a convolution's weight (out, in, *kernel): a block is one kernel. In any other
    tensor a block is `block_size` consecutive entries, row by row; `block_size` must divide their number.
    """
    if averaging == "absolute":
        D = D.abs()
    if D.dim() >= 3:
        return torch.empty_like(D).copy_(D.mean(dim=tuple(range(2, D.dim())), keepdim=True))  # (out, in, 1, ...) to all
    if block_size == 1:
        return D
    blocks = D.reshape(-1, block_size)  # (blocks, block_size)
    return blocks.mean(dim=1, keepdim=True).expand_as(blocks).reshape(D.shape)
