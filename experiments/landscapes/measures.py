"""What the rules do as printed, and what the sweep says about the captions of the animations."""

import numpy as np
import pandas as pd

from secondlook.study.comparison import n_to_decide
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, bound, mean, paired, share
from secondlook.study.text import fixed, key, number, percent

from .selections import (
    CELL,
    CLASSICAL,
    SYMMETRIC,
    WITH_MOMENTUM,
    WITH_SCALING,
    best_rates,
    better,
    better_at_equal_rates,
    descents,
    order_of_arrival,
    over_starts,
    reported,
    runs,
    sweep,
    won,
)

LANDSCAPES = ("Beale", "long valley", "saddle", "Rosenbrock", "Rastrigin", "ill-conditioned", "rotated", "bowl")
OCTAVES = 2  # off the best rate: four times as large, or as small
TENTH = 1.1  # as a factor: the difference in variation that matters
SWINGS = 2  # sign changes that make an oscillation; one is an overshoot
POWER = 2.80  # quantiles of the normal law at 97.5 % and 80 %, together
TUNING_HALF = 2  # one in two starts on the ripples chooses the rate, the others are reported


def _rules(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[(rows.case == "rules") & (rows.metric == metric)]


def _as_printed(rows: pd.DataFrame) -> pd.Series:
    return _rules(rows, "as printed").set_index("method").value


def _largest(rows: pd.DataFrame) -> pd.Series:
    """What the largest difference of each rule from torch over seeds does not exceed."""
    return _rules(rows, "difference").groupby(["method", "against"]).value.max().map(bound)


@measure()
def nesterov(rows: pd.DataFrame) -> dict[str, Estimate]:
    """w on w^2 after five steps, and largest differences on the rotated quadratic."""
    ends, off = _rules(rows, "w_end").set_index("method").value, _largest(rows)
    seeds = rows[rows.case == "rules"].seed.nunique()
    return {
        "printed": Estimate(ends["printed Nesterov"]),
        "heavy_ball": Estimate(ends["heavy ball"]),
        "torch": Estimate(ends["Nesterov"]),
        "look_ahead": Estimate(ends["look-ahead"]),
        "from_heavy_ball": Estimate(off["printed Nesterov", "heavy ball"], n=seeds),
        "from_nesterov": Estimate(off["printed Nesterov", "Nesterov"], n=seeds),
        "look_ahead_from_nesterov": Estimate(off["look-ahead", "Nesterov"], n=seeds),
    }


@measure()
def printed(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the printed lines do, and the largest difference of the repaired ones from torch."""
    found, off = _as_printed(rows), _largest(rows)
    repaired = [off[name, name] for name in ("AdaMax", "RMSprop")] + [off["momentum", "heavy ball"]]
    return {
        "adam_fails": Estimate(
            min(found["Adam: division by zero with numbers"], found["Adam: not a number with tensors"])
        ),  # 1: both do
        "adam_repaired": Estimate(off["Adam", "Adam"]),
        "adam_first": Estimate(found["Adam: first step over lr"]),
        "adam_uncorrected_first": Estimate(found["Adam uncorrected: first step over lr"]),
        "adamax_fails": Estimate(found["AdaMax: max of two tensors fails"]),
        "rmsprop_fails": Estimate(found["RMSprop: line does not parse"]),
        "rmsprop_repaired": Estimate(off["RMSprop", "RMSprop"]),
        "momentum_factor": Estimate(found["momentum: last step over lr"]),
        "repaired": Estimate(max(repaired)),
        "adagrad": Estimate(off["Adagrad", "Adagrad"]),
    }


def _over(found: pd.DataFrame, metric: str, pairs, landscapes, sign: int) -> dict[str, Estimate]:
    return {noise: better(found, metric, pairs, landscapes, noise, sign) for noise in ("exact", "noisy")}


@measure()
def smoother(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of comparisons in which the optimiser with momentum turns by less from step to step than the one without."""
    return _over(runs(rows), "turning", WITH_MOMENTUM, CLASSICAL, -1)


@measure()
def overshoots(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of comparisons in which the optimiser with momentum goes farther away after it first came to the minimum."""
    return _over(runs(rows), "overshoot", WITH_MOMENTUM, CLASSICAL, 1)


@measure()
def faster(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of comparisons in which the scaled optimiser arrives first; and the same over all landscapes of the sweep."""
    found = runs(rows)
    everywhere = {f"{k}_all": v for k, v in _over(found, "arrived", WITH_SCALING, LANDSCAPES, -1).items()}
    return _over(found, "arrived", WITH_SCALING, CLASSICAL, -1) | everywhere


@measure()
def order(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Shares of all comparisons by who arrives: scaled_exact_first, belief_noisy_neither."""
    found, sets = runs(rows), {"scaled": (WITH_SCALING, CLASSICAL), "belief": ([("AdaBelief", "Adam")], LANDSCAPES)}
    return {
        key(name, noise, kind): value
        for name, (pairs, landscapes) in sets.items()
        for noise in ("exact", "noisy")
        for kind, value in order_of_arrival(found, pairs, landscapes, noise).items()
    }


@measure()
def steadier(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of comparisons in which the scaled optimiser arrives at more of the rates; and the starts that would show with
    noise that it is not one half (needed)."""
    cells = runs(rows)
    found, noisy = _over(cells, "works", WITH_SCALING, CLASSICAL, 1), won(cells, "works", WITH_SCALING, CLASSICAL, "noisy", 1)
    return found | {"needed": _to_tell_from_half(noisy)}


def _to_tell_from_half(shares: pd.Series) -> Estimate:
    """Starts that would show that a share, one of each start, is not one half, if it is what was found."""
    return n_to_decide({"share": (shares, 0.5)}, abs(shares.mean() - 0.5))["share"]


@measure()
def calmer(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of comparisons, both arrived, in which the scaled optimiser's last steps are shorter."""
    found = runs(rows)
    return {noise: better(found, "jitter", WITH_SCALING, CLASSICAL, noise, -1, arrived=True) for noise in ("exact", "noisy")}


@measure()
def leaves(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of comparisons in which the scaled optimiser leaves the saddle first: all, against SGD, and both with momentum."""
    found = runs(rows)
    sets = {"all": WITH_SCALING, "plain": WITH_SCALING[:2], "with_momentum": WITH_SCALING[2:]}
    return {name: better(found, "escape", pairs, SYMMETRIC, "exact", -1) for name, pairs in sets.items()}


@measure()
def out_of_minima(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of the reported starts on Rastrigin's function, outside of the lowest basin, from which a method ends in a lower
    minimum than that of the basin in which it began, at the rate with most of that from other starts; what momentum adds, by
    start, and the starts that would show it with a power of 80 %; and the share of comparisons on valley and saddle in which
    the rule with momentum leaves before SGD."""
    ends, found = rows[rows.case == "basins"], {}
    for method, mine in ends.groupby("method"):
        rate = mine[mine.part == "tuning"].groupby("lr").value.mean().idxmax()
        found[method] = mine[(mine.part == "reported") & (mine.lr == rate)].set_index("start").value
    return {key(method): share(hits) for method, hits in found.items()} | {
        **_gained(found["momentum"], found["SGD"]),
        "sooner": better(runs(rows), "escape", WITH_MOMENTUM[:2], SYMMETRIC, "exact", -1),
    }


@measure()
def data(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Examples that batch descent sees before it arrives over those of the other kinds, and variation of the loss over that of
    another kind, by run: geometric means; the chosen rates, how many of them lie at an end of their list; the examples seen
    two octaves off the best rate, the worse way, over those at it, medians of the tuning runs; and the runs that would show a
    tenth more variation."""
    seen, swings = (np.log(descents(rows, metric)) for metric in ("examples", "variation"))
    ratios = {
        "stochastic_faster": seen["batch"] - seen["stochastic"],
        "mini_batch_faster": seen["batch"] - seen["mini-batch"],
        "mini_batch_over_stochastic": seen["mini-batch"] - seen["stochastic"],
        "stochastic_swings": swings["stochastic"] - swings["batch"],
        "mini_batch_calmer": swings["stochastic"] - swings["mini-batch"],
    }
    found = {}
    for name, logs in ratios.items():
        logged = mean(logs)
        found[name] = Estimate(np.exp(logged.value), *np.exp(logged.ends), logged.n)
    rates = rows[(rows.case == "data")].lr
    chosen = rows[(rows.case == "data") & (rows.metric == "variation")].groupby("method").lr.first()
    found |= {f"{key(kind)}_rate": Estimate(lr) for kind, lr in chosen.items()}
    tried = rows[(rows.case == "data") & (rows.metric == "examples") & (rows.part != "reported")]
    for kind, trials in tried.groupby("method"):
        examples = trials.pivot(index="lr", columns="start", values="value")
        off = examples[np.isclose(np.abs(np.log2(examples.index / chosen[kind])), OCTAVES)] / examples.loc[chosen[kind]]
        found[f"{key(kind)}_off"] = Estimate(off.median(axis=1).max(), n=examples.shape[1])
    needed = n_to_decide({"swings": (swings["stochastic"], swings["batch"])}, np.log(TENTH))["swings"]
    return found | {"at_edge": Estimate(chosen.isin([rates.min(), rates.max()]).sum()), "needed": needed}


@measure()
def escape(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Median epoch at which half the way along the symmetry line to a minimum is done, without noise."""
    found = sweep(rows, "escape")
    found = found[found.noise == "exact"].groupby(["method", "landscape"]).value.median()
    return {key(*names): Estimate(v) for names, v in found.items()}


@measure()
def swings(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of runs that swing to and fro across the symmetric axis before they leave, for plain and momentum methods, and that
    change side at all (`crosses`); and share of comparisons in which momentum changes side more often, at best rates and at
    equal ones."""
    found = sweep(rows, "crossings")
    found = found[found.noise == "exact"].assign(hit=lambda cells: cells.value >= SWINGS, once=lambda cells: cells.value >= 1)
    groups = {"momentum": ("momentum", "Nesterov"), "plain": ("SGD",)}
    shares = {}
    for group, methods in groups.items():
        for landscape in SYMMETRIC:
            cells = found[found.method.isin(methods) & (found.landscape == landscape)]
            shares[key(group, landscape)] = over_starts(cells.groupby("start").hit.mean())
            shares[key("crosses", group, landscape)] = over_starts(cells.groupby("start").once.mean())
    cells = runs(rows)
    for landscape in SYMMETRIC:
        more = better(cells, "crossings", WITH_MOMENTUM[:2], [landscape], "exact", 1)
        shares[f"more_{key(landscape)}"] = more
        equal = better_at_equal_rates(rows, "crossings at each rate", WITH_MOMENTUM[:2], landscape)
        shares[f"more_at_equal_rates_{key(landscape)}"] = equal
    return shares


@measure()
def belief_wins(rows: pd.DataFrame) -> dict[str, Estimate]:
    """AdaBelief against Adam over all landscapes: arrives first, at more rates, with shorter last steps where both arrive; and
    the starts that would show with noise that the first is not one half (needed)."""
    found, pair = runs(rows), [("AdaBelief", "Adam")]
    shares = {
        f"{name}_{noise}": better(found, metric, pair, LANDSCAPES, noise, sign)
        for name, (metric, sign) in {"faster": ("arrived", -1), "steadier": ("works", 1)}.items()
        for noise in ("exact", "noisy")
    }
    return shares | {
        "calmer_noisy": better(found, "jitter", pair, LANDSCAPES, "noisy", -1, arrived=True),
        "needed": _to_tell_from_half(won(found, "arrived", pair, LANDSCAPES, "noisy", -1)),
    }


def _belief(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of belief and its expectation, by curvature, speed and sigma."""
    found = rows[(rows.case == "belief")]
    return found.pivot_table(index=["curvature", "speed", "sigma"], columns="metric", values="value", aggfunc="mean")


def _slope(values: pd.Series) -> float:
    """Exponent a of values ~ index^a, by least squares on logarithms."""
    return np.polyfit(np.log(values.index), np.log(values), 1)[0]


@measure()
def belief(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What (g - m)^2 depends on. Slopes are exponents: 2 is proportional to a square, 0 is no dependence."""
    table = _belief(rows)
    seen = table.belief
    slow, fast = seen.index.levels[1]
    loud = seen.index.levels[2][-1]
    curved = seen[seen.index.get_level_values("curvature") > 0].unstack(["speed", "sigma"])
    one = rows[(rows.case == "belief") & (rows.metric == "belief") & (rows.curvature == 0) & (rows.sigma == loud)]
    at_noise = one[one.speed == slow].value
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (table.belief / table.expected - 1).abs().max()
    lag = np.sqrt(curved[slow, 0].iloc[-1]) / (curved.index[-1] * slow)  # beta1 / (1 - beta1)
    return {
        "noise_alone": mean(at_noise),
        "still": Estimate(seen[0, slow, 0]),
        "curvature_slope": Estimate(_slope(curved[slow, 0])),
        "speed_slope": Estimate(np.log(curved[fast, 0].iloc[0] / curved[slow, 0].iloc[0]) / np.log(fast / slow)),
        "noisy_slope": Estimate(_slope(curved[slow, loud])),
        "equal_curvature": Estimate(np.sqrt(at_noise.mean()) / (lag * slow)),
        "slow": Estimate(slow),
        "error": Estimate(error),
    }


@measure()
def newton_step(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Largest coordinate over all starts after one step of AdaHessian, and the share of starts below the limit."""
    found = rows[(rows.case == "one_step") & rows.landscape.isin(["bowl", "rotated"])]
    result = {}
    for name, cells in found.groupby("landscape"):
        worst = cells[cells.metric == "coordinate"].value
        result[name] = Estimate(worst.max(), n=len(worst))
        result[f"{name}_share"] = share(cells[cells.metric == "reached"].value)
    return result


def _ripples(rows: pd.DataFrame, memory: str) -> pd.DataFrame:
    """Starts that are not there from the beginning: columns start, lr, value (reached)."""
    found = rows[(rows.case == "one_step") & (rows.landscape == "ripples")]
    there = found[(found.step == 0) & (found.value > 0)].start
    return found[(found.memory == memory) & ~found.start.isin(there)]


@measure()
def ripples(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of starts that reach the bottom of the ripples; the best rate is chosen on every other start. Without the mean of
    curvatures it is the best of the reported starts themselves: several tie on the others, and the control is to have every
    chance. `gain`: what the mean adds, by start; `starts`: how many would show it, with a power of 80 %."""
    found, control = _ripples(rows, "mean of curvatures"), _ripples(rows, "last curvature")
    rate = found[found.start % TUNING_HALF == 0].groupby("lr").value.mean().idxmax()
    fresh, forgetful = (
        part[part.start % TUNING_HALF != 0].pivot(index="start", columns="lr", values="value") for part in (found, control)
    )
    with_mean, without = fresh[rate], forgetful[forgetful.mean().idxmax()]
    all_ = rows[(rows.case == "one_step") & (rows.landscape == "ripples") & (rows.step == 0)]
    return {
        "best": share(with_mean),
        "rate": Estimate(rate),
        "newton_rate": share(fresh[1]),
        "without_memory": share(without),
        **_gained(with_mean, without),
        "there_from_the_start": share(all_.value),
    }


def _gained(hits: pd.Series, without: pd.Series) -> dict[str, Estimate]:
    """What one share of starts is above another (gain), by start, and how many would show it with a power of 80 % (starts)."""
    gain, spread = paired(hits, without), (hits - without).std(ddof=1)
    return {"gain": gain, "starts": Estimate(np.ceil((POWER * spread / gain.value) ** 2) if gain.value else np.nan)}


@measure()
def range_of_rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How many runs, and how many of the chosen rates lie on the edge of the sweep, among those with an arrival."""
    arrivals = sweep(rows, "arrived")
    chosen = best_rates(rows)
    hits = reported(rows).merge(chosen, on=[*CELL, "lr"]).assign(hit=lambda cells: np.isfinite(cells.value))
    useful = chosen[hits.groupby([*CELL, "lr"]).hit.mean().loc[list(chosen.itertuples(index=False, name=None))].to_numpy() > 0]
    low, high = arrivals.lr.min(), arrivals.lr.max()
    return {
        "runs": Estimate(len(arrivals)),
        "lowest": Estimate(low),
        "highest": Estimate(high),
        "chosen": Estimate(len(useful)),
        "at_edge": Estimate(useful.lr.isin([low, high]).sum()),
    }


def _whole(epoch: float) -> str:
    return f"{epoch:.0f}" if np.isfinite(epoch) else "∞"


@measure(each={"success": "exact", "success_noisy": "noisy"})
def success(rows: pd.DataFrame, noise: str) -> pd.DataFrame:
    """Percent of starts that arrive, and median epoch, without noise and with it."""
    cells = runs(rows).xs(noise, level="noise").arrived.groupby(["method", "landscape"], sort=False)
    text = cells.agg(lambda epochs: f"{100 * np.isfinite(epochs).mean():.0f}, {_whole(np.median(epochs))}")
    return text.unstack()[list(LANDSCAPES)].loc[sweep(rows, "arrived").method.unique()].reset_index(names="")


@measure()
def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Best rate as a power of two on the classical surfaces, and the share of the rates at which nine in ten starts arrive."""
    chosen = best_rates(rows)
    power = chosen.assign(power=np.log2(chosen.lr).round().astype(int)).set_index(CELL).power
    arrivals = reported(rows)
    arrivals = arrivals.assign(hit=np.isfinite(arrivals.value)).groupby([*CELL, "lr"]).hit.mean()
    works = (arrivals >= 0.9).groupby(level=["method", "noise"]).mean()
    lines = []
    for method in sweep(rows, "arrived").method.unique():
        best = {
            name: f"{power[method, name, 'exact']} / {power[method, name, 'noisy']}".replace("-", "−") for name in CLASSICAL
        }
        share_ = {f"works, {noise}": percent(works[method, noise]) for noise in ("exact", "noisy")}
        lines.append({"": method, **best, **share_})
    return pd.DataFrame(lines)


@measure()
def rules_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The article's rules: as printed, and once repaired."""
    p, off = printed(rows), _largest(rows)

    def equal(method, against):
        return f"differs by at most {number(off[method, against], 1)}"

    lines = [
        (
            "momentum",
            f"a sum, not a mean: the step grows to {number(p['momentum_factor'])} lr",
            equal("momentum", "heavy ball") + " from heavy ball",
        ),
        ("Nesterov", "the gradient at w: heavy ball", equal("look-ahead", "Nesterov") + ", gradient looked up ahead"),
        ("Adagrad", "runs", equal("Adagrad", "Adagrad")),
        ("RMSprop", "a parenthesis is missing: does not parse", equal("RMSprop", "RMSprop")),
        (
            "Adam, uncorrected",
            f"first step {fixed(p['adam_uncorrected_first'])} lr, against {fixed(p['adam_first'])} lr",
            "not in torch",
        ),
        ("Adam, corrected", "t starts at 0: division by zero", equal("Adam", "Adam") + " from t = 1"),
        ("AdaMax", "t starts at 0; max of two tensors fails", equal("AdaMax", "AdaMax") + ", element by element"),
    ]
    return pd.DataFrame(lines, columns=["Rule", "As printed", "Repaired, against torch"])
