"""The rows of the experiment as the tables that both its measures and its figures start from."""

import numpy as np
import pandas as pd
import scipy.linalg

DAMPING = 0.1  # the judged one, over the mean |eigenvalue|: small beside the curvature that counts; the others are shown


def of_cells(rows: pd.DataFrame, metric: str, matrix: str, damping: float = 0.0) -> pd.DataFrame:
    """One line for each network, stage and seed, one column a method. Damping 0: a number of the matrix, not of a step."""
    chosen = rows[(rows.case == "networks") & (rows.metric == metric) & (rows.matrix == matrix) & (rows.damping == damping)]
    return chosen.pivot(index=["network", "stage", "seed"], columns="method", values="value")


def dampings(rows: pd.DataFrame) -> list[float]:
    """All dampings that were tried, over the mean |eigenvalue|."""
    return sorted(rows[(rows.case == "networks") & (rows.damping > 0)].damping.unique())


def directions(rows: pd.DataFrame, matrix: str, damping: float = DAMPING) -> pd.DataFrame:
    """Share of the full step's fall of the damped model, in the shape of `of_cells`."""
    return of_cells(rows, "model share", matrix, damping)


def best_falls(rows: pd.DataFrame, matrix: str) -> pd.DataFrame:
    """The fall of the loss in the shape of `of_cells`, each method at the damping that serves it best in that cell."""
    chosen = rows[(rows.case == "networks") & (rows.metric == "fall") & (rows.matrix == matrix)]
    return chosen.groupby(["network", "stage", "seed", "method"]).value.max().unstack()


def document_arrays(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """scipy.linalg.block_diag of the document's matrices, and the array that it prints."""
    given = {name: _matrix(part) for name, part in rows[rows.case == "document"].groupby("method")}
    return scipy.linalg.block_diag(given["a"], given["b"], given["c"]), given["printed"]


def drawn(rows: pd.DataFrame, method: str) -> np.ndarray:
    """A matrix of case picture, (n, n), from its entries on and above the diagonal."""
    entries = rows[(rows.case == "picture") & (rows.metric == "entry")]
    n = int(entries.row.max()) + 1
    M = np.zeros((n, n))
    chosen = entries[entries.method == method]
    i, j = chosen.row.to_numpy(int), chosen.column.to_numpy(int)
    M[i, j] = M[j, i] = chosen.value
    return M


def layer_sizes(rows: pd.DataFrame) -> list[int]:
    """Numbers of weights in the layers of case picture."""
    return rows[(rows.case == "picture") & (rows.metric == "layer size")].value.astype(int).tolist()


def _matrix(entries: pd.DataFrame) -> np.ndarray:
    return entries.pivot(index="row", columns="column", values="value").to_numpy()
