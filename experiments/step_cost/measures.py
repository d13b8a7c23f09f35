"""Ratios within a round: to a step of eager SGD, and of the update alone to fused Adam's."""

import pandas as pd

from secondlook.study.statistics import Estimate, median
from secondlook.study.text import fixed, interval

from .rounds import NETWORKS, ratios


def _key(method: str) -> str:
    return method.lower().replace(" ", "_").replace("-", "_")


def _medians(found: pd.DataFrame) -> dict[str, Estimate]:
    return {_key(method): median(found[method]) for method in found}


def mlp(rows: pd.DataFrame) -> dict[str, Estimate]:
    """A step over an SGD step, on the perceptron: median over rounds."""
    return _medians(ratios(rows, "mlp", "SGD"))


def transformer(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same on the transformer."""
    return _medians(ratios(rows, "transformer", "SGD"))


def update(rows: pd.DataFrame) -> Estimate:
    """AdaHessian's update alone over fused Adam's."""
    return median(ratios(rows, "update", "fused Adam")["AdaHessian"])


def memory(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Peak memory of a step on the transformer, MiB."""
    peaks = rows[rows.case == "memory"].set_index("method").value
    return {_key(method): Estimate(peak) for method, peak in peaks.items()}


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """All of it, one method a line."""
    found = {name: ratios(rows, case, "SGD") for case, name in NETWORKS.items()}
    peaks = rows[rows.case == "memory"].set_index("method").value
    methods = dict.fromkeys(method for table in found.values() for method in table)
    lines = []
    for method in sorted(methods, key=lambda m: found["Perceptron"][m].median()):
        times = {name: interval(median(table[method]), fixed) for name, table in found.items() if method in table}
        lines.append({"Method": method, **times, "Peak MiB": f"{peaks[method]:.0f}" if method in peaks else "–"})
    return pd.DataFrame(lines)
