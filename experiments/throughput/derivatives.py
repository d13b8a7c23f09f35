"""Of `selftest`: the library's own layers against torch's on the CPU in float64, by values, gradients and products."""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd import grad

from secondlook.curvature.products import hvp
from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.convolution import Conv2d
from secondlook.problems.layers import DERIVED, with_layers_of_torch
from secondlook.problems.resnet import resnet
from secondlook.training import FLOAT32, Precision, generator

PROBES = {  # type, arithmetic, and the relative error that its rounding explains: float32 may be convolved by transforms
    "float64": (torch.float64, Precision(), 1e-12),
    "float32": (torch.float32, Precision(), 1e-4),
    "TF32": (torch.float32, Precision(tf32=True), 1e-2),
    "bfloat16": (torch.float32, Precision(bf16=True), 1e-1),
}


class NotHere(Exception):
    """The part is not for this device."""


def derivatives(model: nn.Module, x: Tensor, precision: Precision = FLOAT32) -> list[Tensor]:
    """Outputs, gradients and H z of a loss in which all of them matter, on the CPU in float64."""
    forward, x = precision.model(model), precision.batch(x.detach()).requires_grad_()
    inputs = [x, *model.parameters()]
    with precision.active():
        y = forward(x)
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.device)
        g = grad((weights * y.double().sin()).sum() + (x.double() ** 3).sum(), inputs, create_graph=True)
        z = [normal(t.shape, 2).to(t) for t in inputs]
        return [t.detach().double().cpu() for t in (y, *g, *hvp(g, inputs, z))]


def normal(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compared(build: Callable[[], nn.Module], shape: tuple[int, ...], device: str) -> dict[str, float]:
    """Largest relative error by type and layout, as a multiple of what rounding explains. ArithmeticError for one above 1."""
    found = {}
    for name, (dtype, precision, explained) in PROBES.items():
        x = 1 + 2 * normal(torch.Size(shape), 1).to(dtype)
        x = x.bfloat16().to(dtype) if precision.bf16 else x
        true = derivatives(with_layers_of_torch(build().double(), *DERIVED), x.double())
        for last in (False, True):
            setting = replace(precision, channels_last=last)
            its = derivatives(build().to(device, dtype), x.to(device), setting)
            apart = max(float((a - b).norm() / b.norm()) for a, b in zip(its, true, strict=True))
            found[name + ", channels last" * last] = apart / explained
    if bad := {name: value for name, value in found.items() if not value <= 1}:
        raise ArithmeticError(f"errors as multiples of what rounding explains: {bad}")
    return found


class Casted(nn.Sequential):
    """A layer whose input is cast as a convolution before it would cast it."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        return super().forward(x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x)


def batch_norm(device: str, fused: bool = False) -> dict:
    """By torch's kernels, or by its own."""
    if fused and device == "cpu":
        raise NotHere

    def build() -> nn.Module:
        norm = BatchNorm2d(6)
        with torch.no_grad():
            norm.weight.copy_(normal(norm.weight.shape, 3))
            norm.bias.copy_(normal(norm.bias.shape, 4))
        return Casted(norm)

    before, BatchNorm2d.fused = BatchNorm2d.fused, fused
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "batch norm's fused kernels cannot be had")
            if fused:
                importlib.import_module("secondlook.problems.batch_norm_fused")  # where it cannot be, torch's would be taken
            return compared(build, (5, 6, 12, 10), device)
    finally:
        BatchNorm2d.fused = before


def convolution(device: str) -> dict:
    found = {}
    for stride, bias in ((1, False), (2, False), (1, True)):

        def build(stride=stride, bias=bias) -> nn.Module:
            layer = Conv2d(4, 8, 3, stride, padding=1, bias=bias)
            with torch.no_grad():
                for i, p in enumerate(layer.parameters()):
                    p.copy_(normal(p.shape, 5 + i).bfloat16())
            return layer

        values = compared(build, (5, 4, 12, 10), device)
        found |= {f"stride {stride}{', bias' * bias}, {name}": value for name, value in values.items()}
    return found


def network(device: str) -> dict:
    """Many layers, through which errors of rounding grow: in float64 alone."""
    model, x = resnet(8, generator(0, "start"), 8).double(), normal(torch.Size((16, 3, 16, 16)), 1)
    true = derivatives(with_layers_of_torch(model, *DERIVED), x)
    its = derivatives(model.to(device), x.to(device))
    apart = max(float((a - b).norm() / b.norm()) for a, b in zip(its, true, strict=True))
    if not apart <= 1e-8:
        raise ArithmeticError(f"products are {apart:.1e} from torch's on the CPU")
    return {"float64": apart}
