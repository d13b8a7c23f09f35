"""From rows to the quantities that numbers and figures share."""

import pandas as pd

OURS = ("AdaHessian", "OASIS", "Sophia-H", "Sophia-G")


def spreads(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Seeds by steps: the largest difference of a parameter between ranks."""
    found = rows[(rows.case == "replicas") & (rows.metric == "spread") & (rows.method == method)]
    return found.pivot(index="seed", columns="step", values="value")


def methods(rows: pd.DataFrame) -> list[str]:
    """Those whose replicas were compared, in the order of the configuration."""
    return list(dict.fromkeys(rows[rows.case == "replicas"].method))


def errors(rows: pd.DataFrame) -> dict[tuple[str, int], pd.Series]:
    """(probes, processes) to the squared errors of all draws, over the expectation for one probe."""
    found = rows[rows.case == "variance"]
    return {(probes, int(n)): group.value for (probes, n), group in found.groupby(["probes", "processes"], sort=False)}
