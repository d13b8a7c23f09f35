"""From rows to what measures and figures share."""

import numpy as np
import pandas as pd

from secondlook.study.statistics import Estimate

from . import architectures
from .closed_form import Costs
from .methods import FACTORS_EVERY, METHODS
from .model import Machine, costs, fit, milliseconds

CORES = 2  # of the machine of case steps
PUBLISHED = (0.181, 0.363)  # part of the time that KAISA saves, as the document quotes it
PREFIX = {method: "" if every == 1 else f"every_{every}_" for method, every in FACTORS_EVERY.items()}  # of a variant's measures
DIGITS = 9  # after the point, to which means are equal
KINDS = ("factors", "inverses", "directions")

# On paper: devices and networks of the extrapolation. Speeds are peaks of data sheets, of which a program reaches a part.
DEVICES = 128  # as many as the document's
OPERATIONS = 19.5e12 / 2  # multiplications a second: an A100's float32 peak counts them and additions
BANDWIDTH = 25e9  # bytes a second: one InfiniBand HDR link of 200 Gb/s
LATENCY = 20e-6  # seconds a collective: assumed
RHYTHM = (10, 100)  # steps between estimates of the factors and between inversions: assumed, as is usual at this size
EXAMPLES = {"ResNet-50": 32, "BERT-Large": 8}  # on each device: assumed
TOKENS = 512  # of BERT-Large's second phase
NETWORKS = {"ResNet-50": architectures.resnet_50(), "BERT-Large": architectures.bert_large(TOKENS)}
PASSES = 3  # products of a gradient for one forward


def network(rows: pd.DataFrame) -> list[architectures.Layer]:
    """The layers of the network of case steps."""
    found = rows[rows.metric.isin(["side a", "side g"])].drop_duplicates(["layer", "metric"])
    sides = found.pivot(index="layer", columns="metric", values="value").astype(int)
    return [architectures.Layer(a, g, 0) for a, g in sides[["side a", "side g"]].itertuples(index=False)]


def of_steps(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows[(rows.case == "steps") & ~rows.metric.isin(["side a", "side g"])]
    return found.astype({name: int for name in ("ranks", "rank", "factors_every", "inverses_every")})


def times(rows: pd.DataFrame) -> pd.DataFrame:
    """Median milliseconds over rounds by ranks, share (0: SGD), factors_every, inverses_every."""
    found = of_steps(rows)
    found = found[(found.metric == "milliseconds") & (found["rank"] == 0)]
    return found.groupby(["ranks", "share", "factors_every", "inverses_every"]).value.median().reset_index()


def fitted(rows: pd.DataFrame) -> tuple[Machine, pd.DataFrame]:
    return fit(network(rows), times(rows), CORES)


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Bytes of one event of each kind over all ranks, and the bytes held by the rank with most, by ranks and share."""
    found = of_steps(rows)
    found = found[(found.share > 0) & (found.seed == found.seed.min())]
    cells = []
    for (ranks, share), cell in found.groupby(["ranks", "share"]):
        line = {"ranks": ranks, "share": share}
        every = {"factors": cell.factors_every, "inverses": cell.inverses_every, "directions": 1}
        for kind in KINDS:
            events = cell.assign(value=cell.value * every[kind])[cell.metric == f"bytes of {kind}"]
            sums = events.groupby(["factors_every", "inverses_every"]).value.sum().to_numpy()
            line[kind] = sums[0] if len(sums) else 0.0
            if len(sums) and not np.allclose(sums, sums[0], rtol=1e-12):
                raise ValueError(f"bytes of {kind} differ between rhythms")
        for kind in KINDS[:2]:
            line[f"held {kind}"] = cell[cell.metric == f"held {kind}"].value.max()
        cells.append(line)
    return pd.DataFrame(cells)


def expected(rows: pd.DataFrame) -> pd.DataFrame:
    """The same from the closed form."""
    layers, cells = network(rows), []
    for ranks, share in counted(rows)[["ranks", "share"]].itertuples(index=False):
        found = costs(layers, ranks, round(share * ranks))
        sent = {kind: 4.0 * n for kind, n in found.sent().items()}
        held = {f"held {kind}": 4.0 * max(n) for kind, n in found.held().items()}
        cells.append({"ranks": ranks, "share": share, **sent, **held})
    return pd.DataFrame(cells)


def on_paper(name: str, workers: int, devices: int = DEVICES) -> tuple[float, float, Costs]:
    """Milliseconds of a step of SGD and of K-FAC on so many devices, by the model, and what the placement costs that holds the
    inverses of a layer on `workers` of them."""
    layers = NETWORKS[name]
    found = costs(layers, devices, workers)
    forward = EXAMPLES[name] * sum(layer.a * layer.g * layer.positions for layer in layers)
    factors = EXAMPLES[name] * sum((layer.a**2 + layer.g**2) * layer.positions for layer in layers)
    machine = Machine(
        *(1e3 * x for x in (PASSES * forward / OPERATIONS, factors / OPERATIONS, 1 / OPERATIONS, 1 / BANDWIDTH, LATENCY))
    )
    return milliseconds(machine, found, 0, 0), milliseconds(machine, found, *RHYTHM), found


def divisors(ranks: int) -> list[int]:
    return [w for w in range(1, ranks + 1) if ranks % w == 0]


def efficiency(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scaling efficiency of SGD, and of K-FAC at the placement with the cheapest step, on 1, 2, 4, ... DEVICES devices: time of
    a step on one device over that on so many, each with as many examples; by the model."""
    sgd, kfac = [], []
    for devices in divisors(DEVICES):
        steps = [on_paper(name, workers, devices) for workers in divisors(devices)]
        sgd.append(steps[0][0])
        kfac.append(min(step for _, step, _ in steps))
    return sgd[0] / np.array(sgd), kfac[0] / np.array(kfac)


def arrivals(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """Epochs until the accuracy is first at the target, infinite where it is not, and the last accuracy, by method, rate and
    seed."""
    found = rows[rows.case == case].pivot(index=["method", "lr", "seed"], columns="metric", values="value")
    return found[["epochs", "accuracy"]]


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of case rates, by method and rate; one miss makes the epochs infinite."""
    return arrivals(rows, "rates").groupby(level=["method", "lr"]).mean().round(DIGITS)


def best_rates(rows: pd.DataFrame) -> dict[str, float]:
    """The rate with the least mean epochs to the target on the validation part; of equal ones, the best last accuracy."""
    ordered = trials(rows).reset_index().sort_values(["epochs", "accuracy"], ascending=[True, False])
    return {method: ordered[ordered.method == method].lr.iloc[0] for method in METHODS}


def epoch_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Epochs of each variant of K-FAC over those of SGD, by seed; 1 where both miss the target."""
    table = arrivals(rows, "epochs").epochs.droplevel("lr").unstack("method")
    return table[list(FACTORS_EVERY)].div(table["SGD"], axis=0).fillna(1.0)


def step_milliseconds(rows: pd.DataFrame, ranks: int) -> pd.DataFrame:
    """A step of each method in a run of case training, by seed."""
    found = rows[(rows.case == "training") & (rows.ranks == ranks) & (rows.metric == "seconds")]
    last = found[found.step == found.step.max()]
    return last.assign(value=1e3 * last.value / last.step).pivot(index="seed", columns="method", values="value")


def exact(value: float) -> Estimate:
    return Estimate(value)
