"""What the dense Hessian of a network costs, in time and memory, and what Newton's step costs once it is there.

Claim     The Hessian of m x n parameters is mn x mn (hessian-network-learning); computing and storing it takes too much
          memory and resources to be practical (optimization-algorithms). Neither document measures it.
Set-up    Tanh networks of three square layers, of 90 to 9,918 weights, cross entropy over the same number of examples each.
          Five ways to the Hessian, five to the solution of H p = -g.
Hardware  one CPU core, one thread; times are of the processor and mean most as ratios within one round. About six minutes in
          all. All cases measure time or memory and are recorded.
"""

import gc
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from secondlook.curvature import Composed, Objective
from secondlook.curvature.dense import gauss_newton
from secondlook.curvature.gauss_newton_product import GaussNewton
from secondlook.curvature.vectors import flat, split
from secondlook.problems.networks import Network
from secondlook.study.declare import case
from secondlook.study.memory import peak_mib
from secondlook.study.parameters import Positive, PositiveInt

from .methods import HESSIANS, cholesky, conjugate_gradients, gradient, inverse, lu

LAYERS = 3
WARM_UP = 4  # width of the network on which every way is tried once before anything is measured


@dataclass(frozen=True)
class Dense:
    examples: PositiveInt
    widths: tuple[PositiveInt, ...]
    gradients: PositiveInt


@dataclass(frozen=True)
class Memory:
    examples: PositiveInt
    widths: tuple[PositiveInt, ...]


@dataclass(frozen=True)
class Solve:
    examples: PositiveInt
    widths: tuple[PositiveInt, ...]
    damping: Positive
    tolerance: Positive


@dataclass(frozen=True)
class Problem:
    """A network of single precision at its start, and examples: `width` numbers each, and one of as many classes."""

    network: Network
    params: list[Tensor]
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, width: int, examples: int) -> "Problem":
        generator = torch.Generator().manual_seed(0)
        network = Network((width,) * (LAYERS + 1), "tanh")
        params = [W.float() for W in network.start(generator)]
        x = torch.randn(examples, width, generator=generator)
        return cls(network, params, x, torch.randint(0, width, (examples,), generator=generator))

    @property
    def n(self) -> int:
        return sum(W.numel() for W in self.params)

    def loss(self, theta: list[Tensor]) -> Tensor:
        return cross_entropy(self.network(theta, self.x), self.y)


def _seconds(call: Callable[[], object]) -> float:
    """Of processor time, on one thread: the time on the clock of a core with nothing else to do."""
    start = time.process_time()
    call()
    return time.process_time() - start


@cache
def _warm_up() -> None:
    small = Problem.of(WARM_UP, WARM_UP)
    for way in HESSIANS.values():
        way(small.loss, small.params)


@case(Dense)
def dense(params: Dense, seed: int):
    """Seconds to the whole Hessian, the ways in an order drawn from the seed; and to a gradient, the mean of several."""
    _warm_up()
    for width in params.widths:
        p = Problem.of(width, params.examples)
        for name in np.random.default_rng([seed, width]).permutation(list(HESSIANS)):
            taken = _seconds(lambda way=HESSIANS[name], p=p: way(p.loss, p.params))
            yield {"method": str(name), "n": p.n, "step": 0, "metric": "seconds", "value": taken}
        taken = _seconds(lambda p=p: [gradient(p.loss, p.params) for _ in range(params.gradients)]) / params.gradients
        yield {"method": "gradient", "n": p.n, "step": 0, "metric": "seconds", "value": taken}


@case(Memory)
def memory(params: Memory, seed: int):
    """Peak of the resident memory above what the process holds before, MiB, H included; each way in a fresh process."""
    context = multiprocessing.get_context("spawn")
    for name in HESSIANS:
        with context.Pool(1) as pool:
            peaks = pool.apply(_peaks, (sorted(params.widths), params.examples, name))
        for n, peak in peaks:
            yield {"method": name, "n": n, "step": 0, "metric": "peak_mib", "value": peak}


def _peaks(widths: list[int], examples: int, name: str) -> list[tuple[int, float]]:
    """n and the peak so far, which is that of the last and largest network."""
    torch.set_num_threads(1)
    small, found = Problem.of(WARM_UP, WARM_UP), []
    HESSIANS[name](small.loss, small.params)
    before = peak_mib()
    for width in widths:
        p = Problem.of(width, examples)
        HESSIANS[name](p.loss, p.params)
        gc.collect()
        found.append((p.n, peak_mib() - before))
    return found


@dataclass(frozen=True)
class System:
    """H p = -g with H = G + lambda I, G the Gauss-Newton matrix; `product` applies H without the matrix."""

    n: int
    H: Tensor
    g: Tensor
    product: Callable[[Tensor], Tensor]


@cache
def _system(width: int, examples: int, damping: float) -> System:
    p = Problem.of(width, examples)
    H = gauss_newton(p.network, cross_entropy, p.params, p.x, p.y)
    shift = damping * H.trace().item() / p.n
    H.diagonal().add_(shift)
    G = GaussNewton(Objective(Composed(p.network, cross_entropy), p.params, (p.x, p.y)))

    def product(v: Tensor) -> Tensor:
        ((_, Gv),) = G.products([split(v, p.params)])
        return flat(Gv) + shift * v

    return System(p.n, H, flat(gradient(p.loss, p.params)), product)


@case(Solve)
def solve(params: Solve, seed: int):
    """Seconds to p, and |H p + g| / |g|; of conjugate gradients also the number of products."""
    for width in params.widths:
        s = _system(width, params.examples, params.damping)
        ways = {
            "inverse": lambda s=s: (inverse(s.H, s.g), 0),
            "LU": lambda s=s: (lu(s.H, s.g), 0),
            "Cholesky": lambda s=s: (cholesky(s.H, s.g), 0),
            "CG": lambda s=s: conjugate_gradients(s.H.mv, s.g, params.tolerance),
            "CG, no matrix": lambda s=s: conjugate_gradients(s.product, s.g, params.tolerance),
        }
        for name in np.random.default_rng([seed, width]).permutation(list(ways)):
            found = []
            taken = _seconds(lambda way=ways[name], found=found: found.extend(way()))
            p, products = found
            residual = ((s.H @ p + s.g).norm() / s.g.norm()).item()
            for metric, value in (("seconds", taken), ("residual", residual), ("products", products)):
                yield {"method": str(name), "n": s.n, "step": 0, "metric": metric, "value": value}
