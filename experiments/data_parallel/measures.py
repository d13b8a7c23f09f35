"""How far replicas drift apart, how much variance probes of their own leave, and what the average of curvature costs."""

import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean, median
from secondlook.study.text import fixed, interval, key, number

from .selections import OURS, errors, methods, spreads


@measure("replicas")
def drift(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The largest difference of a parameter between ranks after the last step: median over seeds."""
    return {key(method): median(spreads(rows, method).iloc[:, -1]) for method in methods(rows)}


@measure("replicas")
def worst(rows: pd.DataFrame) -> Estimate:
    """The largest of all differences in the runs of this library's methods."""
    found = [spreads(rows, method) for method in methods(rows) if method in OURS]
    return Estimate(max(table.to_numpy().max() for table in found), n=sum(len(table) for table in found))


@measure("replicas")
def steps(rows: pd.DataFrame) -> Estimate:
    """How many steps replicas took."""
    return Estimate(rows[rows.case == "replicas"].step.max())


@measure("replicas")
def refused(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of runs in which another package raised at its first step under DDP."""
    found = rows[(rows.case == "replicas") & (rows.metric == "refused")]
    return {key(method): Estimate(group.value.mean(), n=len(group)) for method, group in found.groupby("method", sort=False)}


@measure("variance")
def variance(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Mean squared error of D over that of one probe, by probes and processes."""
    return {key(*label): mean(values) for label, values in errors(rows).items()}


@measure("overhead")
def overhead(rows: pd.DataFrame) -> Estimate:
    """Time of a step that averages gradients and curvature over one that averages gradients: median over rounds."""
    found = rows[rows.case == "overhead"]
    times = found.pivot(index=["seed", "step"], columns="method", values="value")
    return median(times["gradients and curvature"] / times["gradients"])


@measure("replicas")
def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method's drift by steps, and whether it runs under DistributedDataParallel."""
    stopped = refused(rows)
    lines = []
    for method in methods(rows):
        values = spreads(rows, method).median()
        runs = "raises" if key(method) in stopped and stopped[key(method)].value == 1 else "runs"
        lines.append({"Method": method, "under DDP": runs, **{f"step {t}": number(v, 2) for t, v in values.items()}})
    return pd.DataFrame(lines)


@measure("variance")
def variances(rows: pd.DataFrame) -> pd.DataFrame:
    """Variance over that of one probe."""
    lines = {}
    for (probes, processes), values in errors(rows).items():
        lines.setdefault(probes, {"Probes": probes})[f"{processes} processes"] = interval(mean(values), fixed)
    return pd.DataFrame(lines.values()).rename(columns={"1 processes": "1 process"})
