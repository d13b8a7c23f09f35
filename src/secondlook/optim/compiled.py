"""A whole step of AdaHessian as one compiled graph: gradient, z * Hz and update, for runs long enough to pay for compiling.

    g = grad L(theta),    Hz = grad (g^T z),    then the update of `AdaHessian`, all traced by torch.compile

H z is taken by reverse over reverse inside `torch.func`: `torch.compile` cannot differentiate a compiled backward pass again,
and forward over reverse costs more here. With `every` > 1, the steps between two estimates are a graph of their own. Example:

    optimizer = AdaHessian(model.parameters(), lr=0.15)
    step = compiled_step(optimizer, model, criterion)
    for x, y in batches:
        loss = step(x, y)                    # in place of zero_grad, backward and step

Parameters, buffers, state and probes are the model's and the optimiser's own, so compiled and ordinary steps may alternate, and
`state_dict` holds all.

Cost: as AdaHessian with one probe; compilation takes a quarter of a minute or more, again for every new shape of a batch, and
needs a C++ compiler with the default backend.
Deviations: the operations are those of AdaHessian in an order that the compiler chooses, so results differ by rounding.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from secondlook.curvature.averaging import spatial_average
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.signs import random_words, signs_by_shifts
from secondlook.optim.adahessian import AdaHessian


def compiled_step(
    optimizer: AdaHessian, model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], backend: str = "inductor"
) -> Callable[[Tensor, Tensor], Tensor]:
    """`step(x, y) -> loss`: one step of `optimizer` on criterion(model(x), y), compiled by a backend of torch.compile.

    Raises ValueError unless the optimiser has one group and `diagonal=Hutchinson()`, one probe of signs, holds all of the
    model's trainable parameters and no others, and is not data-parallel.
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    group, *others = optimizer.param_groups
    if others or set(group["params"]) != set(names):
        raise ValueError("optimizer must hold the model's trainable parameters in one group, and no others")
    if optimizer.diagonal != ONE_PROBE:
        raise ValueError("optimizer must have diagonal=Hutchinson(), one probe of signs, to be compiled")
    if optimizer.replicas is not None:
        raise ValueError("optimizer must not be data-parallel to be compiled")
    params, sizes = group["params"], [p.numel() for p in group["params"]]
    theta = {names[p]: p.detach() for p in params}  # shares memory with the parameters
    buffers = dict(model.named_buffers())

    def loss(theta: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        changed = {name: buffer.clone() for name, buffer in buffers.items()}
        return criterion(functional_call(model, {**theta, **changed}, (x,)), y), changed

    def second_order(theta, m, v, words, x, y, *scalars):
        z = signs_by_shifts(words, params[0].dtype)[: sum(sizes)].split(sizes)
        z = [zi.view(p.shape) for zi, p in zip(z, params, strict=True)]

        def slope(theta):
            g, (value, changed) = grad_and_value(loss, has_aux=True)(theta, x, y)
            return sum((gi * zi).sum() for gi, zi in zip(g.values(), z, strict=True)), (g, value, changed)

        Hz, (g, value, changed) = grad(slope, has_aux=True)(theta)
        update(theta, m, v, g, [zi * h for zi, h in zip(z, Hz.values(), strict=True)], *scalars)
        return value, changed

    def first_order(theta, m, v, x, y, *scalars):
        g, (value, changed) = grad_and_value(loss, has_aux=True)(theta, x, y)
        update(theta, m, v, g, [None] * len(v), *scalars)
        return value, changed

    def update(theta, m, v, g, D, lr, correct_m, correct_v):
        """Of `AdaHessian`, entry by entry."""
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        penalty = 0.0 if group["decoupled"] else decay
        for p, mi, vi, gi, d in zip(theta.values(), m, v, g.values(), D, strict=True):
            mi.lerp_(gi + penalty * p, 1 - beta1)
            if d is not None:
                d = spatial_average(d + penalty, group["block_size"], group["averaging"])
                vi.mul_(beta2).add_((1 - beta2) * d * d)
            denominator = (vi * correct_v).sqrt().pow(group["hessian_power"]) + group["eps"]
            p.sub_(lr * (mi * correct_m / denominator + (decay - penalty) * p))

    compiled = {function: torch.compile(function, fullgraph=True, backend=backend) for function in (first_order, second_order)}

    def step(x: Tensor, y: Tensor) -> Tensor:
        due = optimizer._due(params[0], group)
        states = [optimizer._advance(p, due) for p in params]
        beta1, beta2 = group["betas"]
        rates = (group["lr"], 1 / (1 - beta1 ** states[0]["step"]), 1 / (1 - beta2 ** states[0]["estimates"]))
        scalars = [torch.tensor(rate, dtype=params[0].dtype, device=params[0].device) for rate in rates]
        words = [random_words(sum(sizes), optimizer.generator.device, optimizer.generator).to(params[0].device)] if due else []
        m, v = ([state[name] for state in states] for name in AdaHessian.KEPT)
        value, changed = compiled[second_order if due else first_order](theta, m, v, *words, x, y, *scalars)
        with torch.no_grad():
            for name, buffer in buffers.items():
                buffer.copy_(changed[name])
        return value

    return step
