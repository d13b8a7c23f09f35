"""The rows of the experiment as the table that both its measures and its figure start from."""

import pandas as pd


def outcomes(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each fault, in the order in which they were made; a column for each number."""
    table = rows.pivot(index=["fault", "said"], columns="metric", values="value")
    return table.loc[rows[["fault", "said"]].drop_duplicates().itertuples(index=False, name=None)]
