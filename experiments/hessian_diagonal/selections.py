"""The rows of the experiment as the tables that both its measures and its figures start from."""

import numpy as np
import pandas as pd

NETWORKS = {"tanh": "tanh network", "ReLU": "ReLU network", "CNN": "convolutional network"}
CELL = ["network", "stage"]
BY_PRODUCTS = ("Hutchinson", "normal probes", "Bekas", "XDiag", "Diag++", "layer by layer")  # unbiased, whatever the network
BY_PARTS = ("per example", "layer sums")  # unbiased, and ask for examples or layers
EXACT = 1e-9  # a relative error below it is rounding
CHANCE = np.log(10)  # loss of a guess among ten classes: of a run that ends above it, or diverges


def of_case(rows: pd.DataFrame, case: str, metric: str) -> pd.DataFrame:
    return rows[(rows.case == case) & (rows.metric == metric)]


def stages(rows: pd.DataFrame, case: str) -> list[str]:
    """The stages in their order."""
    return list(rows[(rows.case == case) & rows.stage.notna()].stage.unique())


def of_cells(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Case limits: one line a seed, one column for each network and stage."""
    return of_case(rows, "limits", metric).pivot(index="seed", columns=CELL, values="value")


def running(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The same of the running mean's distance `metric`, one line for each number of probes and seed."""
    return of_case(rows, "limits", metric).pivot(index=["probes", "seed"], columns=CELL, values="value")


def averages(rows: pd.DataFrame, metric: str, averaging: str) -> pd.DataFrame:
    """A number of block means: one line for each network and seed, mean over stages; one column a block size."""
    chosen = of_case(rows, "limits", metric)
    chosen = chosen[chosen.averaging == averaging]
    return chosen.groupby(["network", "seed", "block"]).value.mean().unstack()


def draws(rows: pd.DataFrame) -> pd.DataFrame:
    """Case networks: relative errors, one line for each network, stage, method and budget, one column a draw."""
    chosen = of_case(rows, "networks", "error").astype({"budget": int})
    return chosen.pivot(index=[*CELL, "method", "budget"], columns="draw", values="value")


def over_draws(rows: pd.DataFrame) -> pd.DataFrame:
    """Case networks: squared bias, variance and mean qualities, one column each; lines as those of `draws`."""
    chosen = rows[(rows.case == "networks") & rows.budget.notna() & rows.draw.isna()].astype({"budget": int})
    return chosen.pivot(index=[*CELL, "method", "budget"], columns="metric", values="value")


def root_mean_square(table: pd.DataFrame) -> pd.Series:
    return (table**2).mean(axis=1) ** 0.5


def costs(rows: pd.DataFrame) -> pd.Series:
    """What each line of `draws` cost in Hessian-vector products."""
    return of_case(rows, "networks", "error").astype({"budget": int}).groupby([*CELL, "method", "budget"]).cost.first()


def unbiased(network: str) -> tuple[str, ...]:
    """Estimators without bias on a network: on a piecewise linear one the Gauss-Newton diagonal is the Hessian's."""
    return (*BY_PRODUCTS, *BY_PARTS, *(("Gauss-Newton", "Gauss-Newton, drawn") if network == "ReLU" else ()))


def best(errors: pd.Series, network: str, stage: str, budget: int, methods: tuple[str, ...]) -> str:
    """The method with the least error in a cell at most at this budget; `errors` as `draws` gives them, averaged."""
    cell = errors[network, stage]
    found = cell[cell.index.get_level_values("method").isin(methods) & (cell.index.get_level_values("budget") == budget)]
    return found.idxmin()[0]


def trained(rows: pd.DataFrame, metric: str, part: str) -> pd.DataFrame:
    """Case training: the rows of the runs whose rate was chosen for `part`, equal steps or equal work."""
    chosen = of_case(rows, "training", metric)
    return chosen[chosen.part == part]


def losses_at_work(rows: pd.DataFrame) -> pd.DataFrame:
    """The last loss within the work that Hutchinson's runs take; one line for each network and run, one column a method."""
    table = trained(rows, "loss", "equal work")
    limit = table[table.method == "Hutchinson"].work.max()
    within = table[table.work <= limit].sort_values("step")
    return within.groupby(["network", "run", "method"]).value.last().unstack()


def losses_at_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """The loss after all steps, in the shape of `losses_at_work`."""
    table = trained(rows, "loss", "equal steps")
    last = table[table.step == table.step.max()]
    return last.pivot(index=["network", "run"], columns="method", values="value")


def noise(rows: pd.DataFrame, metric: str, block: int) -> pd.DataFrame:
    """Case noise: a part of the noise, with means over blocks: one line for each network and seed, mean over stages; one column
    a batch size."""
    chosen = of_case(rows, "noise", metric)
    return chosen[chosen.block == block].groupby(["network", "seed", "batch"]).value.mean().unstack()


def peers(rows: pd.DataFrame) -> pd.DataFrame:
    """Case peers: operations, over a gradient's, and root mean square error over draws of every estimate; one line for each
    network, stage, seed, method and budget."""
    at = [*CELL, "seed", "method", "budget"]
    table = rows[rows.case == "peers"].astype({"budget": int})
    counts = table[table.metric == "operations"].set_index(at).value
    errors = (table[table.metric == "error"].groupby(at, sort=False).value.agg(lambda e: (e**2).mean() ** 0.5)).clip(
        lower=EXACT
    )
    return pd.DataFrame({"operations": counts, "error": errors})


def smoothed(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Case smoothing: logarithm of the final loss, at most CHANCE's; one line for each network and run, one column a beta2."""
    chosen = of_case(rows, "smoothing", "loss")
    chosen = chosen[(chosen.part == part) & (chosen.step == chosen.step.max())]
    return np.log(chosen.pivot(index=["network", "run"], columns="beta2", values="value").clip(upper=CHANCE))
