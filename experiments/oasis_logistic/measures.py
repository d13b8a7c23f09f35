"""Medians over seeds with their intervals; a miss is infinite. Where of two methods both missed, they are not compared.

A method is within a factor of another on a problem where the whole interval of the median ratio is. Work is counted in
gradients over all examples (names.PRICES).
"""

import numpy as np
import pandas as pd
import scipy

from secondlook.study.comparison import simultaneous
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, median, share
from secondlook.study.text import interval, key, number

from .names import QUASI_NEWTON, TUNED
from .selections import (
    CONSTANTS,
    METHODS,
    STOCHASTIC,
    against_gd,
    at_the_end,
    best,
    hardness,
    level_of,
    levels,
    problems,
    ratio,
    until,
    work,
    wrong,
)

LIMIT = 2.0  # the factor that still counts as no need of tuning
SHOWN = (1e-2, 1e-4, 1e-6, 1e-8)
RIVALS = ("GD", "AdGD", "Adam", "AdaHessian", QUASI_NEWTON)
BATCH_RIVALS = ("GD", "Adam", "AdaHessian")
UNTUNED_BATCH = ("OASIS", "OASIS, same batch", "AdGD", "AdGD, same batch")


def _cell(values, digits: int = 3) -> str:
    """A median as tables show it."""
    found = np.median(np.asarray(values, dtype=float))
    return "–" if not np.isfinite(found) else number(found, digits)


def _compared(spent: pd.DataFrame, method: str, rivals) -> dict[str, Estimate]:
    """Median ratio of `method` to each rival on each problem. Of each rival: on how many problems they can be compared (one of
    the two arrives from more than half of the seeds), on how many of these `method` is within LIMIT, and on how many ahead."""
    found = {}
    for rival in rivals:
        estimates = []
        for problem, part in spent.groupby(level="problem", sort=False):
            values = ratio(part[method], part[rival])
            found[key(problem, rival)] = median(values) if len(values) else Estimate(np.nan, n=0)
            estimates += [found[key(problem, rival)]] if len(values) > len(part) / 2 else []
        within = sum(e.within(0, LIMIT) for e in estimates)
        ahead = sum(e.ends[1] < 1 for e in estimates)
        name = key(rival)
        found |= {f"{name}_compared": Estimate(len(estimates)), f"{name}_within": Estimate(within, n=len(estimates))}
        found |= {f"{name}_ahead": Estimate(ahead, n=len(estimates))}
    return found


@measure("deterministic", "fresh")
def worst(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Epochs of untuned OASIS over those of tuned gradient descent: the problem with the largest median ratio, its interval
    simultaneous over all problems that are compared; see `against_gd`. `seeds`: how many would bring its upper end to LIMIT, or
    nan where it is not below that in the median; by the normal law of a median, from the spread of the ratios' logarithms."""
    tables = [part for _, part in against_gd(rows).groupby(level="problem")]
    ratios = [values for part in tables if len(values := ratio(part["OASIS"], part["GD"]))]
    if not ratios:
        return {"gd": Estimate(np.nan), "seeds": Estimate(np.nan)}
    level = simultaneous(len(ratios))
    largest = max(ratios, key=np.median)
    found = median(largest, level)
    if not (0 < found.value < LIMIT and len(largest) > 1 and np.isfinite(largest).all()):
        return {"gd": found, "seeds": Estimate(np.nan)}
    z, spread = scipy.special.ndtri((1 + level) / 2), np.log(largest).std(ddof=1)
    return {"gd": found, "seeds": Estimate(np.ceil(np.pi / 2 * (z * spread / np.log(LIMIT / found.value)) ** 2))}


@measure("times")
def pair_seconds(rows: pd.DataFrame) -> Estimate:
    """Median seconds of OASIS and of gradient descent together until both are at the target, on the slowest problem."""
    taken = until(rows, "times", metric="seconds")[["OASIS", "GD"]].sum(axis=1)
    return Estimate(taken[np.isfinite(taken)].groupby(level="problem").median().max())


@measure("deterministic")
def epochs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Median epochs to the target on every problem: cancer_oasis."""
    spent = until(rows, "deterministic")
    groups = spent.groupby(level="problem")
    return {key(problem, method): median(part[method]) for problem, part in groups for method in METHODS}


@measure("deterministic")
def oasis(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Epochs of untuned OASIS over those of others, and counts: cancer_gd, gd_within; of gradient descent see `against_gd`."""
    return _compared(until(rows, "deterministic"), "OASIS", RIVALS) | _compared(against_gd(rows), "OASIS", ["GD"])


@measure("deterministic")
def oasis_work(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same in work."""
    return _compared(work(until(rows, "deterministic")), "OASIS", RIVALS)


def _arrivals(spent: pd.DataFrame) -> dict[str, Estimate]:
    """On how many problems each method arrives from more than half of the seeds; and less gradient descent's number (_more).
    The ends count the problems on which the interval of that share, simultaneous over problems, is above a half or holds it."""
    there, found = np.isfinite(spent).groupby(level="problem"), {}
    for method in spent:
        shares = [share(hits, simultaneous(len(there))) for _, hits in there[method]]
        ends = [sum(of(e) > 0.5 for e in shares) for of in (lambda e: e.value, lambda e: e.low, lambda e: e.high)]
        found[key(method)] = Estimate(*ends, n=len(shares))
    gd = found["gd"]
    more = {f"{name}_more": Estimate(e.value - gd.value, e.low - gd.high, e.high - gd.low, n=e.n) for name, e in found.items()}
    return found | more


@measure("deterministic")
def arrivals(rows: pd.DataFrame) -> dict[str, Estimate]:
    """With all examples: see `_arrivals`."""
    return _arrivals(until(rows, "deterministic"))


@measure("deterministic")
def lowest(rows: pd.DataFrame) -> Estimate:
    """The least gap of any run with full gradients: no method has found a lower minimum than Newton's."""
    ends = at_the_end(rows, "deterministic")
    return Estimate(ends.min().min(), n=ends.size)


@measure("batches")
def stochastic(rows: pd.DataFrame) -> dict[str, Estimate]:
    """With mini-batches, epochs of the untuned methods over those of others, and counts: oasis_gd_within,
    oasis_same_batch_gd_within."""
    spent, found = until(rows, "batches"), {}
    for method in UNTUNED_BATCH:
        found |= {f"{key(method)}_{name}": value for name, value in _compared(spent, method, BATCH_RIVALS).items()}
    return found


@measure("batches")
def gaps(rows: pd.DataFrame) -> dict[str, Estimate]:
    """With mini-batches, the median gap at the end: cancer_oasis."""
    groups = at_the_end(rows, "batches").groupby(level="problem")
    return {key(problem, method): median(part[method]) for problem, part in groups for method in STOCHASTIC}


@measure("batches")
def batch_arrivals(rows: pd.DataFrame) -> dict[str, Estimate]:
    """With mini-batches: see `_arrivals`."""
    return _arrivals(until(rows, "batches"))


@measure(cases={"network": "network", "network_batches": "network_batches"})
def network(rows: pd.DataFrame, case: str) -> dict[str, Estimate]:
    """On the network, median epochs of OASIS, in each of its forms, over those of gradient descent at its best rate (oasis), by
    the seeds of which one arrives, with intervals that hold for both regimes at once; the share of seeds of which each method
    arrives (oasis_arrives), and its median gap at the end (oasis_gap)."""
    spent, ends = until(rows, case), at_the_end(rows, case)
    found = {}
    for method in spent:
        name, values = key(method), ratio(spent[method], spent["GD"])
        found[name] = median(values, simultaneous(2)) if len(values) else Estimate(np.nan, n=0)
        found |= {f"{name}_arrives": share(np.isfinite(spent[method])), f"{name}_gap": median(ends[method])}
    return found


def _costs(rows: pd.DataFrame, method: str, constant: str) -> pd.DataFrame:
    """Median epochs with a wrong constant over those with the right one: one line a problem, one column a factor; nan where
    both missed."""
    lines = {}
    for problem in problems(rows, "constants"):
        table = wrong(rows, problem, method, constant, level_of(rows, problem))
        with np.errstate(invalid="ignore"):
            lines[problem] = table.median() / table[1.0].median()
    return pd.DataFrame(lines).T


def _varied(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Method and constant of everything that case constants varies."""
    return {"AdGD": ("AdGD", "lr")} | {m: (m, "lr") for m in TUNED} | {f"OASIS {c}": ("OASIS", c) for c in CONSTANTS}


@measure("constants")
def wrong_by(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What a constant costs that is wrong by 10 or 100 times, either way: the worst ratio of medians over problems
    (oasis_lr_10_worst), on how many (_within) and what share of them (_share) it is within LIMIT."""
    found = {}
    for name, (method, constant) in _varied(rows).items():
        costs = _costs(rows, method, constant)
        for by in (10, 100):
            either = costs[[c for c in costs if c in (by, 1 / by)]].dropna(how="all").max(axis=1)
            n, within = len(either), (either <= LIMIT).sum()
            found[f"{key(name)}_{by}_worst"] = Estimate(either.max(), n=n)
            found[f"{key(name)}_{by}_within"] = Estimate(within, n=n)
            found[f"{key(name)}_{by}_share"] = Estimate(within / max(n, 1), n=n)
    return found


@measure("constants")
def worst_cost(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Epochs of OASIS with a constant ten times wrong over those with the right one, from the same seed: of all problems, both
    ways, the largest median, and the largest lower and upper end."""
    found = {}
    for constant in CONSTANTS:
        tables = [wrong(rows, p, "OASIS", constant, level_of(rows, p)) for p in problems(rows, "constants")]
        ratios = [ratio(table[by], table[1.0]) for table in tables for by in (0.1, 10)]
        each = [median(values) for values in ratios if len(values)]
        value, low, high = map(max, *((e.value, *e.ends) for e in each)) if len(each) > 1 else (np.nan,) * 3
        found[constant] = Estimate(value, low, high, min((e.n for e in each), default=0))
    return found


@measure("constants")
def costs(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same ratio on each problem and for each factor: sparse_1e4_oasis_alpha_x10, _x0_1."""
    found = {}
    for name, (method, constant) in _varied(rows).items():
        table = _costs(rows, method, constant)
        for problem, line in table.iterrows():
            found |= {f"{key(problem, name)}_{key(f'x{by:g}')}": Estimate(value) for by, value in line.items()}
    return found


@measure("times")
def seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of OASIS to the target over those of others, medians over rounds, and counts."""
    return _compared(until(rows, "times", metric="seconds"), "OASIS", RIVALS)


@measure("times")
def step_seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of an epoch, which is a step, over those of GD, by runs that arrive at 1e-1."""
    taken = until(rows, "times", 1e-1, "seconds") / until(rows, "times", 1e-1)
    ratios = {method: ratio(taken[method], taken["GD"]) for method in METHODS}
    return {key(m): median(values) if len(values) else Estimate(np.nan, n=0) for m, values in ratios.items()}


@measure("problems")
def conditions(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Condition number at the minimum, and of |H| scaled by its diagonal (_scaled), medians; the largest norm of a gradient at
    a minimum (gradient)."""
    plain, scaled = hardness(rows, "condition"), hardness(rows, "scaled condition")
    found = {key(problem): median(plain[problem]) for problem in plain}
    found |= {f"{key(problem)}_scaled": median(scaled[problem]) for problem in scaled}
    gradients = hardness(rows, "gradient")
    return found | {"gradient": Estimate(gradients.max().max(), n=gradients.size)}


@measure("rates", "batch_rates")
def inside(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How many of the chosen rates lie inside their range."""
    there = [case for case in ("rates", "batch_rates", "network_rates", "network_batch_rates") if case in set(rows.case)]
    found = {case: best(rows, case).inside for case in there}
    return {case: Estimate(flags.sum(), n=len(flags)) for case, flags in found.items()}


@measure("problems")
def condition_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How hard the problems are."""
    metrics = {"condition at 0": "At 0", "condition": "At the minimum", "scaled condition": "Scaled by its diagonal"}
    tables = {title: hardness(rows, metric) for metric, title in metrics.items()}
    return pd.DataFrame(
        [{"Problem": p, **{t: _cell(table[p], 2) for t, table in tables.items()}} for p in problems(rows, "problems")]
    )


@measure("deterministic")
def epochs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Median epochs to the target."""
    spent = until(rows, "deterministic")
    ratios = _compared(against_gd(rows), "OASIS", ["GD"])
    lines = []
    for problem in problems(rows, "deterministic"):
        part, name = spent.loc[problem], key(problem, "GD")
        against = interval(ratios[name], digits=2) if ratios[name].n else "–"
        lines.append({"Problem": problem, **{m: _cell(part[m]) for m in METHODS}, "OASIS / GD": against})
    return pd.DataFrame(lines)


@measure("deterministic")
def levels_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Median epochs to each of SHOWN, for the methods of most interest."""
    there = [level for level in SHOWN if level in levels(rows, "deterministic")]
    tables = {level: until(rows, "deterministic", level) for level in there}
    lines = []
    for problem in problems(rows, "deterministic"):
        line = {"Problem": problem}
        for method in ("OASIS", "AdGD", "GD", "Adam", "AdaHessian", QUASI_NEWTON):
            line[method] = " / ".join(_cell(tables[level].loc[problem][method]) for level in there)
        lines.append(line)
    return pd.DataFrame(lines)


@measure("constants")
def constants_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Median epochs with wrong constants."""
    lines = []
    for problem in problems(rows, "constants"):
        level = level_of(rows, problem)
        for method, constant in _varied(rows).values():
            table = wrong(rows, problem, method, constant, level)
            what = CONSTANTS[constant] if method == "OASIS" else "first rate" if method == "AdGD" else "rate"
            cells = {f"x {by:g}": _cell(table[by]) for by in table}
            lines.append({"Problem": problem, "Gap": number(level, 1), "Method": method, "Constant": what, **cells})
    return pd.DataFrame(lines)


@measure("batches")
def batches_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mini-batches: median epochs to the target, and the median gap at the end."""
    spent, ends = until(rows, "batches"), at_the_end(rows, "batches")
    return pd.DataFrame(
        [
            {"Problem": p, **{m: f"{_cell(spent.loc[p][m])} ({number(ends.loc[p][m].median(), 1)})" for m in STOCHASTIC}}
            for p in problems(rows, "batches")
        ]
    )


@measure("times")
def times_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Median milliseconds to the target."""
    taken = 1000 * until(rows, "times", metric="seconds")
    return pd.DataFrame([{"Problem": p, **{m: _cell(taken.loc[p][m], 2) for m in METHODS}} for p in problems(rows, "times")])
