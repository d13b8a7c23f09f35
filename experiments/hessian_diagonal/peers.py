"""The estimates of two other packages, curvlinops and BackPACK, beside the library's: error and operations of each.

They draw from torch's global generator, which is seeded for them and put back. Operations are the multiplications and additions
of all matrix products and convolutions, as torch dispatches them: the same on every machine, whoever asks for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from secondlook.curvature import GaussNewtonDiagonal, Hutchinson, Objective, Preactivations, XDiag, estimate
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.vectors import flat
from secondlook.errors import Mistake
from secondlook.study.parameters import PositiveInt, Text

from .names import THEIRS
from .networks import KERNEL, STRIDE, Cell, Network, Shared

LEAST_XDIAG = 3  # products, as in `methods`
MOST_DRAWN = 10  # products' work that is spent on drawn outputs: their bias is then all of the error
UNBUDGETED = ("layer sums, one probe", "Gauss-Newton", "BackPACK Hessian", "BackPACK Gauss-Newton")  # one estimate each


@dataclass(frozen=True)
class Sides(Shared):
    chunk_size: PositiveInt
    budgets: tuple[PositiveInt, ...]
    methods: tuple[Text, ...]


@dataclass(frozen=True)
class Peers(Sides):
    draws: PositiveInt


@dataclass(frozen=True)
class PeerTimes(Sides):
    rounds: PositiveInt
    stage: Text


def package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise Mistake(f"hessian_diagonal needs the package {name}: install the extra 'benchmark'") from error


def as_module(network: Network, theta: list[Tensor]) -> nn.Sequential:
    """The network in torch's layers, which is what both packages ask for; parameters in the order of `theta`."""
    activation = {torch.tanh: nn.Tanh, torch.relu: nn.ReLU}[network.activation]
    layers: list[nn.Module] = []
    for W in theta[::2]:
        if W.dim() == 4:
            layers.append(nn.Conv2d(W.shape[1], W.shape[0], KERNEL, STRIDE, 1))
        else:
            layers += [nn.Flatten(), nn.Linear(W.shape[1], W.shape[0])]
        layers.append(activation())
    module = nn.Sequential(*layers[:-1]).to(theta[0].dtype)
    with torch.no_grad():
        for p, t in zip(module.parameters(), theta, strict=True):
            p.copy_(t)
    return module


def by_products(name: str, module: nn.Module, x: Tensor, y: Tensor, products: int) -> Tensor:
    """D of curvlinops' function `name`, flat."""
    curvlinops = package("curvlinops")
    params = [p for p in module.parameters() if p.requires_grad]
    H = curvlinops.HessianLinearOperator(module, nn.CrossEntropyLoss(), params, [(x, y)], check_deterministic=False)
    return getattr(curvlinops, name)(H, products)


def by_backpack(name: str, module: nn.Module, x: Tensor, y: Tensor, **options: int) -> Tensor:
    """D of BackPACK's extension `name`, flat."""
    backpack, extensions = package("backpack"), package("backpack.extensions")
    module, criterion = backpack.extend(module), backpack.extend(nn.CrossEntropyLoss())
    kept = {"DiagHessian": "diag_h", "DiagGGNExact": "diag_ggn_exact", "DiagGGNMC": "diag_ggn_mc"}[name]
    with backpack.backpack(getattr(extensions, name)(**options)):
        criterion(module(x), y).backward()
    return flat([getattr(p, kept) for p in module.parameters()])


def _within(name: str, budget: int) -> bool:
    """Whether the budget is enough for an estimate, and not more than it is worth."""
    return (budget >= LEAST_XDIAG or "XDiag" not in name) and (budget <= MOST_DRAWN or "drawn" not in name)


def ours(name: str, budget: int) -> Diagonal:
    """The estimator `name` within so many products with their gradients, or their work."""
    made: dict[str, Diagonal] = {
        "Hutchinson": Hutchinson(budget),
        "XDiag": XDiag(max(budget, LEAST_XDIAG)),
        "layer sums": Preactivations(int(3 * budget - 2 / 3)),
        "layer sums, one probe": Preactivations(1),
        "Gauss-Newton": GaussNewtonDiagonal(),
        "Gauss-Newton, drawn": GaussNewtonDiagonal(2 * budget),
    }
    return made[name]


def theirs(name: str, budget: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The same of another package."""
    made: dict[str, tuple[Callable, str, dict]] = {
        "curvlinops Hutchinson": (by_products, "hutchinson_diag", {"products": budget}),
        "curvlinops XDiag": (by_products, "xdiag", {"products": budget - budget % 2}),
        "BackPACK Hessian": (by_backpack, "DiagHessian", {}),
        "BackPACK Gauss-Newton": (by_backpack, "DiagGGNExact", {}),
        "BackPACK Gauss-Newton, drawn": (by_backpack, "DiagGGNMC", {"mc_samples": 2 * budget}),
    }
    function, its, options = made[name]
    return lambda module, x, y: function(its, module, x, y, **options)


Turn = Callable[[int], Tensor]  # seed of the probes -> D, flat (n,)


def turns(cell: Cell, p: Sides) -> dict[tuple[str, int], Turn]:
    """Every estimate of `p` at every budget that it can use; where the budget changes nothing, at the first alone."""
    plain, network = cell.objective, cell.objective.loss_fn.model
    (batch,) = plain.batches
    objective = Objective(plain.loss_fn, plain.params, plain.batches, chunk_size=p.chunk_size)

    def of_ours(method: Diagonal) -> Turn:
        return lambda seed: flat(estimate(objective, method, torch.Generator().manual_seed(seed))[0])

    def of_theirs(function: Callable) -> Turn:
        def turn(seed: int) -> Tensor:
            with torch.random.fork_rng([]):
                torch.manual_seed(seed)
                return function(as_module(network, plain.params), *batch).detach()

        return turn

    found: dict[tuple[str, int], Turn] = {}
    for budget in p.budgets:
        for name in p.methods:
            if _within(name, budget) and (name not in UNBUDGETED or budget == p.budgets[0]):
                peer = name in THEIRS
                found[name, budget] = of_theirs(theirs(name, budget)) if peer else of_ours(ours(name, budget))
    return found


def operations(turn: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        turn()
    return counter.get_total_flops()


def of_a_gradient(cell: Cell) -> int:
    """Operations of one gradient in torch's layers: the unit of all others."""
    module, (batch,) = as_module(cell.objective.loss_fn.model, cell.objective.params), cell.objective.batches
    return operations(lambda: functional.cross_entropy(module(batch[0]), batch[1]).backward())
