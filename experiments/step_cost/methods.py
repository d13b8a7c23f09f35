"""The methods that are timed: name to a function that makes a step, `step()`, out of a network and one batch of data."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn

from secondlook.curvature import GaussNewtonBartlett, Hutchinson
from secondlook.errors import Mistake
from secondlook.optim import AdaHessian, compiled_step
from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.layers import DERIVED, with_layers_of_torch

from .networks import loss

Step = Callable[[], object]


def plain(make: Callable, model: nn.Module, x: Tensor, y: Tensor, create_graph: bool = False) -> Step:
    """The usual loop around the optimiser that `make` makes. `create_graph` is what the peers ask for."""
    optimizer = make(model.parameters())

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward(create_graph=create_graph)
        optimizer.step()

    return step


def ours(lr: float, model: nn.Module, x: Tensor, y: Tensor, *, every: int = 1, probes: int = 1, power: float = 1.0) -> Step:
    optimizer = AdaHessian(model.parameters(), lr=lr, every=every, diagonal=Hutchinson(probes), hessian_power=power)

    def step():
        optimizer.zero_grad()
        optimizer.backward(loss(model(x), y))
        optimizer.step()

    return step


def on_a_part(lr: float, parts: int, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """The curvature from one of so many parts of the batch, by a pass of its own."""
    optimizer = AdaHessian(model.parameters(), lr=lr)
    part = len(x) // parts

    def step():
        optimizer.zero_grad()
        optimizer.backward(loss(model(x), y), curvature_of=loss(model(x[:part]), y[:part]))
        optimizer.step()

    return step


def sampled(lr: float, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """The curvature from labels that the model draws: one more gradient, and no second derivative."""
    optimizer = AdaHessian(model.parameters(), lr=lr, diagonal=GaussNewtonBartlett())

    def step():
        logits = model(x)
        optimizer.zero_grad()
        optimizer.backward(loss(logits, y), curvature_of=logits)
        optimizer.step()

    return step


def for_a_compiler(model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """Images and convolutions with the channel as the last axis in memory: what compiled code is quickest on."""
    if x.dim() != 4:
        return model, x
    return model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)


def ours_compiled(lr: float, model: nn.Module, x: Tensor, y: Tensor, *, every: int = 1) -> Step:
    model, x = for_a_compiler(model, x)
    step = compiled_step(AdaHessian(model.parameters(), lr=lr, every=every), model, loss)
    return lambda: step(x, y)


def sgd_compiled(lr: float, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    model, x = for_a_compiler(model, x)
    return plain(sgd(lr), torch.compile(model), x, y)


def sgd(lr: float) -> Callable:
    return partial(torch.optim.SGD, lr=lr, momentum=0.9)  # the usual momentum; its value costs nothing


def peer(package: str, name: str, lr: float, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """AdaHessian of another package, on the network as it is usually written."""
    try:
        make = getattr(import_module(package), name)
    except ImportError as error:
        raise Mistake(f"step_cost needs the package {package}: install the extra 'benchmark'") from error
    return plain(partial(make, lr=lr), with_layers_of_torch(model, *DERIVED), x, y, create_graph=True)


def makers(lr: float) -> dict[str, Callable[[nn.Module, Tensor, Tensor], Step]]:
    return {
        "SGD": partial(plain, sgd(lr)),
        "SGD compiled": partial(sgd_compiled, lr),
        "fused Adam": partial(plain, partial(torch.optim.Adam, lr=lr, fused=True)),
        "AdaHessian": partial(ours, lr),
        **{f"AdaHessian every {k}": partial(ours, lr, every=k) for k in (2, 3, 4, 5, 10)},
        **{f"AdaHessian {s} probes": partial(ours, lr, probes=s) for s in (2, 4, 8)},
        **{f"AdaHessian power {k:g}": partial(ours, lr, power=k) for k in (0, 0.5)},
        **{f"AdaHessian 1/{parts} batch": partial(on_a_part, lr, parts) for parts in (2, 4, 8)},
        "AdaHessian Gauss-Newton": partial(sampled, lr),
        "AdaHessian compiled": partial(ours_compiled, lr),
        "AdaHessian compiled every 4": partial(ours_compiled, lr, every=4),
        "AdaHessian on nn.BatchNorm2d": lambda model, x, y: ours(lr, with_layers_of_torch(model, BatchNorm2d), x, y),
        "torch-optimizer": partial(peer, "torch_optimizer", "Adahessian", lr),
        "pytorch-optimizer": partial(peer, "pytorch_optimizer", "AdaHessian", lr),
    }


def period(name: str) -> int:
    """Steps from one Hessian to the next."""
    return int(name.partition("every ")[2] or 1)
