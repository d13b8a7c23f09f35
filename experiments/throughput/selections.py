"""Selections of rows. Without torch: measures and figures use them."""

import pandas as pd

from .names import CAPTURED, EAGER, METHODS, PRECISIONS

CELL = {"method": METHODS, "mode": (EAGER, CAPTURED), "precision": PRECISIONS}  # all in the order of tables and figures


def times(rows: pd.DataFrame, case: str, metric: str = "milliseconds") -> pd.DataFrame:
    """Milliseconds a step, or MiB: rounds by (method, mode, precision)."""
    chosen = rows[(rows.case == case) & (rows.metric == metric)]
    found = chosen.pivot(index="seed", columns=list(CELL), values="value")
    return found[sorted(found, key=lambda cell: [order.index(name) for order, name in zip(CELL.values(), cell, strict=True)])]


def over_sgd(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """A step over one of SGD in the same round, mode and precision."""
    found = times(rows, case)
    sgd = found.xs("SGD", axis=1, level="method")
    return found.div(sgd.reindex(columns=found.columns.droplevel("method")).to_numpy())


def gains(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """An eager step over the captured one of the same method and precision, in the same round."""
    found = times(rows, case)
    return found.xs(EAGER, axis=1, level="mode") / found.xs(CAPTURED, axis=1, level="mode")


def floors(rows: pd.DataFrame) -> pd.DataFrame:
    """Lines: round, method, precision. Columns, in milliseconds: what its operations and its bytes take at the measured rates
    of the device, the larger of the two (`floor`), the captured step (`step`); and the share of the floor in the step."""
    chosen = rows[rows.case == "floor"]

    def metric(name: str, *index: str) -> pd.Series:
        return chosen[chosen.metric == name].set_index(["seed", *index]).value

    table = metric("milliseconds", "method", "precision").to_frame("step")
    moved, done = metric("bytes", "method", "precision"), metric("operations", "method")
    table["operations"] = 1e3 * done / metric("operations a second", "precision")
    table["bytes"] = 1e3 * moved / metric("bytes a second")
    table["floor"] = table[["operations", "bytes"]].max(axis=1)
    return table.assign(share=table.floor / table.step)


def ceilings(rows: pd.DataFrame) -> pd.Series:
    """Medians over rounds: operations a second by precision, and bytes a second under the name 'bytes'."""
    chosen = rows[(rows.case == "floor") & rows.metric.isin(["operations a second", "bytes a second"])]
    return chosen.fillna({"precision": "bytes"}).groupby("precision", sort=False).value.median()


def epochs(rows: pd.DataFrame) -> pd.DataFrame:
    """Images a second: rounds by (loop, method, precision)."""
    chosen = rows[rows.case == "epochs"]
    return chosen.pivot(index="seed", columns=["loop", "method", "precision"], values="value")


def together(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Images a second of all processes: rounds by the number of processes."""
    chosen = rows[(rows.case == "concurrent") & (rows.method == method)]
    return chosen.pivot(index="step", columns="processes", values="value").rename(columns=int)
