"""The rows of the experiment as the tables and families of comparisons that its measures and its figures start from."""

import itertools

import numpy as np
import pandas as pd

from secondlook.study.comparison import Family

from .names import FAMILIES, FORESIGHT, INSTANT, ORACLE, POLICIES, PRESENT, SIZES, UPSTREAM

ZZS = ("ZZ", "ZZ, L2", "ZZ, bulk")
JUDGE = "ZZ, L2"  # the best of them in the pilots: what policies are set beside where there is room for one


def log_errors(rows: pd.DataFrame, case: str, *by: str) -> pd.DataFrame:
    """One line for each of `by`, one column for each seed, of every step: columns (step, seed)."""
    found = rows[(rows.case == case) & (rows.metric == "log error")]
    return found.pivot(index=list(by), columns=["step", "seed"], values="value")


def at_end(rows: pd.DataFrame) -> pd.DataFrame:
    """After the last cut: lines (size, family, method, trained), columns seeds."""
    steps = log_errors(rows, "static", "size", "family", "method", "trained")
    return pd.DataFrame({line: steps.loc[line].dropna().unstack("step").iloc[:, -1] for line in steps.index}).T.rename_axis(
        ["size", "family", "method", "trained"]
    )


def where_trained(rows: pd.DataFrame, others: tuple[str, ...]) -> Family:
    """Every policy on the family that it was trained on, meshes as in training, beside each of `others`."""
    ends = at_end(rows)
    return {
        (policy, family, other): (
            ends.loc["as trained", family, policy, family],
            ends.loc["as trained", family, other, "none"],
        )
        for policy, family, other in itertools.product(POLICIES, FAMILIES, others)
    }


def elsewhere(rows: pd.DataFrame, other: str = JUDGE) -> Family:
    """Every policy on what it was not trained on, other families and larger problems, beside `other`."""
    ends = at_end(rows)
    return {
        (size, policy, trained, family): (ends.loc[size, family, policy, trained], ends.loc[size, family, other, "none"])
        for size, policy, trained, family in itertools.product(SIZES, POLICIES, FAMILIES, FAMILIES)
        if (size, trained) != ("as trained", family)
    }


def carried(rows: pd.DataFrame) -> pd.DataFrame:
    """Transport: lines methods, columns (interval, seed)."""
    return log_errors(rows, "transport", "method")


def looking_ahead(rows: pd.DataFrame) -> Family:
    """Transport, after the last interval: the policy beside the rules that see the present, the estimators that look upstream,
    and the policy that was trained for the present error; itself told the velocity backwards beside itself and the greedy rule;
    and the oracle that looks ahead beside the greedy one."""
    ends = carried(rows)
    ends = ends[ends.columns.levels[0].max()]
    family = {
        ("policy", other): (ends.loc["policy"], ends.loc[other]) for other in (ORACLE, *INSTANT, *UPSTREAM.values(), PRESENT)
    }
    family |= {("reversed", other): (ends.loc["policy, reversed"], ends.loc[other]) for other in ("policy", ORACLE)}
    return family | {("ahead", ORACLE): (ends.loc[FORESIGHT], ends.loc[ORACLE])}


def learned(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """By optimiser, rate and update, columns seeds."""
    found = rows[(rows.case == case) & (rows.metric == "log error")]
    return found.pivot(index=["method", "lr", "step"], columns="seed", values="value")


def by_optimiser(rows: pd.DataFrame) -> Family:
    """The policies that AdaHessian trained beside those that Adam did: after as many updates, and after as many gradients."""
    found = learned(rows, "optimisers").droplevel("lr")
    work = rows[(rows.case == "optimisers") & (rows.metric == "work")]
    spent = work.groupby(["method", "step"]).value.first()
    last = found.loc["Adam"].index.max()
    same = spent["AdaHessian"][spent["AdaHessian"] <= spent["Adam", last]].index.max()
    return {
        "updates": (found.loc["AdaHessian", last], found.loc["Adam", last]),
        "work": (found.loc["AdaHessian", same], found.loc["Adam", last]),
    }


def way(rows: pd.DataFrame) -> np.ndarray:
    """(2,): columns and rows of finest cells by which the function whose meshes are shown is carried in an interval."""
    return np.array([rows[rows.metric == f"{axis} in an interval"].value.item() for axis in ("columns", "rows")])


def cells(rows: pd.DataFrame, case: str, **where) -> pd.DataFrame:
    """The cells of a mesh: x, y and side, in finest cells."""
    found = rows[(rows.case == case) & (rows.metric == "side")]
    for name, value in where.items():
        found = found[found[name] == value]
    return found[["x", "y", "value"]].rename(columns={"value": "side"}).astype(int)
