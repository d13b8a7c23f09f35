"""CIFAR-10 as a task: networks by name, images as they take them, and the methods that train them: the optimiser of each, its
decay, and what its curvature is estimated from.

Decay is `weight_decay` in all of them. Coupled, it is the gradient of a penalty in the loss. Decoupled, the optimiser gets
weight_decay / lr, so that a step at the full rate takes the same share of theta whatever the rate is: what the authors' code
does for AdamW and AdaHessian.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from secondlook.curvature import GaussNewtonBartlett
from secondlook.curvature.objective import Cost
from secondlook.optim import AdaHessian
from secondlook.problems.images import augment, normalise
from secondlook.problems.resnet import convnet, resnet
from secondlook.training import Precision, captured_step, eager_step, price
from secondlook.training.steps import Criterion, Step, differentiate


def network(name: str, start: torch.Generator, width: int) -> nn.Module:
    """'ResNet-20' and its deeper kin, or a network of three convolutions; weights drawn from `start`."""
    kind, _, depth = name.partition("-")
    return resnet(int(depth), start, width) if kind == "ResNet" else convnet(start, width)


def prepare(x: Tensor, crops: torch.Generator | None) -> Tensor:
    """Pixels as the networks take them; cropped and mirrored in training."""
    return normalise(x if crops is None else augment(x, crops))


@dataclass(frozen=True)
class Method:
    """`rule` with `options`. `part`: the curvature is that of the first 1/part of the batch, by a pass of its own."""

    rule: Callable[..., torch.optim.Optimizer]
    decoupled: bool
    options: dict = field(default_factory=dict)
    part: int = 1

    def optimizer(self, model: nn.Module, lr: float, params) -> torch.optim.Optimizer:
        """For `model`, with the constants of `params`."""
        constants: dict[Callable, dict] = {
            torch.optim.SGD: {"momentum": params.momentum},
            torch.optim.Adam: {"betas": params.betas, "eps": params.adam_epsilon},
            torch.optim.AdamW: {"betas": params.betas, "eps": params.adam_epsilon},
            AdaHessian: {"betas": params.betas, "eps": params.epsilon, "decoupled": self.decoupled},
        }
        decay = params.weight_decay / lr if self.decoupled else params.weight_decay
        return self.rule(model.parameters(), lr=lr, weight_decay=decay, **constants[self.rule], **self.options)

    def make_step(self, optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion) -> Step:
        """Captured on a GPU, operation by operation elsewhere; the numbers are the same."""
        make = captured_step if next(model.parameters()).is_cuda else eager_step
        return make(optimizer, model, criterion, self._differentiate)

    def eager_step(self, optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion) -> Step:
        """The same, captured nowhere."""
        return eager_step(optimizer, model, criterion, self._differentiate)

    @property
    def _differentiate(self):
        return differentiate if self.part == 1 else partial(differentiate_on_a_part, self.part)

    def cost(self, optimizer: torch.optim.Optimizer) -> Cost:
        """Of one estimate; on a part, with the gradient that it is differentiated from."""
        return price(optimizer) if self.part == 1 else Cost(1 / self.part, price(optimizer).products / self.part)


def differentiate_on_a_part(
    part: int, optimizer: AdaHessian, model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor
) -> Tensor:
    """As `differentiate`, with the curvature of the loss on the first 1/part of the batch, rounded up."""
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    count = -(-len(x) // part)
    optimizer.backward(loss, curvature_of=criterion(model(x[:count]), y[:count]))
    return loss.detach()


def _adahessian(part: int = 1, decoupled: bool = True, **options) -> Method:
    return Method(AdaHessian, decoupled, options, part)


METHODS = {
    "SGD": Method(torch.optim.SGD, False),
    "Adam": Method(torch.optim.Adam, False),
    "AdamW": Method(torch.optim.AdamW, True),
    "AdaHessian": _adahessian(),
    "AdaHessian coupled": _adahessian(decoupled=False),
    **{f"AdaHessian every {k}": _adahessian(every=k) for k in (2, 3, 4, 5)},
    "AdaHessian absolute": _adahessian(averaging="absolute"),
    "AdaHessian Gauss-Newton": _adahessian(diagonal=GaussNewtonBartlett()),
    "AdaHessian 1/4 batch": _adahessian(part=4),
}

PRECISIONS = {
    "float32": Precision(),
    "TF32": Precision(tf32=True),
    "TF32, channels last": Precision(tf32=True, channels_last=True),
    "bfloat16": Precision(bf16=True),
    "bfloat16, channels last": Precision(bf16=True, channels_last=True),
}
