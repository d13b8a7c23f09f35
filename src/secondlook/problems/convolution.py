r"""Convolution whose second derivative is four convolutions of the first's kind, with the values of `torch.nn.Conv2d`.

Write W * x for the convolution of images x (B, C, H, W) with kernels W (O, C, h, w). It is linear in both, so that for gy, the
derivative by y = W * x + b, two bilinear maps say everything: X(W, gy), the derivative by x, and K(x, gy), that by W.

    forward     y  = W * x + b
    backward    gx = X(W, gy),    gW = K(x, gy),    gb = sum of gy over images and positions

A Hessian-vector product differentiates the backward pass. With v, V, u the derivatives by gx, gW, gb,

    by gy       W * v + V * x + u
    by x        X(V, gy)
    by W        K(v, gy)

torch's own double backward takes the last as a convolution with kernels as large as the images, which libraries serve badly.

Derivation: <v, X(W, gy)> = <W * v, gy> and <V, K(x, gy)> = <V * x, gy>, by the definition of X and K. Both are bilinear, so
that the derivatives of the first by gy, v and W are W * v, X(W, gy) and K(v, gy); of the second, the same with V and x.
Cost of the double backward: four convolutions.
Deviations from `torch.nn.Conv2d`: in training mode, derivatives of third order, forward mode and `vmap` of the forward pass
raise errors. Where `torch.compile` traces, in evaluation mode, with groups, dilation or other paddings than zeros, and for
images (C, H, W), it is torch's own.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function

native_backward = torch.ops.aten.convolution_backward


class Conv2d(nn.Conv2d):
    """Convolution of images (B, C, H, W), with zeros around them, as `torch.nn.Conv2d` takes its arguments."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or torch.compiler.is_compiling() or not self._plain(x):
            return super().forward(x)
        given = (x, self.weight, self.bias)
        if torch.is_autocast_enabled(x.device.type):
            given = [None if t is None else t.to(torch.get_autocast_dtype(x.device.type)) for t in given]
        return _Forward.apply(*given, self.stride, self.padding)

    def _plain(self, x: Tensor) -> bool:
        usual = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        return usual and not isinstance(self.padding, str) and x.dim() == 4


class _Forward(Function):
    """(x, W, b) to y."""

    @staticmethod
    def forward(x, W, b, stride, padding):
        return torch.conv2d(x, W, b, stride, padding)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, W, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, W)

    @staticmethod
    def backward(ctx, gy):
        wanted = tuple(ctx.needs_input_grad[:3])
        return *_Backward.apply(gy, *ctx.saved_tensors, wanted, ctx.stride, ctx.padding), None, None


class _Backward(Function):
    """(gy, x, W) to gx, gW, gb, each of them None where it is not wanted."""

    @staticmethod
    def forward(gy, x, W, wanted, stride, padding):
        return _derivatives(gy, x, W, wanted, stride, padding)

    @staticmethod
    def setup_context(ctx, inputs, output):
        gy, x, W, _, ctx.stride, ctx.padding = inputs
        ctx.set_materialize_grads(False)  # the images have no derivative, and none of zeros
        ctx.save_for_backward(gy, x, W)

    @staticmethod
    def backward(ctx, v, V, u):
        if torch.is_grad_enabled():
            raise RuntimeError("this convolution has no derivatives of third order: take torch.nn.Conv2d")
        gy, x, W = ctx.saved_tensors
        how = ctx.stride, ctx.padding
        by_gy = by_x = by_W = None
        for kernels, images in ((W, v), (V, x)):
            if kernels is not None and images is not None:
                y = torch.conv2d(images, kernels, None, *how)
                by_gy = y if by_gy is None else by_gy.add_(y)
        if u is not None:
            u = u[:, None, None].expand_as(gy)
            by_gy = u if by_gy is None else by_gy.add_(u)
        if V is not None and ctx.needs_input_grad[1]:
            by_x, _, _ = _derivatives(gy, x, V, (True, False, False), *how)
        if v is not None and ctx.needs_input_grad[2]:
            _, by_W, _ = _derivatives(gy, v, W, (False, True, False), *how)
        return by_gy, by_x, by_W, None, None, None


def _derivatives(gy: Tensor, x: Tensor, W: Tensor, wanted: tuple[bool, bool, bool], stride, padding):
    """X(W, gy), K(x, gy) and the sum of gy, those that are wanted."""
    return native_backward(gy, x, W, [W.shape[0]], stride, padding, (1, 1), False, (0, 0), 1, wanted)
