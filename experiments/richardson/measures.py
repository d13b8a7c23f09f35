"""The numbers that the claims and the section quote. Slopes are fitted for each seed, then averaged; keys name instance, rule
and method in this order, as in `text.key`."""

from collections.abc import Container

import numpy as np
import pandas as pd

from secondlook.study import statistics
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate
from secondlook.study.text import fixed, interval, key, number, percent

from .selections import (
    BEYOND,
    DOCUMENT,
    ORDERS,
    POLYTOPES,
    SETTINGS,
    SMOOTHINGS,
    at_minima,
    averaging,
    cells,
    frank_wolfe,
    left_face,
    levels,
    ridge,
    slopes,
    smoothed,
    table,
)

GAIN, STRONG, LOSS, BAD = 0.9, 0.5, 1.1, 2.0  # error with extrapolation over the plain one: a tenth, and a factor of two
ROUNDING_FREE = 1e-10  # differences in float64: errors above it are not rounding
SMALL = {  # strengths where the first term of an expansion rules and rounding does not
    "smoothing": slice(2.0**-12, 2.0**-8),  # the solution's entries are about 1
    "penalties": slice(2.0**-24, 2.0**-19),  # the least eigenvalue is about 2^-11
}
LATE = 512  # steps from which the mean iterate's gap is fitted


@measure("polytopes")
def frank_wolfe_slope(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the gap against k."""
    return {
        key(region, rule, method): statistics.mean(slopes(frank_wolfe(rows, region, rule, method)))
        for region, rule in (*POLYTOPES, *BEYOND)
        if rule != "line search"
        for method in ("plain", "extrapolated", "projected")
    }


@measure("polytopes")
def face(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Step 1/k: share of the instances with weight left outside the face; slope of the gap, plain and (`after`) extrapolated,
    and ratio of errors, extrapolated over plain, with (`left`) and without it (`clean`). Both polytopes together.
    """
    left, slope, after, ratios = [], [], [], []
    found = {name: values for _, name, values in cells(rows)}
    for region in ("simplex", "l1 ball"):
        left.append(left_face(rows, region, "1/k"))
        slope.append(slopes(frank_wolfe(rows, region, "1/k", "plain")))
        after.append(slopes(frank_wolfe(rows, region, "1/k", "projected")))
        ratios.append(found[f"{region}, 1/k"])
    left, slope, after, ratios = (pd.concat(part, ignore_index=True) for part in (left, slope, after, ratios))
    result = {"left": statistics.share(left)}
    for name, chosen in (("left", left), ("clean", ~left)):
        if chosen.sum() > 1:
            result[f"slope_{name}"] = statistics.mean(slope[chosen])
            result[f"slope_{name}_after"] = statistics.mean(after[chosen])
            result[f"ratio_{name}"] = statistics.median(ratios[chosen])
    return result


@measure("polytopes")
def distance(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How far the extrapolated point is from the region at the last k, medians."""
    return {
        key(region, rule): statistics.median(
            table(rows, "polytopes", "distance", "step", region=region, rule=rule, method="extrapolated").iloc[:, -1]
        )
        for region, rule in (*POLYTOPES, *BEYOND)
    }


@measure("averaging")
def averaging_slope(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the mean iterate's gap against k, over the last steps; of its extrapolation, over all steps before rounding, where it
    is only to show that the power is none of those that are claimed.
    """
    found = {
        key(f"decay {decay:g}", "extrapolated"): statistics.mean(slopes(averaging(rows, decay, 0.0, "extrapolated")))
        for decay in levels(rows, "averaging", "decay")
    }
    for decay in levels(rows, "averaging", "decay"):
        for noise in levels(rows, "averaging", "noise"):
            values = averaging(rows, decay, noise, "plain")
            late = min(LATE, values.columns.max() / 4)
            fit = statistics.mean(slopes(values.loc[:, late:]))
            found[key(f"decay {decay:g}", "noisy" if noise else "exact")] = fit
    return found


@measure("averaging")
def averaging_gap(rows: pd.DataFrame) -> dict[str, Estimate]:
    """At the last k, medians of the gap; `over_last`: the extrapolated gap over the last iterate's."""
    found = {}
    for decay in levels(rows, "averaging", "decay"):
        for noise in levels(rows, "averaging", "noise"):
            name = (f"decay {decay:g}", "noisy" if noise else "exact")
            gaps = {m: averaging(rows, decay, noise, m).iloc[:, -1] for m in ("plain", "extrapolated", "last")}
            found |= {key(*name, method): statistics.median(values) for method, values in gaps.items()}
            found[key(*name, "over last")] = statistics.median(gaps["extrapolated"] / gaps["last"])
    return found


@measure("smoothing")
def strength_slope(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the gap of F at the exact minimum of F_s against s, for small s."""
    return {
        key(name, order): statistics.mean(slopes(at_minima(rows, name, order).loc[:, SMALL["smoothing"]]))
        for name in SMOOTHINGS
        for order in ORDERS
    }


@measure("smoothing")
def smoothing_slope(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the gap against the number of gradients, at the best s for each number."""
    return {key(name, order): statistics.mean(slopes(smoothed(rows, name, order))) for name in SMOOTHINGS for order in ORDERS}


@measure("smoothing")
def smoothing_gap(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Medians of the gap at the first and the last budget; the least of the smoothed ones at the last (`best`); the share of
    best strengths at the edge of their range.
    """
    methods = [(name, order) for name in SMOOTHINGS for order in ORDERS] + [("none", "proximal")]
    found = {}
    for name, method in methods:
        gaps = smoothed(rows, name, method)
        found[key(name, method, "first")] = statistics.median(gaps.iloc[:, 0])
        found[key(name, method, "last")] = statistics.median(gaps.iloc[:, -1])
    budgets = smoothed(rows, SMOOTHINGS[0], ORDERS[0]).columns
    edge = rows[(rows.case == "smoothing") & (rows.metric == "at edge")].value
    smooth = [found[key(name, order, "last")] for name in SMOOTHINGS for order in ORDERS]
    return found | {
        "best": min(smooth, key=lambda gap: gap.value),
        "first": Estimate(budgets[0]),
        "last": Estimate(budgets[-1]),
        "at_edge": Estimate(edge.mean(), n=len(edge)),
    }


@measure("penalties")
def ridge_slope(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the bias against the penalty, for small ones, over all truths."""
    found = {}
    for order in ORDERS[:3]:
        by_truth = [
            slopes(ridge(rows, "bias", s, 0.0, order).loc[:, SMALL["penalties"]])
            for s in levels(rows, "penalties", "smoothness")
        ]
        found[key(order)] = statistics.mean(pd.concat(by_truth, axis=1).mean(axis=1))
    return found


def _shares(found: list, settings: Container[str]) -> dict[str, Estimate]:
    """Of the `cells` found in these settings."""
    errors = pd.concat([ratio.rename("ratio").reset_index() for setting, _, ratio in found if setting in settings])
    kinds = {
        "gain": errors.ratio <= GAIN,
        "strong": errors.ratio <= STRONG,
        "loss": errors.ratio >= LOSS,
        "bad": errors.ratio >= BAD,
    }
    return {kind: statistics.clustered_share(hits, errors.seed) for kind, hits in kinds.items()}


@measure("averaging", "polytopes", "smoothing", "penalties")
def gains(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of the cells whose error extrapolation changes by a tenth or more (gain, loss) or by a factor of two or more
    (strong, bad), clustered by seed: over the document's settings, and for each setting alone.
    """
    found = list(cells(rows))
    shares = _shares(found, DOCUMENT)
    for setting in SETTINGS:
        shares |= {key(setting, kind): share for kind, share in _shares(found, (setting,)).items()}
    return shares


@measure("averaging", "polytopes", "smoothing", "penalties")
def ratio(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Median error with extrapolation over the plain one, for each cell."""
    return {key(setting, name): statistics.median(errors) for setting, name, errors in cells(rows)}


@measure("averaging", "polytopes", "smoothing", "penalties")
def cell_count(rows: pd.DataFrame) -> Estimate:
    """How many cells the document's settings have."""
    return Estimate(sum(setting in DOCUMENT for setting, _, _ in cells(rows)))


@measure("averaging", "polytopes", "smoothing", "penalties")
def gain_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every setting: shares of gains and losses, median ratios of its cells."""
    found = list(cells(rows))
    lines = []
    for setting, label in SETTINGS.items():
        ratios = [each.median() for name, _, each in found if name == setting]
        shares = _shares(found, (setting,))
        lines.append(
            {
                "Setting": label,
                "Instances": str(len(ratios)),
                "Half or less": percent(shares["strong"]),
                "A tenth less": percent(shares["gain"]),
                "A tenth more": percent(shares["loss"]),
                "Double or more": percent(shares["bad"]),
                "Median ratios": f"{number(min(ratios), 2)} to {number(max(ratios), 2)}",
            }
        )
    return pd.DataFrame(lines)


@measure("averaging", "polytopes", "smoothing", "penalties")
def slope_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Fitted slopes, plain and with one extrapolation."""
    wolfe, strength, budget, bias = frank_wolfe_slope(rows), strength_slope(rows), smoothing_slope(rows), ridge_slope(rows)
    mean = averaging_slope(rows)

    def line(what, against, plain, once, more=""):
        shown = {"Plain": interval(plain, fixed), "Extrapolated": interval(once, fixed)}
        return {"Error of": what, "against": against, **shown, "More": more}

    lines = [
        line(
            f"mean iterate, variances $i^{{-{decay:g}}}$",
            "k",
            *(mean[key(f"decay {decay:g}", m)] for m in ("exact", "extrapolated")),
        )
        for decay in levels(rows, "averaging", "decay")
    ]
    lines += [
        line(
            f"Frank-Wolfe, {region}, {rule}".replace("l1", r"$\ell_1$"),
            "k",
            *(wolfe[key(region, rule, m)] for m in ("plain", "projected")),
        )
        for region, rule in (*POLYTOPES, *BEYOND)
        if rule != "line search"
    ]
    lines += [
        line(
            f"{what}, {name}",
            against,
            found[key(name, ORDERS[0])],
            found[key(name, ORDERS[1])],
            ", ".join(fixed(found[key(name, order)]) for order in ORDERS[2:]),
        )
        for what, against, found in (("smoothed minimum", "strength", strength), ("smoothed lasso", "gradients", budget))
        for name in SMOOTHINGS
    ]
    lines.append(line("ridge, bias", "penalty", *(bias[key(order)] for order in ORDERS[:2]), fixed(bias["order_2"])))
    return pd.DataFrame(lines)


@measure("differences")
def product_slope(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of the error of H v in float64 against the step, where it is below a tenth of the product and above rounding."""
    found = {}
    for order in levels(rows, "differences", "order"):
        errors = table(rows, "differences", "error", "strength", dtype="float64", order=order)
        typical = errors.median()
        rising = (typical.index >= typical.idxmin() * 2) & (typical < 0.01) & (typical > ROUNDING_FREE)
        found[key(f"order {order:g}")] = statistics.mean(slopes(errors.loc[:, rising]))
    return found


@measure("differences")
def product_error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Least median error of H v over the steps, and the step that gives it (`at`)."""
    found = {}
    for dtype in levels(rows, "differences", "dtype"):
        for order in levels(rows, "differences", "order"):
            errors = table(rows, "differences", "error", "strength", dtype=dtype, order=order)
            best = errors.median().idxmin()
            found[key(dtype, f"order {order:g}")] = statistics.median(errors[best])
            found[key(dtype, f"order {order:g}", "at")] = Estimate(best)
    return found


@measure("constant_rate")
def constant_rate(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Slope of the mean iterate's bias against the rate, plain; the share of the bias that an extrapolation leaves at the least
    rate; the share of seeds and rates where it is `better`. `memory`: AdaHessian's extrapolated bias at the least rate with
    beta_2 0.99 minus that with the default.
    """
    found = {}
    least = {}
    for method in levels(rows, "constant_rate", "method"):
        plain, once = (table(rows, "constant_rate", "bias", "strength", method=method, order=order) for order in (0, 1))
        first = plain.columns[0]
        found[key(method, "slope")] = statistics.mean(slopes(plain))
        found[key(method, "left")] = statistics.mean(once[first] / plain[first])
        least[method] = once[first]
        found[key(method, "better")] = Estimate(np.mean(once.to_numpy() < plain[once.columns].to_numpy()), n=once.size)
    return found | {"memory": statistics.paired(least["AdaHessian, beta2 0.99"], least["AdaHessian"])}
