"""Ratios of errors in L2 at equal numbers of cells: geometric means over test problems and seeds, t intervals over seeds, each
of which trained its own policies and drew its own problems. The comparisons of a claim are a family, whose intervals hold
together."""

import numpy as np
import pandas as pd

from secondlook.study import comparison
from secondlook.study.comparison import Family
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, mean
from secondlook.study.text import fixed, interval, key

from .names import BELOW, FAMILIES, ORACLE, POLICIES, SIZES
from .selections import JUDGE, ZZS, at_end, by_optimiser, carried, elsewhere, learned, looking_ahead, where_trained

MARGIN = np.log(1.1)  # within which two errors count as the same


def _factor(found: Estimate) -> Estimate:
    """A mean logarithm as a factor."""
    return Estimate(*np.exp([found.value, *found.ends]), n=found.n, p=found.p)


def _most(found: list[Estimate]) -> Estimate:
    """The largest value, lower end and upper end: below a bound where all of them are, above it where one of them is."""
    return Estimate(*(max(ends) for ends in zip(*((e.value, *e.ends) for e in found), strict=True)), n=min(e.n for e in found))


def _ratios(family: Family) -> dict[str, Estimate]:
    """Of every comparison, and the largest and the smallest of them."""
    found = {key(*name): _factor(d) for name, d in comparison.differences(family).items()}
    least = min(found.values(), key=lambda e: e.value)
    return found | {"largest": _most(list(found.values())), "smallest": least}


@measure("static")
def trained(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Every policy where it was trained, over the estimators by recovered gradients: independent_steps_zz_l2; E12a."""
    return _ratios(where_trained(rows, ZZS))


@measure("static")
def over_jumps(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same over the estimator by jumps: independent_steps_jumps."""
    return _ratios(where_trained(rows, ("jumps",)))


@measure("static")
def over_oracle(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same over greedy cuts by the true error."""
    return _ratios(where_trained(rows, (ORACLE,)))


@measure("static")
def transferred(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Every policy on other families and larger problems, over the estimator in L2: larger_independent_steps_bumps (trained,
    tested); E12b. The largest of each kind: `to_families`, `to_larger`; tested on steps and circles (`fronts`), on bumps."""
    family = elsewhere(rows)
    found = _ratios(family)
    for name, size in (("to_families", SIZES[0]), ("to_larger", SIZES[1])):
        found[name] = _most([found[key(*cell)] for cell in family if cell[0] == size])
    for name, tested in (("fronts", ("steps", "circles")), ("bumps", ("bumps",))):
        found[name] = _most([found[key(*cell)] for cell in family if cell[3] in tested])
    return found


@measure("static")
def transferred_over_jumps(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The same over the estimator by jumps."""
    return _ratios(elsewhere(rows, "jumps"))


@measure("static")
def foreign(rows: pd.DataFrame) -> dict[str, Estimate]:
    """A policy on another family than its own, over the one of its kind that was trained there: independent_steps_bumps."""
    ends = at_end(rows).loc["as trained"]
    return _ratios(
        {
            (policy, family, tested): (ends.loc[tested, policy, family], ends.loc[tested, policy, tested])
            for policy in POLICIES
            for family in FAMILIES
            for tested in FAMILIES
            if family != tested
        }
    )


@measure("static")
def jumps_over_zz(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The estimator by jumps over that by recovered gradients, in L2, meshes as in training, by family."""
    ends = at_end(rows).loc["as trained"]
    return _ratios({(f,): (ends.loc[f, "jumps", "none"], ends.loc[f, JUDGE, "none"]) for f in FAMILIES})


@measure("static")
def messages(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The policy that sees neighbours' states over the one that does not, each where it was trained, by family."""
    ends = at_end(rows).loc["as trained"]
    return _ratios({(f,): (ends.loc[f, POLICIES[1], f], ends.loc[f, POLICIES[0], f]) for f in FAMILIES})


@measure("static")
def below(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The share of problems on which a policy ends below the estimator in L2, where it was trained: independent_steps."""
    found = rows[(rows.metric == "below") & (rows["size"] == "as trained") & (rows.family == rows.trained)]
    return {key(*cell): mean(part.value) for cell, part in found.groupby(["method", "family"])}


def _apart(family: Family) -> Estimate:
    """Pairs that would tell a comparison from 10 % more error, the end of the band, by its distance from there: the most that
    one needs whose interval holds this end, or where none does, the most of all."""
    level, found = comparison.simultaneous(len(family)), comparison.differences(family)
    astride = [name for name, difference in found.items() if difference.low < MARGIN < difference.high] or list(family)
    lines = []
    for name in astride:
        s, distance = comparison.spread(np.subtract(*family[name])), abs(found[name].value - MARGIN)
        lines.append(Estimate(*(comparison.needed(distance / x, level) for x in (s.value, *s.ends)), s.n))
    return max(lines, key=lambda n: n.value)


@measure("static")
def n_to_decide(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seeds that would tell every comparison of a claim from the end of its band."""
    return {"trained": _apart(where_trained(rows, ZZS)), "transferred": _apart(elsewhere(rows))}


@measure("static")
def error_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Over greedy cuts by the true error, with each one's own interval: rules, and policies trained on the family."""
    ends = at_end(rows)
    lines = [*ZZS, "jumps", *POLICIES, *BELOW]
    table = {"rule": [f"policy, {line}" if line in POLICIES else line for line in lines]}
    for size in SIZES:
        for family in FAMILIES:
            here = ends.loc[size, family]
            own = [here.loc[line, family if line in POLICIES else "none"] for line in lines]
            column = [_factor(mean(line - here.loc[ORACLE, "none"])) for line in own]
            table[family if size == SIZES[0] else f"{family}, larger"] = [fixed(ratio) for ratio in column]
    return pd.DataFrame(table)


@measure("transport")
def ahead(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Transport, after the last interval: policy_true_error (policy over greedy cuts by the true error), policy_zz_l2,
    policy_jumps; policy_jumps_upstream and policy_zz_l2_upstream (over estimators that look upstream), policy_policy_present
    (over the policy that was trained for the present error); reversed_policy and reversed_true_error (told the velocity
    backwards, over itself and over the greedy rule), ahead_true_error (the oracle that looks ahead); E12c."""
    return _ratios(looking_ahead(rows))


@measure("transport")
def n_ahead(rows: pd.DataFrame) -> Estimate:
    """Seeds that would show a difference of 10 % between the policy and the greedy rule by the true error."""
    return comparison.n_to_decide(looking_ahead(rows), MARGIN)["policy", ORACLE]


@measure("transport")
def transport_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors over those of greedy cuts by the true error, by interval."""
    table = carried(rows)
    intervals = table.columns.levels[0]
    return pd.DataFrame(
        {"rule": table.index}
        | {
            f"interval {i}": [interval(_factor(mean(table.loc[m, i] - table.loc[ORACLE, i])), fixed) for m in table.index]
            for i in intervals
        }
    )


@measure("optimisers")
def optimisers(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Errors of the policies that AdaHessian trained over those of Adam's, after as many updates and as much work; and of both
    over the oracle's, after the last update: adam_oracle."""
    found = {name: _factor(d) for name, d in comparison.differences(by_optimiser(rows)).items()}
    oracle = rows[(rows.case == "optimisers") & (rows.metric == "oracle")].groupby("seed").value.first()
    table = learned(rows, "optimisers").droplevel("lr")
    last = table.index.get_level_values("step").max()
    return found | {
        f"{key(name)}_oracle": _factor(mean(table.loc[name, last] - oracle)) for name in table.index.unique("method")
    }


@measure("optimisers")
def untrained(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The error of policies before their first update over the oracle's: the least and the most over seeds."""
    table = learned(rows, "optimisers").xs(0, level="step").iloc[0]
    oracle = rows[(rows.case == "optimisers") & (rows.metric == "oracle")].groupby("seed").value.first()
    ratios = np.exp(table - oracle)
    return {"least": Estimate(ratios.min()), "most": Estimate(ratios.max())}


@measure("rates")
def rates_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every trial by which rates were chosen: the error after the last update over the oracle's, geometric means over seeds."""
    table = learned(rows, "rates")
    last = table.xs(table.index.get_level_values("step").max(), level="step")
    oracle = rows[(rows.case == "rates") & (rows.metric == "oracle")].groupby("seed").value.first()
    return pd.DataFrame(
        [(method, f"{lr:g}", fixed(float(np.exp((line - oracle).mean())), 3)) for (method, lr), line in last.iterrows()],
        columns=["optimiser", "rate", "error over the oracle's"],
    )
