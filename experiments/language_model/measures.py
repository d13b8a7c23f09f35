"""Bits per character on the test windows after the last epoch: less is better. Differences are paired by seed, with t
intervals; the cost of a run over SGD's.

Differences come in families, whose intervals hold together and give the words, as in `secondlook.study.comparison`: less is
better.
"""

import numpy as np
import pandas as pd

from secondlook.study import comparison
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean, median
from secondlook.study.text import fixed, interval, key, number

from .selections import broken, by_block, by_factor, by_method, by_rate, counted, last, learning_rates

# Bits per character: the paper's gains are about 0.07 bits a word, and a word has five or six characters.
MARGIN = 0.01
COMPARED = {  # the declared comparisons: the first minus the second
    "adamw": ("AdaHessian", "AdamW"),
    "adam": ("AdaHessian", "Adam"),
    "sgd": ("AdaHessian", "SGD"),
    "half": ("AdaHessian power 0.5", "AdamW"),
    "powers": ("AdaHessian power 0.5", "AdaHessian"),
    "sophia": ("Sophia-G", "AdamW"),
}
NEAR, FAR = [2.0, 3.0, 4.0], [5.0, 6.0, 10.0]  # factors: where the paper's AdamW stands, and where it breaks


@measure("comparison")
def bits(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method at its tuned rate."""
    table = by_method(rows)
    return {key(method): mean(table[method]) for method in table}


@measure("comparison")
def counting(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the two models that count, on the test windows."""
    return {model: Estimate(counted(rows, "comparison", model)) for model in ("unigram", "bigram")}


@measure("comparison")
def differences(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The declared comparisons."""
    return comparison.differences(_family(rows))


def _family(rows: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    table = by_method(rows)
    return {name: (table[a], table[b]) for name, (a, b) in COMPARED.items()}


@measure("comparison")
def n_to_decide(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seeds that would show MARGIN, of each declared comparison."""
    return comparison.n_to_decide(_family(rows), MARGIN)


@measure("comparison")
def seed_seconds(rows: pd.DataFrame) -> Estimate:
    """Seconds of training of all methods of a seed."""
    return mean(by_method(rows, "seconds").sum(axis=1))


@measure("comparison")
def comparisons(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as a table."""
    lines = []
    for name, found in comparison.compare(_family(rows), MARGIN, sign=-1).items():
        a, b = COMPARED[name]
        shown = {"Bits": interval(found.difference, fixed, digits=3), "p (Holm)": number(found.holm, 2), "Word": found.word}
        lines.append({"First minus second": f"{a} − {b}", **shown})
    return pd.DataFrame(lines)


def _over_sgd(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    table = by_method(rows, metric)
    return table.div(table["SGD"], axis=0)


@measure("comparison")
def cost(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of a run's training over those of SGD's with the same seed, median."""
    table = _over_sgd(rows, "seconds")
    return {key(method): median(table[method].dropna()) for method in table if table[method].notna().any()}


@measure("comparison")
def methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method: rate, bits, cost."""
    test, train = by_method(rows), by_method(rows, "train_bits")
    work, time = _over_sgd(rows, "gradient_equivalents"), _over_sgd(rows, "seconds")
    rate = learning_rates(rows, "comparison")
    lines = [
        {
            "Method": method,
            "lr": number(rate[method, 1.0], 2),
            "Test": interval(mean(test[method]), fixed, digits=3),
            "Training": fixed(train[method].mean(), 3),
            "Work over SGD's": fixed(work[method].median()),
            "Time over SGD's": fixed(time[method].median()),
        }
        for method in test
    ]
    return pd.DataFrame(lines)


@measure("rates")
def rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method: the factor on its centre with the least mean bits, the learning rate that it makes, and whether it lies
    inside the range."""
    found, rate = {}, learning_rates(rows, "rates")
    for method, table in by_rate(rows).items():
        best = table.mean().idxmin()
        inside = table.columns.min() < best < table.columns.max()
        values = {"factor": best, "lr": rate[method, best], "best": table[best].mean(), "inside": inside}
        found |= {f"{key(method)}_{name}": Estimate(value) for name, value in values.items()}
    return found


@measure("rates")
def rates_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The whole trial table: the centre of each method's rates, and mean validation bits by the factor on it."""
    rate = learning_rates(rows, "rates")
    lines = []
    for method, table in by_rate(rows).items():
        centre = {"Method": method, "Centre": number(rate[method, 1.0], 2)}
        lines.append(centre | {f"{factor:g}": fixed(value, 3) for factor, value in table.mean().items()})
    return pd.DataFrame(lines)


@measure("rates")
def centre(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method the tuned rate over the optimum, the vertex of the parabola through its mean bits and those of the two
    neighbours over the logarithm of the rate; and AdaHessian's such ratio over AdamW's. Infinite where the best trial is at an
    end, from where the optimum is not to be seen."""
    found = {}
    for method, table in by_rate(rows).items():
        bits, at = table.mean().to_numpy(), int(table.mean().to_numpy().argmin())
        found[key(method)] = np.inf
        if 0 < at < len(bits) - 1:
            square, linear, _ = np.polyfit(np.log(table.columns[at - 1 : at + 2] / table.columns[at]), bits[at - 1 : at + 2], 2)
            found[key(method)] = np.exp(linear / (2 * square))
    ours, theirs = found["adahessian"], found["adamw"]
    found["over_adamw"] = ours / theirs if np.isfinite(theirs) else np.inf
    return {name: Estimate(value) for name, value in found.items()}


def _rises(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Bits at each factor less those at the tuned rate: seeds by factors."""
    return {method: table.sub(table[1.0], axis=0) for method, table in by_factor(rows).items()}


@measure("comparison", "scaling")
def scaling(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What a rate that is too large costs, mean of a seed's factors NEAR and FAR: for each method, and for AdaHessian less
    that of the others, which are one family."""
    found, family = {}, {}
    for name, factors in {"near": NEAR, "far": FAR}.items():
        rise = {method: table[table.columns.intersection(factors)].mean(axis=1) for method, table in _rises(rows).items()}
        for method, value in rise.items():
            found[f"{key(method)}_{name}"] = mean(value)
            if method != "AdaHessian":
                family[f"over_{key(method)}_{name}"] = (rise["AdaHessian"], value)
    return found | comparison.differences(family)


@measure("comparison", "scaling")
def scaling_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean bits by factor, and in brackets how many runs broke."""
    failed = broken(rows)
    shown = {}
    for method, table in by_factor(rows).items():
        count = failed[method].sum()
        shown[method] = table.mean().map(fixed) + count.map(lambda broke: f" ({broke})" if broke else "")
    return pd.DataFrame(shown).rename(index="{:g}".format).rename_axis("Factor").reset_index()


@measure("comparison", "blocks")
def blocks(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Bits with blocks of k entries less those with blocks of 1."""
    table = by_block(rows)
    return comparison.differences({f"size_{size}": (table[size], table[1]) for size in table if size > 1})


@measure("comparison", "blocks")
def blocks_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The same, with the bits."""
    table, gaps = by_block(rows), blocks(rows)
    lines = []
    for size in table:
        less = interval(gaps[f"size_{size}"], fixed, digits=3) if size > 1 else "–"
        lines.append({"Block size": size, "Bits": interval(mean(table[size]), fixed, digits=3), "Less blocks of 1": less})
    return pd.DataFrame(lines)


@measure()
def runs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """All runs, and those that diverged, of each case that there is."""
    found = {}
    for case in rows[rows.metric == "diverged"].case.unique():
        flags = last(rows, case, "diverged")
        found |= {case: Estimate(len(flags)), f"{case}_diverged": Estimate(flags.sum())}
    return found


@measure("rates", "comparison")
def tuned(rows: pd.DataFrame) -> dict[str, Estimate]:
    """1 for each method whose rate in the comparison is the best of its trials."""
    found, rate = rates(rows), learning_rates(rows, "comparison").droplevel("factor")
    return {key(method): Estimate(abs(rate[method] / found[f"{key(method)}_lr"].value - 1) < 1e-9) for method in rate.index}
