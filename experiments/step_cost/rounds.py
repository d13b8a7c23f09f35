"""From times to ratios within a round: the machine's other work slows all methods of a round alike, or nearly so."""

import pandas as pd

NETWORKS = {"mlp": "Perceptron", "transformer": "Transformer"}


def ratios(rows: pd.DataFrame, case: str, base: str) -> pd.DataFrame:
    """Rounds by methods: time of a step over that of `base` in the same round."""
    times = rows[(rows.case == case) & (rows.metric == "milliseconds")].pivot(index="seed", columns="method", values="value")
    return times.div(times[base], axis=0)
