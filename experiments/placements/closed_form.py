"""What a placement sends, holds and computes, from the sides of the factors alone: beside what is counted, and beyond it.

A layer is (a, g), the sides of A and G; its dL/dW has a g numbers. P ranks, w of them hold the inverses of a layer. Written
without a look at the library's own assignment, which the tests hold against it.
"""

from dataclasses import dataclass
from functools import cached_property

Layers = tuple[tuple[int, int], ...]


def owner_of_each(layers: Layers, ranks: int) -> list[int]:
    """The costliest layer (a^3 + g^3) first, each to the rank with least so far."""
    work = {rank: 0 for rank in range(ranks)}
    found = {}
    for cost, layer in sorted((-(a**3) - g**3, i) for i, (a, g) in enumerate(layers)):
        found[layer] = min(work, key=lambda rank: (work[rank], rank))
        work[found[layer]] -= cost
    return [found[i] for i in range(len(layers))]


def triangles(layer: tuple[int, int]) -> int:
    return sum(n * (n + 1) // 2 for n in layer)


@dataclass(frozen=True)
class Costs:
    """Numbers and operations of one event of each kind, over all ranks (`total`) and on the busiest (`most`)."""

    layers: Layers
    ranks: int
    workers: int

    @cached_property
    def by_rank(self) -> list[list[int]]:
        """The layers that each rank owns, by their number."""
        owners = owner_of_each(self.layers, self.ranks)
        return [[i for i, owner in enumerate(owners) if owner == rank] for rank in range(self.ranks)]

    def column(self, rank: int) -> list[int]:
        """The layers whose inverses `rank` holds."""
        first = rank // self.workers * self.workers
        return [i for other in range(first, first + self.workers) for i in self.by_rank[other]]

    def sent(self) -> dict[str, int]:
        """Numbers that cross the network at one event of each kind, over all ranks."""
        n_f = sum(map(triangles, self.layers))
        n_w = sum(a * g for a, g in self.layers)
        return {
            "factors": (self.ranks - 1) * (n_f + len(self.layers)),
            "inverses": (self.workers - 1) * n_f,
            "directions": (self.ranks - self.workers) * n_w,
        }

    def most_sent(self) -> dict[str, int]:
        """Numbers on the busiest rank's link at one event of each kind: every message is pipelined, and passes a rank once."""
        n_f, n_w = sum(map(triangles, self.layers)), sum(a * g for a, g in self.layers)
        columns = [self.column(rank) for rank in range(0, self.ranks, self.workers)]
        inverses = max(sum(triangles(self.layers[i]) for i in held) for held in columns)
        return {
            "factors": n_f + len(self.layers) if self.ranks > 1 else 0,
            "inverses": inverses if self.workers > 1 else 0,
            "directions": n_w if self.workers < self.ranks else 0,
        }

    def messages(self) -> dict[str, int]:
        """Collectives that a rank takes part in at one event of each kind, at most."""
        owned = [bool(its) for its in self.by_rank]
        columns = [sum(owned[i : i + self.workers]) for i in range(0, self.ranks, self.workers)]
        return {
            "factors": sum(owned) if self.ranks > 1 else 0,
            "inverses": max(columns) if self.workers > 1 else 0,
            "directions": sum(map(bool, columns)) if self.workers < self.ranks else 0,
        }

    def held(self) -> dict[str, list[int]]:
        """Numbers of the factors and of the inverses that each rank holds, as full matrices."""
        squares = [a * a + g * g for a, g in self.layers]
        return {
            "factors": [sum(squares[i] for i in its) for its in self.by_rank],
            "inverses": [sum(squares[i] for i in self.column(rank)) for rank in range(self.ranks)],
        }

    def inverting(self) -> list[int]:
        """Multiplications of each rank's inversions."""
        return [sum(sum(n**3 for n in self.layers[i]) for i in its) for its in self.by_rank]

    def preconditioning(self) -> list[int]:
        """Multiplications with the inverses, on each rank."""
        products = [a * g * (a + g) for a, g in self.layers]
        return [sum(products[i] for i in self.column(rank)) for rank in range(self.ranks)]
