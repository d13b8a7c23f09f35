"""The numbers that the claim and the section quote."""

import numpy as np
import pandas as pd

from secondlook.study import statistics
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate
from secondlook.study.text import fixed, interval, number

from .selections import by_epoch, cosines, drawn, last, line, listed, of_methods, of_rules

STATED = {  # case, metric, the document's number, and half its last digit
    "distance": ("demo", "displacement", 0.5615, 5e-5),
    "share": ("redrawn", "first axis", 0.891, 5e-4),
}
PAIRS = {  # comparisons that the text draws: without a memory of earlier steps, and with one
    "newton_over_sgd": ("Newton", "SGD"),
    "kfac_over_sgd": ("K-FAC", "SGD"),
    "adahessian_over_adam": ("AdaHessian", "Adam"),
    "adam_over_newton": ("Adam", "Newton"),
}
STEADINESS = {"steps": "cosine of steps", "pieces": "cosine of pieces", "aim": "aim", "detour": "detour"}


@measure()
def distance(rows: pd.DataFrame) -> dict[str, Estimate]:
    """From the start to the end of the path: straight, epoch by epoch, and step by step."""
    metrics = {"straight": "displacement", "by_epochs": "travelled", "by_steps": "travelled by steps"}
    return {key: statistics.mean(last(rows, "demo", metric)) for key, metric in metrics.items()}


@measure()
def first_axis(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of the first principal axis in the path, all steps, and its standard deviation over seeds: on the points of one
    reading (demo), and with noise drawn anew (redrawn, redrawn_deviation)."""
    anew = last(rows, "redrawn", "first axis")
    found = {"demo": statistics.mean(last(rows, "demo", "first axis")), "redrawn": statistics.mean(anew)}
    return found | {"redrawn_deviation": Estimate(anew.std(), n=len(anew))}


@measure()
def from_stated(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How far the mean of the runs is from any number that prints as the stated one, in hundredths of a standard deviation of a
    run: more digits depend on the processor."""
    found = {}
    for key, (case, metric, stated, half) in STATED.items():
        values = last(rows, case, metric)
        mean = statistics.mean(values)
        nearest = np.clip(mean.value, stated - half, stated + half)
        found[key] = Estimate(*((np.array([mean.value, *mean.ends]) - nearest) / values.std()).round(2), n=mean.n)
    return found


@measure()
def error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Mean squared error after the last epoch, and how far that on the points to train on is above the least."""
    train, test = (last(rows, "demo", f"{name} error") for name in ("train", "test"))
    least = drawn(rows, "least error")["by point"].dropna().iloc[0]
    return {"train": statistics.mean(train), "test": statistics.mean(test), "above_least": statistics.mean(train - least)}


@measure()
def least_error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The least error that any line reaches: over the document's readings, and over noise drawn anew its mean and standard
    deviation."""
    found = drawn(rows, "least error")
    readings, anew = found.drop(columns="drawn anew").stack(), found["drawn anew"]
    return {
        "reading": Estimate(found["by point"].dropna().iloc[0]),
        "lowest_reading": Estimate(readings.min()),
        "highest_reading": Estimate(readings.max()),
        "anew": statistics.mean(anew),
        "deviation": Estimate(anew.std(), n=len(anew)),
    }


@measure()
def epoch_steps(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Sizes of the epochs' steps and the cosines between them: e1 and e2, cos_2_1."""
    sizes = {f"e{epoch}": statistics.mean(values) for epoch, values in by_epoch(rows, "demo", "step size").items()}
    return sizes | {f"cos_{i}_{j}": statistics.mean(values) for (i, j), values in cosines(rows).items()}


@measure()
def noisy_steps(rows: pd.DataFrame) -> Estimate:
    """Mean cosine of the last two epochs' steps."""
    found = cosines(rows)
    return statistics.mean(found[max(found.columns)])


@measure()
def curvature(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the instruments say of H along the path with seed 0, and the exact eigenvalues and trace."""
    values = np.linalg.eigvalsh(line(rows).H)
    found = {"least": values[0], "largest": values[1], "condition": values[1] / values[0], "exact_trace": values.sum()}
    for metric in ("curvature along", "noise scale"):
        of_epochs = by_epoch(rows, "path", metric).iloc[0]
        found |= {f"{metric.replace(' ', '_')}_e{epoch}": value for epoch, value in of_epochs.items()}
    found["top"] = by_epoch(rows, "path", "top eigenvalue").iloc[0, 0]
    found["trace"] = by_epoch(rows, "path", "trace").iloc[0, 0]
    found["slope"], found["intercept"] = listed(rows, "minimum")
    return {key: Estimate(value) for key, value in found.items()}


@measure()
def steadiness(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Means over seeds: newton_pieces, adam_aim ..."""
    return {
        f"{method.lower().replace('-', '')}_{key}": statistics.mean(values)
        for key, metric in STEADINESS.items()
        for method, values in of_methods(rows, metric).items()
    }


@measure()
def steadier(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Differences of PAIRS by seed: newton_over_sgd_pieces ..."""
    found = {}
    for key, metric in STEADINESS.items():
        table = of_methods(rows, metric)
        found |= {f"{pair}_{key}": statistics.paired(table[a], table[b]) for pair, (a, b) in PAIRS.items()}
    return found


@measure()
def arrivals(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Mean number of steps to arrive: the earliest and the latest optimiser."""
    means = [statistics.mean(values) for _, values in of_methods(rows, "arrival").items()]
    return {"earliest": min(means, key=lambda e: e.value), "latest": max(means, key=lambda e: e.value)}


@measure()
def rules(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Loss above the least one over that of Adam alone, mean logarithm by seed as a factor, after the first epoch and the last;
    the largest rate of the adaptive rule over Adam's; the share of epochs in which EVE stays; its held-out losses."""
    excess, chosen = of_rules(rows, "excess"), of_rules(rows, "chosen")
    final = excess.columns.get_level_values("step").max()
    found = {}
    for key, rule in {
        "larger": "Adam, larger lr",
        "adaptive": "adaptive",
        "careful": "careful",
        "eve": "EVE",
        "walk": "EVE, walk",
    }.items():
        for name, epoch in {"first": 1, "last": final}.items():
            logs = statistics.mean(np.log(excess[rule, epoch] / excess["Adam", epoch]))
            found[f"{key}_{name}"] = Estimate(*np.exp([logs.value, *logs.ends]), n=logs.n)
    lr = of_rules(rows, "lr")
    found["adaptive_rate"] = statistics.mean(lr["adaptive"].max(axis=1) / lr["Adam"].max(axis=1))
    found["careful_cuts"] = Estimate((lr["careful"] != lr["Adam"]).to_numpy().sum(), n=len(lr))
    for key, rule in {"eve": "EVE", "walk": "EVE, walk"}.items():
        found[f"{key}_stays"] = statistics.mean((chosen[rule] == 0).mean(axis=1))
        found[f"{key}_evaluations"] = statistics.mean(of_rules(rows, "evaluations")[rule, final])
    return found


@measure()
def steadiness_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Steadiness of each optimiser, with intervals."""
    tables = {key: of_methods(rows, metric) for key, metric in {"arrival": "arrival", **STEADINESS}.items()}
    means = {(key, method): statistics.mean(values) for key, table in tables.items() for method, values in table.items()}
    return pd.DataFrame(
        [
            {
                "Optimiser": method,
                "Steps to arrive": number(means["arrival", method]),
                "Cosine, steps": interval(means["steps", method], fixed),
                "Cosine, pieces": interval(means["pieces", method], fixed),
                "Aim at the minimum": interval(means["aim", method], fixed),
                "Detour": interval(means["detour", method], fixed),
            }
            for method in tables["aim"]
        ]
    )
