"""The methods that are compared: an optimiser for the networks, one for the tables, and a step of both.

AdaHessian takes its gradients itself, those of its own parameters alone, and its products need a graph without the sparse
table. So the rows that a batch looks up are leaves there; the gradient with respect to them is taken by a pass of its own and
handed on to the table, where it is as sparse as ever.

Both rates of every method follow one schedule: at step t = 1 ... T they are the share

    min(t / w, (T + 1 - t) / (T + 1 - w))

of themselves, a rise over w steps and a line to zero. A line has no constant that would have to be chosen for each method.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature.objective import Cost
from secondlook.optim import AdaHessian
from secondlook.training import price

from .model import ClickModel
from .teacher import Examples

Make = Callable[[Iterable, float, object], torch.optim.Optimizer]  # of parameters, lr, and the constants of Params

MAKE: dict[str, Make] = {
    "Adagrad": lambda params, lr, p: torch.optim.Adagrad(params, lr, eps=p.adagrad_epsilon),
    "Adam": lambda params, lr, p: torch.optim.Adam(params, lr, p.betas, p.adam_epsilon),
    "AdaHessian": lambda params, lr, p: AdaHessian(params, lr, p.betas, p.epsilon),
}
METHODS = {  # on the networks, on the tables
    "Adagrad": ("Adagrad", "Adagrad"),
    "Adam + Adagrad": ("Adam", "Adagrad"),
    "AdaHessian + Adagrad": ("AdaHessian", "Adagrad"),
}
BACKWARD_FOR_ROWS = Cost(gradients=1 / 3)  # one of a gradient's three matrix products a layer; bottom's are spared


def schedule(warm_up: int, steps: int) -> Callable[[int], float]:
    """The share of its rate that each of `steps` steps has; its greatest is that of step `warm_up`."""
    return lambda t: min(t / warm_up, (steps + 1 - t) / (steps + 1 - warm_up))


class Method:
    """`name`, one of METHODS, for `model`, with the rates `lr` of networks and tables, of which step t takes the share
    `of_rate(t)`.

    step        (examples) -> mean log-loss before the update, in nats
    cost        of a step, in gradients of the batch
    """

    def __init__(self, name: str, model: ClickModel, lr: tuple[float, float], of_rate: Callable[[int], float], params):
        self.model, self.of_rate, self.t = model, of_rate, 0
        parts = zip(METHODS[name], (model.networks, model.tables), lr, strict=True)
        self.networks, self.tables = (MAKE[rule](own, rate, params) for rule, own, rate in parts)
        self.lr = lr
        second = isinstance(self.networks, AdaHessian)
        self._differentiate = _rows_apart if second else _at_once
        self.cost = (Cost(gradients=1) + price(self.networks) + (BACKWARD_FOR_ROWS if second else Cost())).in_gradients

    def step(self, batch: Examples) -> Tensor:
        self.t += 1
        optimizers = (self.networks, self.tables)
        for optimizer, lr in zip(optimizers, self.lr, strict=True):
            optimizer.param_groups[0]["lr"] = lr * self.of_rate(self.t)
            optimizer.zero_grad()
        loss = self._differentiate(self.model, self.networks, batch)
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # torch warns where that is left open
            for optimizer in optimizers:
                optimizer.step()
        return loss


def _at_once(model: ClickModel, _: torch.optim.Optimizer, batch: Examples) -> Tensor:
    loss = functional.binary_cross_entropy_with_logits(model(batch.dense, batch.category), batch.click)
    loss.backward()
    return loss.detach()


def _rows_apart(model: ClickModel, networks: AdaHessian, batch: Examples) -> Tensor:
    rows = model.rows(batch.category)
    leaves = rows.detach().requires_grad_()
    loss = functional.binary_cross_entropy_with_logits(model.logits(batch.dense, leaves), batch.click)
    (g,) = torch.autograd.grad(loss, leaves, retain_graph=True)
    networks.backward(loss)
    rows.backward(g)
    return loss.detach()
