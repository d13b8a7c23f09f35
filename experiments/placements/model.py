"""A cost model of a step, fitted to the measured ones.

    milliseconds = gradient load + factors load / f + operations / rate + bytes / bandwidth + latency messages

with f and i the steps between two estimates of the factors and two inversions. load is how many processes share a core, at
least 1; operations are multiplications of inverting / i and of preconditioning, and those of the busiest rank count, or of
all ranks over the cores where that is more; bytes are those of gradients, factors / f, inverses / i and directions; messages
are collectives of a rank. The five coefficients are not negative and minimise the squares of the relative residuals.
"""

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from .architectures import Layer
from .closed_form import Costs

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Machine:
    """Coefficients: milliseconds of a gradient and of the factors, for one process with a core of its own; milliseconds for one
    multiplication, one byte, one message."""

    gradient: float
    factors: float
    operation: float
    byte: float
    message: float


def costs(layers: list[Layer], ranks: int, workers: int) -> Costs:
    return Costs(tuple((layer.a, layer.g) for layer in layers), ranks, workers)


def load(found: Costs, f: int, i: int, cores: int | None) -> list[float]:
    """What the coefficients of a Machine multiply. f = 0: SGD. `cores` are those of all ranks; None: one device a rank."""
    P = found.ranks
    sharing = 1.0 if cores is None else max(1.0, P / cores)
    weights = sum(a * g for a, g in found.layers)
    sent = found.sent() if cores is not None else found.most_sent()
    bytes_, messages = _gradients(weights, P, cores is None), float(P > 1)
    operations = 0.0
    if f:
        every = {"factors": f, "inverses": i, "directions": 1}
        bytes_ += sum(BYTES * sent[kind] / n for kind, n in every.items())
        messages += sum(found.messages()[kind] / n for kind, n in every.items())
        for by_rank, n in ((found.inverting(), i), (found.preconditioning(), 1)):
            operations += max(max(by_rank), 0 if cores is None else sum(by_rank) / cores) / n
    return [sharing, sharing / f if f else 0.0, operations, bytes_, messages]


def _gradients(weights: int, ranks: int, one_link: bool) -> float:
    """Bytes of the all-reduce of the gradients: 2 (P - 1) n numbers over all ranks, 1/P of it through each one's link."""
    everything = 2 * (ranks - 1) * weights * BYTES
    return everything / ranks if one_link else everything


def fit(layers: list[Layer], times: pd.DataFrame, cores: int) -> tuple[Machine, pd.DataFrame]:
    """The machine, and `times` (ranks, share, factors_every, inverses_every, value) with a column `model`."""
    rows = times.itertuples()
    X = np.array(
        [load(costs(layers, r.ranks, round(r.share * r.ranks) or 1), r.factors_every, r.inverses_every, cores) for r in rows]
    )
    y = times.value.to_numpy()
    scale = X.max(axis=0)
    found, _ = nnls(X / scale / y[:, None], np.ones(len(y)))
    return Machine(*(found / scale)), times.assign(model=X @ (found / scale))


def milliseconds(machine: Machine, found: Costs, f: int, i: int, cores: int | None = None) -> float:
    coefficients = [getattr(machine, field.name) for field in fields(machine)]
    return float(np.dot(coefficients, load(found, f, i, cores)))
