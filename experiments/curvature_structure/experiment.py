"""How much of a network's curvature do a diagonal, blocks and Kronecker factors keep, and how good is the step that they give?

Claim     `block_diag(A, B, C)` is the printed 5 x 7 array; the diagonal is cheap but probably inaccurate, diagonal blocks for
          neurons or layers are better, Kronecker factors are most promising (optimization-algorithms). It gives no measurement.
Set-up    A tanh network, a ReLU network and a convolutional one with a few hundred weights, on generated pictures, at three
          stages of training; the Hessian H and the Gauss-Newton matrix G in full, and every approximation held against them.
Hardware  any CPU, one thread; under a minute in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from secondlook.curvature.dense import fisher, hessian
from secondlook.problems.networks import Network
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Fraction, Number, Positive, PositiveInt

from . import structures
from .structures import Structure
from .training import images, pooled, stages

CHANNELS = 1  # of the images
DRAWN = ("full", "diagonal", "neuron blocks", "layer blocks", "K-FAC", "low rank")  # in case picture


@dataclass(frozen=True)
class Shared:
    side: PositiveInt
    classes: PositiveInt
    noise: Positive
    lr: Positive
    most_steps: PositiveInt


@dataclass(frozen=True)
class Document(Shared):
    a: tuple[tuple[Count, ...], ...]
    b: tuple[tuple[Count, ...], ...]
    c: tuple[tuple[Count, ...], ...]
    printed: tuple[tuple[Count, ...], ...]


@dataclass(frozen=True)
class Networks(Shared):
    examples: PositiveInt
    mlp_hidden: tuple[PositiveInt, ...]
    cnn_channels: tuple[PositiveInt, ...]
    line_search: tuple[Number, ...]
    shares: dict[str, Fraction]
    dampings: tuple[Positive, ...]


@dataclass(frozen=True)
class Picture(Shared):
    examples: PositiveInt
    hidden: tuple[PositiveInt, ...]
    stage: Fraction


@case(Document)
def document(p: Document, seed: int):
    """The document's matrices and the array that it prints, entry by entry."""
    for name in ("a", "b", "c", "printed"):
        for row, values in enumerate(getattr(p, name)):
            for column, value in enumerate(values):
                yield {"method": name, "row": row, "column": column, "step": 0, "metric": "entry", "value": value}


def matrices(network: Network, params: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradient g (n,), and H and G (n, n); G as the Fisher matrix, which is the same for a softmax."""

    def loss(theta: list[Tensor]) -> Tensor:
        return functional.cross_entropy(network(theta, x), y)

    theta = [W.requires_grad_() for W in params]
    g = torch.cat([d.reshape(-1) for d in torch.autograd.grad(loss(theta), theta)])
    return g, {"H": hessian(loss, params), "G": fisher(network, params, x)}


def approximations(M: Tensor, network: Network, factors: list[tuple[Tensor, Tensor]]) -> dict[str, Structure]:
    """Every approximation of M (n, n), the whole of it first; `factors` are K-FAC's."""
    neurons = [inputs for out, inputs in network.shapes for _ in range(out)]
    layers = [out * inputs for out, inputs in network.shapes]
    full = structures.in_blocks(M, [len(M)])
    kfac, by_neuron = structures.kronecker(factors), structures.in_blocks(M, neurons)
    return {
        "full": full,
        "none": structures.nothing(len(M)),
        "diagonal": structures.diagonal(M.diagonal()),
        "row norms": structures.diagonal(M.norm(dim=1)),
        "neuron blocks": by_neuron,
        "layer blocks": structures.in_blocks(M, layers),
        "K-FAC": kfac,
        "best Kronecker": structures.kronecker(structures.nearest_kronecker(M, network.shapes)),
        "low rank, small": structures.low_rank(full, kfac.stored),
        "low rank": structures.low_rank(full, by_neuron.stored),
    }


def decreases(network: Network, params: list[Tensor], x: Tensor, y: Tensor, steps: Tensor) -> Tensor:
    """The share of the loss that goes (K,) when `steps` (K, n) are added to the parameters, each in turn."""

    def after(step: Tensor) -> Tensor:
        parts = step.split([W.numel() for W in params])
        moved = [W + part.reshape(W.shape) for W, part in zip(params, parts, strict=True)]
        return functional.cross_entropy(network(moved, x), y)

    with torch.no_grad():
        return 1 - torch.func.vmap(after)(steps) / after(torch.zeros_like(steps[0]))


def judged(M: Tensor, g: Tensor, found: dict[str, Structure], dampings, lengths: Tensor, falls) -> Iterator[dict]:
    """Error, size and steps of the approximations `found` of M. Each damped step d is compared with the full one:

    cosine       of the angle between them
    model share  fall of the quadratic model g^T d + d^T (|M| + damping I) d / 2 along d, over its fall along the full step;
                 both at the best length, so that only the direction counts
    fall         share of the loss that goes when the step is taken, at the best of `lengths` times the undamped model's best
                 length; `falls(steps (methods, lengths, n))` measures it, (methods, lengths)
    at edge      share of the methods whose best length is the first or the last of `lengths`
    """
    (whole,) = found["full"].blocks
    for method, structure in found.items():
        error = torch.linalg.norm(structure.dense() - M) / torch.linalg.norm(M)
        for metric, value in (("error", error.item()), ("stored", structure.stored), ("work", structure.work)):
            yield {"method": method, "damping": 0.0, "metric": metric, "value": value}
    for damping in dampings:
        strength = damping * whole.w.abs().mean().item()
        steps = torch.stack([structure.step(g, strength) for structure in found.values()])  # (methods, n)
        slope = -(steps @ g)  # of the model along each step, at its start
        squares = (steps @ whole.V) ** 2
        undamped = squares @ whole.w.abs()  # the model's curvature along each step, without and with the damping
        bend = undamped + strength * squares.sum(1)
        fall = falls((steps * (slope / undamped)[:, None])[:, None] * lengths[:, None])  # (methods, lengths)
        largest, at = fall.max(1)
        values = {
            "cosine": functional.cosine_similarity(steps, steps[:1]),
            "model share": slope**2 / bend / (slope[0] ** 2 / bend[0]),
            "fall": largest,
        }
        for metric, numbers in values.items():
            for method, number in zip(found, numbers.tolist(), strict=True):
                yield {"method": method, "damping": damping, "metric": metric, "value": number}
        at_edge = (at == 0) | (at == len(lengths) - 1)
        yield {"damping": damping, "metric": "at edge", "value": at_edge.double().mean().item()}


@case(Networks)
def networks(p: Networks, seed: int):
    """Every approximation of H and of G, for each network at each stage."""
    generator = torch.Generator().manual_seed(seed)
    x, y = images(p.examples, p.classes, p.side, p.noise, generator)
    features = pooled(x)
    low, high = p.line_search
    lengths = 2.0 ** torch.arange(low, high + 1, dtype=torch.float64)
    mlp = (features.shape[1], *p.mlp_hidden, p.classes)
    for name, network, inputs in (
        ("tanh", Network(mlp, "tanh"), features),
        ("ReLU", Network(mlp, "relu"), features),
        ("CNN", Network((CHANNELS, *p.cnn_channels, p.classes), "tanh", len(p.cnn_channels), p.side), x),
    ):
        for stage, step, params in stages(network, inputs, y, p.shares, p.lr, p.most_steps, generator):
            g, dense = matrices(network, params, inputs, y)
            factors = structures.kfac(network, params, inputs)
            at = {"network": name, "stage": stage, "step": step}
            yield {**at, "metric": "gradient norm", "value": g.norm().item()}
            yield {**at, "metric": "Gauss-Newton share", "value": (dense["G"].norm() / dense["H"].norm()).item()}

            def falls(steps: Tensor, network=network, inputs=inputs, params=params) -> Tensor:
                flat = decreases(network, [W.detach() for W in params], inputs, y, steps.flatten(0, 1))
                return flat.reshape(steps.shape[:2])

            for matrix, M in dense.items():
                found = approximations(M, network, factors)
                for row in judged(M, g, found, p.dampings, lengths, falls):
                    yield {**at, "matrix": matrix, **row}


@case(Picture)
def picture(p: Picture, seed: int) -> pd.DataFrame:
    """The entries on and above the diagonal of G of a small tanh network, and of its approximations where they are not zero."""
    generator = torch.Generator().manual_seed(seed)
    x, y = images(p.examples, p.classes, p.side, p.noise, generator)
    x = pooled(x)
    network = Network((x.shape[1], *p.hidden, p.classes), "tanh")
    ((_, step, params),) = stages(network, x, y, {"stage": p.stage}, p.lr, p.most_steps, generator)
    _, dense = matrices(network, params, x, y)
    tables = []
    found = approximations(dense["G"], network, structures.kfac(network, params, x))
    for method in DRAWN:
        M = found[method].dense().triu()
        row, column = M.nonzero(as_tuple=True)
        tables.append(pd.DataFrame({"method": method, "row": row, "column": column, "value": M[row, column]}))
    sizes = [out * inputs for out, inputs in network.shapes]
    layers = pd.DataFrame({"method": "full", "row": range(len(sizes)), "column": 0, "metric": "layer size", "value": sizes})
    return pd.concat([pd.concat(tables).assign(metric="entry"), layers]).assign(step=step)
