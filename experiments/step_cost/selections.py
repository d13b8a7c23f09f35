"""From times to ratios within a round: the machine's other work slows all methods of a round alike, or nearly so."""

import pandas as pd

# Methods that differ in the steps from one Hessian to the next alone.
PERIODS = {"AdaHessian": 1} | {f"AdaHessian every {k}": k for k in (2, 3, 4, 5, 10)}
NETWORKS = {"mlp": "Perceptron", "transformer": "Transformer", "resnet": "ResNet-20"}


def ratios(rows: pd.DataFrame, case: str, base: str) -> pd.DataFrame:
    """Rounds by methods: time of a step over that of `base` in the same round."""
    times = rows[(rows.case == case) & (rows.metric == "milliseconds")].pivot(index="seed", columns="method", values="value")
    return times.div(times[base], axis=0)


def operations(rows: pd.DataFrame, case: str) -> pd.Series:
    """Methods to the operations of a step over those of SGD's."""
    counts = rows[(rows.case == case) & (rows.metric == "operations")].set_index("method").value
    return counts / counts["SGD"]


def peaks(rows: pd.DataFrame, case: str) -> pd.Series:
    """Methods to the peak memory of a step, MiB."""
    return rows[rows.case == case].set_index("method").value
