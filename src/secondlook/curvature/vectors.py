"""The parameters as one vector of n numbers, tensor by tensor and row by row, whatever their strides are in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """The entries of all `tensors`, (n,)."""
    return torch.cat([x.reshape(-1) for x in tensors])


def split(v: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """The flat v (n,) in the shapes of `params`."""
    parts = v.split([p.numel() for p in params])
    return [part.view(p.shape) for part, p in zip(parts, params, strict=True)]
