"""Selections of rows. Without torch: measures and figures use them.

A run that diverged stays in: from there on it has the accuracy of chance, which is what a network of nans scores on balanced
classes, and an infinite loss.
"""

import numpy as np
import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.text import key

CHANCE = 10.0  # per cent, with ten classes
COMPARED = {  # the declared comparisons: the first minus the second, and the decay of both
    "adam": ("AdaHessian", "Adam", "decoupled, coupled"),
    "adamw": ("AdaHessian", "AdamW", "both decoupled"),
    "sgd": ("AdaHessian", "SGD", "decoupled, coupled"),
    "coupled": ("AdaHessian coupled", "Adam", "both coupled"),
    "adam_decay": ("AdamW", "Adam", "decoupled, coupled"),
    "adahessian_decay": ("AdaHessian", "AdaHessian coupled", "decoupled, coupled"),
}


def epochs(rows: pd.DataFrame, case: str, metric: str) -> pd.DataFrame:
    """Values of `metric`, one line for each (method, factor, seed) in the order of the runs, one column for each epoch."""
    chosen = rows[(rows.case == case) & (rows.metric == metric)]
    if chosen.empty:
        return pd.DataFrame()
    order = list(dict.fromkeys(chosen.method))
    table = chosen.pivot(index=["method", "factor", "seed"], columns="step", values="value").reindex(order, level="method")
    if metric == "test_accuracy":
        return (100 * table).fillna(CHANCE)
    return table.fillna(np.inf) if metric.endswith("loss") else table


def accuracies(rows: pd.DataFrame, *cases: str, best: bool = False) -> pd.DataFrame:
    """Test accuracy in per cent after the last epoch, or in the best: seeds by methods."""
    tables = [epochs(rows, case, "test_accuracy") for case in cases]
    if len({len(table.columns) for table in tables}) > 1:
        raise Mistake(f"{' and '.join(cases)} of cifar10 have different numbers of epochs: they are no comparison")
    found = pd.concat([table.max(axis=1) if best else table.iloc[:, -1] for table in tables])
    return _by_method(found)


def declared(table: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """The declared comparisons of a table of seeds by methods."""
    return {name: (table[a], table[b]) for name, (a, b, _) in COMPARED.items()}


def variants(table: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """Every variant and AdaHessian, of a table of seeds by methods: the seeds that both have."""
    names = [method for method in table if method.startswith("AdaHessian ") and method != "AdaHessian coupled"]
    pairs = {name: table[["AdaHessian", name]].dropna() for name in names}
    return {key(name.removeprefix("AdaHessian ")): (pair[name], pair["AdaHessian"]) for name, pair in pairs.items()}


def at_equal_work(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`metric` after the last epoch, AdaHessian of `residual` beside methods that had more epochs: seeds by methods."""
    few, many = (epochs(rows, case, metric).iloc[:, -1] for case in ("residual", "residual_longer"))
    return _by_method(pd.concat([few.loc[["AdaHessian"]], many]))


def begun(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Values of `metric` in the first steps: one line for each (method, gentle, seed) in the order of the runs, one column for
    each step. Infinite after a run has diverged."""
    chosen = rows[(rows.case == "first_steps") & (rows.metric == metric)]
    table = chosen.pivot(index=["method", "gentle", "seed"], columns="step", values="value")
    return table.reindex(list(dict.fromkeys(chosen.method)), level="method").fillna(np.inf)


def by_factor(rows: pd.DataFrame, case: str) -> dict[str, pd.DataFrame]:
    """For each method of a sweep, the accuracy in per cent after the last epoch: seeds by factors on the learning rate."""
    last = epochs(rows, case, "test_accuracy").iloc[:, -1]
    return {method: last[method].unstack("factor") for method in last.index.unique("method")}


def effort(rows: pd.DataFrame, *cases: str) -> tuple[pd.DataFrame, str]:
    """What runs took over SGD's, and what that is: time or, of networks that trained side by side, work."""
    time = totals(rows, "seconds", *cases)
    return (time, "time") if len(time) else (totals(rows, "gradient_equivalents", *cases), "work")


def totals(rows: pd.DataFrame, metric: str, *cases: str) -> pd.DataFrame:
    """A whole run's `metric`, seconds or gradient equivalents, over that of SGD with the same seed: seeds by methods. SGD is in
    the first of `cases`. A run that diverged has none. Networks that trained side by side have no seconds, and no table."""
    if any(epochs(rows, case, metric).shape[0] < epochs(rows, case, "lr").shape[0] for case in cases):
        return pd.DataFrame()
    found = pd.concat([epochs(rows, case, metric).iloc[:, -1] for case in cases])
    table = _by_method(found)
    return table.div(table["SGD"], axis=0)


def _by_method(found: pd.Series) -> pd.DataFrame:
    """Seeds by methods, in the order of the runs."""
    return found.droplevel("factor").unstack("method")[list(found.index.unique("method"))]
