"""The four networks of the comparison, each with its data: two on the generated toy, two on handwritten digits.

    AllCNN, DDplus      the document's two networks, at a declared size, on events that are drawn anew for every seed
    MLP                 64-32-32-10, ReLU, on the digits' 64 pixels
    CNN                 two convolutions of 8 and 16 channels, the second of stride 2, ReLU, and a linear layer, on the same

Data come in four parts that share no example: one to train on; one held out, which EVE may ask; one to validate, by which
rates are chosen; one to test, which is reported. The digits' parts are the same for all seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from secondlook.problems.digits import digits
from secondlook.training.loop import Data
from secondlook.training.steps import Criterion

from .networks import AllCNN, DDplus, ratio_loss
from .toy import FEATURES, Events, Toy

SPLIT = 0  # seed of the digits' parts


@dataclass(frozen=True)
class Problem:
    """A network to be drawn from a generator, its loss, and its data."""

    network: Callable[[torch.Generator], nn.Module]
    criterion: Criterion
    batch: int
    train: Data
    held_out: Data
    validation: Data
    test: Data


def toy(p) -> Toy:
    """The toy with the constants of `p`."""
    names = ("bins", "bin_width", "vertices", "tracks", "background", "resolution", "impact", "far", "width", "reach")
    return Toy(**{name: getattr(p, name) for name in (*names, "most_tracks")})


def events(p, seed: int) -> Events:
    """The events of all four parts, drawn from `seed`."""
    return toy(p).events(sum(p.toy_examples), torch.Generator().manual_seed(seed))


def _all_cnn(p, seed: int) -> Problem:
    drawn = events(p, seed)
    parts = _parts(drawn.density, drawn.target, p.toy_examples)
    return Problem(lambda start: AllCNN(p.bins, start, p.first.get("AllCNN")), ratio_loss, p.toy_batch, *parts)


def _dd_plus(p, seed: int) -> Problem:
    drawn = events(p, seed)
    parts = _parts(toy(p).inputs(drawn), drawn.target, p.toy_examples)
    return Problem(lambda start: DDplus(p.bins, FEATURES, start, p.first.get("DDplus")), ratio_loss, p.toy_batch, *parts)


def _digits(p, network: Callable[[torch.Generator], nn.Module]) -> Problem:
    x, y = digits(sum(p.digit_examples), torch.Generator().manual_seed(SPLIT))
    return Problem(network, functional.cross_entropy, p.digit_batch, *_parts(x.float(), y, p.digit_examples))


def _parts(x: Tensor, y: Tensor, counts: tuple[int, ...]) -> list[Data]:
    return list(zip(x.split(counts), y.split(counts), strict=True))


def perceptron(start: torch.Generator, *widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers 64 - widths - 10 with an activation between them, started as He et al. (2015)."""
    sizes = (64, *widths, 10)
    layers = [nn.Flatten()]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.utils.skip_init(nn.Linear, before, after), activation()]
    return _started(nn.Sequential(*layers[:-1]), start)


def convolutional(start: torch.Generator) -> nn.Sequential:
    """The CNN, started in the same way."""
    layers = [nn.utils.skip_init(nn.Conv2d, 1, 8, 3, padding=1), nn.ReLU()]
    layers += [nn.utils.skip_init(nn.Conv2d, 8, 16, 3, stride=2, padding=1), nn.ReLU()]
    layers += [nn.Flatten(), nn.utils.skip_init(nn.Linear, 16 * 16, 10)]
    return _started(nn.Sequential(*layers), start)


def _started(network: nn.Sequential, start: torch.Generator) -> nn.Sequential:
    for layer in network:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=start)
            nn.init.zeros_(layer.bias)
    return network


PROBLEMS: dict[str, Callable[..., Problem]] = {  # of (params, seed)
    "AllCNN": _all_cnn,
    "DDplus": _dd_plus,
    "MLP": lambda p, seed: _digits(p, lambda start: perceptron(start, 32, 32)),
    "CNN": lambda p, seed: _digits(p, convolutional),
}
