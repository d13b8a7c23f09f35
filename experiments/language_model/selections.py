"""Selections of rows. Without torch: measures and figures use them.

A run that diverged stays in: it has the bits of a model that knows how often each character occurs and nothing else, and so has
a run that ends above them. Both are broken. Such a model is the chance level of language.
"""

import pandas as pd

from .names import BLOCKS, PEERS, block


def counted(rows: pd.DataFrame, case: str, model: str) -> float:
    """Bits per character of the counting model, 'unigram' or 'bigram', on what `case` judges by."""
    return rows[(rows.case == case) & (rows.metric == f"{model}_bits")].value.iloc[0]


def epochs(rows: pd.DataFrame, case: str, metric: str) -> pd.DataFrame:
    """Values of `metric`, one line for each (method, factor, seed) in the order of the runs, one column for each epoch."""
    chosen = rows[(rows.case == case) & (rows.metric == metric)]
    order = list(dict.fromkeys(chosen.method))
    table = chosen.pivot(index=["method", "factor", "seed"], columns="step", values="value").reindex(order, level="method")
    if not metric.endswith("bits"):
        return table
    unigram = counted(rows, case, "unigram")
    return table.fillna(unigram).clip(upper=unigram)


def last(rows: pd.DataFrame, case: str, metric: str = "bits") -> pd.Series:
    """A metric after the last epoch, by (method, factor, seed)."""
    return epochs(rows, case, metric).iloc[:, -1]


def learning_rates(rows: pd.DataFrame, case: str) -> pd.Series:
    """The learning rate of each (method, factor)."""
    found = rows[(rows.case == case) & (rows.metric == "rate")]
    return found.groupby(["method", "factor"]).value.first()


def by_method(rows: pd.DataFrame, metric: str = "bits", case: str = "comparison") -> pd.DataFrame:
    """A comparison after the last epoch: seeds by methods."""
    found = last(rows, case, metric).droplevel("factor")
    return found.unstack("method")[list(found.index.unique("method"))]


def compared(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The methods that are new in each comparison that there is: those of the study, and what a user would pick today."""
    found = {case: list(by_method(rows, case=case)) for case in ("comparison", "peers") if case in set(rows.case)}
    return {case: [method for method in methods if case == "comparison" or method in PEERS] for case, methods in found.items()}


def by_rate(rows: pd.DataFrame, case: str) -> dict[str, pd.DataFrame]:
    """For each method the validation bits of all trials of `case`: seeds by factors on its centre."""
    found = last(rows, case)
    return {method: found[method].unstack("factor") for method in found.index.unique("method")}


def by_factor(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For each method of the scaling the bits: seeds by factors on its tuned rate, with 1 from the comparison."""
    found, tuned = last(rows, "scaling"), by_method(rows)
    tables = {}
    for method in found.index.unique("method"):
        table = found[method].unstack("factor")
        table[1.0] = tuned.loc[table.index, method]
        tables[method] = table.sort_index(axis=1)
    return tables


def broken(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """As `by_factor`: whether the run is broken."""
    return {method: table >= counted(rows, "scaling", "unigram") for method, table in by_factor(rows).items()}


def by_block(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """Bits of AdaHessian: seeds by sizes of blocks, with 1 from the comparison, where averages of D and of |D| are one."""
    found = last(rows, case).droplevel("factor").unstack("method")
    table = pd.DataFrame({size: found[block(size, averaging(case))] for size in BLOCKS})
    table[1] = by_method(rows).loc[table.index, "AdaHessian"]
    return table.sort_index(axis=1)


def averaging(case: str) -> str:
    """Which averages the blocks of a case have."""
    return case.partition("_")[0]
