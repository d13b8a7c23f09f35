"""What a user would pick today: torch's Muon, and SOAP of the package pytorch-optimizer."""

from collections.abc import Iterable
from importlib import import_module

import torch
from torch import nn

from secondlook.errors import Mistake


def hidden_and_others(model: nn.Module) -> list[dict]:
    """Two groups of parameters: the matrices of hidden layers, and all else, embeddings among it."""
    hidden = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
    known = set(hidden)
    return [{"params": hidden}, {"params": [p for p in model.parameters() if p not in known]}]


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon on the first of two groups and AdamW on the second, as Muon's documentation has it, at one rate.

    A matrix's step is scaled to the size of AdamW's ('match_rms_adamw'), so that one rate and one decay do for both.
    """

    def __init__(self, groups: Iterable[dict], lr: float, weight_decay: float, momentum: float, betas: tuple, eps: float):
        hidden, others = groups
        self.parts = (
            torch.optim.Muon([hidden], lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([others], lr=lr, weight_decay=weight_decay, betas=betas, eps=eps),
        )
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict]:
        """Those of the parts themselves: what a schedule writes into them is what the parts read."""
        return [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()


def soap(params: Iterable, **options) -> torch.optim.Optimizer:
    """SOAP of pytorch-optimizer. Raises Mistake where that is not installed."""
    try:
        return import_module("pytorch_optimizer").SOAP(params, **options)
    except ImportError as error:
        raise Mistake("language_model needs the package pytorch_optimizer: install the extra 'benchmark'") from error
