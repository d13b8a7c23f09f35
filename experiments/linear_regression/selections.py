"""The rows of the experiment as the tables that both its measures and its figures start from."""

import numpy as np
import pandas as pd

from .data import Line


def last(rows: pd.DataFrame, case: str, metric: str) -> pd.Series:
    """A metric of the last epoch, by seed."""
    found = rows[(rows.case == case) & (rows.metric == metric)]
    return found[found.step == found.step.max()].set_index("seed").value.sort_index()


def by_epoch(rows: pd.DataFrame, case: str, metric: str) -> pd.DataFrame:
    """A metric: one line a seed, one column an epoch."""
    return rows[(rows.case == case) & (rows.metric == metric)].pivot(index="seed", columns="step", values="value")


def cosines(rows: pd.DataFrame) -> pd.DataFrame:
    """Cosine of the steps of epochs in case demo: one line a seed, columns (epoch, earlier epoch)."""
    found = rows[(rows.case == "demo") & (rows.metric == "cosine")]
    return found.astype({"at": int}).pivot(index="seed", columns=["step", "at"], values="value")


def course(rows: pd.DataFrame, *metrics: str) -> pd.DataFrame:
    """Metrics of case path that have one value a step: one line a step, one column a metric."""
    found = rows[(rows.case == "path") & rows.metric.isin(metrics)]
    return found.pivot(index="step", columns="metric", values="value")[list(metrics)]


def listed(rows: pd.DataFrame, metric: str) -> np.ndarray:
    """A list of numbers of case path, such as the x of the points."""
    return rows[(rows.case == "path") & (rows.metric == metric)].sort_values("at").value.to_numpy()


def line(rows: pd.DataFrame) -> Line:
    """The loss of case path."""
    return Line(listed(rows, "H").reshape(2, 2), listed(rows, "minimum"), listed(rows, "floor")[0])


def of_methods(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case steady: one line a seed, one column a method."""
    found = rows[(rows.case == "steady") & (rows.metric == metric)]
    return found.pivot(index="seed", columns="method", values="value")[list(dict.fromkeys(found.method))]


def of_rules(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case rules: one line a seed, columns (rule, epoch)."""
    found = rows[(rows.case == "rules") & (rows.metric == metric)]
    return found.pivot(index="seed", columns=["rule", "step"], values="value")


def drawn(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case draws: one line a seed, one column a reading; the document's readings have one seed."""
    return rows[(rows.case == "draws") & (rows.metric == metric)].pivot(index="seed", columns="reading", values="value")
