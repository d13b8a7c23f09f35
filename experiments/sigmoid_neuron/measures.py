"""The sigmoid neuron in numbers: which rates give the article's epochs, and how often AdaHessian is faster or more direct.

What a run, a cell and a group are is said in selections.py.
"""

import numpy as np
import pandas as pd

from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, bound, design_share
from secondlook.study.text import key, number

from . import selections
from .selections import SETTING, STATED, TUNING_SEED

NEAR = 10  # epochs around them that count as the same, over the grid
WINDOW = 2  # the same, for the windows of learning rates
SAME_LOSS = 0.01  # final losses are equal within this share of the way from the first loss to the minimum
STEP_COST = 3  # gradients that a step with a Hessian-vector product is worth: one, and twice its matrix products for H z
BARELY = 0.1  # a run barely moves where it has gone less than this share of the way from the first loss to the minimum


def _shares(equal: pd.DataFrame, best: pd.DataFrame) -> dict[str, Estimate]:
    """Share of cells in which AdaHessian is better, in which it is worse, and in which it is better with each estimator."""
    found = {}
    for at, judged in (("equal", equal), ("best", best)):
        found[at] = design_share(judged.better, judged.group)
        found[f"{at}_worse"] = design_share(judged.worse, judged.group)
        for rule, part in judged.groupby("rule"):
            found[f"{at}_{rule}"] = design_share(part.better, part.group)
    return found


@measure()
def windows(rows: pd.DataFrame) -> dict[str, Estimate]:
    """On the ancestor's set-up: the learning rates that give the article's epochs, how far doubling the middle one moves the
    epoch, and what Adam does at AdaHessian's."""
    found, middles = {}, {}
    for method, stated in STATED.items():
        curve, name = selections.window(rows, method), method.lower()
        off = (curve.stabilised - stated).abs()
        inside = curve.index[off <= off.clip(lower=WINDOW).min()]
        middle = middles[method] = inside[len(inside) // 2]
        doubled = curve.stabilised.iloc[curve.index.get_indexer([2 * middle], method="nearest")[0]]
        found |= {
            f"{name}_off": Estimate(off.min()),
            f"{name}_low": Estimate(inside.min()),
            f"{name}_high": Estimate(inside.max()),
            f"{name}_doubled": Estimate(curve.stabilised[middle] - doubled),
            f"{name}_left": Estimate(curve.left[middle]),
        }
    found["adam_at_equal"] = Estimate(selections.window(rows, "Adam").stabilised[middles["AdaHessian"]])
    found["gap"] = Estimate(STATED["Adam"] - STATED["AdaHessian"])
    return found


@measure()
def stabilisation(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Over the grid: share of pairs of learning rates that give both stated epochs, with equal final losses and without that
    demand; how often AdaHessian stabilises sooner at equal rates; and how many of Adam's runs that stabilise near its stated
    epoch have not arrived."""
    runs = selections.runs(rows)
    pairs = selections.pairs(runs, SETTING)
    epochs = pairs.stabilised.sub(STATED["AdaHessian"]).abs().le(NEAR)
    epochs &= pairs.stabilised_adam.sub(STATED["Adam"]).abs().le(NEAR)
    both = epochs & pairs.left.sub(pairs.left_adam).abs().le(SAME_LOSS)
    equal = selections.at_equal_rate(rows)
    sooner = equal.stabilised < equal.stabilised_adam
    adam = runs[(runs.rule == "Adam") & (runs.stabilised - STATED["Adam"]).abs().le(NEAR)]
    return {
        "both": design_share(both, pairs.group),
        "epochs": design_share(epochs, pairs.group),
        "sooner": design_share(sooner, equal.group),
        "adam_unfinished": design_share(np.isinf(adam.arrived), adam.group),
        "pairs": Estimate(len(pairs)),
    }


@measure()
def faster(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of cells in which AdaHessian arrives in fewer epochs than Adam, among those in which at least one arrives: at equal
    rates and at each one's own best; then for other targets, for the first touch in place of arrival, counting gradients in
    place of epochs, and for three ranges of equal rates."""
    equal, best = selections.at_equal_rate(rows), selections.at_best_rate(rows)
    found = _shares(selections.speed(equal), selections.speed(best))
    for name, epochs in (("loose", "arrived_loosely"), ("tight", "arrived_tightly"), ("touch", "touched")):
        for at, compared in (("equal", equal), ("best", selections.at_best_rate(rows, epochs))):
            judged = selections.speed(compared, epochs)
            found[f"{at}_{name}"] = design_share(judged.better, judged.group)
    costed = selections.speed(best.assign(arrived=best.arrived * STEP_COST))
    found["best_cost"] = design_share(costed.better, costed.group)
    found["gradients_a_step"] = Estimate(STEP_COST)
    judged = selections.speed(equal)
    for name, part in (
        ("slow", judged[judged.lr < 0.1]),
        ("middle", judged[judged.lr.between(0.1, 1)]),
        ("quick", judged[judged.lr > 1]),
    ):
        found[f"equal_{name}"] = design_share(part.better, part.group)
    return found


@measure()
def more_direct(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of cells in which AdaHessian's path has the smaller detour, among those in which both arrive; and the median detour
    of runs that barely move: a straight line, which says nothing."""
    runs = selections.runs(rows)
    still = runs[(runs.left > 1 - BARELY) & (runs.lr == runs.lr.min())]
    found = _shares(selections.directness(selections.at_equal_rate(rows)), selections.directness(selections.at_best_rate(rows)))
    return found | {"still": Estimate(still.detour.median(), n=len(still))}


@measure()
def range_of_rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of best learning rates that lie on the edge of their range, share of runs that end above the loss they began with,
    and number of runs with a loss that is not finite."""
    runs = selections.runs(rows)
    best = selections.at_own_best(runs)
    best = best[best.seed == TUNING_SEED]
    return {
        "lowest": Estimate(runs.lr.min()),
        "highest": Estimate(runs.lr.max()),
        "at_edge": Estimate(best.lr.isin([runs.lr.min(), runs.lr.max()]).mean(), n=len(best)),
        "unarrived": Estimate(np.isinf(best.arrived).sum(), n=len(best)),
        "adam_rose": Estimate((runs[runs.rule == "Adam"].left > 1).mean()),
        "adahessian_rose": Estimate((runs[runs.rule != "Adam"].left > 1).mean()),
        "not_finite": Estimate(np.isinf(runs.left).sum(), n=len(runs)),
        "runs": Estimate(len(runs)),
    }


@measure()
def equalities(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What the largest differences of case parity do not exceed."""
    found = rows[rows.case == "parity"].set_index("method").value
    return {key(name): Estimate(bound(difference)) for name, difference in found.items()}


@measure()
def newton(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Next to the minimum: the factor by which a step of diagonal Newton shrinks the distance (over the later half of its
    steps, and as H predicts it), and the steps to a distance of 1e-6 with the diagonal and with all of H."""
    rows = rows[rows.case == "newton"]
    distances = rows[rows.metric == "distance"].pivot(index="step", columns="method", values="value")
    diagonal = distances["diagonal Newton"]
    last = diagonal.index[-1]
    near = distances <= 1e-6
    return {
        "rate": Estimate((diagonal[last] / diagonal[last // 2]) ** (1 / (last - last // 2))),
        "predicted": Estimate(rows[rows.metric == "rate"].value.item()),
        "diagonal_steps": Estimate(near["diagonal Newton"].idxmax() if near["diagonal Newton"].any() else np.inf),
        "full_steps": Estimate(near["Newton"].idxmax()),
    }


@measure()
def rises(rows: pd.DataFrame) -> Estimate:
    """Epochs in which AdaHessian's loss rises, with the exact diagonal at the rate that gives epoch 150."""
    chosen = rows[(rows.case == "article") & (rows.condition == "stated epochs") & (rows.method == "AdaHessian")]
    return Estimate((np.diff(chosen[chosen.metric == "loss"].sort_values("step").value) > 0).sum())


@measure()
def article_rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Learning rates of case article."""
    runs = rows[rows.case == "article"].groupby(["condition", "method"])
    return {key(*name): Estimate(run.lr.iloc[0]) for name, run in runs}


@measure()
def article_arrivals(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Epochs from which the losses of case article stay at the target or below."""
    found = {}
    for name, run in rows[rows.case == "article"].groupby(["condition", "method"]):
        loss, target = run[run.metric == "loss"], run[run.metric == "target"].value.item()
        above = loss.step[loss.value > target].max()
        found[key(*name)] = Estimate(above + 1 if above < loss.step.max() else np.inf)
    return found


@measure()
def by_problem(rows: pd.DataFrame) -> pd.DataFrame:
    """For each data set and loss: shares of cells in which AdaHessian is faster, and median epochs at each own best rate."""
    equal, best = selections.speed(selections.at_equal_rate(rows)), selections.speed(selections.at_best_rate(rows))
    runs = selections.at_own_best(selections.runs(rows))
    runs = runs[(runs.rule != "probes") | (runs.seed != TUNING_SEED)]
    lines = []
    for (data, loss), part in equal.groupby(["data", "loss"], sort=False):
        own = best[(best.data == data) & (best.loss == loss)]
        epochs = runs[(runs.data == data) & (runs.loss == loss)].groupby("rule").arrived.median()
        lines.append(
            {
                "Data": data,
                "Loss": loss,
                "Faster, equal rate": f"{100 * part.groupby('group').better.mean().mean():.0f} %",
                "Faster, own best": f"{100 * own.groupby('group').better.mean().mean():.0f} %",
                **{name: f"{epochs[rule]:.0f}" for name, rule in (("Adam", "Adam"), ("Exact", "exact"), ("Probe", "probes"))},
            }
        )
    return pd.DataFrame(lines)


@measure()
def corrections(rows: pd.DataFrame) -> pd.DataFrame:
    """What the article says, what holds, and what was measured."""
    same, near = equalities(rows), newton(rows)
    lines = [
        (
            "The s of the averaged diagonal is a scaling factor.",
            "(s) marks the spatially averaged diagonal. The rule has no scaling factor.",
            f"Without one, it equals the library's AdaHessian within {number(same['adahessian'], 1)}.",
        ),
        (
            "Spatial averaging improves stability and convergence.",
            "It averages within a tensor. w and b are one number each: it does nothing here.",
            f"Blocks of one change the path by {number(same['block_1'])}. Forcing w and b into one block, which the method "
            f"does not do, changes it by {number(same['block_2'], 2)}.",
        ),
        (
            "The diagonal has the same convergence rate as the full Hessian on simple convex functions.",
            "The same upper bound is proved for both. The rates differ.",
            f"Next to the minimum, a distance of 1e-6 takes {near['full_steps'].value:.0f} steps with H and "
            f"{near['diagonal_steps'].value:.0f} with its diagonal, which keeps {100 * near['rate'].value:.0f} % of it a step.",
        ),
        (
            "Fluctuations around epochs 100 to 150 suggest noise or changes of the learning rate.",
            "All data are used in each step, and the rate is constant: the probe is the only noise.",
            f"With the exact diagonal the loss rises in {rises(rows).value:.0f} of 200 epochs.",
        ),
    ]
    return pd.DataFrame(lines, columns=["The article", "What holds", "Measured"])
