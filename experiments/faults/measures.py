"""The numbers that the claim and the section quote."""

import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate

from .selections import outcomes


@measure()
def faults(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How many faults were made; of them, how many were answered as stated, and how many meet the workflow."""
    found = outcomes(rows)
    return {
        "all": Estimate(len(found)),
        "as_stated": Estimate(found["as stated"].sum()),
        "workflow": Estimate(rows[rows.case == "workflow"].fault.nunique()),
    }


@measure()
def answered(rows: pd.DataFrame) -> Estimate:
    """The share of faults that were answered in the words and with the exit status that are stated for them."""
    found = outcomes(rows)
    return Estimate(found["as stated"].mean(), n=len(found))


@measure()
def worst(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The largest number over all faults: of rows lost, tracebacks, half-written files, stages that nobody ended."""
    found = outcomes(rows)
    return {name: Estimate(found[name].max(), n=len(found)) for name in ("lost", "tracebacks", "unfinished", "running")}


@measure()
def fault_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a fault, in the order in which they were made."""
    found = outcomes(rows).reset_index()
    return pd.DataFrame(
        {
            "Fault": found.fault,
            "What the program says": found.said.map(lambda text: text if text == "(nothing)" else f"`{text}`"),
            "Exit": found.exit.astype(int),
            "Rows lost": found.lost.astype(int),
        }
    )
