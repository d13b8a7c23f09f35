"""How wrong are estimates of the Hessian's diagonal, what do they cost, and what does AdaHessian divide by?

Claim     AdaHessian approximates the diagonal of the Hessian, and spatial averaging reduces the variance (adahessian-abstract).
          Neither comes with a measurement.
Set-up    Matrices with known answers; a tanh network, a ReLU network and a convolutional one on scikit-learn's digits at three
          stages of training, every estimate, and those of two other packages, held against the dense Hessian; noise of probes
          beside that of batches; AdaHessian trained with one estimator or another, with its running mean and without.
Hardware  any CPU, one thread, three minutes in all; what is recorded, two to ten minutes each.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secondlook.curvature import DiagPlusPlus, Hutchinson, MeanSquare, Objective, Preactivations, XDiag, estimate
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.vectors import flat
from secondlook.problems.quadratics import rotation
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import NonNegative, Positive, PositiveInt, Text
from secondlook.study.place import Place

from .methods import FEW, PER_HVP, Matrix, blocks, by_parts, by_products
from .networks import Cell, Network, Shared, cells
from .peers import Peers, PeerTimes, of_a_gradient, operations, turns
from .training import Smoothing, Training, chosen, finals, reported, runs, smoothest

EXACT = Preactivations(128)  # more probes than any network here has sums before its activations


@dataclass(frozen=True)
class Matrices(Shared):
    n: PositiveInt
    draws: PositiveInt
    masses: tuple[NonNegative, ...]
    decays: tuple[NonNegative, ...]
    budgets: tuple[PositiveInt, ...]
    averages: tuple[PositiveInt, ...]


@dataclass(frozen=True)
class Limits(Shared):
    draws: PositiveInt
    averages: tuple[PositiveInt, ...]
    blocks: tuple[PositiveInt, ...]


@dataclass(frozen=True)
class Networks(Shared):
    draws: PositiveInt
    large_draws: PositiveInt
    damping: Positive
    average: PositiveInt
    budgets: tuple[PositiveInt, ...]


@dataclass(frozen=True)
class Noise(Shared):
    batches: PositiveInt
    probes: PositiveInt
    sizes: tuple[PositiveInt, ...]
    blocks: tuple[PositiveInt, ...]


@dataclass(frozen=True)
class Times(Shared):
    rounds: PositiveInt
    chunk_size: PositiveInt
    stage: Text
    budgets: tuple[PositiveInt, ...]


def relative(D: Tensor, truth: Tensor) -> float:
    """|D - truth| / |truth|."""
    return ((D - truth).norm() / truth.norm()).item()


def law(H: Tensor) -> float:
    """Relative error of one sign probe in the root mean square: the entries off the diagonal over those on it."""
    d = H.diagonal()
    return ((H.norm() ** 2 - d.norm() ** 2).clamp(min=0).sqrt() / d.norm()).item()


def drawn(H: Matrix | Objective, method: Diagonal, generator: torch.Generator) -> tuple[Tensor, float]:
    """D, flat (n,), and its cost in Hessian-vector products."""
    D, cost = estimate(H, method, generator)
    return flat(D), cost.in_gradients / PER_HVP


def sign_matrix(n: int, mass: float, generator: torch.Generator) -> Tensor:
    """Ones on the diagonal; off it +-mass / sqrt(n - 1), so that every row's norm is sqrt(1 + mass^2)."""
    S = Hutchinson().probe([torch.empty(n, n, dtype=torch.float64)], generator)[0].triu(1)
    return torch.eye(n, dtype=torch.float64) + (S + S.T) * mass / max(n - 1, 1) ** 0.5


def decaying(n: int, decay: float, generator: torch.Generator) -> Tensor:
    """Eigenvalues i^-decay, i = 1..n, in a random basis."""
    Q = rotation(n, generator)
    return (Q * torch.arange(1, n + 1, dtype=torch.float64) ** -decay) @ Q.T


@case(Matrices)
def matrices(p: Matrices, seed: int) -> Iterator[dict]:
    """Relative errors on matrices of known rows and of known eigenvalues, and the running mean of squares over |H_ii|."""
    generator = torch.Generator().manual_seed(seed)
    for family, make, levels in (("mass", sign_matrix, p.masses), ("decay", decaying, p.decays)):
        for level in levels:
            H = make(p.n, level, generator)
            at = {"family": family, "level": level}
            yield {**at, "metric": "law", "step": 1, "value": law(H)}
            A = Matrix(H, [torch.empty(p.n, dtype=torch.float64)])
            for budget in p.budgets:
                methods = {"Hutchinson": Hutchinson(budget), "normal probes": Hutchinson(budget, "gaussian")}
                if budget >= 3:
                    methods |= {"XDiag": XDiag(budget), "Diag++": DiagPlusPlus(budget)}
                for name, method in methods.items():
                    for draw in range(p.draws):
                        error = relative(drawn(A, method, generator)[0], H.diagonal())
                        yield {**at, "method": name, "draw": draw, "metric": "error", "step": budget, "value": error}
            for count in p.averages if family == "mass" else ():
                for draw in range(p.draws):
                    D, _ = drawn(A, MeanSquare(count, p.beta2), generator)
                    ratio = (D / H.diagonal().abs()).mean().item()
                    yield {**at, "method": "mean of squares", "draw": draw, "metric": "ratio", "step": count, "value": ratio}


@case(Limits)
def limits(p: Limits, seed: int) -> Iterator[dict]:
    """For every network and stage: the diagonal beside the rows' norms, the running mean's way, and what block means do."""
    generator = torch.Generator().manual_seed(seed)
    for cell in cells(p, seed):
        H, d = cell.H, cell.H.diagonal()
        norms, some = H.norm(dim=1), d != 0
        found = {
            "law": law(H),
            "limit": relative(norms, d.abs()),
            "median ratio": (norms[some] / d[some].abs()).median().item(),
            "limit rank": rank_correlation(norms, d.abs()),
            "negative": (d < 0).double().mean().item(),
        }
        for metric, value in found.items():
            yield {**cell.key, "metric": metric, "value": value}
        A = Matrix(H, cell.objective.params)
        for count in p.averages:
            D, _ = drawn(A, MeanSquare(count, p.beta2), generator)
            for metric, truth in (("to diagonal", d.abs()), ("to row norms", norms)):
                yield {**cell.key, "probes": count, "metric": metric, "value": relative(D, truth)}
        D = one_probe_each(A, p.draws, generator)
        for block in p.blocks:
            members = blocks(A, block)
            for averaging, found, truth in (("signed", D, d), ("absolute", D.abs(), d.abs())):
                averaged = means(found, members)
                limit = averaged.square().mean(0).sqrt()
                measured = moments(averaged, truth) | {"average limit": relative(limit, d.abs())}
                if averaging == "signed":
                    measured |= block_laws(H, members)
                for metric, value in measured.items():
                    yield {**cell.key, "block": block, "averaging": averaging, "metric": metric, "value": value}


def one_probe_each(A: Matrix, draws: int, generator: torch.Generator) -> Tensor:
    """`draws` estimates of one probe (draws, n)."""
    pairs = A.products(Hutchinson().probe(A.params, generator) for _ in range(draws))
    return torch.stack([flat(z) * flat(Hz) for z, Hz in pairs])


def moments(D: Tensor, truth: Tensor) -> dict[str, float]:
    """Squared bias and variance of estimates D (draws, n), summed over entries and over |truth|^2; their sum is the mean
    squared error. The squared bias is unbiased: what the mean's own variance adds is taken off, so it may be below zero."""
    size = truth.norm() ** 2
    variance = D.var(0).sum() / size
    bias = ((D.mean(0) - truth).norm() ** 2 / size) - variance / len(D)
    return {"bias2": bias.item(), "variance": variance.item()}


def block_laws(H: Tensor, members: Tensor) -> dict[str, float]:
    """The same for signed means of one probe, from the matrix: Cov[D_i, D_j] = H_ij^2, or sum_k H_ik^2 - H_ii^2 for i = j."""
    d, size = H.diagonal(), H.diagonal().norm() ** 2
    C = H**2
    C.diagonal().copy_(C.sum(1) - d**2)
    shared = torch.zeros_like(C[:, : members.max() + 1]).index_add_(1, members, C)  # (n, blocks): sum_j in block of C_ij
    inside = shared[torch.arange(len(d)), members] / members.bincount()[members]
    variance = inside.sum() / size  # that of a mean of b is (1/b^2) sum C, and b entries have it
    return {"bias2 law": ((means(d, members) - d).norm() ** 2 / size).item(), "variance law": variance.item()}


def means(D: Tensor, members: Tensor) -> Tensor:
    """D (..., n) averaged over blocks; entry i belongs to block members[i]."""
    sums = D.new_zeros(*D.shape[:-1], int(members.max()) + 1).index_add(-1, members, D)
    return (sums / members.bincount())[..., members]


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's."""
    ranks = torch.stack([x.argsort(stable=True).argsort(stable=True).double() for x in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def qualities(D: Tensor, d: Tensor, g: Tensor, damping: float) -> dict[str, float]:
    """What D (n,) is good for: share of wrong signs where H_ii is not 0; rank correlation of |D| with |H_ii|; cosine of
    g / (|D| + damping) with the same from the exact diagonal."""
    steps = [g / (x.abs() + damping) for x in (D, d)]
    return {
        "wrong signs": (D.sign() != d.sign())[d != 0].double().mean().item(),
        "rank": rank_correlation(D.abs(), d.abs()),
        "cosine": torch.nn.functional.cosine_similarity(*steps, dim=0).item(),
    }


@case(Networks)
def networks(p: Networks, seed: int) -> Iterator[dict]:
    """Every estimator at every budget, against the exact diagonal: the error of several draws, and their bias, variance and
    mean qualities."""
    generator = torch.Generator().manual_seed(seed)
    for cell in cells(p, seed):
        d, A = cell.H.diagonal(), Matrix(cell.H, cell.objective.params)
        g, damping = flat(cell.objective.gradient()), p.damping * d.abs().mean().item()
        yield {**cell.key, "metric": "law", "value": law(cell.H)}
        yield {**cell.key, "metric": "parameters", "value": len(d)}
        for budget in p.budgets:
            for source, methods, most in (
                (A, by_products(budget, len(A.params), p.block), FEW),
                (cell.objective, by_parts(budget), FEW - 1),
            ):
                draws = p.draws if budget <= most else p.large_draws
                for name, method in methods.items():
                    found, costs = zip(*(drawn(source, method, generator) for _ in range(draws)), strict=True)
                    truth = d.abs() if name == "mean of squares" else d
                    at = {**cell.key, "method": name, "budget": budget, "cost": costs[0]}
                    for draw, D in enumerate(found):
                        yield {**at, "draw": draw, "metric": "error", "value": relative(D, truth)}
                    of_draws = [qualities(D, truth, g, damping) for D in found]
                    means_of = {metric: sum(q[metric] for q in of_draws) / draws for metric in of_draws[0]}
                    for metric, value in (moments(torch.stack(found), truth) | means_of).items():
                        yield {**at, "metric": metric, "value": value}
        if (cell.network, cell.stage) == ("tanh", list(p.shares)[-1]):
            D, _ = drawn(A, MeanSquare(p.average, p.beta2), generator)
            for metric, values in (("|H_ii|", d.abs()), ("row norm", cell.H.norm(dim=1)), ("running mean", D)):
                for entry, value in enumerate(values.tolist()):
                    yield {**cell.key, "entry": entry, "metric": metric, "value": value}


@case(Times)
def times(p: Times, seed: int) -> Iterator[dict]:
    """Milliseconds of every estimator and of a gradient in each round, and the error that came with them."""
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed)
    for cell in cells(p, seed):
        if cell.stage == p.stage:
            yield from timed(cell, p, generator, order)


def timed(cell: Cell, p: Times, generator: torch.Generator, order: np.random.Generator) -> Iterator[dict]:
    plain, d = cell.objective, cell.H.diagonal()
    objective = Objective(plain.loss_fn, plain.params, plain.batches, chunk_size=p.chunk_size)
    turns = [("gradient", 0, None)]
    for budget in p.budgets:
        both = by_products(budget, len(plain.params), p.block) | by_parts(budget)
        turns += [(name, budget, method) for name, method in both.items()]
    for number in range(p.rounds):
        for turn in order.permutation(len(turns)):
            name, budget, method = turns[turn]
            start = time.perf_counter()
            D = flat(objective.gradient() if method is None else estimate(objective, method, generator)[0])
            taken = time.perf_counter() - start
            at = {**cell.key, "method": name, "budget": budget, "round": number}
            yield {**at, "metric": "milliseconds", "value": 1e3 * taken}
            if method is not None:
                yield {**at, "metric": "error", "value": relative(D, d.abs() if name == "mean of squares" else d)}


@case(Noise)
def noise(p: Noise, seed: int) -> Iterator[dict]:
    """The noise of one probe's estimate on a batch, in its two parts, with and without means over blocks:

        Var[D_B] = E_B Var_z[D_B | B] + Var_B[diag H_B]        of the probe z, and of the batch B

    each summed over entries and over |diag H|^2. Batches are drawn from the network's pictures, one by one, and put back.
    """
    generator = torch.Generator().manual_seed(seed)
    for cell in cells(p, seed):
        d, (pictures,) = cell.H.diagonal(), cell.objective.batches
        members = {block: blocks(Matrix(cell.H, cell.objective.params), block) for block in p.blocks}
        for size in p.sizes:
            exact, drawn_ = zip(*(on_a_batch(cell, pictures, size, p.probes, generator) for _ in range(p.batches)), strict=True)
            for block, its in members.items():
                of_probes = torch.stack([means(D, its).var(0).sum() for D in drawn_]).mean()
                of_batches = means(torch.stack(exact), its).var(0).sum()
                found = {"probes": of_probes, "batches": of_batches, "bias2": (means(d, its) - d).norm() ** 2}
                for metric, value in found.items():
                    at = {**cell.key, "batch": size, "block": block}
                    yield {**at, "metric": metric, "value": (value / d.norm() ** 2).item()}


def on_a_batch(cell: Cell, pictures: tuple, size: int, probes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The exact diagonal (n,) of the Hessian on a batch of `size` pictures, and so many estimates of one probe (probes, n)."""
    x, y = pictures
    chosen = torch.randint(len(x), (size,), generator=generator)
    H = Objective(cell.objective.loss_fn, cell.objective.params, (x[chosen], y[chosen]), chunk_size=128)
    pairs = H.products(Hutchinson().probe(H.params, generator) for _ in range(probes))
    return flat(EXACT(H, generator)), torch.stack([flat(z) * flat(Hz) for z, Hz in pairs])


@case(Peers)
def peers(p: Peers, seed: int) -> Iterator[dict]:
    """Operations of every estimate over those of a gradient, ours and of two other packages, and its relative error."""
    for cell in cells(p, seed):
        d, unit = cell.H.diagonal(), of_a_gradient(cell)
        for (name, budget), turn in turns(cell, p).items():
            at = {**cell.key, "method": name, "budget": budget}
            counted = operations(lambda turn=turn: turn(seed)) / unit
            yield {**at, "metric": "operations", "value": counted}
            for draw in range(p.draws):
                yield {**at, "draw": draw, "metric": "error", "value": relative(turn(p.draws * seed + draw), d)}


@case(PeerTimes)
def peer_times(p: PeerTimes, seed: int) -> Iterator[dict]:
    """Milliseconds of the same in each round, in which all take their turns in a drawn order."""
    order = np.random.default_rng(seed)
    for cell in cells(p, seed):
        if cell.stage == p.stage:
            found = list(turns(cell, p).items())
            for number in range(-1, p.rounds):  # the first is not timed
                for index in order.permutation(len(found)):
                    (name, budget), turn = found[index]
                    start = time.perf_counter()
                    turn(number + 1)
                    taken = 1e3 * (time.perf_counter() - start)
                    if number >= 0:
                        at = {**cell.key, "method": name, "budget": budget, "round": number}
                        yield {**at, "metric": "milliseconds", "value": taken}


@case(Training)
def training(p: Training, seed: int) -> Iterator[dict]:
    """AdaHessian with each estimator. Seeds `seed`, seed + 1, ... choose the rates, those from `first` on are reported."""
    for name, activation in (("tanh", torch.tanh), ("ReLU", torch.relu)):
        network = Network(activation, hidden=p.hidden)
        for estimator in p.estimators:
            at = {"network": name, "method": estimator}
            tuning = []
            for lr in p.lrs:
                for run in range(seed, seed + p.tuning_seeds):
                    tuning += [
                        {**at, "part": "tuning", "run": run, "lr": lr, **row} for row in runs(p, network, estimator, lr, run)
                    ]
            yield from tuning
            for aim, lr in chosen(tuning, p.steps, p.work).items():
                for run in range(p.first, p.first + p.count):
                    for row in runs(p, network, estimator, lr, run):
                        yield {**at, "part": aim, "run": run, "lr": lr, **row}


@case(Smoothing, place=True)
def smoothing(p: Smoothing, seed: int, place: Place) -> Iterator[dict]:
    """AdaHessian with its running mean of squares and without (beta2 = 0): each at its best rate with the paper's eps, which is
    the first of `eps`, and at its best rate and eps. Seeds as in `training`; of the runs that choose, the final loss alone."""
    for name, network in (
        ("tanh", Network(torch.tanh, hidden=p.hidden)),
        ("ReLU", Network(torch.relu, hidden=p.hidden)),
        ("CNN", Network(torch.tanh, p.channels)),
    ):
        for beta2 in p.beta2s:
            at = {"network": name, "beta2": beta2}
            tuning = []
            for eps in p.eps:
                key = {**at, "part": "tuning", "eps": eps}
                tuning += kept(place, key, lambda _, key=key, network=network: finals(p, network, key, seed))
            yield from tuning
            for part, (eps, lr) in smoothest(tuning, p.eps[0]).items():
                key = {**at, "part": part, "eps": eps, "lr": lr}
                yield from kept(place, key, lambda _, key=key, network=network: reported(p, network, key))
