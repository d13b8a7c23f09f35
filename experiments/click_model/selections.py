"""Selections of rows. Without torch: measures and figures use them.

A run that diverged stays in. Its excess at a look is infinite, and at the end it has what it had before its first step.
"""

import numpy as np
import pandas as pd

ADAGRAD, ADAHESSIAN = "Adagrad", "AdaHessian + Adagrad"
COMPARED = {  # the declared comparisons: AdaHessian on the networks and Adagrad on the tables, against
    "adagrad": ADAGRAD,  # the paper's comparison
    "adam_adagrad": "Adam + Adagrad",  # the control: the same tables' optimiser
}
GAIN = 0.032  # points: the paper's 79.167 against 79.135 %


def looks(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Values of `metric` in the comparison, one line for each (method, seed) in the order of the runs, one column a look."""
    chosen = rows[(rows.case == "comparison") & (rows.metric == metric)]
    order = list(dict.fromkeys(chosen.method))
    table = chosen.pivot(index=["method", "seed"], columns="step", values="value").reindex(order, level="method")
    return table.fillna(np.inf) if metric == "excess" else table


def final(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """After the pass: seeds by methods. A run that diverged has what it had before its first step."""
    table = looks(rows, metric)
    last = table.iloc[:, -1].where(np.isfinite(table.iloc[:, -1]), table[0])
    return last.unstack("method")[list(last.index.unique("method"))]


def gradients(rows: pd.DataFrame) -> pd.Series:
    """Work of a step of each method, in gradients."""
    ((steps, work),) = looks(rows, "gradient_equivalents").items()
    return work.groupby(level="method", sort=False).first() / steps


def of_teacher(rows: pd.DataFrame, metric: str) -> pd.Series:
    """'Bayes accuracy', 'Bayes loss' or 'base rate', by seed."""
    return rows[(rows.case == "comparison") & (rows.metric == metric)].set_index("seed").value


def trials(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of each method the excess at the end, mean over seeds, infinite where one diverged: networks' rates by tables' rates."""
    chosen = rows[(rows.case == "rates") & (rows.metric == "excess")]
    table = chosen.assign(value=chosen.value.fillna(np.inf)).groupby(["method", "lr", "table_lr"], sort=False).value.mean()
    tables = {method: table[method].unstack("table_lr") for method in table.index.unique("method")}
    return {method: found.sort_index().sort_index(axis=1) for method, found in tables.items()}
