"""Accuracy in per cent, differences in points: paired by seed, with t intervals; the cost of a run over SGD's.

Differences come in families: the six comparisons of a case, its variants, the drops of the others, those at equal work. A
family's intervals hold together and give the words, as in `secondlook.study.comparison`.
"""

import numpy as np
import pandas as pd

from secondlook.errors import Mistake
from secondlook.problems.published import REPLICATED, RUNS, TABLE_2, TABLE_8_ACCURACY
from secondlook.study import comparison
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean, median, paired, welch_published
from secondlook.study.text import fixed, interval, key, number

from .names import PACE, STARTS, every
from .selections import COMPARED, accuracies, at_equal_work, begun, by_factor, declared, epochs, totals, variants

DECADE = 10  # robustness is asked up to so many times the best rate, and down to as small a part of it
ROUNDED = 0.15  # relative difference of two multiples that count as the same: half a decade is a factor of 3 or of 10 / 3
MARGIN = 0.3  # points within which two accuracies count as the same
MARGINS = {"residual": 0.5, "residual_pilot": 0.5}  # where cases have one of their own


@measure(cases=("resnet20", "resnet32", "quick", "residual", "small", "small_tuned"))
def each(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Accuracy of each method after the last epoch and, with the ending _best, in the best."""
    last, best = accuracies(rows, case), accuracies(rows, case, best=True)
    found = {key(method): mean(last[method]) for method in last}
    return found | {f"{key(method)}_best": mean(best[method]) for method in best}


@measure(
    cases={
        "resnet20_differences": "resnet20",
        "resnet32_differences": "resnet32",
        "quick_differences": "quick",
        "residual_differences": "residual",
        "small_differences": "small",
        "small_tuned_differences": "small_tuned",
    }
)
def differences(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """The declared comparisons after the last epoch, and in the best one."""
    found = {}
    for ending, table in (("", accuracies(rows, case)), ("_best", accuracies(rows, case, best=True))):
        found |= {name + ending: found for name, found in comparison.differences(declared(table)).items()}
    return found


@measure()
def published(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The differences of the paper's Table 2, AdaHessian's accuracy less another's, by Welch: one family; and with the ending
    _n the runs of each method that would show MARGIN points, were their spreads the published ones."""
    family = {
        key(network, method): (found["AdaHessian"], found[method])
        for network, found in TABLE_2.items()
        for method in ("Adam", "AdamW", "SGD")
    }
    level = comparison.simultaneous(len(family))
    needed = {name: comparison.needed(MARGIN / np.hypot(a[1], b[1]), level) for name, (a, b) in family.items()}
    found = {name: welch_published(a, b, RUNS, level) for name, (a, b) in family.items()}
    return found | {f"{name}_n": Estimate(n) for name, n in needed.items()}


@measure()
def replicated(_: pd.DataFrame) -> dict[str, Estimate]:
    """AdaHessian's published accuracy on ResNet-110 less another's, by schedule, and the largest published deviation. The
    number of runs is not said, so that there is no interval."""
    found = {
        key(schedule, method): Estimate(table["AdaHessian"][0] - table[method][0])
        for schedule, table in REPLICATED.items()
        for method in ("SGD", "Adam", "Adam, small decay")
    }
    return found | {"deviation": Estimate(max(spread for table in REPLICATED.values() for _, spread in table.values()))}


@measure(
    cases={
        "residual_pilot_n_to_decide": "residual_pilot",
        "residual_n_to_decide": "residual",
        "quick_n_to_decide": "quick",
        "small_n_to_decide": "small",
        "small_tuned_n_to_decide": "small_tuned",
    }
)
def n_to_decide(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Seeds that would show the margin of the case, of each declared comparison and of each variant against every step."""
    table = accuracies(rows, case)
    families = [family for family in (declared(table), variants(table)) if family]
    return {name: n for family in families for name, n in comparison.n_to_decide(family, _margin(case)).items()}


def _margin(case: str) -> float:
    return MARGINS.get(case, MARGIN)


@measure(
    cases={
        "residual_seed_seconds": "residual",
        "residual_longer_seed_seconds": "residual_longer",
        "small_seed_seconds": "small",
        "small_tuned_seed_seconds": "small_tuned",
        "small_robustness_seed_seconds": "small_robustness",
    }
)
def seed_seconds(rows: pd.DataFrame, case: str) -> Estimate:
    """Seconds of training of all networks of a seed."""
    return mean(epochs(rows, case, "seconds").iloc[:, -1].groupby(level="seed").sum())


@measure("residual", "residual_longer")
def equal_work(rows: pd.DataFrame) -> dict[str, Estimate]:
    """AdaHessian's accuracy less another's after as much work, last epoch; with the ending _n the seeds that would show the
    margin, and with _work the gradient equivalents of the other's run over those of AdaHessian's."""
    table = at_equal_work(rows, "test_accuracy")
    work = at_equal_work(rows, "gradient_equivalents")
    family = {key(method): (table["AdaHessian"], table[method]) for method in table if method != "AdaHessian"}
    found = _decided(family, _margin("residual"))
    return found | {f"{key(m)}_work": median(work[m] / work["AdaHessian"]) for m in work if m != "AdaHessian"}


@measure("resnet20", "frequency")
def frequency_differences(rows: pd.DataFrame) -> dict[str, Estimate]:
    """A Hessian every k steps minus one at every step, best epoch as in the paper."""
    return over_every_step(rows, "resnet20", "frequency", best=True)


@measure(
    cases={
        "variant_differences": ("resnet20", "variants"),
        "quick_frequency_differences": ("quick", "quick_frequency"),
        "quick_absolute_differences": ("quick", "quick_absolute"),
        "residual_variant_differences": "residual",
        "small_variant_differences": "small",
        "small_tuned_variant_differences": "small_tuned",
    }
)
def over_every_step(rows: pd.DataFrame, *cases: str, best: bool = False) -> dict[str, Estimate]:
    """Every variant minus AdaHessian with a Hessian of the whole batch at every step, after the last epoch or in the best."""
    return comparison.differences(variants(accuracies(rows, *cases, best=best)))


@measure("quick")
def pace(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of an epoch of all optimisers side by side, the epochs that they allowed, and the seconds of a seed's runs."""
    found = rows[(rows.case == "quick") & rows.metric.isin([PACE, "epochs"])].groupby("metric").value
    if (found.nunique() > 1).any():
        raise Mistake("the runs of cifar10/quick have different numbers of epochs: they are no comparison")
    seconds, count = found.first()[PACE], found.first()["epochs"]
    return {"seconds": Estimate(seconds), "epochs": Estimate(count), "seed": Estimate(seconds * count)}


@measure(cases={"residual_cost": "residual", "small_cost": "small"})
def cost(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Seconds of a run's training over those of SGD's with the same seed, median."""
    table = totals(rows, "seconds", case)
    return {key(method): median(table[method].dropna()) for method in table if table[method].notna().any()}


@measure()
def divergences(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Runs that diverged, and all runs, of each case that there is."""
    flags = rows[rows.metric == "diverged"]
    runs = flags.groupby(["case", "method", "factor", "seed"]).value.max()
    counts = {case: runs[case] for case in runs.index.unique("case")}
    return {
        name: Estimate(value) for case, run in counts.items() for name, value in ((case, run.sum()), (f"{case}_runs", len(run)))
    }


@measure(cases=("rates", "quick_rates", "residual_rates", "small_rates", "small_fine_rates"))
def rates(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """Of each method: the factor with the best mean accuracy, the learning rate that it makes, whether it lies inside the
    range, and the drop: how far accuracy is below that of the best factor, in points, on average from a tenth to ten times that
    factor. For the others AdaHessian's drop minus theirs and, with the ending _n, the seeds that would show MARGIN points; and
    whether the methods' drops are over the same multiples of their best (centred)."""
    found, drops, multiples = {}, {}, {}
    rate = epochs(rows, case, "lr").max(axis=1)
    for method, table in by_factor(rows, case).items():
        best = table.mean().idxmax()
        around = table.loc[:, (table.columns / best).map(lambda multiple: 0.99 / DECADE <= multiple <= 1.01 * DECADE)]
        drops[method], multiples[method] = table[best] - around.mean(axis=1), around.columns / best
        values = {"factor": Estimate(best), "lr": Estimate(rate[method][best].iloc[0]), "best": mean(table[best])}
        values["inside"] = Estimate(table.columns.min() < best < table.columns.max())
        found |= {f"{key(method)}_{name}": value for name, value in values.items()}
        found[f"{key(method)}_drop"] = mean(drops[method])
    ours, theirs = multiples["AdaHessian"], [multiples[m] for m in ("SGD", "Adam", "AdamW")]
    centred = ends_a_decade_away(ours) and all(len(m) == len(ours) and np.allclose(m, ours, rtol=ROUNDED) for m in theirs)
    return found | _over_others(drops) | {"centred": Estimate(centred)}


def _over_others(drops: dict[str, pd.Series]) -> dict[str, Estimate]:
    """AdaHessian's drop minus that of each other, and with the ending _n the seeds that would show MARGIN points."""
    others = {f"over_{key(m)}": (drops["AdaHessian"], drop) for m, drop in drops.items() if m in ("SGD", "Adam", "AdamW")}
    return _decided(others, MARGIN)


def _decided(family: dict[str, tuple[pd.Series, pd.Series]], margin: float) -> dict[str, Estimate]:
    """The differences of a family, and with the ending _n the seeds that would show `margin`."""
    needed = comparison.n_to_decide(family, margin)
    return comparison.differences(family) | {f"{name}_n": n for name, n in needed.items()}


def ends_a_decade_away(multiples: pd.Index) -> bool:
    """Whether multiples of a rate, in order, go from a tenth to ten times it."""
    return bool(np.allclose((multiples[0], multiples[-1]), (1 / DECADE, DECADE), rtol=ROUNDED))


@measure("small_robustness")
def robustness(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method: the drop, how far accuracy is below that of factor 1, the rate that other seeds have chosen, in points,
    on average over all factors; whether all best factors lie inside the range. For the others AdaHessian's drop minus theirs,
    and with the ending _n the seeds that would show MARGIN points."""
    tables = by_factor(rows, "small_robustness")
    drops = {method: table[1.0] - table.mean(axis=1) for method, table in tables.items()}
    found = {f"{key(method)}_drop": mean(drop) for method, drop in drops.items()}
    inside = (table.columns.min() < table.mean().idxmax() < table.columns.max() for table in tables.values())
    found["inside"] = Estimate(all(inside))
    return found | _over_others(drops)


@measure(
    cases={
        "tuned": ("small", "small_rates"),
        "fine_tuned": ("small_tuned", "small_fine_rates"),
        "robustness_tuned": ("small_robustness", "small_fine_rates"),
        "residual_tuned": ("residual", "residual_rates"),
        "longer_tuned": ("residual_longer", "residual_rates"),
    }
)
def tuned(rows: pd.DataFrame, case: str, sweep: str) -> dict[str, Estimate]:
    """1 for each method of `case` whose learning rate is the best of `sweep`; of several factors on it, factor 1 counts."""
    chosen, rate = rates(rows, sweep), epochs(rows, case, "lr").max(axis=1).xs(1.0, level="factor")
    found = {key(method): rate[method].iloc[0] for method in by_factor(rows, sweep) if method in rate.index.unique("method")}
    return {name: Estimate(abs(lr / chosen[f"{name}_lr"].value - 1) < 1e-9) for name, lr in found.items()}


@measure("first_steps")
def first_steps(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method and start: the loss before any step, after one, after all and at most; |theta| before any and after all;
    medians over seeds. A run that diverged has infinite ones."""
    loss, size = begun(rows, "loss"), begun(rows, "size")
    found = {}
    for (method, gentle), losses in loss.groupby(level=["method", "gentle"]):
        name, sizes = key(method, STARTS[gentle]), size.loc[(method, gentle)]
        values = {"first": losses[0], "second": losses[1], "last": losses.iloc[:, -1], "peak": losses.max(axis=1)}
        values |= {"first_size": sizes[0], "last_size": sizes.iloc[:, -1]}
        found |= {f"{name}_{what}": median(each) for what, each in values.items()}
    return found


@measure("first_steps")
def first_steps_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as a table, with the range over several seeds."""
    found, methods = first_steps(rows), begun(rows, "loss").index.unique("method")
    names = {"Loss, first": "first", "second": "second", "largest": "peak", "last": "last"}
    names |= {"Norm of θ, first": "first_size", "at last": "last_size"}
    return pd.DataFrame(
        {"Method": method, "First epoch": start}
        | {column: _range(found[f"{key(method, start)}_{name}"]) for column, name in names.items()}
        for method in methods
        for start in STARTS.values()
    )


def _range(found: Estimate) -> str:
    """The median and, of several values, between which all lie."""
    low, high = map(number, found.ends)
    return number(found) if found.n == 1 else f"{number(found)} ({low} to {high})"


@measure()
def data(rows: pd.DataFrame) -> pd.DataFrame:
    """What each case that there is was trained on and where."""
    counts = rows[rows.metric.isin(["training images", "images to judge by"])]
    lines = []
    for (case, origin, device), table in counts.groupby(["case", "origin", "device"], sort=False):
        sizes = table.drop_duplicates("metric").set_index("metric").value.astype(int)
        known = epochs(rows, case, "lr")
        each = {"Networks": len(known), "Epochs": known.shape[1], "Device": device}
        lines.append({"Case": f"`{case}`", "Images": origin, **{k.capitalize(): int(v) for k, v in sizes.items()}, **each})
    return pd.DataFrame(lines)


@measure(
    cases={
        "resnet20_comparisons": "resnet20",
        "resnet32_comparisons": "resnet32",
        "quick_comparisons": "quick",
        "residual_comparisons": "residual",
        "small_comparisons": "small",
        "small_tuned_comparisons": "small_tuned",
    }
)
def comparisons(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """The declared comparisons as a table."""
    last, best = accuracies(rows, case), accuracies(rows, case, best=True)
    found, in_best = comparison.compare(declared(last), _margin(case)), comparison.differences(declared(best))
    lines = [
        {
            "First minus second": f"{a} − {b}",
            "Decay": decay,
            "Last epoch": interval(found[name].difference, fixed),
            "Best epoch": interval(in_best[name], fixed),
            "p (Holm)": number(found[name].holm, 2),
            "Word": found[name].word,
        }
        for name, (a, b, decay) in COMPARED.items()
    ]
    return pd.DataFrame(lines)


@measure(cases={"residual_methods": "residual", "small_methods": "small", "small_tuned_methods": "small_tuned"})
def methods(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """Every method of a case: rate, accuracy, cost."""
    last, best = accuracies(rows, case), accuracies(rows, case, best=True)
    rate = epochs(rows, case, "lr").max(axis=1)
    work, time = (totals(rows, metric, case) for metric in ("gradient_equivalents", "seconds"))
    lines = [
        {
            "Method": method,
            "lr": rate[method].iloc[0],
            "Last epoch, %": interval(mean(last[method]), fixed),
            "Best epoch, %": interval(mean(best[method]), fixed),
            "Work over SGD's": fixed(work[method].median()),
            "Time over SGD's": fixed(time[method].median()),
        }
        for method in last
    ]
    return pd.DataFrame(lines)


@measure("resnet20", "resnet32")
def paper_accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Best-epoch accuracy beside the paper's Table 2."""
    lines = []
    for case, (name, stated) in zip(("resnet20", "resnet32"), TABLE_2.items(), strict=True):
        best, last = accuracies(rows, case, best=True), accuracies(rows, case)
        for method in best:
            paper = "{:.2f} ± {:.2f}".format(*stated[method]) if method in stated else "–"
            here = {"Best epoch": interval(mean(best[method]), fixed), "Last epoch": interval(mean(last[method]), fixed)}
            lines.append({"Network": name, "Method": method, "Paper": paper, **here})
    return pd.DataFrame(lines)


@measure("resnet20", "frequency")
def paper_frequency(rows: pd.DataFrame) -> pd.DataFrame:
    """Best-epoch accuracy by the steps between two Hessians, beside Table 8."""
    best, time = accuracies(rows, "resnet20", "frequency", best=True), totals(rows, "seconds", "resnet20", "frequency")
    lines = [
        {
            "Hessian every": k,
            "Accuracy, paper": fixed(paper),
            "here": interval(mean(best[every(k)]), fixed),
            "Time over SGD's": fixed(time[every(k)].median()) if every(k) in time else "–",
        }
        for k, paper in TABLE_8_ACCURACY.items()
    ]
    return pd.DataFrame(lines)


@measure("precision")
def precision_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Fewer bits: accuracy less that of float32, and seconds of a run over its own."""
    last, time = accuracies(rows, "precision"), totals(rows, "seconds", "precision")
    lines = []
    for method in last:
        name, _, precision = method.partition(", ")
        change = interval(paired(last[method], last[name]), fixed) if precision else "–"
        lines.append(
            {
                "Method": name,
                "Precision": precision or "float32",
                "Accuracy, %": interval(mean(last[method]), fixed),
                "Less float32's, points": change,
                "Time over float32's": fixed((time[method] / time[name]).median()),
            }
        )
    return pd.DataFrame(lines)


@measure(
    cases={
        "rates_table": "rates",
        "quick_rates_table": "quick_rates",
        "residual_rates_table": "residual_rates",
        "small_rates_table": "small_rates",
        "small_fine_rates_table": "small_fine_rates",
        "small_robustness_table": "small_robustness",
    }
)
def by_rate(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """Mean accuracy after the last epoch by factor: all trials."""
    tables = by_factor(rows, case)
    means = pd.DataFrame({method: table.mean() for method, table in tables.items()})
    return means.map(fixed).rename_axis("Factor").reset_index()
