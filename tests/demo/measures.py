"""The rate at which the loss shrinks."""

import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean


def _losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Seeds by steps."""
    return rows[rows.case == "decay"].pivot(index="seed", columns="step", values="value")


@measure()
def factor(rows: pd.DataFrame) -> Estimate:
    """Loss after the last step over the loss before it."""
    losses = _losses(rows)
    return mean(losses.iloc[:, -1] / losses.iloc[:, -2])


@measure()
def final(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Final losses over seeds."""
    losses = _losses(rows)
    return {"all": mean(losses.iloc[:, -1]), "first": Estimate(losses.iloc[0, -1])}


@measure()
def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """The loss of each seed at the end."""
    return _losses(rows).iloc[:, -1].map("{:.3e}".format).rename("final loss").reset_index()
