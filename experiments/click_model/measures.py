"""Expected accuracy in per cent, its differences in points, and excess log-loss in millinats: paired by seed, with t intervals.

The two comparisons of a metric are a family, whose intervals hold together and give the words, as in
`secondlook.study.comparison`. Accuracies are the same within the gain of the paper; for excess no margin is declared.
"""

import numpy as np
import pandas as pd

from secondlook.study import comparison
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean
from secondlook.study.text import fixed, interval, key, number

from .selections import ADAHESSIAN, COMPARED, GAIN, final, gradients, looks, of_teacher, trials

SOUGHT = 0.03  # points: a difference as small as the paper's


@measure("comparison")
def teacher(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What is best possible: bayes_accuracy in per cent, bayes_loss in millinats; the base_rate."""
    return {key(name): mean(of_teacher(rows, name)) for name in ("Bayes accuracy", "Bayes loss", "base rate")}


@measure("comparison")
def accuracy(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method after its pass, and how far below the teacher's (_below)."""
    table, best = final(rows, "accuracy"), of_teacher(rows, "Bayes accuracy")
    found = {key(method): mean(table[method]) for method in table}
    return found | {f"{key(method)}_below": mean(best.loc[table.index] - table[method]) for method in table}


@measure("comparison")
def excess(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method after its pass, in millinats."""
    table = final(rows, "excess")
    return {key(method): mean(table[method]) for method in table}


def _family(rows: pd.DataFrame, metric: str) -> dict[str, tuple[pd.Series, pd.Series]]:
    """The declared comparisons: AdaHessian + Adagrad and the other, by seed."""
    table = final(rows, metric)
    return {name: (table[ADAHESSIAN], table[other]) for name, other in COMPARED.items()}


@measure("comparison", each={"differences": "accuracy", "excess_differences": "excess"})
def differences(rows: pd.DataFrame, metric: str) -> dict[str, Estimate]:
    """Of accuracy, in points, above 0 in favour of AdaHessian + Adagrad; of excess, in millinats, below 0 in its favour."""
    return comparison.differences(_family(rows, metric))


@measure("comparison")
def spreads(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Standard deviation of each declared difference of accuracy, in points."""
    return {name: comparison.spread(a - b) for name, (a, b) in _family(rows, "accuracy").items()}


@measure("comparison")
def n_needed(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seeds that would show SOUGHT points at the family's level with a power of 80 %; its interval is the spread's."""
    return comparison.n_to_decide(_family(rows, "accuracy"), SOUGHT)


@measure("comparison")
def power_here(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The probability that as many seeds as there are show SOUGHT points; and in how many comparisons it is 80 % (enough)."""
    found = comparison.power_of(_family(rows, "accuracy"), SOUGHT)
    enough = sum(estimate.value >= comparison.POWER for estimate in found.values())
    return found | {"enough": Estimate(enough, n=len(COMPARED))}


@measure("comparison")
def seed_seconds(rows: pd.DataFrame) -> Estimate:
    """Seconds of training of all methods of a seed."""
    return mean(looks(rows, "seconds").iloc[:, -1].groupby(level="seed").sum())


@measure("comparison")
def cost(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Gradients of a step."""
    return {key(method): Estimate(work) for method, work in gradients(rows).items()}


@measure("comparison")
def runs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Runs of case comparison, and those that diverged."""
    return _runs(rows, "comparison")


def _runs(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    flags = rows[(rows.case == case) & (rows.metric == "diverged")].value
    return {"runs": Estimate(len(flags)), "diverged": Estimate(flags.sum())}


@measure("rates")
def rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method the rates of networks and tables with the least mean excess, that excess, whether both rates lie inside
    their ranges, and the least excess half a decade away along one of the ranges (_next); of how many methods both are
    inside; runs, and those that diverged.
    """
    found, insides = {}, []
    for method, table in trials(rows).items():
        lr, table_lr = table.stack().idxmin()
        i, j = table.index.get_loc(lr), table.columns.get_loc(table_lr)
        around = np.pad(table.to_numpy(), 1, constant_values=np.inf)[i : i + 3, j : j + 3]  # the best is in the middle
        values = {"networks": lr, "tables": table_lr, "best": around[1, 1], "next": min(*around[::2, 1], *around[1, ::2])}
        insides.append(0 < i < len(table.index) - 1 and 0 < j < len(table.columns) - 1)
        found |= {f"{key(method)}_{name}": Estimate(value) for name, value in {**values, "inside": insides[-1]}.items()}
    return found | {"inside": Estimate(sum(insides), n=len(insides))} | _runs(rows, "rates")


@measure("rates")
def trial_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every pair of rates: mean excess over the seeds, in millinats."""
    lines = []
    for method, table in trials(rows).items():
        for (lr, table_lr), value in table.stack().items():
            lines.append({"Method": method, "Networks": f"{lr:g}", "Tables": f"{table_lr:g}", "Excess": number(value, 4)})
    return pd.DataFrame(lines)


@measure("comparison")
def methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method: excess, accuracy, distance to the teacher's, cost."""
    names = list(final(rows, "accuracy"))
    found, loss, price = accuracy(rows), excess(rows), cost(rows)
    lines = [
        {
            "Method": name,
            "Excess": interval(loss[key(name)], fixed),
            "Accuracy, %": interval(found[key(name)], fixed),
            "Below the best, points": interval(found[f"{key(name)}_below"], fixed, digits=3),
            "Gradients a step": fixed(price[key(name)]),
        }
        for name in names
    ]
    return pd.DataFrame(lines)


@measure("comparison")
def comparisons(rows: pd.DataFrame) -> pd.DataFrame:
    """The declared comparisons of accuracy and of excess, each metric with its own adjustment."""
    lines = []
    for metric, unit, digits, margin, sign in (("accuracy", "points", 3, GAIN, 1), ("excess", "millinats", 2, 0, -1)):
        for name, found in comparison.compare(_family(rows, metric), margin, sign).items():
            line = {"Of": f"{metric}, {unit}", "AdaHessian + Adagrad less": COMPARED[name]}
            line["Difference"] = interval(found.difference, fixed, digits=digits)
            lines.append(line | {"p (Holm)": number(found.holm, 2), "Word": found.word})
    return pd.DataFrame(lines)


@measure("comparison")
def needs(rows: pd.DataFrame) -> pd.DataFrame:
    """What SOUGHT points of accuracy need: the spread of a pair, seeds, and the power here."""
    scatter, seeds, here = spreads(rows), n_needed(rows), power_here(rows)
    lines = [
        {
            "AdaHessian + Adagrad less": other,
            "Spread of a difference, points": interval(scatter[name], digits=2),
            "Seeds needed": interval(seeds[name], digits=2),
            f"Power with {seeds[name].n}": interval(here[name], fixed),
        }
        for name, other in COMPARED.items()
    ]
    return pd.DataFrame(lines)
