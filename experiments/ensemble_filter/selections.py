"""The rows of the experiment as the tables that both its measures and its figures start from."""

import pandas as pd

METHODS = {"conditional mean": "exact conditional mean", "learnt": "learnt conditional mean", "EnKF": "Kalman filter"}


def updated(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One line for a prior, method and quantile of Y, one column a seed, of case posterior."""
    chosen = rows[(rows.case == "posterior") & (rows.metric == metric)]
    return chosen.pivot(index=["prior", "method", "quantile"], columns="seed", values="value")
