"""The methods that are compared: the optimiser of each and its constants.

Decay is `weight_decay` in all of them. In SGD and Adam it is coupled: the gradient of a penalty in the loss. In the others it
is decoupled, and the optimiser gets weight_decay / lr, so that a step at the full rate takes the same share of theta whatever
the rate is: what the authors' code of AdaHessian does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secondlook.curvature import GaussNewtonBartlett
from secondlook.optim import AdaHessian, Sophia
from secondlook.training import eager_step
from secondlook.training.steps import Criterion, Step, differentiate

from .names import AVERAGES, BLOCKS, block
from .peers import MuonAndAdamW, hidden_and_others, soap


@dataclass(frozen=True)
class Method:
    """`rule` on `parts` of the network with `constants` of the parameters; `differentiate` as in secondlook.training.steps."""

    rule: Callable[..., torch.optim.Optimizer]
    constants: Callable[..., dict]
    decoupled: bool = True
    differentiate: Callable[..., Tensor] = differentiate
    parts: Callable[[nn.Module], Iterable] = nn.Module.parameters

    def optimizer(self, model: nn.Module, lr: float, params) -> torch.optim.Optimizer:
        decay = params.weight_decay / lr if self.decoupled else params.weight_decay
        return self.rule(self.parts(model), lr=lr, weight_decay=decay, **self.constants(params))

    def make_step(self, optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion) -> Step:
        return eager_step(optimizer, model, criterion, self.differentiate)


def differentiate_at_every_position(optimizer: Sophia, model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
    """As `differentiate` for logits (b, vocabulary, t), whose every position has a label drawn from the model."""
    optimizer.zero_grad()
    logits = model(x).transpose(1, 2)  # (b, t, vocabulary)
    loss = criterion(logits.transpose(1, 2), y)
    optimizer.backward(loss, curvature_of=logits)
    return loss.detach()


def _momentum(params) -> dict:
    return {"momentum": params.momentum}


def _adam(params) -> dict:
    return {"betas": params.betas, "eps": params.adam_epsilon}


def _sophia(params) -> dict:
    own = {"betas": params.sophia_betas, "gamma": params.sophia_gamma, "every": params.sophia_every}
    return own | {"diagonal": GaussNewtonBartlett()}


def _muon(params) -> dict:
    return _adam(params) | {"momentum": params.muon_momentum}


def _soap(params) -> dict:
    return {"betas": params.soap_betas, "precondition_frequency": params.soap_every}


def _adahessian(**options) -> Method:
    return Method(AdaHessian, lambda params: {"betas": params.betas, "eps": params.epsilon} | options)


METHODS = {
    "SGD": Method(torch.optim.SGD, _momentum, decoupled=False),
    "Adam": Method(torch.optim.Adam, _adam, decoupled=False),
    "AdamW": Method(torch.optim.AdamW, _adam),
    "AdaHessian": _adahessian(),
    "AdaHessian power 0.5": _adahessian(hessian_power=0.5),
    "Sophia-G": Method(Sophia, _sophia, differentiate=differentiate_at_every_position),
    **{block(size, averaging): _adahessian(block_size=size, averaging=averaging) for averaging in AVERAGES for size in BLOCKS},
    "Muon": Method(MuonAndAdamW, _muon, parts=hidden_and_others),
    "SOAP": Method(soap, _soap),
}
