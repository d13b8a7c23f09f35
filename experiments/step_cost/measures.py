"""Ratios within a round: to a step of eager SGD, and of the update alone to fused Adam's; and counts of operations."""

import pandas as pd

from secondlook.problems.published import TABLE_8_COST
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, median
from secondlook.study.text import fixed, interval, key

from .selections import NETWORKS, PERIODS, operations, peaks, ratios


@measure(cases=("mlp", "transformer", "resnet"))
def over_sgd(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """A step over an SGD step: medians over rounds."""
    found = ratios(rows, case, "SGD")
    return {key(method): median(found[method]) for method in found}


@measure(cases=("mlp_operations", "transformer_operations", "resnet_operations"))
def counts(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Operations of a step over those of an SGD step."""
    return {key(method): Estimate(ratio) for method, ratio in operations(rows, case).items()}


@measure()
def power(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Operations of a step at Hessian power 1 over those at smaller powers, the largest over the networks; and of one at power
    0 over those of SGD, the smallest."""
    counts = [operations(rows, f"{case}_operations") for case in NETWORKS]
    found = {f"one_over_{key(k)}": max(c["AdaHessian"] / c[f"AdaHessian power {k}"] for c in counts) for k in ("0", "0.5")}
    found |= {"zero_over_sgd": min(c["AdaHessian power 0"] / c["SGD"] for c in counts)}
    return {name: Estimate(value) for name, value in found.items()}


@measure()
def compiled(rows: pd.DataFrame) -> dict[str, Estimate]:
    """A compiled step of AdaHessian over a compiled one of SGD; nothing where none was compiled."""
    found = {case: ratios(rows, case, "SGD") for case in NETWORKS}
    pairs = {case: table for case, table in found.items() if "SGD compiled" in table}
    return {case: median(table["AdaHessian compiled"] / table["SGD compiled"]) for case, table in pairs.items()}


@measure()
def update(rows: pd.DataFrame) -> Estimate:
    """AdaHessian's update alone over fused Adam's."""
    return median(ratios(rows, "update", "fused Adam")["AdaHessian"])


@measure(cases=("transformer_memory", "resnet_memory"))
def held(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Peak memory of a step, MiB."""
    return {key(method): Estimate(peak) for method, peak in peaks(rows, case).items()}


@measure()
def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """All of it, one method a line."""
    found = {name: ratios(rows, case, "SGD") for case, name in NETWORKS.items()}
    methods = dict.fromkeys(method for table in found.values() for method in table)
    medians = pd.DataFrame({name: table.median() for name, table in found.items()})
    counts = operations(rows, "transformer_operations")
    held = {case: peaks(rows, f"{case}_memory") for case in ("transformer", "resnet")}
    lines = []
    for method in sorted(methods, key=lambda m: medians.loc[m].mean()):
        times = {name: interval(median(table[method]), fixed) if method in table else "–" for name, table in found.items()}
        more = {"Operations": fixed(counts[method]) if method in counts else "–"}
        more |= {f"MiB, {NETWORKS[case]}": f"{p[method]:.0f}" if method in p else "–" for case, p in held.items()}
        lines.append({"Method": method, **times, **more})
    return pd.DataFrame(lines)


@measure()
def frequencies(rows: pd.DataFrame) -> pd.DataFrame:
    """Time over SGD's by steps between two Hessians, beside the paper's."""
    lines = {}
    for case, name in NETWORKS.items():
        table = ratios(rows, case, "SGD")
        for method in table.columns.intersection(list(PERIODS)):
            k = PERIODS[method]
            lines.setdefault(k, {"Hessian every": k})[name] = interval(median(table[method]), fixed)
    stated = {k: {"paper, ResNet-20": fixed(TABLE_8_COST[k])} for k in lines if k in TABLE_8_COST}
    return pd.DataFrame([lines[k] | stated.get(k, {}) for k in sorted(lines)]).fillna("–")
