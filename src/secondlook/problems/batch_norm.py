r"""Batch norm whose second derivative takes a few passes over memory, with the values and the state of `torch.nn.BatchNorm2d`.

For one channel, over its n numbers (all images and positions), r = 1 / sqrt(var(x) + eps) and x^ = (x - mean(x)) r:

    forward     y  = gamma x^ + beta
    backward    gx = gamma r (gy - S - P x^),    g_gamma = n P,    g_beta = n S,        S = mean(gy),  P = mean(gy x^)

A Hessian-vector product differentiates the backward pass. With v, v_gamma, v_beta the derivatives by gx, g_gamma, g_beta, and
V = mean(v), Q = mean(v x^), M = mean(v gy), K = M - S V - P Q,

    by gy       gamma r (v - V - Q x^) + v_gamma x^ + v_beta
    by gamma    n r K
    by x        r (w - mean(w) - mean(w x^) x^) - gamma r^2 K x^,    w = (v_gamma - gamma r Q) gy - gamma r P v

where, in terms of what is known already, mean(w) = v_gamma S - gamma r (Q S + P V), mean(w x^) = v_gamma P - 2 gamma r P Q. The
first line of the three is a backward pass with v for gy, plus an affine function of x; the last is a sum of gy, v, x and 1 with
one factor for each channel. torch differentiates the backward pass operation by operation instead.

Derivation: the chain rule, with dr/dx = -(r^2 / n) x^. Cost of the double backward: two reductions and seven passes; on a GPU
with Triton, which torch brings there, one and one, in three kernels (`batch_norm_fused`).
Deviations from `torch.nn.BatchNorm2d`: in training mode, derivatives of third order, forward mode and `vmap` of the forward
pass raise errors. Where `torch.compile` traces, and in evaluation mode, it is torch's own.
"""

import os
import warnings

import torch
from torch import Tensor, nn
from torch.autograd import Function

native_backward = torch.ops.aten.native_batch_norm_backward


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm of images (B, C, H, W) with a scale gamma and a shift beta, and running means for evaluation.

    `BatchNorm2d.fused` says whether a GPU takes the second derivative by kernels of its own; set it to False for torch's alone.
    """

    fused = True

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(num_features, eps, momentum)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or torch.compiler.is_compiling():
            return super().forward(x)
        self._check_input_dim(x)
        if x.numel() == x.shape[1]:
            raise ValueError(f"batch norm in training mode takes more than 1 value per channel, got shape {tuple(x.shape)}")
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        y, _, _ = _Forward.apply(x, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps)
        return y


class _Forward(Function):
    """(x, gamma, beta) to y, mean(x) and r; derivatives by the last two are within those by x. Updates the running means."""

    @staticmethod
    def forward(x, gamma, beta, running_mean, running_var, momentum, eps):
        return torch.native_batch_norm(x, gamma, beta, running_mean, running_var, True, momentum, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, gamma, *_ = inputs
        _, mean, r = output
        ctx.mark_non_differentiable(mean, r)
        ctx.set_materialize_grads(False)  # none of zeros for mean and r
        ctx.save_for_backward(x, gamma, mean, r)

    @staticmethod
    def backward(ctx, gy, *_):
        derivatives = (None, None, None) if gy is None else _Backward.apply(gy, *ctx.saved_tensors)
        return *derivatives, None, None, None, None


class _Backward(Function):
    """(gy, x, gamma) to gx, g_gamma, g_beta."""

    @staticmethod
    def forward(gy, x, gamma, mean, r):
        return native_backward(gy, x, gamma, None, None, mean, r, True, 0.0, [True, True, True])

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx, v, v_gamma, v_beta):
        if torch.is_grad_enabled():
            raise RuntimeError("this batch norm has no derivatives of third order: take torch.nn.BatchNorm2d")
        gy, x, gamma, mean, r, n_P, n_S = ctx.saved_tensors
        given, like = (v, v_gamma, v_beta), (x, gamma, gamma)
        v, v_gamma, v_beta = (torch.zeros_like(t) if v is None else v for v, t in zip(given, like, strict=True))
        if kernels := _kernels(x, v, v_gamma, v_beta):
            try:
                return *kernels.second_derivative(v, v_gamma, v_beta, gy, x, gamma, mean, r, n_P, n_S), None, None
            except Exception as error:  # a machine without a C compiler, a GPU that Triton does not know
                BatchNorm2d.fused = False
                warnings.warn(f"batch norm's fused kernels cannot be had, and torch's are taken: {error}", stacklevel=2)
        n = x.numel() / len(gamma)
        S, scale = n_S / n, gamma * r
        n_Q, n_V = _sums(v, x, gamma, mean, r)
        n_k, _ = _sums(v, gy, gamma, S, r)  # mean(v (gy - S)) = M - S V
        means = torch.stack([n_P, n_Q, n_V, n_k]).div_(n)  # (4, C)
        P, Q, V, k = means
        scaled_P, scaled_Q, scaled_V = scale * means[:3]
        rPQ = r * P * Q
        k = k - rPQ  # r K
        slope = v_gamma - scaled_Q  # of by_gy in x^, and of w in gy
        mean_w = slope * S - scaled_P * V
        bend = r * (slope * P + gamma * (k - rPQ))  # of -by_x in x^
        r_slope, r_bend = r * slope, r * bend

        by_gy = _combined([(scale, v), (r_slope, x)], v_beta - scaled_V - r_slope * mean)
        by_x = _combined([(r_slope, gy), (-r * scaled_P, v), (-r_bend, x)], r_bend * mean - r * mean_w)
        return by_gy, by_x, n * k, None, None


def _kernels(x: Tensor, *given: Tensor):
    """The module `batch_norm_fused` where it takes these: on a GPU, or on a CPU by Triton's interpreter; not under vmap."""
    if not (BatchNorm2d.fused and (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1") and x.numel() < 2**31):
        return None
    try:
        from secondlook.problems import batch_norm_fused

        for t in given:
            t.data_ptr()  # under vmap it has none
    except (ImportError, RuntimeError):
        return None
    return batch_norm_fused


def _sums(v: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of v (x - mean) r and of v over all but the channels, (C,) each, in one pass and without a product in memory.

    No sum depends on gamma; kernels for a GPU ask for it all the same.
    """
    return native_backward(v, x, gamma, None, None, mean, r, True, 0.0, [False, True, True])[1:]


def _combined(terms: list[tuple[Tensor, Tensor]], constant: Tensor) -> Tensor:
    """Sum of factors (C,) times images (B, C, H, W), plus a constant (C,)."""
    (factor, first), *others = terms
    total = torch.mul(first, factor[:, None, None]).add_(constant[:, None, None])
    for factor, images in others:
        total.addcmul_(images, factor[:, None, None])
    return total.to(first.dtype)
