"""The numbers that the claims and the section quote."""

import pandas as pd

from secondlook.study.comparison import simultaneous
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean
from secondlook.study.text import key

from .selections import METHODS, updated


@measure("posterior")
def bias(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the updated ensemble's mean, in deviations of the posterior: for each method the largest over priors and observations,
    with its sign, its interval simultaneous over these; and for each prior, the same within it."""
    found = updated(rows, "bias")
    result = {}
    for method in METHODS:
        own = found.xs(method, level="method")
        level = simultaneous(len(own))
        worst = {at: mean(values, level) for at, values in own.iterrows()}
        result[key(method)] = max(worst.values(), key=lambda each: abs(each.value))
        for prior in own.index.unique("prior"):
            within = [each for at, each in worst.items() if at[0] == prior]
            result[key(method, prior)] = max(within, key=lambda each: abs(each.value))
    return result
