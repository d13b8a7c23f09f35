"""The numbers of the sigmoid neuron: learning rates that give the article's epochs, and how often AdaHessian is faster or more direct.

A cell is a data set x loss x start x learning rate x estimator of the diagonal. The exact diagonal and the probes have equal weight.
Groups, over which intervals are taken, are data set x start: on two points SSE/2 and MSE are the same function, and elsewhere they
differ by a factor to which both optimisers are blind but for eps, so losses are no further trials.
"""

import numpy as np
import pandas as pd

from secondlook.study.statistics import Estimate, clustered_share, mean

ADAHESSIAN_EPOCH, ADAM_EPOCH = 150, 175  # the article's
NEAR = 10  # epochs around them that count as the same, over the grid
WINDOW = 2  # the same, for the windows of learning rates
SAME_LOSS = 0.01  # final losses are equal within this share of the way from the first loss to the minimum
SAME_DETOUR = 1e-6  # detours closer than this (relative) are a tie: on one point both paths are straight up to rounding
TUNING_SEED = 0  # of the probes: chooses each setting's best learning rate, and is not reported
SETTING = ["data", "loss", "start"]
LEAST_GROUPS = 6  # a share at one learning rate is drawn where this many groups have a cell to judge


def _table(rows: pd.DataFrame, case: str, method: str, metric: str, seed: int = 0) -> pd.DataFrame:
    """Settings by learning rates."""
    chosen = rows[(rows.case == case) & (rows.method == method) & (rows.metric == metric) & (rows.seed == seed)]
    return chosen.pivot(index=SETTING, columns="lr", values="value")


def _estimators(rows: pd.DataFrame, metric: str) -> dict[str, list[pd.DataFrame]]:
    """AdaHessian's tables: one for each reported seed; the exact diagonal's as often, so that both weigh the same."""
    seeds = sorted(set(rows[rows.case == "probes"].seed) - {TUNING_SEED})
    return {
        "exact": [_table(rows, "grid", "AdaHessian", metric)] * len(seeds),
        "probes": [_table(rows, "probes", "AdaHessian", metric, seed) for seed in seeds],
    }


def _groups(table: pd.DataFrame) -> np.ndarray:
    return table.index.map("{0[0]}, {0[2]}".format).to_numpy()


def _at_best(rows: pd.DataFrame, metric: str) -> tuple[pd.Series, dict[str, list[pd.Series]]]:
    """`metric` of each setting at the learning rate that arrives first: Adam's, and AdaHessian's of each estimator."""

    def choose(case, method):
        return _table(rows, case, method, "arrived").idxmin(axis=1)

    def take(table, rates):
        return pd.Series([table.at[setting, rate] for setting, rate in rates.items()], index=rates.index)

    adam = take(_table(rows, "grid", "Adam", metric), choose("grid", "Adam"))
    best = {"exact": choose("grid", "AdaHessian"), "probes": choose("probes", "AdaHessian")}
    return adam, {name: [take(t, best[name]) for t in tables] for name, tables in _estimators(rows, metric).items()}


def _outcomes(adam, tables: dict[str, list], comparable, tie: float = 0.0) -> pd.DataFrame:
    """One line for each cell that can be judged: its group, estimator, learning rate, and whether AdaHessian's number is lower or higher
    than Adam's. `comparable(adam, adahessian)` says which cells can be."""
    lines = []
    for name, frames in tables.items():
        for h, judged in zip(frames, (comparable(adam, h) for h in frames), strict=True):
            cells = pd.DataFrame({"lower": _flat(h < adam * (1 - tie)), "higher": _flat(h > adam * (1 + tie))})
            cells["group"] = np.repeat(_groups(h), h.size // len(h))
            cells["lr"] = np.tile(getattr(h, "columns", [np.nan]), len(h))
            lines.append(cells.assign(estimator=name)[_flat(judged)])
    return pd.concat(lines, ignore_index=True)


def _flat(table) -> np.ndarray:
    return np.asarray(table, dtype=bool).ravel()


def _either(adam, adahessian):
    """At least one of the two arrives."""
    return np.isfinite(adam) | np.isfinite(adahessian)


def _shares(equal: pd.DataFrame, best: pd.DataFrame) -> dict[str, Estimate]:
    """Share of cells in which AdaHessian's number is lower, and in which it is higher, overall and for each estimator."""
    found = {}
    for at, cells in (("equal", equal), ("best", best)):
        found[at] = clustered_share(cells.lower, cells.group)
        found[f"{at}_worse"] = clustered_share(cells.higher, cells.group)
        for name, part in cells.groupby("estimator"):
            found[f"{at}_{name}"] = clustered_share(part.lower, part.group)
    return found


def _speed(rows: pd.DataFrame, metric: str = "arrived") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Outcomes at equal learning rates and at each own best one."""
    equal = _outcomes(_table(rows, "grid", "Adam", metric), _estimators(rows, metric), _either)
    return equal, _outcomes(*_at_best(rows, metric), _either)


def _directness(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same for the detour, over cells in which both arrive."""
    arrived = _table(rows, "grid", "Adam", "arrived"), _estimators(rows, "arrived")
    detour = _table(rows, "grid", "Adam", "detour"), _estimators(rows, "detour")

    def only_arrived(numbers, epochs):
        adam = numbers[0].where(np.isfinite(epochs[0]))
        return adam, {
            name: [d.where(np.isfinite(e)) for d, e in zip(tables, epochs[1][name], strict=True)]
            for name, tables in numbers[1].items()
        }

    def both(adam, adahessian):
        return adam.notna() & adahessian.notna()

    equal = _outcomes(*only_arrived(detour, arrived), both, SAME_DETOUR)
    return equal, _outcomes(*only_arrived(_at_best(rows, "detour"), _at_best(rows, "arrived")), both, SAME_DETOUR)


def _by_rate(cells: pd.DataFrame) -> pd.DataFrame:
    """For each learning rate: share of cells in which AdaHessian's number is lower, interval, groups."""
    found = []
    for lr, part in cells.groupby("lr"):
        if part.group.nunique() >= LEAST_GROUPS:
            share = clustered_share(part.lower, part.group)
            found.append({"lr": lr, "share": share.value, "low": share.low, "high": share.high, "groups": share.n})
    return pd.DataFrame(found)


def faster(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of cells in which AdaHessian arrives in fewer epochs, among those in which at least one arrives: at equal learning rates and
    at each one's own best; with a looser target, and with the first touch in place of arrival, to see whether the choice matters."""
    found = _shares(*_speed(rows))
    for name, metric in (("loose", "arrived_loosely"), ("touch", "touched")):
        equal, best = _speed(rows, metric)
        found |= {f"equal_{name}": clustered_share(equal.lower, equal.group)}
        found |= {f"best_{name}": clustered_share(best.lower, best.group)}
    return found


def crossover(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Shares at the ends of the learning rates: below 0.1, and from 0.3 to 1; and how many cells cannot be judged."""
    equal, _ = _speed(rows)
    low, high = equal[equal.lr < 0.1], equal[(equal.lr >= 0.3) & (equal.lr <= 1)]
    cells = sum(table.size for tables in _estimators(rows, "arrived").values() for table in tables)
    return {
        "low": clustered_share(low.lower, low.group),
        "high": clustered_share(high.lower, high.group),
        "unjudged": Estimate(1 - len(equal) / cells, n=cells),
    }
