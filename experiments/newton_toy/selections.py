"""The rows of an experiment as the tables that both its measures and its figures start from."""

import pandas as pd


def losses(rows: pd.DataFrame, method: str, dtype: str = "float32") -> pd.DataFrame:
    """Loss of the toy: one line a seed, one column a step. The document works in float32."""
    chosen = rows[(rows.case == "toy") & (rows.metric == "loss") & (rows.method == method) & (rows.dtype == dtype)]
    return chosen.pivot(index="seed", columns="step", values="value")


def losses_at(rows: pd.DataFrame, method: str, full: bool) -> pd.DataFrame:
    """Loss of the scale case at the method's larger learning rate, or its smaller one: one line a seed, one column a step."""
    chosen = rows[(rows.case == "scale") & (rows.metric == "loss") & (rows.method == method)]
    lr = chosen.lr.max() if full else chosen.lr.min()
    return chosen[chosen.lr == lr].pivot(index="seed", columns="step", values="value")


def iterations(rows: pd.DataFrame, method: str, lr: float | None = None) -> pd.DataFrame:
    """Steps to the target loss: one line a seed, one column a condition number. Without `lr`, the fewest of all tried."""
    chosen = rows[(rows.case == "conditioning") & (rows.metric == "iterations") & (rows.method == method)]
    chosen = chosen if lr is None else chosen[chosen.lr == lr]
    return chosen.groupby(["seed", "condition"]).value.min().unstack()


def arrivals(rows: pd.DataFrame, method: str, region: str, metric: str) -> pd.DataFrame:
    """Columns `step` and `value`, one line a start: steps taken, and whether the walk ended there."""
    chosen = rows[(rows.case == "saddle") & (rows.metric == metric) & (rows.method == method) & (rows.region == region)]
    return chosen.set_index("seed")[["step", "value"]].sort_index()


def against_step(rows: pd.DataFrame, case: str, metric: str, method: str) -> pd.DataFrame:
    """A metric of the cases graph and growth: one line a seed, one column a step."""
    chosen = rows[(rows.case == case) & (rows.metric == metric) & (rows.method == method)]
    return chosen.pivot(index="seed", columns="step", values="value")
