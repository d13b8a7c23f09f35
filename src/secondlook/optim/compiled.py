"""A step whose gradient and z * Hz are one compiled graph, for runs long enough to pay for compiling.

    g = grad L(theta),    Hz = grad (g^T z),    both traced by torch.compile; the update is the optimiser's own

H z is taken by reverse over reverse inside `torch.func`: `torch.compile` cannot differentiate a compiled backward pass again,
and forward over reverse costs more here. The steps between two estimates are a graph of their own. The update is in neither
graph: its numbers change with t, and torch.compile makes a new graph for every number that a foreach function of torch is
given. Example:

    optimizer = AdaHessian(model.parameters(), lr=0.15)
    step = compiled_step(optimizer, model, criterion)
    for x, y in batches:
        loss = step(x, y)                    # in place of zero_grad, backward and step

Parameters, buffers, state and probes are the model's and the optimiser's own, so compiled and ordinary steps may alternate, and
`state_dict` holds all.

Cost: that of the optimiser with one probe. Compilation takes a quarter of a minute or more, again for every new shape of a
batch, and needs a C++ compiler with the default backend.
Deviations: the operations are those of `backward` in an order that the compiler chooses, so results differ by rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.signs import random_words, signs_by_shifts
from secondlook.optim.base import SecondOrder

Theta = dict[str, Tensor]  # the parameters by name
Loss = Callable[[Theta, Tensor, Tensor], tuple[Tensor, Theta]]  # (theta, x, y) -> the loss, and the buffers after it


def compiled_step(
    optimizer: SecondOrder, model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], backend: str = "inductor"
) -> Callable[[Tensor, Tensor], Tensor]:
    """`step(x, y) -> loss`: one step of `optimizer` on criterion(model(x), y), compiled by a backend of torch.compile.

    Raises ValueError unless the optimiser is one of second order with one group and `diagonal=Hutchinson()`, one probe of
    signs, takes no more than one estimate to a step, holds all of the model's trainable parameters and no others, and is not
    data-parallel.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = AdaHessian(model.parameters())
    >>> step = compiled_step(optimizer, model, torch.nn.functional.mse_loss, backend="eager")  # traced, and not compiled
    >>> loss = step(torch.ones(4, 2), torch.zeros(4, 1))
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    _refuse(optimizer, names)
    (group,) = optimizer.param_groups
    params = group["params"]
    theta = {names[p]: p.detach() for p in params}  # shares memory with the parameters
    buffers = dict(model.named_buffers())

    def loss(theta: Theta, x: Tensor, y: Tensor) -> tuple[Tensor, Theta]:
        changed = {name: buffer.clone() for name, buffer in buffers.items()}
        return criterion(functional_call(model, {**theta, **changed}, (x,)), y), changed

    gradient, with_curvature = (torch.compile(f, fullgraph=True, backend=backend) for f in (_gradient, _gradient_and_diagonal))

    def step(x: Tensor, y: Tensor) -> Tensor:
        if optimizer.due(params[0], group):
            words = random_words(sum(p.numel() for p in params), optimizer.generator.device, optimizer.generator)
            value, changed, g, D = with_curvature(loss, theta, words.to(params[0].device), x, y)
        else:
            value, changed, g = gradient(loss, theta, x, y)
            D = []
        with torch.no_grad():
            for name, buffer in buffers.items():
                buffer.copy_(changed[name])
        for p, gp in zip(params, g, strict=True):
            p.grad = gp
        optimizer.curvature = dict(zip(params, D, strict=False))
        optimizer.step()
        return value

    return step


def _gradient(loss: Loss, theta: Theta, x: Tensor, y: Tensor) -> tuple[Tensor, Theta, list[Tensor]]:
    """The loss, the buffers after it, and g."""
    g, (value, changed) = grad_and_value(loss, has_aux=True)(theta, x, y)
    return value, changed, list(g.values())


def _gradient_and_diagonal(loss: Loss, theta: Theta, words: Tensor, x: Tensor, y: Tensor) -> tuple:
    """The same, and D = z * Hz for the signs z of random `words`."""
    sizes, dtype = [p.numel() for p in theta.values()], next(iter(theta.values())).dtype
    z = signs_by_shifts(words, dtype)[: sum(sizes)].split(sizes)
    z = [zi.view(p.shape) for zi, p in zip(z, theta.values(), strict=True)]

    def slope(theta: Theta) -> tuple:
        g, (value, changed) = grad_and_value(loss, has_aux=True)(theta, x, y)
        return sum((gi * zi).sum() for gi, zi in zip(g.values(), z, strict=True)), (g, value, changed)

    Hz, (g, value, changed) = grad(slope, has_aux=True)(theta)
    return value, changed, list(g.values()), [zi * h for zi, h in zip(z, Hz.values(), strict=True)]


def _refuse(optimizer: SecondOrder, names: dict[Tensor, str]) -> None:
    """ValueError where `compiled_step` cannot stand in for the ordinary one."""
    if not isinstance(optimizer, SecondOrder) or getattr(optimizer, "warmup", 1) != 1:
        raise ValueError("optimizer must be AdaHessian, Sophia, or OASIS with warmup=1, to be compiled")
    if len(optimizer.param_groups) > 1 or set(optimizer.param_groups[0]["params"]) != set(names):
        raise ValueError("optimizer must hold the model's trainable parameters in one group, and no others")
    if optimizer.diagonal != ONE_PROBE:
        raise ValueError("optimizer must have diagonal=Hutchinson(), one probe of signs, to be compiled")
    if optimizer.replicas is not None:
        raise ValueError("optimizer must not be data-parallel to be compiled")
