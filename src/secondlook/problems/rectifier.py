r"""Rectifier whose second derivative costs nothing where it is nothing, with the values of `torch.relu`.

    y = max(x, 0),    gx = [y > 0] gy,    and of gx, with v its derivative:  by gy  [y > 0] v,  by x  none

torch's own rule for the last makes an array of zeros, the size of an activation, and adds it to what there is.
Deviations from `torch.relu`: forward mode and `vmap` of the forward pass raise errors; so it is for networks in training, and
steps aside for torch's where `torch.compile` traces.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function


class ReLU(nn.ReLU):
    """max(x, 0), entry by entry."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or torch.compiler.is_compiling():
            return super().forward(x)
        return _Forward.apply(x)


class _Forward(Function):
    """x to y."""

    @staticmethod
    def forward(x):
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, gy):
        return _Masked.apply(gy, *ctx.saved_tensors)


class _Masked(Function):
    """(gy, y) to [y > 0] gy, a function of gy alone."""

    @staticmethod
    def forward(gy, y):
        return torch.ops.aten.threshold_backward(gy, y, 0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, v):
        return _Masked.apply(v, *ctx.saved_tensors), None
