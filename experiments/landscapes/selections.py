"""From rows of the sweep to comparisons of two optimisers.

A run is an optimiser on a landscape, with or without noise, from a reported start, at its own best rate. Runs of two optimisers
on the same landscape from the same start are a comparison; ties count half, and where neither arrives nothing is compared.
Starts are the trials: the share of comparisons won is taken for each start, and the interval is over starts.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from secondlook.study.statistics import Estimate, mean

CLASSICAL = ("Beale", "long valley", "saddle")
SYMMETRIC = ("long valley", "saddle")
WITH_MOMENTUM = (("momentum", "SGD"), ("Nesterov", "SGD"), ("Adam", "RMSprop"))  # (with momentum, the same without)
WITH_SCALING = (("Adagrad", "SGD"), ("RMSprop", "SGD"), ("Adam", "momentum"), ("NAdam", "Nesterov"))  # (scaled, not scaled)
CELL = ["method", "landscape", "noise"]
SAME = 1e-9  # relative: closer than this two runs are equal, as rounding differs between processors


def sweep(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[(rows.case == "sweep") & (rows.metric == metric)]


def best_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The rate of each method on each landscape that the tuning starts chose: columns CELL and lr."""
    return sweep(rows, "turning")[[*CELL, "lr"]].drop_duplicates()


def reported(rows: pd.DataFrame) -> pd.DataFrame:
    """Arrivals from the reported starts, at all rates."""
    return sweep(rows, "arrived")[lambda found: found.start.isin(sweep(rows, "turning").start)]


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a run at the best rate: CELL and start as index, metrics as columns; `works` is the share of all rates at which
    that optimiser arrives from that start."""
    arrivals = reported(rows)
    found = arrivals.merge(best_rates(rows), on=[*CELL, "lr"]).set_index([*CELL, "start"])[["value"]]
    found.columns = ["arrived"]
    for metric in ("turning", "overshoot", "jitter", "escape", "crossings"):
        found[metric] = sweep(rows, metric).set_index([*CELL, "start"]).value
    found["works"] = arrivals.assign(hit=np.isfinite(arrivals.value)).groupby([*CELL, "start"]).hit.mean()
    return found.sort_index()


def better(*comparisons, **which) -> Estimate:
    """Share of the comparisons that are `won`, over starts."""
    return over_starts(won(*comparisons, **which))


def won(
    runs: pd.DataFrame, metric: str, pairs: Iterable, landscapes: Iterable, noise: str, sign: int, arrived: bool = False
) -> pd.Series:
    """By start, the share of comparisons in which the first of a pair has the lower `metric` (sign -1) or the higher (sign 1).
    With `arrived` only comparisons in which both arrive count."""
    wins = []
    for a, b in pairs:
        for landscape in landscapes:
            ours, theirs = (runs.loc[(method, landscape, noise)] for method in (a, b))
            own = _won(sign * ours[metric], sign * theirs[metric])
            wins.append(own[np.isfinite(ours.arrived) & np.isfinite(theirs.arrived)] if arrived else own)
    return pd.concat(wins, axis=1).mean(axis=1).dropna()


def better_at_equal_rates(rows: pd.DataFrame, metric: str, pairs: Iterable, landscape: str) -> Estimate:
    """Share of the rates at which both of a pair have `metric`, without noise, where the first has the higher; over starts."""
    found = sweep(rows, metric)
    found = found[(found.landscape == landscape) & (found.noise == "exact")].set_index(["start", "lr"])
    values = {method: cells.value for method, cells in found.groupby("method")}
    won = pd.concat([_won(*values[a].align(values[b], join="inner")) for a, b in pairs])
    return over_starts(won.groupby("start").mean())


def over_starts(shares: pd.Series) -> Estimate:
    """Mean of the shares, one a start, with its interval cut to [0, 1]. 0.675 is 0.675 in any order of the sum."""
    found = mean(shares)
    return Estimate(round(found.value, 12), max(found.low, 0), min(found.high, 1), found.n)


def order_of_arrival(runs: pd.DataFrame, pairs: Iterable, landscapes: Iterable, noise: str) -> dict[str, Estimate]:
    """Shares of all comparisons in which the first of a pair arrives first, later, in a tie, and in which neither does."""
    found = [(runs.loc[(a, name, noise)].arrived, runs.loc[(b, name, noise)].arrived) for a, b in pairs for name in landscapes]
    ours, theirs = (pd.concat(part) for part in zip(*found, strict=True))
    neither = np.isinf(ours) & np.isinf(theirs)
    kinds = {"first": ours < theirs, "later": ours > theirs, "tie": (ours == theirs) & ~neither, "neither": neither}
    return {kind: Estimate(hits.mean(), n=len(hits)) for kind, hits in kinds.items()}


def _won(ours: pd.Series, theirs: pd.Series) -> pd.Series:
    """1 where ours is higher, 0 where lower, 1/2 where equal up to rounding; missing where either is, or both are infinite."""
    equal = np.isclose(ours, theirs, rtol=SAME, atol=0)
    won = (ours > theirs).where(~equal, 0.5).astype(float)
    return won.where(ours.notna() & theirs.notna() & ~(np.isinf(ours) & np.isinf(theirs)))


def descents(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Case data, the reported runs at each kind's best rate: one line a run, one column a kind of descent."""
    found = rows[(rows.case == "data") & (rows.part == "reported")]
    chosen = found[found.metric == "variation"][["method", "lr"]].drop_duplicates()
    table = found[found.metric == metric].merge(chosen, on=["method", "lr"])
    return table.pivot(index="start", columns="method", values="value")
