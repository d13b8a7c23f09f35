"""The rows of the experiment as the tables that both its measures and its figures start from."""

import pandas as pd

METHODS = {"conditional mean": "exact conditional mean", "learnt": "learnt conditional mean", "EnKF": "Kalman filter"}
FILTERS = {"EnKF": "ensemble Kalman filter", "ETKF": "square root filter", "learnt": "learnt conditional mean"}
ESTIMATES = {"linear": "linear", "chosen": "linear and network", "likelihood": "members' likelihoods"}
NETWORKS = {"narrow": "narrow network everywhere", "wide": "wide network everywhere"}
OPTIMISERS = ("Adam", "AdaHessian", "L-BFGS")


def updated(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One line for a prior, method and quantile of Y, one column a seed, of case posterior."""
    chosen = rows[(rows.case == "posterior") & (rows.metric == metric)]
    return chosen.pivot(index=["prior", "method", "quantile"], columns="seed", values="value")


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Error of phi: one line for a prior, dimension, ensemble size and method, one column a run, of case dimensions."""
    chosen = rows[rows.case == "dimensions"].astype({"dimension": int, "members": int})
    return chosen.pivot(index=["prior", "dimension", "members", "method"], columns="run", values="value")


def followed(rows: pd.DataFrame, case: str, metric: str = "rmse") -> pd.DataFrame:
    """One line for a system, ensemble size, method, radius and inflation, one column a run; systems as the rows have them."""
    chosen = rows[(rows.case == case) & (rows.metric == metric)].astype({"members": int})
    index = ["system", "members", "method", "radius", "inflation"]
    return chosen.pivot(index=index, columns="run", values="value").loc[list(dict.fromkeys(chosen.system))]


def tracked(rows: pd.DataFrame, metric: str = "rmse") -> pd.DataFrame:
    """The same of case tracking, with one line for a system, ensemble size and method."""
    return followed(rows, "tracking", metric).droplevel(["radius", "inflation"])


def cells(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """The systems and ensemble sizes of case tracking."""
    return list(tracked(rows).droplevel("method").index.unique())


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """Of case tuning, for each system, ensemble size and method: radius and inflation of the least mean error, that error, and
    whether each of the two lies inside what was tried (None where there is one radius)."""
    lines = {}
    for at, table in followed(rows, "tuning").mean(axis=1).groupby(["system", "members", "method"], sort=False):
        radius, inflation = table.idxmin()[-2:]
        radii, inflations = (sorted(table.index.unique(level)) for level in ("radius", "inflation"))
        lines[at] = {
            "radius": radius,
            "inflation": inflation,
            "rmse": table.min(),
            "radius inside": radii[0] < radius < radii[-1] if len(radii) > 1 else None,
            "inflation inside": inflations[0] < inflation < inflations[-1],
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["system", "members", "method"])


def trained(rows: pd.DataFrame, case: str, metric: str = "rmse") -> pd.DataFrame:
    """One line for an optimiser, rate and amount of work, one column a run."""
    chosen = rows[(rows.case == case) & (rows.metric == metric)].astype({"work": int})
    return chosen.pivot(index=["optimiser", "lr", "work"], columns="run", values="value")


def compared(rows: pd.DataFrame, metric: str = "rmse") -> pd.DataFrame:
    """The same of case optimisers, with one line for an optimiser and amount of work."""
    return trained(rows, "optimisers", metric).droplevel("lr")
