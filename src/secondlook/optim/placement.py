"""Where the Kronecker factors of a data-parallel K-FAC are held, and what its ranks send each other (KAISA, arXiv 2107.01739).

P ranks stand in a grid of w rows and P / w columns, rank = w column + row, where w is the least divisor of P that is at least
share P. Each layer belongs to one rank, its owner: the costliest first (in^3 + out^3), each to the rank with least to do.

    factors      where due: sums of A and G over the examples, and their number N, are reduced to the owner, which divides
    inverses     where due: the owner inverts, and broadcasts the inverses to its column
    directions   every step: the column computes V = G^-1 dL/dW A^-1, and each of its ranks broadcasts V along its row

    share = 1     one column: inverses on every rank, and no directions are sent     COMM-OPT of the paper
    share = 1/P   one row: inverses on their owner alone, and no inverses are sent   MEM-OPT
    between       w of P ranks hold the inverses of a layer                          HYBRID-OPT

One flat bucket for each owner and kind, all under way at once. Of a symmetric matrix the upper triangle is sent.

Memory:  of a rank, about 1/P of the factors and w/P of the inverses of all layers.
Traffic: with n_f numbers in the triangles of all A and G, n_w in the dL/dW, over all ranks: (P - 1) (n_f + layers) where
         factors are due, (w - 1) n_f where inverses are due, (P - w) n_w every step. It is counted as it happens, in
         `Exchange.bytes` and `.messages`: what a rank puts into a reduction whose result it does not get, and what it gets of a
         broadcast that is not its own; the least that any network must carry, whatever way it finds.

Source: Pauloski et al. (2021), "KAISA: an adaptive second-order optimizer framework for deep neural networks", section 3.
Deviations
    factors     The paper averages them on all ranks. Only the owner has a use for them: a reduction is half of that traffic,
                and 1/P of the memory.
    inverses    Inverses, as K-FAC here uses, and not eigenvectors.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from secondlook.arguments import SHARE
from secondlook.curvature.kronecker import Factors, Layer, Sums, factor_sizes


@dataclass(frozen=True)
class Placement:
    """`share` of the ranks of `process_group` (None: all) hold the inverses of each layer; rounded up to a divisor of P.

    Columns and rows are process groups, and torch numbers these: all ranks there are must build as many, in the same order. So
    where `process_group` is some of them, the others build a K-FAC in theirs.

    >>> Placement(share=0.5).workers(ranks=8)
    4
    """

    share: float = 1.0
    process_group: distributed.ProcessGroup | None = None

    def __post_init__(self) -> None:
        SHARE.check(share=self.share)

    def workers(self, ranks: int) -> int:
        """w: how many of so many `ranks` hold the inverses of a layer."""
        return next(w for w in range(1, ranks + 1) if ranks % w == 0 and w >= self.share * ranks)


def owners(costs: Sequence[float], ranks: int) -> list[int]:
    """The owner of each layer: the costliest layer first, each to the rank with least to do so far."""
    load, found = [0.0] * ranks, [0] * len(costs)
    for layer in sorted(range(len(costs)), key=lambda i: -costs[i]):
        found[layer] = load.index(min(load))
        load[found[layer]] += costs[layer]
    return found


class Exchange:
    """`placement` for these layers; without one, a single rank that owns all and sends nothing.

    Every rank must make one, and call the methods in the same order with the same layers. RuntimeError where the process group
    is not initialised, or this process is not in it; ValueError where the layers are not all of one type of number.
    """

    def __init__(self, placement: Placement | None, layers: Iterable[Layer]):
        self.layers = list(layers)
        self.rank, self.size, self.width = 0, 1, 1
        if placement is not None:
            if len({layer.weight.dtype for layer in self.layers}) > 1:
                raise ValueError("placement needs a model whose layers are all float32 or all float64")
            self._join(placement)
        costs = [sum(n**3 for n in factor_sizes(layer)) for layer in self.layers]
        self.owner = dict(zip(self.layers, owners(costs, self.size), strict=True))
        self.bytes: Counter[str] = Counter()  # by kind: factors, inverses, directions
        self.messages: Counter[str] = Counter()

    def _join(self, placement: Placement) -> None:
        if not distributed.is_initialized():
            raise RuntimeError("placement needs a process group: call torch.distributed.init_process_group before")
        self._all = placement.process_group or distributed.group.WORLD
        ranks = distributed.get_process_group_ranks(self._all)
        if distributed.get_rank() not in ranks:
            raise RuntimeError("placement has a process_group that this process is not in")
        self.rank, self.size = ranks.index(distributed.get_rank()), len(ranks)
        self.width = placement.workers(self.size)
        own = self._column_of(self.rank)
        self._column = self._group(ranks[own * self.width : (own + 1) * self.width])
        self._row = self._group(ranks[self.rank % self.width :: self.width])

    def _group(self, ranks: list[int]) -> Any:
        """A group of its own for these global ranks; that of all where they are all."""
        if len(ranks) == self.size:
            return self._all
        return distributed.new_group(ranks, use_local_synchronization=True)

    def _column_of(self, rank: int) -> int:
        return rank // self.width

    def owns(self, layer: Layer) -> bool:
        """Whether this rank has the factors of `layer`, and inverts them."""
        return self.owner[layer] == self.rank

    def holds(self, layer: Layer) -> bool:
        """Whether this rank has the inverses of `layer`, and computes its direction."""
        return self._column_of(self.owner[layer]) == self._column_of(self.rank)

    def generator(self, shared: torch.Generator) -> torch.Generator:
        """Where this rank draws from: a stream of its own, which a word from the `shared` one (equal on all ranks) begins."""
        if self.size == 1:
            return shared
        word = torch.randint(2**62, (), generator=shared, device=shared.device).item()
        return torch.Generator(shared.device).manual_seed(word + self.rank)

    def factors(self, layers: Iterable[Layer], sums: Mapping[Layer, Sums]) -> dict[Layer, Factors]:
        """(A, G) of those of `layers` that this rank owns: means over the examples of all ranks. `sums` are this rank's."""
        if self.size == 1:
            return {layer: (A / n, G / n) for layer, (A, G, n) in sums.items()}
        reduced: list[tuple[int, list[Layer], Tensor, Any]] = []
        for owner, its in self._by_owner(layers).items():
            flat = torch.cat([part for layer in its for part in _packed_sums(layer, sums.get(layer))])
            work = distributed.reduce(flat, group_dst=owner, group=self._all, async_op=True)
            self._count("factors", flat, owner == self.rank)
            reduced.append((owner, its, flat, work))
        found: dict[Layer, Factors] = {}
        for owner, its, flat, work in reduced:
            work.wait()
            if owner == self.rank:
                found |= _means(its, flat)
        return found

    def inverses(self, layers: Iterable[Layer], own: Mapping[Layer, Factors]) -> dict[Layer, Factors]:
        """The inverses of those of `layers` that this rank holds; `own` are those that it computed."""
        if self.width == 1:
            return dict(own)
        held = self._by_owner(layer for layer in layers if self.holds(layer))
        flats = {}
        for owner, its in held.items():
            triangles = [_triangle(M) for layer in its for M in own[layer]] if owner == self.rank else None
            flats[owner % self.width] = _flat(triangles, sum(map(_triangle_sizes, its)), its[0].weight)
        self._broadcast("inverses", flats, self._column, self.rank % self.width)
        return {layer: M for owner, its in held.items() for layer, M in _unpacked(its, flats[owner % self.width]).items()}

    def directions(self, layers: Iterable[Layer], own: Mapping[Layer, Tensor]) -> dict[Layer, Tensor]:
        """V (out, in [+ 1]) of all `layers`; `own` are those that this rank computed."""
        if self.width == self.size:
            return dict(own)
        columns: dict[int, list[Layer]] = {}
        for layer in layers:
            columns.setdefault(self._column_of(self.owner[layer]), []).append(layer)
        mine, flats = self._column_of(self.rank), {}
        for column, its in columns.items():
            parts = [own[layer].reshape(-1) for layer in its] if column == mine else None
            flats[column] = _flat(parts, sum(a * g for a, g in map(factor_sizes, its)), its[0].weight)
        self._broadcast("directions", flats, self._row, mine)
        found: dict[Layer, Tensor] = {}
        for column, its in columns.items():
            parts = flats[column].split([a * g for a, g in map(factor_sizes, its)])
            found |= {layer: V.view(len(layer.weight), -1) for layer, V in zip(its, parts, strict=True)}
        return {layer: found[layer] for layer in layers}

    def gathered(self, own: dict[int, dict]) -> dict[int, dict]:
        """What all ranks give, of the layers that they own."""
        if self.size == 1:
            return own
        parts: list = [None] * self.size
        distributed.all_gather_object(parts, own, group=self._all)
        return {key: state for part in parts for key, state in part.items()}

    def _by_owner(self, layers: Iterable[Layer]) -> dict[int, list[Layer]]:
        found: dict[int, list[Layer]] = {}
        for layer in layers:
            found.setdefault(self.owner[layer], []).append(layer)
        return found

    def _broadcast(self, kind: str, flats: dict[int, Tensor], group: distributed.ProcessGroup | None, me: int) -> None:
        """Each flat tensor from the rank of `group` that is its key."""
        works: list[Any] = []
        for source, flat in flats.items():
            works.append(distributed.broadcast(flat, group_src=source, group=group, async_op=True))
            self._count(kind, flat, source == me)
        for work in works:
            work.wait()

    def _count(self, kind: str, flat: Tensor, mine: bool) -> None:
        self.messages[kind] += 1
        self.bytes[kind] += 0 if mine else flat.numel() * flat.element_size()


def _triangle(M: Tensor) -> Tensor:
    """The upper triangle of M (n, n), row after row: (n (n + 1) / 2,)."""
    i, j = torch.triu_indices(*M.shape, device=M.device)
    return M[i, j]


def _symmetric(triangle: Tensor, n: int) -> Tensor:
    M = triangle.new_empty(n, n)
    i, j = torch.triu_indices(n, n, device=M.device)
    M[i, j] = triangle
    M[j, i] = triangle
    return M


def _triangle_sizes(layer: Layer) -> int:
    return sum(n * (n + 1) // 2 for n in factor_sizes(layer))


def _flat(parts: list[Tensor] | None, size: int, like: Tensor) -> Tensor:
    """The `parts` one after the other, or, without them, memory for as much."""
    return like.new_empty(size) if parts is None else torch.cat(parts)


def _packed_sums(layer: Layer, sums: Sums | None) -> list[Tensor]:
    """Triangles of the sums and the number of examples; zeros of a layer that no example went through here."""
    if sums is None:
        return [layer.weight.new_zeros(_triangle_sizes(layer) + 1)]
    A, G, n = sums
    return [_triangle(A), _triangle(G), A.new_tensor([n])]


def _means(layers: list[Layer], flat: Tensor) -> dict[Layer, Factors]:
    """(A, G) from the packed sums; layers that no example went through are left out."""
    found: dict[Layer, Factors] = {}
    for layer, part in zip(layers, flat.split([_triangle_sizes(layer) + 1 for layer in layers]), strict=True):
        if part[-1] > 0:
            found |= _unpacked([layer], part[:-1] / part[-1])
    return found


def _unpacked(layers: list[Layer], flat: Tensor) -> dict[Layer, Factors]:
    """The two symmetric matrices of each layer."""
    sizes = [n for layer in layers for n in factor_sizes(layer)]
    parts = flat.split([n * (n + 1) // 2 for n in sizes])
    matrices = [_symmetric(part, n) for part, n in zip(parts, sizes, strict=True)]
    return dict(zip(layers, zip(matrices[::2], matrices[1::2], strict=True), strict=True))
