"""The rows of the experiment as the tables that both its measures and its figures start from."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

POLYTOPES = (("simplex", "1/k"), ("simplex", "2/(k+1)"), ("l1 ball", "1/k"), ("l1 ball", "2/(k+1)"))
BEYOND = (  # Frank-Wolfe where the expansion is not expected
    ("simplex, degenerate", "1/k"),
    ("simplex, degenerate", "2/(k+1)"),
    ("simplex, line search", "line search"),
    ("Euclidean ball", "1/k"),
    ("Euclidean ball", "2/(k+1)"),
)
SMOOTHINGS = ("log cosh", "Huber")
ORDERS = ("order 0", "order 1", "order 2", "order 3")
OUTSIDE = 1e-12  # a weight outside the face above this is no rounding error
FLOOR = 1e-15  # errors below may be rounding: left out of fits
SETTINGS = {  # of the document, and what is shown beside them
    "averaging": "averaged gradient descent",
    "Frank-Wolfe": "Frank-Wolfe, polytopes",
    "smoothing": "smoothed lasso",
    "ridge": "ridge regression",
    "noisy averaging": "averaging, noisy gradients",
    "other Frank-Wolfe": "Frank-Wolfe, elsewhere",
}
DOCUMENT = ("averaging", "Frank-Wolfe", "smoothing", "ridge")


def table(rows: pd.DataFrame, case: str, metric: str, across: str, **where) -> pd.DataFrame:
    """One line a seed, one column a value of `across` (step or strength), of the rows that agree with `where`."""
    chosen = rows[(rows.case == case) & (rows.metric == metric)]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    return chosen.pivot(index="seed", columns=across, values="value")


def slopes(values: pd.DataFrame) -> pd.Series:
    """The slope of log value against log column, by least squares, for each seed."""
    x, y = np.log(values.columns.to_numpy(float)), np.log(values.where(values > FLOOR))
    x = y.notna() * x + y * 0  # missing where y is
    x, y = x.sub(x.mean(axis=1), axis=0), y.sub(y.mean(axis=1), axis=0)
    return (x * y).sum(axis=1) / (x**2).sum(axis=1)


def averaging(rows: pd.DataFrame, decay: float, noise: float, method: str) -> pd.DataFrame:
    return table(rows, "averaging", "gap", "step", decay=decay, noise=noise, method=method)


def frank_wolfe(rows: pd.DataFrame, region: str, rule: str, method: str) -> pd.DataFrame:
    return table(rows, "polytopes", "gap", "step", region=region, rule=rule, method=method)


def left_face(rows: pd.DataFrame, region: str, rule: str) -> pd.Series:
    """Whether the last iterate has weight outside the face of the minimum, for each seed."""
    return table(rows, "polytopes", "outside face", "step", region=region, rule=rule).iloc[:, 0] > OUTSIDE


def at_minima(rows: pd.DataFrame, smoothing: str, method: str) -> pd.DataFrame:
    return table(rows, "smoothing", "gap at minimum", "strength", smoothing=smoothing, method=method)


def smoothed(rows: pd.DataFrame, smoothing: str, method: str) -> pd.DataFrame:
    return table(rows, "smoothing", "gap", "step", smoothing=smoothing, method=method)


def ridge(rows: pd.DataFrame, metric: str, smoothness: float, noise: float, method: str) -> pd.DataFrame:
    return table(rows, "penalties", metric, "strength", smoothness=smoothness, noise=noise, method=method)


def levels(rows: pd.DataFrame, case: str, factor: str) -> list:
    """The values of a factor that the case has, ascending."""
    return sorted(rows[rows.case == case][factor].dropna().unique())


def _last(values: pd.DataFrame) -> pd.Series:
    """The geometric mean over the last octave of steps: gaps of Frank-Wolfe zigzag."""
    return np.exp(np.log(values.loc[:, values.columns >= values.columns.max() / 2]).mean(axis=1))


def cells(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """Setting, cell, and for each seed the error with one extrapolation over the plain one at equal cost: over the last octave
    of steps, with Frank-Wolfe's point projected; for strengths, each at its own best one."""
    for noise in levels(rows, "averaging", "noise"):
        for decay in levels(rows, "averaging", "decay"):
            after, before = (_last(averaging(rows, decay, noise, method)) for method in ("extrapolated", "plain"))
            yield ("noisy averaging" if noise else "averaging"), f"variances $i^{{-{decay:g}}}$", after / before
    for setting, problems in (("Frank-Wolfe", POLYTOPES), ("other Frank-Wolfe", BEYOND)):
        for region, rule in problems:
            after, before = (_last(frank_wolfe(rows, region, rule, m).clip(lower=1e-30)) for m in ("projected", "plain"))
            yield setting, region if rule == "line search" else f"{region}, {rule}", after / before
    for name in SMOOTHINGS:
        after, before = (_last(smoothed(rows, name, method)) for method in ("order 1", "order 0"))
        yield "smoothing", name, after / before
    for smoothness in levels(rows, "penalties", "smoothness"):
        for noise in [noise for noise in levels(rows, "penalties", "noise") if noise > 0]:
            after, before = (ridge(rows, "risk", smoothness, noise, m).min(axis=1) for m in ("order 1", "order 0"))
            yield "ridge", f"truth $i^{{-{smoothness:g}}}$, noise {noise:g}", after / before
