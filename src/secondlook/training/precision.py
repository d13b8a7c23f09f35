"""The type in which a model computes: float32 throughout, unless a run declares otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Precision:
    """bf16            forward passes under autocast to bfloat16; parameters, loss and optimiser stay as they are
    tf32            a GPU's matrix products and convolutions round float32 inputs to 10 bits of mantissa
    channels_last   images and weights of convolutions lie in memory with the channel as the last axis
    """

    bf16: bool = False
    tf32: bool = False
    channels_last: bool = False

    def model(self, model: nn.Module) -> nn.Module:
        """`model` as it is to be called; its parameters and their names in its own `state_dict` remain."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        return Autocast(model) if self.bf16 else model

    def batch(self, x: Tensor) -> Tensor:
        """`x` as the model takes it."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x

    @contextmanager
    def active(self) -> Iterator[None]:
        """Torch's process-wide settings as declared, afterwards as they were. Left alone, torch convolves in TF32."""
        cudnn: Any = torch.backends.cudnn  # whose types lack `conv`
        places = (torch.backends.cuda.matmul, cudnn.conv)
        before = [place.fp32_precision for place in places]
        try:
            for place in places:
                place.fp32_precision = "tf32" if self.tf32 else "ieee"
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.fp32_precision = value


FLOAT32 = Precision()


class Autocast(nn.Module):
    """`model` with its forward pass under autocast to bfloat16, and outputs in float32."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(x).float()
