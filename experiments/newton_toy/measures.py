"""The numbers that the claims and the section quote. Keys e30 and so on: after that many updates."""

import numpy as np
import pandas as pd

from secondlook.study import statistics
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate
from secondlook.study.text import number, percent_interval

from .selections import against_step, arrivals, iterations, losses, losses_at

# What hessian-network-learning prints in its last table, all of it under 'Epoch 40' but the initial loss.
PRINTED = {"initial": "0.1446", "GD": "0.0893", "Newton": "0.0003"}
PRINTED_EPOCH = 40

LOOPS = {"row by row": "Newton, row by row", "autograd": "Newton, torch.autograd", "func": "Newton, torch.func"}
EPOCHS = (0, 10, 20, 30, 39, 40)
METHODS = {
    "GD": "gd",
    "Newton": "newton",
    "damped Newton": "damped",
    "Levenberg": "levenberg",
    "absolute-value Newton": "absolute",
    "trust-region Newton": "trust",
}
REGIONS = ("near", "ring")
WINDOW = 10  # steps whose median time is one repeat's time at a step: one step alone is too noisy


def _worst(values) -> float:
    return float(np.abs(np.asarray(values, dtype=float)).max())


def _printed_seed(rows: pd.DataFrame, method: str) -> pd.Series:
    """Loss against the step from the document's own seed."""
    return losses(rows, method).loc[0]


@measure()
def gd_loss(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Gradient descent's loss from the document's seed. Its loop logs e0 to e39."""
    return {f"e{t}": Estimate(_printed_seed(rows, "GD")[t]) for t in EPOCHS}


@measure()
def newton_loss(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same for the row-by-row Newton loop."""
    return {f"e{t}": Estimate(_printed_seed(rows, "row by row")[t]) for t in EPOCHS}


@measure()
def printed_epochs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Epochs at which both losses, to four decimals, are the printed ones: how many, the first and the last."""
    pairs = {"GD": _printed_seed(rows, "GD"), "Newton": _printed_seed(rows, "row by row")}
    fits = [t for t in pairs["GD"].index if all(f"{loss[t]:.4f}" == PRINTED[name] for name, loss in pairs.items())]
    first, last = (fits[0], fits[-1]) if fits else (np.nan, np.nan)
    return {"count": Estimate(len(fits)), "first": Estimate(first), "last": Estimate(last)}


@measure()
def improvement(rows: pd.DataFrame) -> dict[str, Estimate]:
    """1 - loss(t) / loss(0): the same from every seed but for rounding, so exact."""
    found = {}
    for key, method in (("gd", "GD"), ("newton", "row by row")):
        loss = losses(rows, method)
        found |= {f"{key}_e{t}": Estimate((1 - loss[t] / loss[0]).mean(), n=len(loss)) for t in (30, 39, 40)}
    return found


@measure()
def newton_over_gd(rows: pd.DataFrame) -> Estimate:
    """Newton's loss over gradient descent's after the last update: the same from every seed but for rounding, so exact."""
    return Estimate((losses(rows, "row by row")[PRINTED_EPOCH] / losses(rows, "GD")[PRINTED_EPOCH]).mean())


@measure()
def disagreement(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Largest relative difference of a loss over all steps and seeds: between the three Newton loops, and between float32
    and float64."""
    single = {method: losses(rows, method) for method in ("GD", *LOOPS)}
    double = {method: losses(rows, method, "float64") for method in ("GD", *LOOPS)}
    n = len(single["GD"])
    return {
        "loops": Estimate(max(_worst(run[m] / run["row by row"] - 1) for run in (single, double) for m in LOOPS), n=n),
        "gd_precision": Estimate(_worst(single["GD"] / double["GD"] - 1), n=n),
        "newton_precision": Estimate(max(_worst(single[m] / double[m] - 1) for m in LOOPS), n=n),
    }


@measure()
def factor_error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Largest difference, over all steps and seeds, between a step's fall of the loss and its closed form, in float64."""
    chosen = rows[(rows.case == "toy") & (rows.metric == "factor_error")]
    n = chosen.seed.nunique()
    return {
        "gd": Estimate(_worst(chosen[chosen.method == "GD"].value), n=n),
        "newton": Estimate(_worst(chosen[chosen.method != "GD"].value), n=n),
    }


@measure()
def hessian_difference(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Largest difference of an entry over all steps, seeds and both precisions: of the loops through torch.autograd and
    torch.func from the row-by-row one, and of all three from (2/n) I."""
    toy = rows[rows.case == "toy"]

    def largest(metric: str, methods) -> Estimate:
        chosen = toy[(toy.metric == metric) & toy.method.isin(methods)]
        return Estimate(_worst(chosen.value), n=chosen.seed.nunique())

    return {
        "autograd": largest("hessian_from_row_by_row", ["autograd"]),
        "func": largest("hessian_from_row_by_row", ["func"]),
        "closed_form": largest("hessian_from_closed_form", list(LOOPS)),
    }


@measure()
def rescaled(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Newton beside gradient descent at n/2 times its learning rate, in float64: the learning rates, the largest distance
    between an entry of their thetas at any step of any seed, and the largest loss after one step at the larger rate."""
    scale = rows[rows.case == "scale"]
    distance = scale[scale.metric == "distance_to_GD"]
    found = {"distance": Estimate(distance.value.max(), n=distance.seed.nunique())}
    for method in ("Newton", "GD"):
        key, lr, loss = METHODS[method], scale[scale.method == method].lr, losses_at(rows, method, full=True)
        found |= {f"{key}_lr": Estimate(lr.min()), f"{key}_full_lr": Estimate(lr.max())}
        found[f"{key}_one_step"] = Estimate(loss[1].max(), n=len(loss))
    return found


@measure()
def conditioning(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Steps to the target at the largest condition number, medians over the seeds; gradient descent's bound there; the share
    of its steps that the best learning rate of the grid saves; and the smallest condition number at which it takes more
    steps than the gradients that one Newton step costs, 1 for g and n for the differences that make H."""
    gd = iterations(rows, "GD", lr=1)
    hardest = gd.columns.max()
    tuned = iterations(rows, "GD")
    gradients = float(rows[(rows.case == "conditioning") & (rows.metric == "gradients")].value.iloc[0])
    dearer = [condition for condition in gd if gd[condition].median() > gradients]
    return {
        "hardest": Estimate(hardest),
        "gd": statistics.median(gd[hardest]),
        "gd_easy": statistics.median(gd[gd.columns.min()]),
        "bound": Estimate(iterations(rows, "GD bound")[hardest].max()),
        "newton": statistics.median(iterations(rows, "Newton")[hardest]),
        "damped": statistics.median(iterations(rows, "damped Newton")[hardest]),
        "ratio": statistics.median(gd[hardest] / iterations(rows, "Newton")[hardest]),
        "damped_ratio": statistics.median(gd[hardest] / iterations(rows, "damped Newton")[hardest]),
        "tuning_gain": statistics.median(1 - tuned[hardest] / gd[hardest]),
        "newton_gradients": Estimate(gradients),
        "break_even": Estimate(min(dearer, default=np.inf)),
    }


def _shares(rows: pd.DataFrame, end: str) -> dict[str, Estimate]:
    return {
        f"{key}_{region}": statistics.share(arrivals(rows, method, region, end).value)
        for method, key in METHODS.items()
        for region in REGIONS
    }


@measure()
def saddle_share(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of starts from which a method ends at the saddle; the starts are independent draws."""
    return _shares(rows, "at_saddle")


@measure()
def minimum_share(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of starts from which a method ends at a minimum."""
    return _shares(rows, "at_minimum")


@measure()
def damping_cost(rows: pd.DataFrame) -> Estimate:
    """Share of ring starts that end at the saddle: damped minus undamped Newton, paired by start."""
    damped, full = (arrivals(rows, method, "ring", "at_saddle").value for method in ("damped Newton", "Newton"))
    return statistics.paired(damped, full)


@measure()
def graph_nodes(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Nodes of the graph at step 40 and at the last step, and how many times as many: those behind the loss (`walked` by
    each backward pass) and all that the loop keeps alive."""
    found = {}
    for key, method in (("manual", "row by row"), ("gd", "GD"), ("detached", "detached")):
        for kind, metric in (("walked", "nodes_of_loss"), ("alive", "nodes_alive")):
            count = against_step(rows, "graph", metric, method).iloc[0]
            first, last = count[PRINTED_EPOCH], count.iloc[-1]
            found |= {f"{key}_{kind}_e40": Estimate(first), f"{key}_{kind}_last": Estimate(last)}
            found[f"{key}_{kind}_growth"] = Estimate(last / first)
    return found | {"last": Estimate(count.index[-1]), "steps_growth": Estimate(count.index[-1] / PRINTED_EPOCH)}


@measure()
def growth(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The manual loop's time for a step over the detached loop's, and the memory that it holds, at step 40 and at the last:
    medians over repeats."""
    time = {m: against_step(rows, "growth", "time_ms", m).T.rolling(WINDOW).median().T for m in ("row by row", "detached")}
    heap = {m: against_step(rows, "growth", "heap_bytes", m) / 2**20 for m in ("row by row", "detached")}
    last = time["detached"].columns.max()
    ratio = time["row by row"] / time["detached"]
    return {
        "time_ratio_e40": statistics.median(ratio[40]),
        "time_ratio_last": statistics.median(ratio[last]),
        "manual_ms_e40": statistics.median(time["row by row"][40]),
        "detached_ms_e40": statistics.median(time["detached"][40]),
        "manual_ms_last": statistics.median(time["row by row"][last]),
        "detached_ms_last": statistics.median(time["detached"][last]),
        "manual_mib_e40": statistics.median(heap["row by row"][40]),
        "manual_mib_last": statistics.median(heap["row by row"][last]),
        "detached_mib_last": statistics.median(heap["detached"][last]),
        "last": Estimate(last),
    }


def _count(x: float) -> str:
    return f"{x:g}" if x < 1000 else number(x)


@measure()
def loss_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Loss after t updates from the document's seed, and what the document prints for it."""
    printed = {0: PRINTED["initial"], PRINTED_EPOCH: f"{PRINTED['GD']}, {PRINTED['Newton']}"}
    columns = {"GD": "Gradient descent", **LOOPS}
    series = {title: _printed_seed(rows, method) for method, title in columns.items()}
    return pd.DataFrame(
        [
            {"Epoch": str(t)} | {title: number(loss[t], 6) for title, loss in series.items()} | {"Printed": printed.get(t, "")}
            for t in EPOCHS
        ]
    )


@measure()
def conditioning_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Steps to the target: medians over the seeds, with the range of gradient descent."""
    gd, tuned, bound = iterations(rows, "GD", lr=1), iterations(rows, "GD"), iterations(rows, "GD bound")
    newton, damped = iterations(rows, "Newton"), iterations(rows, "damped Newton")
    return pd.DataFrame(
        {
            "Condition number": [number(condition, 1) for condition in gd],
            "GD, median": [_count(gd[c].median()) for c in gd],
            "GD, range": [f"{_count(gd[c].min())} to {_count(gd[c].max())}" for c in gd],
            "GD, best of grid": [_count(tuned[c].median()) for c in gd],
            "GD, bound": [_count(bound[c].max()) for c in gd],
            "Newton, lr 0.1": [_count(damped[c].median()) for c in gd],
            "Newton, lr 1": [_count(newton[c].median()) for c in gd],
        }
    )


@measure()
def saddle_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Where each method ends."""
    shares = saddle_share(rows)
    return pd.DataFrame(
        [
            {
                "Method": method,
                "At the saddle, near": percent_interval(shares[f"{key}_near"]),
                "At the saddle, ring": percent_interval(shares[f"{key}_ring"]),
                "Steps, near": _count(arrivals(rows, method, "near", "at_saddle").step.median()),
                "Steps, ring": _count(arrivals(rows, method, "ring", "at_saddle").step.median()),
            }
            for method, key in METHODS.items()
        ]
    )
