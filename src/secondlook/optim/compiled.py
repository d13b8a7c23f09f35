"""A whole step of AdaHessian as one compiled graph: gradient, z * Hz and update, for runs long enough to pay for compiling.

    g = grad L(theta),    Hz = grad (g^T z),    then the update of `AdaHessian`, all traced by torch.compile

H z is taken by reverse over reverse inside `torch.func`: `torch.compile` cannot differentiate a compiled backward pass again,
and forward over reverse costs more here. Example:

    optimizer = AdaHessian(model.parameters(), lr=0.15)
    step = compiled_step(optimizer, model, criterion)
    for x, y in batches:
        loss = step(x, y)                    # in place of zero_grad, backward and step

Parameters, state and probes are the optimiser's own, so compiled and ordinary steps may alternate, and `state_dict` holds all.

Cost: as AdaHessian with one probe and `every=1`; compilation takes a quarter of a minute or more, again for every new shape of
a batch, and needs a C++ compiler with the default backend.
Deviations: the operations are those of AdaHessian in an order that the compiler chooses, so results differ by rounding.
Buffers that a forward pass changes, such as the running means of batch norm, are not updated.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value

from secondlook.curvature.averaging import spatial_average
from secondlook.curvature.hutchinson import Hutchinson
from secondlook.optim.adahessian import AdaHessian


def compiled_step(
    optimizer: AdaHessian, model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], backend: str = "inductor"
) -> Callable[[Tensor, Tensor], Tensor]:
    """`step(x, y) -> loss`: one step of `optimizer` on criterion(model(x), y), compiled by a backend of torch.compile.

    Raises ValueError unless the optimiser has one group, `every=1` and a `Hutchinson` of one probe, and holds all of the
    model's trainable parameters and no others.
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    group, *others = optimizer.param_groups
    if others or set(group["params"]) != set(names):
        raise ValueError("optimizer must hold the model's trainable parameters in one group, and no others")
    if group["every"] != 1 or not isinstance(optimizer.diagonal, Hutchinson) or optimizer.diagonal.probes != 1:
        raise ValueError("optimizer must have every=1 and diagonal=Hutchinson() with one probe to be compiled")
    params = group["params"]
    theta = {names[p]: p.detach() for p in params}  # shares memory with the parameters

    def loss(theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return criterion(functional_call(model, theta, (x,)), y)

    def whole(theta, m, v, z, x, y, lr, correct_m, correct_v):
        def slope(theta):
            g, value = grad_and_value(loss)(theta, x, y)
            return sum((g[name] * z[name]).sum() for name in z), (g, value)

        Hz, (g, value) = grad(slope, has_aux=True)(theta)
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        penalty = 0.0 if group["decoupled"] else decay
        for name, p in theta.items():
            D = spatial_average(z[name] * Hz[name] + penalty, group["block_size"], group["averaging"])
            m[name].lerp_(g[name] + penalty * p, 1 - beta1)
            v[name].mul_(beta2).add_((1 - beta2) * D * D)
            root = (v[name] * correct_v).sqrt()
            denominator = root.pow(group["hessian_power"]) + group["eps"]
            p.sub_(lr * (m[name] * correct_m / denominator + (decay - penalty) * p))
        return value

    compiled = torch.compile(whole, fullgraph=True, backend=backend)

    def step(x: Tensor, y: Tensor) -> Tensor:
        for p in params:
            state = optimizer.state[p]
            if not state:
                state.update(step=0, estimates=0, exp_avg=torch.zeros_like(p), exp_hessian_diag_sq=torch.zeros_like(p))
            state["step"] += 1
            state["estimates"] += 1
        t = optimizer.state[params[0]]
        beta1, beta2 = group["betas"]
        scalars = (group["lr"], 1 / (1 - beta1 ** t["step"]), 1 / (1 - beta2 ** t["estimates"]))
        z = dict(zip(theta, optimizer.diagonal.probe(list(theta.values()), optimizer.generator), strict=True))
        m, v = ({names[p]: optimizer.state[p][key] for p in params} for key in ("exp_avg", "exp_hessian_diag_sq"))
        return compiled(theta, m, v, z, x, y, *(torch.tensor(s, dtype=params[0].dtype) for s in scalars))

    return step
