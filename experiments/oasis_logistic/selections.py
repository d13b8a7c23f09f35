"""Selections of rows, and what of them is compared: for measures and figures."""

import numpy as np
import pandas as pd

from .names import PRICES, QUASI_NEWTON, SAME_BATCH, TUNED, UNTUNED

METHODS = (*UNTUNED, *TUNED, QUASI_NEWTON)
STOCHASTIC = ("OASIS", SAME_BATCH[0], "AdGD", SAME_BATCH[1], *TUNED)
TARGET = dict.fromkeys(("rates", "deterministic", "fresh", "constants", "times"), 1e-4)
TARGET |= dict.fromkeys(("batch_rates", "batches"), 1e-2)
TARGET |= dict.fromkeys(("network_rates", "network", "network_batch_rates", "network_batches"), 1e-2)
FAR = 1e-2  # the level at which constants are compared where OASIS as it is does not come to the target
CONSTANTS = {"lr": "first rate", "alpha": "alpha", "beta2": "1 - beta2"}  # of OASIS


def problems(rows: pd.DataFrame, case: str) -> list[str]:
    """The problems of a case, in their order."""
    return list(dict.fromkeys(rows[rows.case == case].problem))


def until(rows: pd.DataFrame, case: str, level: float | None = None, metric: str = "epochs") -> pd.DataFrame:
    """Epochs or seconds until the level, by default the target: one line for each problem and seed, one column a method."""
    level = TARGET[case] if level is None else level
    found = rows[(rows.case == case) & (rows.metric == metric) & (rows.level == level)]
    return found.pivot(index=["problem", "seed"], columns="method", values="value")


def against_gd(rows: pd.DataFrame) -> pd.DataFrame:
    """Epochs of OASIS and of gradient descent until the target, as `until`: of case fresh where that has the problem, else of
    case deterministic."""
    spent, fresh = until(rows, "deterministic")[["OASIS", "GD"]], until(rows, "fresh")
    return pd.concat([spent[~spent.index.isin(fresh.index.unique("problem"), level="problem")], fresh])


def work(epochs: pd.DataFrame, steps: float = 1) -> pd.DataFrame:
    """Epochs as gradients over all examples, for so many steps an epoch."""
    return pd.DataFrame({m: PRICES[m].of(epochs[m] * steps) / steps for m in epochs})


def ratio(a: pd.Series, b: pd.Series) -> pd.Series:
    """a / b, nothing where both missed: their common index loses those lines."""
    with np.errstate(invalid="ignore"):
        return (a / b).dropna()


def levels(rows: pd.DataFrame, case: str) -> list[float]:
    return sorted(rows[(rows.case == case)].level.dropna().unique(), reverse=True)


def at_the_end(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """The gap at the end: one line for each problem and seed, one column a method."""
    found = rows[(rows.case == case) & (rows.metric == "gap")]
    return found.pivot(index=["problem", "seed"], columns="method", values="value")


def best(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """The rate of every tuned method on every problem: the one that comes in the fewest epochs (median) to the target, or where
    none does to the least level that any comes to, or else has the least gap at the end. Columns lr, and inside: whether it
    is none of the ends of its range."""
    found, lines = rows[(rows.case == case) & rows.method.isin(TUNED)], []
    steps = [level for level in sorted(levels(rows, case)) if level >= TARGET[case]]
    for (problem, method), part in found.groupby(["problem", "method"], sort=False):
        epochs = part[part.metric == "epochs"].groupby(["level", "lr"]).value.median()
        score = next((epochs[level] for level in steps if np.isfinite(epochs[level]).any()), None)
        score = part[part.metric == "gap"].groupby("lr").value.median() if score is None else score
        lr = score.idxmin()
        lines.append({"problem": problem, "method": method, "lr": lr, "inside": score.index.min() < lr < score.index.max()})
    return pd.DataFrame(lines).set_index(["problem", "method"])


def level_of(rows: pd.DataFrame, problem: str) -> float:
    """At which level constants are compared on the problem: the target, or where OASIS as it is misses that, FAR."""
    usual = wrong(rows, problem, "OASIS", "lr", TARGET["constants"])[1.0].median()
    return TARGET["constants"] if np.isfinite(usual) else FAR


def wrong(rows: pd.DataFrame, problem: str, method: str, constant: str, level: float) -> pd.DataFrame:
    """Epochs to the level: one line a seed, one column for each factor by which the constant is wrong."""
    chosen = rows[(rows.case == "constants") & (rows.metric == "epochs") & (rows.level == level) & (rows.problem == problem)]
    chosen = chosen[(chosen.method == method) & (chosen.constant == constant)]
    return chosen.pivot(index="seed", columns="wrong", values="value")


def hardness(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case problems: one line a seed, one column a problem."""
    found = rows[(rows.case == "problems") & (rows.metric == metric)]
    return found.pivot(index="seed", columns="problem", values="value")[problems(rows, "problems")]
