"""The methods that are timed: name to a function that makes a step, `step()`, out of a network and one batch of data."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn

from secondlook.errors import Mistake
from secondlook.optim import AdaHessian, compiled_step

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


def ours(lr: float, every: int, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    optimizer = AdaHessian(model.parameters(), lr=lr, every=every)

    def step():
        optimizer.zero_grad()
        optimizer.backward(loss(model(x), y))
        optimizer.step()

    return step


def ours_compiled(lr: float, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    step = compiled_step(AdaHessian(model.parameters(), lr=lr), model, loss)
    return lambda: step(x, y)


def sgd_compiled(lr: float, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    return plain(sgd(lr), torch.compile(model), x, y)


def sgd(lr: float) -> Callable:
    return partial(torch.optim.SGD, lr=lr, momentum=0.9)  # the usual momentum; its value costs nothing


def peer(package: str, name: str, lr: float, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """AdaHessian of another package."""
    try:
        make = getattr(import_module(package), name)
    except ImportError as error:
        raise Mistake(f"step_cost needs the package {package}: install the extra 'benchmark'") from error
    return plain(partial(make, lr=lr), model, x, y, create_graph=True)


def makers(lr: float) -> dict[str, Callable[[nn.Module, Tensor, Tensor], Step]]:
    return {
        "SGD": partial(plain, sgd(lr)),
        "SGD compiled": partial(sgd_compiled, lr),
        "fused Adam": partial(plain, partial(torch.optim.Adam, lr=lr, fused=True)),
        "AdaHessian": partial(ours, lr, 1),
        "AdaHessian every 4": partial(ours, lr, 4),
        "AdaHessian compiled": partial(ours_compiled, lr),
        "torch-optimizer": partial(peer, "torch_optimizer", "Adahessian", lr),
        "pytorch-optimizer": partial(peer, "pytorch_optimizer", "AdaHessian", lr),
    }
