r"""Classifiers of 32 x 32 images: the residual networks of He et al. for CIFAR, and a small one for a CPU.

    ResNet-(6n + 2):  conv - 3 stages of n blocks, of w, 2w, 4w channels and 32, 16, 8 pixels a side - mean over pixels - linear
    block:            y = relu(norm(conv(relu(norm(conv x)))) + shortcut(x)),    all convolutions 3 x 3 without bias

The shortcut is the identity; where a stage begins, it takes every second pixel and pads the new channels with zeros (option A).
So it has no parameters, and there are 269,722 at depth 20 and 464,154 at depth 32: 0.27 M and 0.46 M in the paper's Table 6.
Projections (option B) would add 2,752 to each. The table's two digits could be of either at depth 20; section 4.2 says A.

Weights start as N(0, 2 / inputs of a neuron), biases at 0, batch norms at scale 1 and shift 0.

Source: He et al. (2016), "Deep residual learning for image recognition", section 4.2, with width w = 16. Deviations: none that
changes a value; convolution, batch norm and rectifier are those of `secondlook.problems`, with torch's values.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.convolution import Conv2d
from secondlook.problems.rectifier import ReLU


class Residual(nn.Module):
    """A block from `before` channels to as many, or to twice as many of half the side."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.stride, self.fresh = after // before, after - before
        self.conv1, self.norm1 = _conv(before, after, self.stride), BatchNorm2d(after)
        self.conv2, self.norm2 = _conv(after, after), BatchNorm2d(after)
        self.relu = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """(B, before, H, H) to (B, after, H / stride, H / stride)."""
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.fresh)) if self.fresh else x


def resnet(depth: int, generator: torch.Generator, width: int = 16, classes: int = 10) -> nn.Module:
    """ResNet of `depth` 6n + 2: images (B, 3, H, W) to logits (B, classes). ValueError for another depth."""
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"depth must be 6n + 2 with n >= 1, got {depth}")
    channels = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
    with torch.device("meta"):  # no memory and no random numbers yet
        stem = [_conv(3, width), BatchNorm2d(width), ReLU()]
        blocks = [Residual(before, after) for before, after in zip(channels, channels[1:], strict=False)]
        model = nn.Sequential(*stem, *blocks, *_head(4 * width, classes))
    return _start(model, generator)


def convnet(generator: torch.Generator, width: int = 16, classes: int = 10) -> nn.Module:
    """Three convolutions of w, 2w, 4w channels with batch norm and ReLU, the second and third of stride 2: for a CPU."""
    channels = [3, width, 2 * width, 4 * width]
    with torch.device("meta"):
        layers = []
        for stride, before, after in zip((1, 2, 2), channels, channels[1:], strict=False):
            layers += [_conv(before, after, stride), BatchNorm2d(after), ReLU()]
        model = nn.Sequential(*layers, *_head(4 * width, classes))
    return _start(model, generator)


def _conv(before: int, after: int, stride: int = 1) -> Conv2d:
    return Conv2d(before, after, 3, stride, padding=1, bias=False)


def _head(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def _start(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Memory for `model` on the generator's device, and the values with which training starts."""
    model.to_empty(device=generator.device)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    return model
