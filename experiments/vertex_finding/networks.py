"""The document's two networks that find primary vertices, its loss, and dropout that draws from a generator of its own.

    AllCNN   density (N, bins) -> 5 times [Conv1d, LeakyReLU, dropout] -> Linear(bins, bins) -> softplus
             channels 1-20-10-10-10-1, kernels 25, 15, 15, 15, 5, dropout .15
    DDplus   tracks (N, T, 1 + features) -> 11 times [Linear(50), LeakyReLU] -> Linear(50, 4 bins) -> sum over tracks
             -> Conv1d(4, 25, 25), LeakyReLU, Conv1d(25, 1, 25) -> Linear(bins, bins) -> 0.001 softplus

LeakyReLU has slope .01 below zero; convolutions keep the length. The full size is 4000 bins; any other keeps the rest as it is.
Weights and biases start as torch's own do, U(-1, 1) / sqrt(inputs of an output), but from the generator given.

Where most bins are empty, a network spends its first epochs on learning just that, and at larger rates overshoots: softplus
then hands back next to no gradient, and the prediction stays 0 everywhere. `first`, where given, is the prediction to start
from, through the bias of the last layer; EPS suits, as it is what `ratio_loss` takes for nothing.

Deviations: none from the document's description. It leaves open whether an activation stands between Linear(50, 4 bins) and the
sum, and behind the last convolution of DDplus (here: neither), and what a track's features are. `first` is this study's.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS, KERNELS = (1, 20, 10, 10, 10, 1), (25, 15, 15, 15, 5)  # of AllCNN
DROPPED = 0.15
WIDTH, LAYERS, LATENT = 50, 11, 4  # of DDplus, per track
MIXED, KERNEL = 25, 25  # its convolutions
SCALE = 0.001
EPS, ASYMMETRY = 1e-5, 2.5  # of the loss


def ratio_loss(x: Tensor, y: Tensor) -> Tensor:
    """How far the prediction x is from the target y, both (N, bins) and not negative, by their ratio: a number.

        r = |(x + eps) / (y + eps)|,    sum over bins of -log(2 r / (r^2 + 1)) (1 + 2.5 exp(-r)) / bins,    mean over events

    0 where x = y. The first factor is the same for r and 1 / r; the last makes a prediction that is too low cost up to 3.5
    times as much as one too high by the same ratio: a missed vertex is worse than an invented one.
    """
    r = ((x + EPS) / (y + EPS)).abs()
    return (-torch.log(2 * r / (r**2 + 1)) * (1 + ASYMMETRY * torch.exp(-r))).mean()


class Dropout(nn.Module):
    """As torch.nn.Dropout: in training each number is 0 with probability p, else 1 / (1 - p) times itself; but from a
    generator of its own, seeded by the one given, whose state is part of the module's: a run can be resumed and repeated.

    Raises ValueError if p is not in [0, 1).
    """

    def __init__(self, p: float, generator: torch.Generator):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), got {p!r}")
        self.p = p
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.p
        return x * kept.to(x) / (1 - self.p)

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


def started(layer: nn.Module, generator: torch.Generator) -> nn.Module:
    """`layer` with weight and bias drawn from U(-1, 1) / sqrt(inputs of an output), torch's own start."""
    bound = layer.weight[0].numel() ** -0.5
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    return started(nn.utils.skip_init(nn.Linear, inputs, outputs), generator)


def convolution(before: int, after: int, kernel: int, generator: torch.Generator) -> nn.Module:
    return started(nn.utils.skip_init(nn.Conv1d, before, after, kernel, padding=kernel // 2), generator)


def raise_to(first: float | None, layer: nn.Module, scale: float = 1.0) -> None:
    """Add to the bias of `layer` what makes scale softplus(bias) = first where the bias was 0; None leaves it."""
    if first is None:
        return
    if not first > 0:
        raise ValueError(f"first must be positive, as every prediction is, got {first!r}")
    with torch.no_grad():
        layer.bias += math.log(math.expm1(first / scale))


class AllCNN(nn.Module):
    """Density (N, bins) to prediction (N, bins); weights and dropout from `generator`, on the CPU.

    The convolutions cost 6,500 products for each bin, the last layer as many as there are bins.
    """

    def __init__(self, bins: int, generator: torch.Generator, first: float | None = None):
        super().__init__()
        layers = []
        for before, after, kernel in zip(CHANNELS, CHANNELS[1:], KERNELS, strict=False):
            layers += [convolution(before, after, kernel, generator), nn.LeakyReLU(), Dropout(DROPPED, generator)]
        self.convolutions = nn.Sequential(*layers)
        self.mix = linear(bins, bins, generator)
        raise_to(first, self.mix)

    def forward(self, density: Tensor) -> Tensor:
        h = self.convolutions(density[:, None])  # (N, 1, bins)
        return functional.softplus(self.mix(h[:, 0]))


class DDplus(nn.Module):
    """Tracks (N, T, 1 + features), the mask first, to prediction (N, bins); weights from `generator`, on the CPU.

    The last layer per track is linear, so it is applied to the sum over tracks, with its bias once for each track, instead of
    to every track: the same, in 1 / T of the work and memory. Empty places take no part. What is left is 25,000 products for
    each track, 3,100 for each bin, and the last layer.
    """

    def __init__(self, bins: int, features: int, generator: torch.Generator, first: float | None = None):
        super().__init__()
        layers = []
        for inputs in [features] + [WIDTH] * (LAYERS - 1):
            layers += [linear(inputs, WIDTH, generator), nn.LeakyReLU()]
        self.per_track = nn.Sequential(*layers)
        self.latent = linear(WIDTH, LATENT * bins, generator)
        self.convolutions = nn.Sequential(
            convolution(LATENT, MIXED, KERNEL, generator), nn.LeakyReLU(), convolution(MIXED, 1, KERNEL, generator)
        )
        self.mix = linear(bins, bins, generator)
        raise_to(first, self.mix, SCALE)

    def forward(self, tracks: Tensor) -> Tensor:
        there = tracks[..., 0] > 0  # (N, T)
        h = self.per_track(tracks[there][:, 1:])  # (tracks of all events, 50)
        summed = h.new_zeros(len(tracks), WIDTH).index_add(0, there.nonzero()[:, 0], h)  # (N, 50)
        latent = functional.linear(summed, self.latent.weight) + there.sum(1, keepdim=True) * self.latent.bias
        h = self.convolutions(latent.unflatten(1, (LATENT, -1)))  # (N, 4, bins) to (N, 1, bins)
        return SCALE * functional.softplus(self.mix(h[:, 0]))
