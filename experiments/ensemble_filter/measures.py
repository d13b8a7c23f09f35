"""The numbers that the claims and the section quote. Errors of filters are compared run by run, on the same truth and
observations, by their logarithms: a difference d of these is a factor exp(d), about d for a small one."""

import numpy as np
import pandas as pd

from secondlook.study.comparison import Compared, compare, n_to_decide, simultaneous
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean, median
from secondlook.study.text import fixed, interval, key, number, percent, percent_interval

from .selections import (
    ESTIMATES,
    FILTERS,
    METHODS,
    NETWORKS,
    OPTIMISERS,
    best,
    cells,
    compared,
    errors,
    followed,
    tracked,
    trained,
    updated,
)

SMALL = 0.02  # a difference of errors that does not matter, as a fraction
LOST = 2.0  # times the median error: a run that has lost the truth for a while


def _hull(found: list[Estimate]) -> Estimate:
    """The value that is farthest from the middle of all, and an interval that holds the intervals of all."""
    middle = np.mean([each.value for each in found])
    value = max((each.value for each in found), key=lambda x: abs(x - middle))
    return Estimate(value, min(each.ends[0] for each in found), max(each.ends[1] for each in found), found[0].n)


@measure("posterior")
def bias(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the updated ensemble's mean, in roots of the expected conditional variance, with intervals that hold together over
    priors and observations: for each method, and for it and each prior, the largest, with its sign; `_all`: the hull of all."""
    found = updated(rows, "bias")
    result = {}
    for method in METHODS:
        own = found.xs(method, level="method")
        each = {at: mean(values, simultaneous(len(own))) for at, values in own.iterrows()}
        result[key(method, "all")] = _hull(list(each.values()))
        for prior in (None, *own.index.unique("prior")):
            within = [estimate for at, estimate in each.items() if prior in (None, at[0])]
            result[key(method, prior or "")] = max(within, key=lambda estimate: abs(estimate.value))
    return {name.rstrip("_"): estimate for name, estimate in result.items()}


@measure("posterior")
def variance(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the updated ensemble, over the expected conditional variance: for each method the hull over priors of simultaneous
    intervals, and for it and each prior its own. It does not depend on the observation."""
    found = updated(rows, "variance").groupby(["method", "prior"]).mean()
    result = {}
    for method in METHODS:
        own = found.loc[method]
        each = {prior: mean(values, simultaneous(len(own))) for prior, values in own.iterrows()}
        result |= {key(method): _hull(list(each.values()))} | {key(method, at): estimate for at, estimate in each.items()}
    return result


@measure("posterior")
def posterior(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Var(X | y) over its expectation: the least and the largest over priors and observations."""
    found = updated(rows, "posterior").mean(axis=1)
    return {"least": Estimate(found.min()), "largest": Estimate(found.max())}


@measure("dimensions")
def phi_error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of estimates of phi, by prior and method: in the fewest dimensions with the fewest members (`least`), and in the most
    with the most (`most`)."""
    found = errors(rows)
    ends = {"least": min, "most": max}
    return {
        key(prior, name, method): mean(found.loc[prior, end(found.index.unique(1)), end(found.index.unique(2)), method])
        for prior in found.index.unique("prior")
        for method in found.index.unique("method")
        for name, end in ends.items()
    }


@measure("dimensions")
def error_ratio(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Error of the network, chosen by component, over that of the better of linear function and likelihoods, in the most
    dimensions, with the fewest members (`least`) and the most; simultaneous over priors and ensemble sizes."""
    found = errors(rows).xs(max(errors(rows).index.unique("dimension")), level="dimension")
    priors, sizes = found.index.unique("prior"), found.index.unique("members")
    result = {}
    for prior in priors:
        for name, members in (("least", min(sizes)), ("most", max(sizes))):
            own = found.loc[prior, members]
            rival = own.loc[own.loc[["linear", "likelihood"]].mean(axis=1).idxmin()]
            result[key(prior, name)] = mean(own.loc["chosen"] / rival, simultaneous(len(priors) * len(sizes)))
    return result


@measure("dimensions")
def error_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors of phi by prior, dimension and ensemble size."""
    found = errors(rows).mean(axis=1)
    lines = []
    for (prior, d, members), table in found.groupby(["prior", "dimension", "members"]):
        shown = {label: number(table[prior, d, members, name], 2) for name, label in (ESTIMATES | NETWORKS).items()}
        lines.append({"Prior": prior, "Dimension": d, "Members": members, **shown})
    return pd.DataFrame(lines)


def _gains(rows: pd.DataFrame, rival: str) -> dict[tuple[str, int], Compared]:
    """log error of the rival less that of the learnt filter: a family over systems and ensemble sizes."""
    found = np.log(tracked(rows))
    return compare({at: (found.loc[(*at, rival)], found.loc[(*at, "learnt")]) for at in cells(rows)}, SMALL)


@measure("tracking", each={"gain": "EnKF", "gain_over_etkf": "ETKF"})
def gain(rows: pd.DataFrame, rival: str) -> dict[str, Estimate]:
    """By how much the learnt filter's error is lower, as a fraction: 1 - exp(-d) with d from `_gains`."""
    return {key(*at): _fraction(found.difference) for at, found in _gains(rows, rival).items()}


def _fraction(difference: Estimate) -> Estimate:
    value, low, high = (1 - np.exp(-x) for x in (difference.value, *difference.ends))
    return Estimate(value, low, high, difference.n, difference.p)


@measure("tracking")
def typical_gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same over the ensemble Kalman filter in the median run: what a run that lost the truth does not move."""
    found = np.log(tracked(rows))
    return {key(*at): _fraction(median(found.loc[(*at, "EnKF")] - found.loc[(*at, "learnt")])) for at in cells(rows)}


@measure("tracking")
def lost(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Runs whose error is more than LOST times the filter's median one."""
    found = tracked(rows)
    counts = found.gt(LOST * found.median(axis=1), axis=0).sum(axis=1)
    return {key(*at): Estimate(count, n=found.shape[1]) for at, count in counts.items()}


@measure("tracking")
def runs_needed(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Runs that would show a difference of SMALL to the ensemble Kalman filter."""
    found = np.log(tracked(rows))
    family = {at: (found.loc[(*at, "EnKF")], found.loc[(*at, "learnt")]) for at in cells(rows)}
    return {key(*at): needed for at, needed in n_to_decide(family, SMALL).items()}


@measure("tracking")
def rmse(rows: pd.DataFrame) -> dict[str, Estimate]:
    """By system, ensemble size and filter."""
    return {key(*at): mean(values) for at, values in tracked(rows).iterrows()}


@measure("tracking")
def network_used(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of components that took the network, by system and ensemble size."""
    return {key(*at[:2]): mean(values) for at, values in tracked(rows, "used").iterrows()}


@measure("tracking")
def seconds_ratio(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Processor's seconds of a cycle of the learnt filter over those of the ensemble Kalman filter; least and largest."""
    found = tracked(rows, "seconds").mean(axis=1)
    ratios = [found[(*at, "learnt")] / found[(*at, "EnKF")] for at in cells(rows)]
    return {"least": Estimate(min(ratios)), "largest": Estimate(max(ratios))}


@measure("tracking")
def run_seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Processor's seconds of a run of the learnt and of the ensemble Kalman filter together."""
    found = tracked(rows, "seconds").mean(axis=1)
    steps, runs = rows[rows.case == "tracking"].step.max(), tracked(rows).shape[1]
    return {key(*at): Estimate(sum(found[(*at, m)] for m in ("EnKF", "learnt")) * steps / runs) for at in cells(rows)}


@measure("tracking")
def tracking_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors of all filters, and what the learnt one gains."""
    found, spread, used = tracked(rows), tracked(rows, "spread"), network_used(rows)
    gains, over = _gains(rows, "EnKF"), _gains(rows, "ETKF")
    lines = []
    for at in cells(rows):
        shown = {label[0].upper() + label[1:]: fixed(found.loc[(*at, name)].mean(), 3) for name, label in FILTERS.items()}
        line = {"System": at[0], "Members": at[1], **shown, "Its spread": fixed(spread.loc[(*at, "learnt")].mean(), 2)}
        line["Network used"] = percent(used[key(*at)])
        line["Lower than Kalman's by"] = f"{percent_interval(_fraction(gains[at].difference), 1)}, {gains[at].word}"
        line["Than square root's by"] = f"{percent_interval(_fraction(over[at].difference), 1)}, {over[at].word}"
        lines.append(line)
    return pd.DataFrame(lines)


@measure("tuning")
def inside(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How many of the chosen inflations, and of the radii where there is a choice, lie inside what was tried."""
    found = best(rows)
    chosen = {name: found[f"{name} inside"].dropna() for name in ("inflation", "radius")}
    return {name: Estimate(inside.sum(), n=len(inside)) for name, inside in chosen.items()}


@measure("tuning")
def trials_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every trial: the mean error of its runs."""
    found = followed(rows, "tuning").mean(axis=1).rename("Error").reset_index()
    return found.assign(Error=found.Error.map(lambda x: fixed(x, 3)))


def _optimisers(rows: pd.DataFrame) -> dict[tuple[str, int], Compared]:
    """log error with Adam less that with each of the others, at each amount of work."""
    found = np.log(compared(rows))
    works = found.index.unique("work")
    return compare({(o, w): (found.loc["Adam", w], found.loc[o, w]) for o in OPTIMISERS[1:] for w in works}, SMALL)


@measure("optimisers")
def optimiser_gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """By how much the error is lower than with Adam at equal work, as a fraction: at the least, the middle and the most."""
    works = sorted({work for _, work in _optimisers(rows)})
    names = dict(zip(works, ("least", "middle", "most"), strict=True))
    return {key(o, names[w]): _fraction(found.difference) for (o, w), found in _optimisers(rows).items()}


@measure("optimisers")
def optimiser_error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """By optimiser and amount of work, as above."""
    found = compared(rows)
    names = dict(zip(sorted(found.index.unique("work")), ("least", "middle", "most"), strict=True))
    return {key(o, names[w]): mean(values) for (o, w), values in found.iterrows()}


@measure("optimisers")
def optimisers_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors by optimiser and work, held-out loss, and the comparison with Adam."""
    found, losses, words = compared(rows), compared(rows, "held_out"), _optimisers(rows)
    lines = []
    for optimiser in OPTIMISERS:
        for work in sorted(found.index.unique("work")):
            line = {
                "Optimiser": optimiser,
                "Gradients": work,
                "Error": interval(mean(found.loc[optimiser, work]), fixed, digits=3),
            }
            line["Held-out loss"] = interval(mean(losses.loc[optimiser, work]), fixed, digits=3)
            if optimiser != "Adam":
                versus = words[optimiser, work]
                line["Lower than with Adam by"] = f"{percent_interval(_fraction(versus.difference), 1)}, {versus.word}"
            lines.append(line)
    return pd.DataFrame(lines).fillna("")


@measure("rates")
def rates_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every trial of a rate: held-out loss, and error, by which it is chosen."""
    losses, found = (trained(rows, "rates", metric).mean(axis=1) for metric in ("held_out", "rmse"))
    return pd.DataFrame(
        [
            {
                "Optimiser": o,
                "Rate": lr,
                "Gradients": work,
                "Held-out loss": fixed(loss, 3),
                "Error": fixed(found[o, lr, work], 3),
            }
            for (o, lr, work), loss in losses.items()
        ]
    )
