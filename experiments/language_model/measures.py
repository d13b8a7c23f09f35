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

from .names import BLOCKS, block
from .selections import averaging, broken, by_block, by_factor, by_method, by_rate, compared, counted, last, learning_rates

MATTERS = 0.02  # bits per character: the seeds of the comparison were counted for it
MARGIN = 0.01  # what counts as the same: the paper's gains are about 0.07 bits a word, and a word has five or six characters
RISE = 0.05  # what matters of the bits that too large a rate costs
SAME = 0.03  # what counts as the same of block sizes
COMPARED = {  # the declared comparisons: the first minus the second
    "adamw": ("AdaHessian", "AdamW"),
    "adam": ("AdaHessian", "Adam"),
    "sgd": ("AdaHessian", "SGD"),
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
def power(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Probability that the seeds at hand show MATTERS, of each declared comparison."""
    return comparison.power_of(_family(rows), MATTERS)


@measure("comparison", "peers")
def context(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What a user would pick today less AdamW: a family of its own, of those that were run."""
    table = by_method(rows, case="peers")
    theirs = by_method(rows).loc[table.index, "AdamW"]
    return comparison.differences({key(peer): (table[peer], theirs) for peer in compared(rows)["peers"]})


@measure("comparison")
def seed_seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of training that one more seed takes: all methods; AdaHessian and AdamW at every factor; every size of block."""
    seconds = by_method(rows, "seconds")
    pair, ours = seconds["AdaHessian"] + seconds["AdamW"], seconds["AdaHessian"]
    found = {"all": seconds.sum(axis=1), "scaling": (1 + len(NEAR + FAR)) * pair, "blocks": (1 + len(BLOCKS)) * ours}
    return {name: mean(value) for name, value in found.items()}


@measure("comparison")
def comparisons(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as a table."""
    lines = []
    for name, found in comparison.compare(_family(rows), MARGIN, sign=-1).items():
        a, b = COMPARED[name]
        shown = {"Bits": interval(found.difference, fixed, digits=3), "p (Holm)": number(found.holm, 2), "Word": found.word}
        lines.append({"First minus second": f"{a} − {b}", **shown})
    return pd.DataFrame(lines)


def _over_sgd(rows: pd.DataFrame, metric: str, case: str) -> pd.DataFrame:
    table = by_method(rows, metric, case)
    return table.div(table["SGD"], axis=0)


@measure("comparison")
def cost(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of a run's training over those of SGD's with the same seed in the same case, median."""
    found = {
        method: _over_sgd(rows, "seconds", case)[method].dropna() for case, few in compared(rows).items() for method in few
    }
    return {key(method): median(ratios) for method, ratios in found.items() if len(ratios)}


@measure("comparison")
def methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method: rate, bits, cost."""
    lines = []
    for case, few in compared(rows).items():
        test, train = by_method(rows, case=case), by_method(rows, "train_bits", case)
        work, time = _over_sgd(rows, "gradient_equivalents", case), _over_sgd(rows, "seconds", case)
        rate = learning_rates(rows, case)
        lines += [
            {
                "Method": method,
                "lr": number(rate[method, 1.0], 2),
                "Seeds": str(len(test)),
                "Test": interval(mean(test[method]), fixed, digits=3),
                "Training": fixed(train[method].mean(), 3),
                "Work over SGD's": fixed(work[method].median()),
                "Time over SGD's": fixed(time[method].median()),
            }
            for method in few
        ]
    return pd.DataFrame(lines)


@measure(cases=("rates", "fine_rates", "peer_rates", "absolute_rates", "signed_rates"))
def trials(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Of each method the best of its trials: the factor on its centre with the least mean bits, the learning rate that it
    makes, those bits, and whether it lies inside the range."""
    found, rate = {}, learning_rates(rows, case)
    for method, table in by_rate(rows, case).items():
        best = table.mean().idxmin()
        inside = table.columns.min() < best < table.columns.max()
        values = {"factor": best, "lr": rate[method, best], "best": table[best].mean(), "inside": inside}
        found |= {f"{key(method)}_{name}": Estimate(value) for name, value in values.items()}
    return found


def _chosen(rows: pd.DataFrame, rates: str, case: str) -> dict[str, bool]:
    """Whether the rate of each method in `case` is the best of its trials in `rates`, inside their range."""
    best = {name: found.value for name, found in trials(rows, rates).items()}
    return {
        method: bool(best[f"{key(method)}_inside"] and abs(lr / best[f"{key(method)}_lr"] - 1) < 1e-9)
        for (method, _), lr in learning_rates(rows, case).items()
    }


@measure("fine_rates", "comparison")
def tuned(rows: pd.DataFrame) -> dict[str, Estimate]:
    """1 for each method whose rate in the comparison is the best of its trials, inside their range."""
    return {key(method): Estimate(found) for method, found in _chosen(rows, "fine_rates", "comparison").items()}


@measure(cases={"absolute_tuned": ("absolute_rates", "absolute_blocks"), "signed_tuned": ("signed_rates", "signed_blocks")})
def tuned_blocks(rows: pd.DataFrame, rates: str, case: str) -> Estimate:
    """1 where this holds for all sizes of block."""
    return Estimate(all(_chosen(rows, rates, case).values()))


@measure("fine_rates")
def centre(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method the tuned rate over the optimum, the vertex of the parabola through its mean bits and those of the two
    neighbours over the logarithm of the rate; and AdaHessian's such ratio over AdamW's. Infinite where the best trial is at an
    end, from where the optimum is not to be seen."""
    found = {}
    for method, table in by_rate(rows, "fine_rates").items():
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
    """What too large a rate costs: for each method, and for AdaHessian less that of the others, which are one family."""
    found = {f"{key(method)}_{name}": mean(value) for (method, name), value in _losses(rows).items()}
    return found | comparison.differences(_lost(rows))


def _losses(rows: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """By method and range of factors the bits of each seed over those at the tuned rate, mean over the factors."""
    return {
        (method, name): table[table.columns.intersection(factors)].mean(axis=1)
        for name, factors in {"near": NEAR, "far": FAR}.items()
        for method, table in _rises(rows).items()
    }


def _lost(rows: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    found = _losses(rows)
    others = ((method, name) for method, name in found if method != "AdaHessian")
    return {f"over_{key(method)}_{name}": (found["AdaHessian", name], found[method, name]) for method, name in others}


@measure("comparison", "scaling")
def n_to_scale(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seeds that would show that AdaHessian and AdamW differ by RISE in what they lose, NEAR or FAR: the larger number."""
    found = comparison.n_to_decide(_lost(rows), RISE)
    return {"adamw": max((found[f"over_adamw_{name}"] for name in ("near", "far")), key=lambda n: n.value)}


@measure("comparison", "scaling")
def scaling_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean bits by factor, and in brackets how many runs broke."""
    failed = broken(rows)
    shown = {}
    for method, table in by_factor(rows).items():
        count = failed[method].sum()
        shown[method] = table.mean().map(fixed) + count.map(lambda broke: f" ({broke})" if broke else "")
    return pd.DataFrame(shown).rename(index="{:g}".format).rename_axis("Factor").reset_index()


def _sizes(rows: pd.DataFrame, case: str) -> dict[str, tuple[pd.Series, pd.Series]]:
    table = by_block(rows, case)
    return {f"size_{size}": (table[size], table[1]) for size in BLOCKS}


@measure("comparison", cases=("absolute_blocks", "signed_blocks"))
def blocks(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Bits with blocks of k entries less those with blocks of 1."""
    return comparison.differences(_sizes(rows, case))


@measure("comparison", cases={"n_absolute_blocks": "absolute_blocks", "n_signed_blocks": "signed_blocks"})
def n_to_block(rows: pd.DataFrame, case: str) -> Estimate:
    """Seeds that would tell a difference of SAME, for the size that needs most."""
    return max(comparison.n_to_decide(_sizes(rows, case), SAME).values(), key=lambda n: n.value)


@measure("comparison", cases={"absolute_table": "absolute_blocks", "signed_table": "signed_blocks"})
def blocks_table(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """The differences, with rates and bits."""
    table, gaps, rate = by_block(rows, case), blocks(rows, case), learning_rates(rows, case)
    own = learning_rates(rows, "comparison")["AdaHessian", 1.0]
    bits = {"Bits": interval(mean(table[1]), fixed, digits=3)}
    lines = [{"Block size": 1, "lr": number(own, 2)} | bits | {"Less blocks of 1": "–"}]
    for size in BLOCKS:
        shown = {"lr": number(rate[block(size, averaging(case)), 1.0], 2), "Bits": interval(mean(table[size]), fixed, digits=3)}
        lines.append({"Block size": size} | shown | {"Less blocks of 1": interval(gaps[f"size_{size}"], fixed, digits=3)})
    return pd.DataFrame(lines)


@measure()
def runs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """All runs, and those that diverged, of each case that there is."""
    found = {}
    for case in rows[rows.metric == "diverged"].case.unique():
        flags = last(rows, case, "diverged")
        found |= {case: Estimate(len(flags)), f"{case}_diverged": Estimate(flags.sum())}
    return found
