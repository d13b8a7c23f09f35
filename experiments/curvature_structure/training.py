"""The data and the training runs on whose way the curvature is looked at: deterministic given the seed."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from secondlook.errors import Mistake
from secondlook.problems.networks import Network


def images(examples: int, classes: int, side: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy pictures (examples, 1, side, side) of one smooth template a class, each moved by up to a pixel, and labels.

    A template is a coarse random picture, magnified, with mean 0 and variance 1. Labels take turns.
    """
    coarse = torch.randn(classes, 1, side // 2, side // 2, generator=generator, dtype=torch.float64)
    template = functional.interpolate(coarse, size=(side, side), mode="bilinear")
    template = (template - template.mean((1, 2, 3), keepdim=True)) / template.std((1, 2, 3), keepdim=True)
    y = torch.arange(examples) % classes
    moves = torch.randint(-1, 2, (examples, 2), generator=generator).tolist()
    x = torch.stack([template[label].roll(move, (1, 2)) for label, move in zip(y.tolist(), moves, strict=True)])
    return x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64), y


def pooled(x: Tensor) -> Tensor:
    """Means over 2 x 2 pixels as flat features, of variance 1: (N, 1, side, side) to (N, side^2 / 4)."""
    features = functional.avg_pool2d(x, 2).flatten(1)
    return (features - features.mean()) / features.std()


def stages(
    network: Network, x: Tensor, y: Tensor, shares: dict[str, float], lr: float, most_steps: int, generator: torch.Generator
) -> Iterator[tuple[str, int, list[Tensor]]]:
    """The name, step and weights of each stage: the first step at which the loss is at this share of the first one, or below.

    Full-batch Adam; every step uses all examples.
    """
    params = [W.requires_grad_() for W in network.start(generator)]
    optimizer = torch.optim.Adam(params, lr=lr)
    left, first = dict(shares), None
    for step in range(most_steps + 1):
        loss = functional.cross_entropy(network(params, x), y)
        first = first or loss.item()
        while left and loss.item() <= first * next(iter(left.values())):
            name = next(iter(left))
            del left[name]
            yield name, step, [W.detach().clone() for W in params]
        if not left:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise Mistake(
        f"curvature_structure: the loss does not fall to {next(iter(left.values()))} of the first in {most_steps} steps"
    )
