"""Proton collisions in one dimension: a generated toy for the networks that find primary vertices.

Bunches of protons meet along the z axis. Where two protons collide, a primary vertex, several tracks start; each is measured
with an error of its own. From the tracks alone the vertices are to be found. The data of the experiment that the document
speaks of are not public; these are made up, and nothing that is found with them is claimed for those. An event:

    V     ~ 1 + Poisson(vertices - 1)                   vertices, at Z_j ~ U(0, window)
    n_j   ~ 1 + Geometric(1 / (tracks - 1))             tracks of vertex j, each count from 2; `tracks` in the mean
    B     ~ Poisson(background / (1 - background) sum n_j)    tracks of no vertex, from anywhere, U(0, window)
    sigma ~ log-uniform over `resolution`               error of a track
    z     = where the track is from + sigma N(0, 1)     what is measured of it along the axis
    x, y  ~ N(0, impact^2), of background N(0, far^2)   by how much it misses the axis

    K_i   = sum over tracks of Phi((e_{i+1} - z) / sigma) - Phi((e_i - z) / sigma)      density of bin i, from e_i to e_{i+1}
    Y_i   = sum over vertices of exp(-(c_i - Z_j)^2 / 2 width^2)      target at the bin's middle c_i; 0 beyond `reach` widths

Lengths in mm; window = bins bin_width; Phi is the normal distribution function. A network that sees K (AllCNN) has the tracks
blurred as the measurement is; one that sees tracks (DDplus) has more: x and y tell background. Of an event's tracks beyond
most_tracks the last are dropped: background first, then those of the vertices drawn last.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FEATURES = 4  # of a track: z, sigma, x, y


@dataclass(frozen=True)
class Events:
    """N events, T = most_tracks places for tracks, J places for vertices; numbers float32, lengths in mm.

    tracks (N, T, 4) z, sigma, x, y; 0 in empty places      mask (N, T) True where there is a track
    density (N, bins) K, the input of AllCNN                target (N, bins) Y, what every network is to give
    vertices (N, J) Z, nan in empty places                  vertex (N, T) which of them the track is from; -1 for none
    """

    tracks: Tensor
    mask: Tensor
    density: Tensor
    target: Tensor
    vertices: Tensor
    vertex: Tensor


@dataclass(frozen=True)
class Toy:
    """The parameters of the generator, named as in the formulas above.

    Raises ValueError, by the name of the argument, where no events could be drawn.
    """

    bins: int
    bin_width: float
    vertices: float
    tracks: float
    background: float
    resolution: tuple[float, float]
    impact: float
    far: float
    width: float
    reach: float
    most_tracks: int

    def __post_init__(self):
        for name in ("bins", "bin_width", "impact", "far", "width", "reach", "most_tracks"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        if not self.vertices >= 1:
            raise ValueError(f"vertices must be at least 1, as every event has one, got {self.vertices!r}")
        if not self.tracks > 2:
            raise ValueError(f"tracks must be above 2, the fewest of a vertex, got {self.tracks!r}")
        if not 0 <= self.background < 1:
            raise ValueError(f"background must be in [0, 1), got {self.background!r}")
        if not 0 < self.resolution[0] < self.resolution[1]:
            raise ValueError(f"resolution must be two positive lengths, the smaller first, got {self.resolution!r}")

    @property
    def window(self) -> float:
        """Length of the z axis that is looked at, in mm."""
        return self.bins * self.bin_width

    @property
    def middles(self) -> Tensor:
        """z of the bins' middles (bins,), in mm."""
        return (torch.arange(self.bins) + 0.5) * self.bin_width

    def events(self, count: int, generator: torch.Generator) -> Events:
        """`count` events; the same generator state on a CPU gives the same events, bit for bit.

        Cost: O(count most_tracks bins) for the densities.
        """
        V = 1 + torch.poisson(torch.full((count,), self.vertices - 1.0), generator=generator)
        places = torch.arange(int(V.max()))
        Z = torch.rand(count, len(places), generator=generator) * self.window
        Z[places >= V[:, None]] = math.nan
        n = 1 + torch.empty_like(Z).geometric_(1 / (self.tracks - 1), generator=generator)
        n[Z.isnan()] = 0
        B = torch.poisson(n.sum(1) * self.background / (1 - self.background), generator=generator)

        last = n.cumsum(1)  # (N, J): tracks of vertex j stand at places last[j - 1] to last[j] - 1, background after all
        place = torch.arange(self.most_tracks).expand(count, -1).contiguous()  # (N, T)
        vertex = torch.searchsorted(last, place.to(last), right=True)
        mask = place < (last[:, -1] + B)[:, None]
        vertex[place >= last[:, -1:]] = -1

        lowest, highest = map(math.log, self.resolution)
        anywhere, sigma = torch.rand(2, *mask.shape, generator=generator)
        sigma = torch.exp(lowest + (highest - lowest) * sigma)
        noise = torch.randn(3, *mask.shape, generator=generator)
        origin = torch.where(vertex < 0, anywhere * self.window, Z.gather(1, vertex.clamp(min=0)))
        z = origin + sigma * noise[0]
        xy = noise[1:] * torch.where(vertex < 0, self.far, self.impact)
        tracks = torch.stack([z, sigma, *xy], dim=-1) * mask[..., None]  # (N, T, 4)
        return Events(tracks, mask, self.density(tracks, mask), self.target(Z), Z, vertex)

    def density(self, tracks: Tensor, mask: Tensor) -> Tensor:
        """K (N, bins), event by event, so that at most (tracks, bins) numbers are held."""
        edges = torch.arange(self.bins + 1) * self.bin_width
        found = []
        for event, there in zip(tracks, mask, strict=True):
            z, sigma, _, _ = event[there].split(1, dim=1)  # (tracks, 1)
            found.append(torch.special.ndtr((edges - z) / sigma).diff(dim=1).sum(0))
        return torch.stack(found)

    def target(self, vertices: Tensor) -> Tensor:
        """Y (N, bins)."""
        away = (self.middles - vertices[..., None]) / self.width  # (N, J, bins)
        near = away.abs() <= self.reach  # never of an empty place, whose z is nan
        return torch.where(near, torch.exp(-(away**2) / 2), 0.0).sum(1)

    def inputs(self, events: Events) -> Tensor:
        """Input of DDplus (N, T, 5): mask, then z, sigma, x and y of a size near one, 0 in empty places.

        z from -1 to 1 over the window; log sigma from -1 to 1 over its range; x and y in units of `far`.
        """
        z, sigma, x, y = events.tracks.unbind(-1)
        lowest, highest = map(math.log, self.resolution)
        relative = (sigma.clamp(min=self.resolution[0]).log() - lowest) / (highest - lowest)
        scaled = [2 * z / self.window - 1, 2 * relative - 1, x / self.far, y / self.far]
        return torch.stack([torch.ones_like(z), *scaled], dim=-1) * events.mask[..., None]
