"""The parameters as one vector of n numbers, tensor by tensor and row by row, whatever their strides are in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """The entries of all `tensors`, (n,)."""
    return torch.cat([x.reshape(-1) for x in tensors])


def finite(v: Tensor) -> Tensor:
    """v, a product with a matrix. Raises RuntimeError where it is not finite; what follows could only say 'ill-conditioned'."""
    if not v.isfinite().all():
        raise RuntimeError("a product with the matrix is not finite: look for nan and inf in data, parameters and loss")
    return v


def split(v: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """The flat v (n,) in the shapes and types of `params`."""
    parts = v.split([p.numel() for p in params])
    return [part.view(p.shape).to(p.dtype) for part, p in zip(parts, params, strict=True)]


def full_precision(params: Sequence[Tensor], what: str) -> None:
    """TypeError where `what` meets a parameter in half precision, for which there are no factorisations."""
    for p in params:
        if p.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{what} needs parameters in float32 or float64, got {p.dtype}: take model.float()")
