"""Ratios within a round, medians over rounds; differences between two walks from one start."""

from itertools import product

import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, median
from secondlook.study.text import fixed, interval, key, number, percent

from .names import AGAIN, CAPTURED, METHODS, ON_DEVICE, PRECISIONS, USUAL_LOOP
from .selections import ceilings, floors, gains, over_sgd, times, together
from .selections import epochs as images_a_second


def _medians(table: pd.DataFrame) -> dict[str, Estimate]:
    return {key(*cell): median(table[cell]) for cell in table}


@measure("equality")
def equality(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Largest over the methods, against the first eager walk: relative difference of a loss, and distance between the ends over
    the way from the start."""
    chosen = rows[rows.case == "equality"]
    found = chosen.groupby(["walk", "type", "metric"]).value
    return {key(*names): Estimate(values.max(skipna=False)) for names, values in found}


@measure(cases=("resnet20", "resnet32", "resnet20_all", "resnet32_all"))
def steps(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """A step over one of SGD in the same mode and precision."""
    return _medians(over_sgd(rows, case))


@measure(cases={"resnet20_gains": "resnet20", "resnet32_gains": "resnet32"})
def eager_over_captured(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """An eager step over the captured one."""
    return _medians(gains(rows, case))


@measure("floor")
def floor(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The share of the floor in a captured step."""
    return _medians(floors(rows).share.unstack(["method", "precision"]))


@measure("floor")
def rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the device reached: operations a second in a product of matrices, bytes a second in a copy."""
    return {key(name): Estimate(rate) for name, rate in ceilings(rows).items()}


@measure("epochs")
def epochs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Images a second over whole epochs; and, by precision, AdaHessian here over the fastest package in the usual loop in the
    same round, or over what went through that loop where no package is installed."""
    found = images_a_second(rows)
    usual = found.xs(USUAL_LOOP, axis=1, level="loop").droplevel("precision", axis=1)
    own = found.xs((ON_DEVICE, "AdaHessian"), axis=1, level=["loop", "method"])
    packages = [method for method in usual if method.endswith("-optimizer")] or list(usual)
    ratios = own.div(usual[packages].max(axis=1), axis=0)
    return _medians(found) | {f"over_packages_{key(name)}": median(ratios[name]) for name in ratios}


@measure("concurrent")
def concurrent(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Images a second of all processes by their number; the number that is fastest, and its gain over the fewest."""
    found = {}
    for method in dict.fromkeys(rows[rows.case == "concurrent"].method):
        table, name = together(rows, method), key(method)
        best = table.median().idxmax()
        found |= {f"{name}_{count}": median(table[count]) for count in table}
        found |= {f"{name}_best": Estimate(best), f"{name}_gain": Estimate(table[best].median() / table.iloc[:, 0].median())}
    return found


@measure("equality")
def equality_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method's differences to the first eager walk: the captured one's, and in brackets the second eager one's."""
    chosen = rows[rows.case == "equality"]
    values = chosen.set_index(["method", "type", "metric", "walk"]).value.sort_index()
    lines = []
    for method in chosen.method.unique():
        line = {"Method": method}
        for type_, metric in product(chosen.type.unique(), chosen.metric.unique()):
            here = values[method, type_, metric]
            line[f"{metric}, {type_}"] = f"{number(here[CAPTURED], 2)} ({number(here[AGAIN], 2)})"
        lines.append(line)
    return pd.DataFrame(lines)


@measure(
    cases={
        "resnet20_table": "resnet20",
        "resnet32_table": "resnet32",
        "resnet20_all_table": "resnet20_all",
        "resnet32_all_table": "resnet32_all",
    }
)
def steps_table(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """Milliseconds, those over SGD's, and memory, one method and mode a line."""
    spent, ratios, held = times(rows, case), over_sgd(rows, case), times(rows, case, "peak_mib")
    lines = []
    for method, mode in dict.fromkeys((method, mode) for method, mode, _ in spent):
        line = {"Method": method, "Step": mode}
        for _, _, precision in (cell for cell in spent if cell[:2] == (method, mode)):
            cell = (method, mode, precision)
            line[precision] = f"{number(spent[cell].median())} ({fixed(ratios[cell].median())})"
        peak = held.get((method, mode, "float32"))
        lines.append(line | {"MiB, float32": "–" if peak is None else fixed(peak.median(), 0)})
    return pd.DataFrame(lines)


@measure("floor")
def floor_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds that operations and bytes take at the measured rates, the step, and the share."""
    table = floors(rows).groupby(["method", "precision"]).median()
    lines = [
        {
            "Method": method,
            "Precision": precision,
            "Operations, ms": number(line.operations),
            "Bytes, ms": number(line.bytes),
            "Step, ms": number(line.step),
            "Share": percent(line.share),
        }
        for (method, precision), line in table.reindex(product(METHODS, PRECISIONS)).dropna().iterrows()
    ]
    return pd.DataFrame(lines)


@measure("epochs")
def epochs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Images a second, fastest first."""
    found = images_a_second(rows)
    lines = [
        {
            "Method": method,
            "Loop": loop,
            "Precision": precision,
            "Images a second": interval(median(found[loop, method, precision])),
        }
        for loop, method, precision in found.median().sort_values(ascending=False).index
    ]
    return pd.DataFrame(lines)
