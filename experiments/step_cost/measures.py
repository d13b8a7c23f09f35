"""Ratios within a round: to a step of eager SGD, and of the update alone to fused Adam's; and counts of operations."""

import pandas as pd

from secondlook.study.statistics import Estimate, median
from secondlook.study.text import fixed, interval, key

from .rounds import NETWORKS, TABLE_8, operations, peaks, period, ratios


def _medians(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    found = ratios(rows, case, "SGD")
    return {key(method): median(found[method]) for method in found}


def _counts(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    return {key(method): Estimate(ratio) for method, ratio in operations(rows, case).items()}


def _peaks(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    return {key(method): Estimate(peak) for method, peak in peaks(rows, case).items()}


def mlp(rows: pd.DataFrame) -> dict[str, Estimate]:
    """A step over an SGD step, on the perceptron: median over rounds."""
    return _medians(rows, "mlp")


def transformer(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same on the transformer."""
    return _medians(rows, "transformer")


def resnet(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same on the residual network."""
    return _medians(rows, "resnet")


def mlp_operations(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Operations of a step over those of an SGD step, on the perceptron."""
    return _counts(rows, "mlp")


def transformer_operations(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same on the transformer."""
    return _counts(rows, "transformer")


def resnet_operations(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same on the residual network."""
    return _counts(rows, "resnet")


def compiled(rows: pd.DataFrame) -> dict[str, Estimate]:
    """A compiled step of AdaHessian over a compiled one of SGD; nothing where none was compiled."""
    found = {case: ratios(rows, case, "SGD") for case in NETWORKS}
    pairs = {case: table for case, table in found.items() if "SGD compiled" in table}
    return {case: median(table["AdaHessian compiled"] / table["SGD compiled"]) for case, table in pairs.items()}


def update(rows: pd.DataFrame) -> Estimate:
    """AdaHessian's update alone over fused Adam's."""
    return median(ratios(rows, "update", "fused Adam")["AdaHessian"])


def transformer_memory(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Peak memory of a step on the transformer, MiB."""
    return _peaks(rows, "transformer")


def resnet_memory(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Peak memory of a step on the residual network, MiB."""
    return _peaks(rows, "resnet")


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """All of it, one method a line."""
    found = {name: ratios(rows, case, "SGD") for case, name in NETWORKS.items()}
    methods = dict.fromkeys(method for table in found.values() for method in table)
    medians = pd.DataFrame({name: table.median() for name, table in found.items()})
    counts = operations(rows, "transformer")
    held = {case: peaks(rows, case) for case in ("transformer", "resnet")}
    lines = []
    for method in sorted(methods, key=lambda m: medians.loc[m].mean()):
        times = {name: interval(median(table[method]), fixed) if method in table else "–" for name, table in found.items()}
        more = {"Operations": fixed(counts[method]) if method in counts else "–"}
        more |= {f"MiB, {NETWORKS[case]}": f"{p[method]:.0f}" if method in p else "–" for case, p in held.items()}
        lines.append({"Method": method, **times, **more})
    return pd.DataFrame(lines)


def frequencies(rows: pd.DataFrame) -> pd.DataFrame:
    """Time over SGD's by steps between two Hessians, beside the paper's."""
    lines = {}
    for case, name in NETWORKS.items():
        table = ratios(rows, case, "SGD")
        for method in table:
            if k := period(method):
                lines.setdefault(k, {"Hessian every": k})[name] = interval(median(table[method]), fixed)
    found = pd.DataFrame([{**lines[k], "paper, ResNet-20": fixed(TABLE_8[k]) if k in TABLE_8 else "–"} for k in sorted(lines)])
    return found.fillna("–")
