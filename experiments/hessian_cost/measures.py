"""Times and memory at the largest n, as ratios within a round, and exponents of their growth."""

import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, median
from secondlook.study.text import fixed, interval, key, number

from .selections import HESSIANS, INVERSE, SOLVERS, against_n, exponent

BYTES = 4  # of a number in single precision
RESNET20 = 270_000  # parameters: He et al. (2016), table 6


@measure()
def sizes(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The smallest and largest n of the Hessians, and the largest n of the systems."""
    dense, solve = (rows[rows.case == case].n for case in ("dense", "solve"))
    return {"smallest": Estimate(dense.min()), "largest": Estimate(dense.max()), "system": Estimate(solve.max())}


def _last(rows: pd.DataFrame, case: str, metric: str, method: str) -> pd.Series:
    """The rounds' values at the largest n."""
    return against_n(rows, case, metric, method).iloc[:, -1]


@measure()
def seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """To the whole Hessian at the largest n."""
    return {key(way): median(_last(rows, "dense", "seconds", way)) for way in HESSIANS}


@measure()
def over_ours(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same over our time in the same round."""
    ours = _last(rows, "dense", "seconds", "ours")
    return {key(way): median(_last(rows, "dense", "seconds", way) / ours) for way in HESSIANS}


@measure()
def gradients_a_row(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Time of a row of the Hessian over that of a gradient in the same round, at the largest n."""
    n = sizes(rows)["largest"].value
    gradient = _last(rows, "dense", "seconds", "gradient")
    return {key(way): median(_last(rows, "dense", "seconds", way) / n / gradient) for way in HESSIANS}


@measure()
def time_exponent(rows: pd.DataFrame) -> dict[str, Estimate]:
    """b of seconds = a n^b."""
    return {key(way): exponent(against_n(rows, "dense", "seconds", way)) for way in HESSIANS}


@measure()
def memory_exponent(rows: pd.DataFrame) -> dict[str, Estimate]:
    """b of peak memory = a n^b."""
    return {key(way): exponent(against_n(rows, "memory", "peak_mib", way)) for way in HESSIANS}


@measure()
def memory(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Peak memory at the largest n, MiB."""
    return {key(way): Estimate(_last(rows, "memory", "peak_mib", way).median()) for way in HESSIANS}


@measure()
def matrices(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same in matrices of n^2 numbers."""
    n = rows[rows.case == "memory"].n.max()
    return {way: Estimate(peak.value * 2**20 / (BYTES * n**2)) for way, peak in memory(rows).items()}


@measure()
def resnet20(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the Hessian of ResNet-20 would take: GiB for the matrix alone, and gradients for it at our cost of a row."""
    a_row = gradients_a_row(rows)["ours"]
    return {"gib": Estimate(BYTES * RESNET20**2 / 2**30), "gradients": Estimate(RESNET20 * a_row.value)}


@measure()
def solve_seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """To Newton's step at the largest n, from the matrix where there is one."""
    return {key(way): median(_last(rows, "solve", "seconds", way)) for way in SOLVERS}


@measure()
def solve_over_inverse(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same over the inverse's time in the same round."""
    base = _last(rows, "solve", "seconds", INVERSE)
    return {key(way): median(_last(rows, "solve", "seconds", way) / base) for way in SOLVERS}


@measure()
def solve_exponent(rows: pd.DataFrame) -> dict[str, Estimate]:
    """b of seconds = a n^b."""
    return {key(way): exponent(against_n(rows, "solve", "seconds", way)) for way in SOLVERS}


@measure()
def residual(rows: pd.DataFrame) -> dict[str, Estimate]:
    """|H p + g| / |g| at the largest n."""
    return {key(way): Estimate(_last(rows, "solve", "residual", way).max()) for way in SOLVERS}


@measure()
def products(rows: pd.DataFrame) -> Estimate:
    """Products that conjugate gradients take without a matrix, at the largest n."""
    return Estimate(_last(rows, "solve", "products", "CG, no matrix").max())


@measure()
def hessians(rows: pd.DataFrame) -> pd.DataFrame:
    """All ways to the Hessian, at the largest n."""
    times, ratios, a_row, slopes = seconds(rows), over_ours(rows), gradients_a_row(rows), time_exponent(rows)
    peaks, held, growth = memory(rows), matrices(rows), memory_exponent(rows)
    return pd.DataFrame(
        {
            "Way": way,
            "Seconds": number(times[key(way)]),
            "Over ours": interval(ratios[key(way)], fixed, digits=1),
            "Gradients a row": fixed(a_row[key(way)]),
            "Exponent of time": interval(slopes[key(way)], fixed),
            "Peak MiB": number(peaks[key(way)]),
            "Matrices": fixed(held[key(way)]),
            "Exponent of memory": interval(growth[key(way)], fixed),
        }
        for way in HESSIANS
    )


@measure()
def solvers(rows: pd.DataFrame) -> pd.DataFrame:
    """All ways to Newton's step, at the largest n."""
    times, ratios, slopes, errors = solve_seconds(rows), solve_over_inverse(rows), solve_exponent(rows), residual(rows)
    return pd.DataFrame(
        {
            "Way": way,
            "Seconds": number(times[key(way)], 2),
            "Over the inverse": interval(ratios[key(way)], fixed),
            "Exponent": interval(slopes[key(way)], fixed),
            "Residual": number(errors[key(way)], 1),
        }
        for way in SOLVERS
    )
