"""The numbers that the claims and the section quote: what placements send, hold and take, the model, the way to the target.

Keys: p4_w2 is two of four ranks with the inverses of a layer. What is K-FAC's is that of K-FAC with factors at every step;
every_10_ before a key, with factors every 10 steps.

Time to the target is epochs times the time of a step. Epochs are exact, and their ratio, K-FAC's over SGD's, is a median over
many seeds; the ratio of the times of a step is the geometric mean over the rounds of case training. Six intervals, for each of
the two variants that of the ratio of epochs and those of a step on one process and on two, hold together with 95 %; so do the
products of their ends.
"""

import numpy as np
import pandas as pd

from secondlook.study import comparison
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean, median
from secondlook.study.text import fixed, interval, key, number

from .methods import METHODS
from .selections import (
    DEVICES,
    KINDS,
    NETWORKS,
    PREFIX,
    PUBLISHED,
    RHYTHM,
    arrivals,
    best_rates,
    counted,
    divisors,
    efficiency,
    epoch_ratios,
    exact,
    expected,
    fitted,
    on_paper,
    step_milliseconds,
    trials,
)

MIB = 2**20
PROCESSES = (1, 2)  # of case training
TOGETHER = comparison.simultaneous(len(PREFIX) * (1 + len(PROCESSES)))  # level of the ratios of epochs and of steps


@measure()
def settings(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the text says of the extrapolation."""
    return {
        "devices": exact(DEVICES),
        "factors_every": exact(RHYTHM[0]),
        "inverses_every": exact(RHYTHM[1]),
    }


@measure("steps")
def formula(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Bytes counted and held, against the closed form: the largest difference, and how many numbers were compared."""
    found, closed = counted(rows), expected(rows)
    names = [*KINDS, *(f"held {kind}" for kind in KINDS[:2])]
    differences = (found[names] - closed[names]).abs().to_numpy()
    return {"difference": exact(differences.max()), "compared": exact(differences.size)}


@measure("steps")
def fit(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The fitted coefficients, and the relative residuals of the model: median of their size, and largest."""
    machine, table = fitted(rows)
    residuals = (table.model / table.value - 1).abs()
    rates = {"gradient": machine.gradient, "factors": machine.factors, "latency": machine.message}
    rates |= {"nanoseconds_operation": 1e6 * machine.operation, "nanoseconds_byte": 1e6 * machine.byte}
    errors = {"median": residuals.median(), "largest": residuals.max(), "points": len(table)}
    return {name: exact(value) for name, value in (rates | errors).items()}


@measure("steps")
def memory(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Bytes of factors and inverses on the rank with most, over those on one process."""
    table = counted(rows).assign(held=lambda t: t["held factors"] + t["held inverses"])
    whole = table[table.ranks == 1].held.iloc[0]
    return {f"p{r.ranks}_w{round(r.share * r.ranks)}": exact(r.held / whole) for r in table.itertuples()}


@measure("steps")
def traded(rows: pd.DataFrame) -> dict[str, Estimate]:
    """On the most processes, one owner for each layer against inverses everywhere: what the rank with most holds, as a ratio;
    bytes of results that all send at a step with one owner, and with inverses everywhere."""
    table = counted(rows).assign(held=lambda t: t["held factors"] + t["held inverses"])
    most = table[table.ranks == table.ranks.max()].sort_values("share")
    owner, everywhere = most.iloc[0], most.iloc[-1]
    sent = {"results_owner": owner.directions, "results_everywhere": everywhere.directions}
    return {name: exact(value) for name, value in {"held": owner.held / everywhere.held, **sent}.items()}


@measure()
def paper(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The model on DEVICES devices: a step of K-FAC over one of SGD, by share; the GiB held by the rank with most; the part of
    the steps that K-FAC must save for the published saving of time, at the least ratio."""
    found = {}
    for name in NETWORKS:
        ratios = {w: _ratio(name, w) for w in divisors(DEVICES)}
        gib = {w: _held(name, w) for w in (1, DEVICES)}
        cheapest = min(ratios, key=ratios.get)
        values = {"owner": ratios[1], "everywhere": ratios[DEVICES], "least": ratios[cheapest], "workers": cheapest}
        values |= {"owner_gib": gib[1], "everywhere_gib": gib[DEVICES]}
        values |= {
            f"needed_{end}": 1 - (1 - saved) / ratios[cheapest] for end, saved in zip(("low", "high"), PUBLISHED, strict=True)
        }
        found |= {f"{key(name)}_{what}": exact(value) for what, value in values.items()}
    return found


def _ratio(name: str, workers: int) -> float:
    sgd, kfac, _ = on_paper(name, workers)
    return kfac / sgd


def _held(name: str, workers: int) -> float:
    held = on_paper(name, workers)[2].held()
    return 4 * max(map(sum, zip(held["factors"], held["inverses"], strict=True))) / 2**30


@measure()
def scaling(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Scaling efficiency on DEVICES, of SGD (_sgd) and of K-FAC at its best placement (_k_fac); and the least by which K-FAC's
    is above SGD's on 2, 4, ... DEVICES devices (_least)."""
    found = {}
    for name in NETWORKS:
        sgd, kfac = efficiency(name)
        values = {"sgd": sgd[-1], "k_fac": kfac[-1], "least": min(kfac[1:] - sgd[1:])}
        found |= {f"{key(name)}_{what}": exact(value) for what, value in values.items()}
    return found


@measure("rates", "epochs")
def tuned(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The best learning rates of case rates, and how many have exactly the same mean epochs at most (_alike); whether case
    epochs uses those of SGD and of a variant of K-FAC, and how many of the two are at an end of the list; the target."""
    best = best_rates(rows)
    used = rows[rows.case == "epochs"].groupby("method").lr.first()
    tried = rows[rows.case == "rates"].lr
    found = {key(method): exact(rate) for method, rate in best.items()}
    means = trials(rows).epochs
    found |= {f"{key(m)}_alike": exact(means[m].value_counts().max()) for m in METHODS}
    for variant, prefix in PREFIX.items():
        pair = ("SGD", variant)
        found[f"{prefix}used"] = exact(all(used[m] == best[m] for m in pair))
        found[f"{prefix}at_edge"] = exact(sum(best[m] in (tried.min(), tried.max()) for m in pair))
    return found | {"rates": exact(tried.nunique()), "target": exact(rows[rows.case == "epochs"].target.iloc[0])}


@measure("rates")
def trial_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every rate: mean epochs to the target over the seeds, infinite where one missed, and mean last accuracy."""
    named = {"method": "Method", "lr": "Rate", "epochs": "Epochs", "accuracy": "Last accuracy"}
    return trials(rows).reset_index().rename(columns=named).map(lambda x: x if isinstance(x, str) else number(x, 4))


@measure("epochs")
def reach(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each method median epochs to the target, how many runs missed it (_missed), and the median last accuracy (_last)."""
    found = {}
    for method, runs in arrivals(rows, "epochs").groupby(level="method"):
        found[key(method)] = median(runs.epochs)
        found[f"{key(method)}_missed"] = Estimate(np.isinf(runs.epochs).sum(), n=len(runs))
        found[f"{key(method)}_last"] = median(runs.accuracy)
    return found


@measure("training")
def steps(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Time of a step of K-FAC over one of SGD, geometric mean over rounds, on one process (p1) and on two (p2)."""
    tables = {ranks: step_milliseconds(rows, ranks) for ranks in PROCESSES}
    return {
        f"{prefix}p{ranks}": _times(np.log(table[variant] / table["SGD"]))
        for variant, prefix in PREFIX.items()
        for ranks, table in tables.items()
    }


def _times(logarithms: pd.Series) -> Estimate:
    found = mean(logarithms, TOGETHER)
    return Estimate(*np.exp([found.value, found.low, found.high]), found.n)


@measure("epochs")
def saved(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Part of SGD's epochs that K-FAC saves until the target: positive where it needs fewer."""
    return {f"{PREFIX[variant]}epochs": _rest(ratio) for variant, ratio in _epochs(rows).items()}


@measure("epochs", "training")
def gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same, and the part of its time on one process and on two: positive where K-FAC is faster."""
    found, times = saved(rows), steps(rows)
    for variant, epochs in _epochs(rows).items():
        for ranks in PROCESSES:
            step = times[f"{PREFIX[variant]}p{ranks}"]
            ends = (a * b for a, b in zip((epochs.value, *epochs.ends), (step.value, *step.ends), strict=True))
            found[f"{PREFIX[variant]}seconds_p{ranks}"] = _rest(Estimate(*ends, min(epochs.n, step.n)))
    return found


def _epochs(rows: pd.DataFrame) -> dict[str, Estimate]:
    return {variant: median(ratios, TOGETHER) for variant, ratios in epoch_ratios(rows).items()}


def _rest(ratio: Estimate) -> Estimate:
    return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.n)


@measure("epochs", "training")
def as_many(rows: pd.DataFrame) -> Estimate:
    """Times as many seeds and rounds that would tell the time with factors every 10 steps from SGD's, on one process and on
    two, if it is what was found: both parts of the interval of its logarithm shrink with the root of their number."""
    found, prefix = gain(rows), PREFIX["K-FAC every 10"]
    times = [np.log([1 - x for x in (each.value, *each.ends)]) for each in (found[f"{prefix}seconds_p{n}"] for n in PROCESSES)]
    return Estimate(max(((high - low) / 2 / value) ** 2 for value, high, low in times), n=found[f"{prefix}seconds_p1"].n)


@measure("training")
def round_seconds(rows: pd.DataFrame) -> Estimate:
    """Seconds of training of all methods in a round, on one process and on two."""
    found = rows[(rows.case == "training") & (rows.metric == "seconds")]
    return mean(found[found.step == found.step.max()].groupby("seed").value.sum())


@measure("steps")
def placements(rows: pd.DataFrame) -> pd.DataFrame:
    """Each placement: MiB of each kind, held, and milliseconds beside the model's."""
    _, table = fitted(rows)
    held = counted(rows)
    slowest = table[table.inverses_every > 0].groupby(["factors_every", "inverses_every"]).size().index
    lines = []
    for r in held.itertuples():
        line = {"P": f"{r.ranks}", "w": f"{round(r.share * r.ranks)}"}
        line |= {f"{kind} sent": fixed(getattr(r, kind) / MIB) for kind in KINDS}
        line["Held"] = fixed((held["held factors"] + held["held inverses"])[r.Index] / MIB)
        for rhythm in slowest:
            at = table[(table.ranks == r.ranks) & (table.share == r.share)].set_index(["factors_every", "inverses_every"])
            line[f"ms {rhythm[0]}/{rhythm[1]} (model)"] = f"{at.value[rhythm]:.0f} ({at.model[rhythm]:.0f})"
        lines.append(line)
    return pd.DataFrame(lines)


@measure("epochs", "training")
def training(rows: pd.DataFrame) -> pd.DataFrame:
    """Epochs to the target and the last accuracy, and the time of a step."""
    found = reach(rows)
    lines = []
    for method in METHODS:
        missed = found[f"{key(method)}_missed"]
        line = {"Method": method, "Epochs": interval(found[key(method)]), "Missed": f"{missed.value:.0f} of {missed.n}"}
        line["Last accuracy"] = interval(found[f"{key(method)}_last"])
        for ranks in PROCESSES:
            line[f"ms a step, {ranks} process{'es' * (ranks > 1)}"] = interval(median(step_milliseconds(rows, ranks)[method]))
        lines.append(line)
    return pd.DataFrame(lines)
