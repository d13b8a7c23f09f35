"""Tables of what was measured against n, and the power law through it."""

import numpy as np
import pandas as pd
from scipy import stats

from secondlook.study.statistics import LEVEL, Estimate

FROM = 1000  # fits begin here: below, the fixed cost of a call outweighs the arithmetic
HESSIANS = ("row by row", "autograd.functional", "torch.func", "products, one by one", "ours")
SOLVERS = ("inverse", "LU", "Cholesky", "CG", "CG, no matrix")
INVERSE = "inverse"


def against_n(rows: pd.DataFrame, case: str, metric: str, method: str) -> pd.DataFrame:
    """Rounds by n."""
    chosen = rows[(rows.case == case) & (rows.metric == metric) & (rows.method == method)]
    return chosen.pivot(index="seed", columns="n", values="value")


def fitted(values: pd.DataFrame) -> pd.Series:
    """The medians over rounds at those n that a fit takes: from FROM on, or all where fewer than three are (a trial run)."""
    medians = values.median()
    large = medians[medians.index >= FROM]
    return large if len(large) >= 3 else medians


def exponent(values: pd.DataFrame) -> Estimate:
    """b of value = a n^b, by least squares in logarithms through the medians; its t interval says how straight the line is.

    NaN where a value is not positive: a memory below what the process held before.
    """
    medians = fitted(values)
    if not (medians > 0).all():
        return Estimate(np.nan, n=len(medians))
    line = stats.linregress(np.log(medians.index.astype(float)), np.log(medians))
    half = stats.t.ppf((1 + LEVEL) / 2, len(medians) - 2) * line.stderr
    return Estimate(line.slope, line.slope - half, line.slope + half, len(medians))
