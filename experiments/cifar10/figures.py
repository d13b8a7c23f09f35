"""Accuracy against work, time and learning rate, beside the paper's tables."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.problems.published import TABLE_2, TABLE_6, TABLE_8_ACCURACY, TABLE_8_COST
from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .names import OPTIMISERS, STARTS, every
from .selections import CHANCE, accuracies, at_equal_work, begun, by_factor, effort, epochs

NETWORKS = {"quick": "ResNet-20, few epochs", "residual": "ResNet-8, 12 epochs"}  # of a case; the others have the small one
TICKS = [digit * 10.0**power for power in range(-1, 4) for digit in (1, 2, 5)]  # of a logarithmic axis
AGAINST = {"epoch": None, "gradient equivalents": "gradient_equivalents", "seconds of training": "seconds"}


@figure(
    cases={
        "resnet20_curves": "resnet20",
        "resnet32_curves": "resnet32",
        "residual_curves": "residual",
        "small_curves": "small",
    }
)
def curves(rows: pd.DataFrame, case: str) -> Figure:
    """Shows: test accuracy and loss against epochs, work and time, means over seeds; bands are ranges over seeds."""
    against = {label: name for label, name in AGAINST.items() if name is None or len(epochs(rows, case, name))}
    figure, panels = style.axes(2, len(against), height=4.2, sharey="row", sharex="col")
    for line, (metric, label) in zip(
        panels, {"test_accuracy": "test accuracy, %", "test_loss": "test loss"}.items(), strict=True
    ):
        values = epochs(rows, case, metric)
        for panel, name in zip(line, against.values(), strict=True):
            spent = epochs(rows, case, name) if name else None
            comparisons.curves(panel, values, OPTIMISERS, spent)
        line[0].set(ylabel=label)
    for panel, label in zip(panels[1], against, strict=True):
        panel.set(xlabel=label)
    comparisons.legend(figure, panels[0, 0], len(OPTIMISERS))
    return figure


def _stated(panel: Axes, network: str) -> None:
    """The paper's accuracies, with the spread of its runs."""
    for line, (method, (value, spread)) in enumerate(TABLE_2[network].items()):
        panel.errorbar(value, line, xerr=spread, fmt="D", color=style.COLOUR[method], capsize=2)
    panel.set(title=f"{network}, paper", xlabel="best epoch, %")
    comparisons.lines(panel, TABLE_2[network])


@figure("resnet20", "resnet32")
def accuracy(rows: pd.DataFrame) -> Figure:
    """Shows: best-epoch accuracy of the residual networks beside the paper's Table 2."""
    figure, panels = style.axes(2, 2, height=4.2, sharex="row")
    for (stated, measured), case, network in zip(panels, ("resnet20", "resnet32"), TABLE_2, strict=True):
        _stated(stated, network)
        comparisons.spreads(measured, accuracies(rows, case, best=True))
        measured.set(title=f"{network}, here", xlabel="best epoch, %")
    return figure


@figure(
    cases={
        "quick_accuracy": "quick",
        "residual_accuracy": "residual",
        "small_accuracy": "small",
        "small_tuned_accuracy": "small_tuned",
    }
)
def beside_the_paper(rows: pd.DataFrame, case: str) -> Figure:
    """Shows: the paper's Table 2 for ResNet-20, beside the accuracy after the last epoch here."""
    figure, (stated, measured) = style.axes(1, 2, height=2.5)
    _stated(stated, "ResNet-20")
    comparisons.spreads(measured, accuracies(rows, case)[list(OPTIMISERS)])
    measured.set(title=f"{NETWORKS.get(case, 'small network')}, here", xlabel="last epoch, %")
    return figure


@figure("resnet20", "frequency")
def frequency(rows: pd.DataFrame) -> Figure:
    """Shows: accuracy and cost of ResNet-20 by the steps from one Hessian to the next, beside the paper's Table 8."""
    figure, (left, right) = style.axes(1, 2, height=2.6)
    best, (spent, what) = accuracies(rows, "resnet20", "frequency", best=True), effort(rows, "resnet20", "frequency")
    for k in TABLE_8_ACCURACY:
        for panel, table in ((left, best), (right, spent)):
            panel.plot(
                [k] * len(table), table[every(k)], "o", color=style.COLOUR["AdaHessian"], label="here" if k == 1 else None
            )
    left.plot(list(TABLE_8_ACCURACY), list(TABLE_8_ACCURACY.values()), "x", color=style.INK, label="paper")
    right.plot(list(TABLE_8_COST), list(TABLE_8_COST.values()), "x", color=style.INK, label="paper")
    right.plot(list(TABLE_8_COST), [1 + 2 / k for k in TABLE_8_COST], ":", color=style.GREY, label="1 + 2 / k")
    left.set(xlabel="steps from one Hessian to the next", ylabel="best-epoch accuracy, %")
    right.set(xlabel="steps from one Hessian to the next", ylabel=f"{what} over that of SGD", ylim=(0, None))
    for panel in (left, right):
        panel.set_xticks(list(TABLE_8_COST))
        panel.legend()
    return figure


@figure(
    cases={
        "variants": ("resnet20", "variants"),
        "quick_frequency": ("quick", "quick_frequency"),
        "quick_absolute": ("quick", "quick_absolute"),
        "residual_variants": "residual",
        "small_variants": "small",
        "small_tuned_variants": "small_tuned",
    }
)
def variants(rows: pd.DataFrame, *cases: str) -> Figure:
    """Shows: accuracy of cheaper and other curvatures, less that of AdaHessian, by the time that they take."""
    figure, panel = style.axes(height=2.6)
    table, (spent, what) = accuracies(rows, *cases), effort(rows, *cases)
    time = spent.median()
    for method in table.columns.difference(["SGD", "Adam", "AdamW", "AdaHessian coupled"], sort=False):
        gap = (table[method] - table["AdaHessian"]).dropna()  # seeds that both have
        if method == "AdaHessian":
            panel.plot(time[method], 0, "D", color=style.COLOUR[method], label=method)
        else:
            comparisons.upright(panel, time[method], gap, style.COLOUR[method], method)
    panel.axhline(0, color=style.GREY, linewidth=0.8)
    panel.set(xlabel=f"{what} of a run over that of SGD", ylabel="accuracy minus AdaHessian's, points", xlim=(0, None))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@figure("residual", "residual_longer")
def equal_work(rows: pd.DataFrame) -> Figure:
    """Shows: accuracy of AdaHessian and of first-order methods that had as many gradient equivalents, and so more epochs."""
    figure, (left, right) = style.axes(1, 2, height=2.5)
    comparisons.spreads(left, at_equal_work(rows, "test_accuracy"))
    left.set(xlabel="last epoch, %")
    for case, methods in {"residual": ["AdaHessian"], "residual_longer": ["SGD", "AdamW"]}.items():
        spent = epochs(rows, case, "gradient_equivalents")
        comparisons.curves(right, epochs(rows, case, "test_accuracy"), methods, spent)
    right.set(xlabel="gradient equivalents", ylabel="test accuracy, %")
    return figure


@figure("first_steps")
def first_steps(rows: pd.DataFrame) -> Figure:
    """Shows: loss and |theta| from step to step, from a gentle start and from one at the full rate; a line is a seed."""
    losses, sizes = begun(rows, "loss"), begun(rows, "size")
    methods = losses.index.unique("method")
    figure, panels = style.axes(2, len(methods), height=3.8, sharex=True, sharey="row")
    for table, line, label in ((losses, panels[0], "loss"), (sizes, panels[1], r"$|\theta|$")):
        for panel, method in zip(line, methods, strict=True):
            for gentle, name in STARTS.items():
                for at, (_, values) in enumerate(table.loc[(method, gentle)].iterrows()):
                    drawn = {"linestyle": ":" if gentle else "-", "linewidth": 1, "label": None if at else name}
                    panel.semilogy(values.index, values, color=style.COLOUR[method], **drawn)
        ends = line[0].get_ylim()
        ticks = [tick for tick in TICKS if ends[0] < tick < ends[1]]
        line[0].set(ylabel=label, yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks], ylim=ends)
        line[0].minorticks_off()
    for panel, below, method in zip(*panels, methods, strict=True):
        panel.set(title=method)
        below.set(xlabel="steps")
        panel.legend()
    return figure


@figure(
    cases={
        "rate_sweep": "rates",
        "quick_rate_sweep": "quick_rates",
        "residual_rate_sweep": "residual_rates",
        "small_rate_sweep": "small_rates",
        "small_robustness": "small_robustness",
    }
)
def rate_sweep(rows: pd.DataFrame, case: str) -> Figure:
    """Shows: accuracy by the factor on each method's learning rate, beside the paper's Table 6."""
    figure, (stated, measured) = style.axes(1, 2, height=2.7)
    tables = by_factor(rows, case)
    comparisons.stated(stated, TABLE_6, "BLEU")
    comparisons.factors(stated, [0.5, 1, 2, 5, 10])
    comparisons.sweep(measured, tables)
    measured.axhline(CHANCE, color=style.GREY, linewidth=0.8, linestyle=":")
    measured.set(title="image classification, here", xlabel="factor on the learning rate", ylabel="validation accuracy, %")
    comparisons.factors(measured, sorted({factor for table in tables.values() for factor in table}))
    comparisons.legend(figure, measured, len(OPTIMISERS))
    return figure
