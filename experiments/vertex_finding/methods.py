"""The document's rules as they are compared, and the optimisers of the question whether second-order steps are steadier."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from secondlook.optim import KFAC, AdaHessian, Newton
from secondlook.optim.directions import Absolute
from secondlook.training.rules import EVE, AdaptiveRate, CarefulRate, Rule, Walk

RULES: dict[str, Callable[[torch.optim.Optimizer, nn.Module, object], list[Rule]]] = {  # of (optimiser, model, params)
    "Adam": lambda optimizer, model, p: [],
    "adaptive": lambda optimizer, model, p: [AdaptiveRate(optimizer, c=p.c)],
    "careful": lambda optimizer, model, p: [CarefulRate(optimizer, rise=p.rise, factor=p.factor)],
    "careful, back": lambda optimizer, model, p: [CarefulRate(optimizer, rise=p.rise, factor=p.factor, model=model)],
    "EVE": lambda optimizer, model, p: [EVE(model.parameters())],
    "EVE, walk": lambda optimizer, model, p: [EVE(model.parameters(), Walk())],
    "adaptive + careful": lambda optimizer, model, p: [
        AdaptiveRate(optimizer, c=p.c),
        CarefulRate(optimizer, rise=p.rise, factor=p.factor),
    ],
    "adaptive + EVE": lambda optimizer, model, p: [AdaptiveRate(optimizer, c=p.c), EVE(model.parameters())],
}

OPTIMISERS: dict[str, Callable[[nn.Module, float, object], torch.optim.Optimizer]] = {  # of (model, lr, params)
    "Adam": lambda model, lr, p: torch.optim.Adam(model.parameters(), lr),
    "AdaHessian": lambda model, lr, p: AdaHessian(model.parameters(), lr),
    "SGD": lambda model, lr, p: torch.optim.SGD(model.parameters(), lr),
    "K-FAC": lambda model, lr, p: KFAC(model, lr, 0.0, damping=p.damping, kl_clip=math.inf, inverses_every=1, fisher="mc"),
    "Newton": lambda model, lr, p: Newton(model.parameters(), lr, direction=Absolute(p.floor)),
}


def evaluations(rules: Sequence[Rule]) -> int:
    """Held-out losses that the rules have asked for."""
    return sum(rule.evaluations for rule in rules if isinstance(rule, EVE))


def chosen(rules: Sequence[Rule]) -> float | None:
    """The multiple that EVE took last; None without EVE."""
    return next((rule.chosen[-1] for rule in rules if isinstance(rule, EVE)), None)


def cuts(rules: Sequence[Rule]) -> int:
    """How often the careful rate has cut; 0 without it."""
    return sum(rule.cuts for rule in rules if isinstance(rule, CarefulRate))
