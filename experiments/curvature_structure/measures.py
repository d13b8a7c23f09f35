"""The numbers that the claims and the section quote.

A cell is a network at a stage of training. A number without a cell is the mean over all cells of one seed, then over seeds; two
approximations are compared by seed. Keys: G_layer_blocks is layer blocks of G; G_layer_blocks_over_diagonal their difference.
"""

import pandas as pd

from secondlook.study import statistics
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate
from secondlook.study.text import fixed

from .selections import DAMPING, best_falls, dampings, directions, document_arrays, layer_sizes, of_cells

METHODS = {  # as the text calls them, by the numbers that they store
    "none": "none (gradient)",
    "diagonal": "diagonal",
    "row norms": "row norms",
    "K-FAC": "Kronecker, K-FAC",
    "best Kronecker": "Kronecker, nearest",
    "low rank, small": "low rank, K-FAC's budget",
    "neuron blocks": "neuron blocks",
    "low rank": "low rank, neurons' budget",
    "layer blocks": "layer blocks",
    "full": "full matrix",
}
PAIRS = (  # the comparisons that the claim or the text draws
    ("diagonal", "none"),
    ("row norms", "diagonal"),
    ("neuron blocks", "diagonal"),
    ("layer blocks", "diagonal"),
    ("layer blocks", "neuron blocks"),
    ("K-FAC", "diagonal"),
    ("neuron blocks", "K-FAC"),
    ("neuron blocks", "layer blocks"),
    ("best Kronecker", "K-FAC"),
    ("low rank", "neuron blocks"),
    ("layer blocks", "none"),
    ("low rank", "none"),
    ("K-FAC", "none"),
    ("neuron blocks", "full"),
    ("layer blocks", "full"),
)
MATRICES = ("G", "H")


def _key(*words: str) -> str:
    return "_".join(words).replace(" ", "_").replace(",", "").replace("-", "").replace("KFAC", "kfac")


def _means(table) -> dict[str, Estimate]:
    """Every method's mean; `table(matrix)` as of_cells gives it."""
    return {_key(m, method): statistics.mean(table(m).groupby("seed")[method].mean()) for m in MATRICES for method in METHODS}


def _differences(table) -> dict[str, Estimate]:
    """Differences of PAIRS, by seed."""
    by_seed = {m: table(m).groupby("seed").mean() for m in MATRICES}
    return {_key(m, a, "over", b): statistics.paired(by_seed[m][a], by_seed[m][b]) for m in MATRICES for a, b in PAIRS}


@measure()
def block_diag(rows: pd.DataFrame) -> dict[str, Estimate]:
    """scipy.linalg.block_diag of the document's matrices beside the array that it prints: entries that differ, and the shape.
    Arrays of different shapes differ in every entry."""
    made, printed = document_arrays(rows)
    same_shape = made.shape == printed.shape
    return {
        "different": Estimate((made != printed).sum() if same_shape else printed.size),
        "rows": Estimate(made.shape[0]),
        "columns": Estimate(made.shape[1]),
    }


@measure()
def error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Relative Frobenius error."""
    return _means(lambda matrix: of_cells(rows, "error", matrix))


@measure()
def error_saved(rows: pd.DataFrame) -> dict[str, Estimate]:
    """By how much the first method's error is below the second's."""
    return _differences(lambda matrix: -of_cells(rows, "error", matrix))


@measure()
def between_layers(rows: pd.DataFrame) -> Estimate:
    """Share of the squared Frobenius norm of G that lies outside the blocks of the layers."""
    return statistics.mean((of_cells(rows, "error", "G")["layer blocks"] ** 2).groupby("seed").mean())


@measure()
def direction(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of the full step's fall of the damped quadratic model."""
    return _means(lambda matrix: directions(rows, matrix))


@measure()
def late_direction(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same at the last stage alone."""
    last = rows[rows.case == "networks"].stage.iloc[-1]
    return _means(lambda matrix: directions(rows, matrix).xs(last, level="stage"))


@measure()
def direction_gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """By how much the first method's share is above the second's."""
    return _differences(lambda matrix: directions(rows, matrix))


@measure()
def cosine(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Cosine of the angle to the full damped step."""
    return _means(lambda matrix: of_cells(rows, "cosine", matrix, DAMPING))


@measure()
def fall(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of the loss that one step removes, at the best damping and length."""
    return _means(lambda matrix: best_falls(rows, matrix))


@measure()
def fall_gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """By how much the first method's fall is above the second's."""
    return _differences(lambda matrix: best_falls(rows, matrix))


@measure()
def least_damping(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The least damping that was tried, and how far the fall of the full step from G is there below the gradient's."""
    least = dampings(rows)[0]
    table = of_cells(rows, "fall", "G", least).groupby("seed").mean()
    return {"damping": Estimate(least), "loss": statistics.paired(table["none"], table["full"])}


@measure()
def cells_better(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Number of cells in which the first method's direction is better than the second's, the interval of the difference above
    zero; `_worse`: below zero."""
    found = {"all": Estimate(of_cells(rows, "error", "G").groupby(["network", "stage"]).ngroups)}
    for matrix in MATRICES:
        cells = [table for _, table in directions(rows, matrix).groupby(["network", "stage"])]
        for a, b in PAIRS:
            differences = [statistics.paired(table[a], table[b]) for table in cells]
            key = _key(matrix, a, "over", b)
            found[key] = Estimate(sum(d.low > 0 for d in differences))
            found[f"{key}_worse"] = Estimate(sum(d.high < 0 for d in differences))
    return found


@measure()
def kronecker(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Over the blocks of layers, on G: directions of K-FAC and of the gradient (none) by damping, kfac_0_1; of the nearest
    Kronecker product at DAMPING; K-FAC's fall of the loss, each at its best damping; the largest ratio of stored numbers of any
    network, and (`diagonal_stored`) the diagonal's over the full matrix's.
    """
    found = {}
    for damping in dampings(rows):
        shares = directions(rows, "G", damping).groupby("seed").mean()
        for method in ("K-FAC", "none"):
            found[_key(method, f"{damping:g}").replace(".", "_")] = statistics.mean(shares[method] / shares["layer blocks"])
    shares, falls = (table.groupby("seed").mean() for table in (directions(rows, "G"), best_falls(rows, "G")))
    stored = of_cells(rows, "stored", "G")
    return found | {
        "nearest": statistics.mean(shares["best Kronecker"] / shares["layer blocks"]),
        "fall": statistics.mean(falls["K-FAC"] / falls["layer blocks"]),
        "stored": Estimate((stored["K-FAC"] / stored["layer blocks"]).max()),
        "diagonal_stored": Estimate((stored["diagonal"] / stored["full"]).max()),
    }


@measure()
def stored(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Numbers that are stored, by network: tanh (the ReLU network's are the same) and CNN."""
    table = of_cells(rows, "stored", "G").groupby("network").first()
    return {_key(network, method): Estimate(table.loc[network, method]) for network in ("tanh", "CNN") for method in METHODS}


@measure()
def parameters_in_picture(rows: pd.DataFrame) -> Estimate:
    """Number of parameters in case picture."""
    return Estimate(sum(layer_sizes(rows)))


@measure()
def training(rows: pd.DataFrame) -> dict[str, Estimate]:
    """|G|_F over |H|_F and the number of training steps at each stage, over networks; share of steps whose best length, and of
    cells whose best damping, is the least or the largest that was tried."""
    chosen = rows[(rows.case == "networks") & (rows.metric == "Gauss-Newton share")]
    found = {}
    for stage, table in chosen.groupby("stage"):
        by_seed = table.groupby("seed")
        found |= {
            f"gauss_newton_{stage}": statistics.mean(by_seed.value.mean()),
            f"steps_{stage}": Estimate(table.step.median()),
        }
    edge = rows[(rows.case == "networks") & (rows.metric == "at edge")]
    falls = rows[(rows.case == "networks") & (rows.metric == "fall") & (rows.method != "none")]
    best = falls.loc[falls.groupby(["network", "stage", "matrix", "seed", "method"]).value.idxmax()].damping
    return found | {
        "length_at_edge": Estimate(edge.value.mean(), n=len(edge)),
        "damping_at_edge": Estimate(best.isin([falls.damping.min(), falls.damping.max()]).mean(), n=len(best)),
    }


@measure()
def widest(rows: pd.DataFrame) -> Estimate:
    """The largest half-width of an interval of those means that `summary` shows."""
    shown = [found[_key("G", method)] for found in (error(rows), direction(rows), fall(rows)) for method in METHODS]
    shown += [direction(rows)[_key("H", method)] for method in METHODS]
    return Estimate(max(estimate.high - estimate.value for estimate in shown))


@measure()
def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Every approximation: what it stores, its error, its step."""
    kept, errors, shares, falls = stored(rows), error(rows), direction(rows), fall(rows)
    return pd.DataFrame(
        [
            {
                "M is replaced by": label,
                "Numbers, MLP": fixed(kept[_key("tanh", method)], 0),
                "Numbers, CNN": fixed(kept[_key("CNN", method)], 0),
                "Error of G": fixed(errors[_key("G", method)]),
                "Direction, G": fixed(shares[_key("G", method)]),
                "Direction, H": fixed(shares[_key("H", method)]),
                "Fall, G": fixed(falls[_key("G", method)]),
            }
            for method, label in METHODS.items()
        ]
    )
