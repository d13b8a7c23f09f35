"""From rows of the grid to pairs of runs that can be compared.

A run is a rule (Adam, AdaHessian with the exact diagonal, AdaHessian with probes) on a setting (data set x loss x start) at a
learning rate. A cell sets one of AdaHessian's runs beside one of Adam's on the same setting; both estimators have equal weight.
Groups are data set x start. Losses are no further trials: on two points SSE/2 and MSE are the same function, and elsewhere they
differ by a factor to which both optimisers are blind but for eps.
"""

import numpy as np
import pandas as pd

from secondlook.study.statistics import design_share

STATED = {"AdaHessian": 150, "Adam": 175}  # epochs of the article
SAME_DETOUR = 1e-6  # detours closer than this (relative) are a tie: on one point both paths are straight up to rounding
TUNING_SEED = 0  # of the probes: chooses each setting's best learning rate, and is not reported
LEAST_GROUPS = 6  # a share at one learning rate is shown where this many groups have a cell to judge
SETTING = ["data", "loss", "start"]


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a run: rule, seed, group, setting, lr and its metrics as columns."""
    rows = rows[rows.case.isin(["grid", "probes"])]
    runs = rows.pivot(index=["case", "method", "seed", *SETTING, "lr"], columns="metric", values="value").reset_index()
    rule = np.select([runs.method == "Adam", runs.case == "grid"], ["Adam", "exact"], "probes")
    return runs.assign(rule=rule, group=runs.data + " from " + runs.start.astype(str)).drop(columns=["case", "method"])


def at_own_best(runs: pd.DataFrame, epochs: str = "arrived") -> pd.DataFrame:
    """Each rule's runs at its own best learning rate in each setting: the one that arrives first, the lowest in a tie."""
    tuning = runs[runs.seed == TUNING_SEED].sort_values([epochs, "lr"])
    chosen = tuning.groupby(["rule", *SETTING])[["lr"]].first().reset_index()
    return runs.merge(chosen, on=["rule", *SETTING, "lr"])


def pairs(runs: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """AdaHessian's runs, each beside Adam's with the same `on`. The exact diagonal's count once for each reported seed."""
    adam, exact = (runs[runs.rule == rule] for rule in ("Adam", "exact"))
    probes = runs[(runs.rule == "probes") & (runs.seed != TUNING_SEED)]
    both = pd.concat([exact] * probes.seed.nunique() + [probes])
    return both.merge(adam.drop(columns=["rule", "seed", "group"]), on=on, suffixes=("", "_adam"))


def at_equal_rate(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells whose two runs have the same learning rate."""
    return pairs(runs(rows), [*SETTING, "lr"])


def at_best_rate(rows: pd.DataFrame, epochs: str = "arrived") -> pd.DataFrame:
    """Cells whose runs have each its own best learning rate."""
    return pairs(at_own_best(runs(rows), epochs), SETTING)


def speed(cells: pd.DataFrame, epochs: str = "arrived") -> pd.DataFrame:
    """Cells in which at least one of the two arrives, and which one is first."""
    ours, adams = cells[epochs], cells[f"{epochs}_adam"]
    return cells.assign(better=ours < adams, worse=ours > adams)[np.isfinite(ours) | np.isfinite(adams)]


def directness(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells in which both arrive, and whose detour is smaller."""
    ours, adams = cells.detour, cells.detour_adam
    judged = cells.assign(better=ours < adams * (1 - SAME_DETOUR), worse=ours > adams * (1 + SAME_DETOUR))
    return judged[np.isfinite(cells.arrived) & np.isfinite(cells.arrived_adam)]


def by_rate(cells: pd.DataFrame) -> pd.DataFrame:
    """The share of cells in which AdaHessian is better at each learning rate."""
    found = []
    for lr, part in cells.groupby("lr"):
        if part.group.nunique() >= LEAST_GROUPS:
            found.append({"lr": lr, "share": design_share(part.better, part.group).value})
    return pd.DataFrame(found)


def window(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Learning rates on the ancestor's set-up: epoch of stabilisation and loss left."""
    chosen = rows[(rows.case == "windows") & (rows.method == method)]
    return chosen.pivot(index="lr", columns="metric", values="value")
