"""Accuracy against work, time and learning rate, beside the paper's tables."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.problems.published import TABLE_2, TABLE_6, TABLE_8_ACCURACY, TABLE_8_COST
from secondlook.reporting import style
from secondlook.study.declare import figure
from secondlook.study.statistics import mean

from .names import OPTIMISERS, every
from .selections import CHANCE, accuracies, by_factor, epochs, totals

COLOUR = {name: style.COLOUR[name] for name in ("SGD", "Adam", "AdamW", "AdaHessian")} | {
    "AdaHessian coupled": style.COLOUR["absolute-value Newton"],
    "AdaHessian absolute": style.COLOUR["RMSprop"],
    "AdaHessian Gauss-Newton": style.COLOUR["NAdam"],
    "AdaHessian 1/4 batch": style.COLOUR["momentum"],
    **{every(k): style.COLOUR["damped Newton"] for k in (2, 3, 4, 5)},
}
AGAINST = {"epoch": None, "gradient equivalents": "gradient_equivalents", "seconds of training": "seconds"}


@figure(cases={"resnet20_curves": "resnet20", "resnet32_curves": "resnet32", "small_curves": "small"})
def curves(rows: pd.DataFrame, case: str) -> Figure:
    """Shows: test accuracy and loss against epochs, work and time, means over seeds; bands are ranges over seeds."""
    figure, panels = style.axes(2, 3, height=4.2, sharey="row", sharex="col")
    for line, (metric, label) in zip(
        panels, {"test_accuracy": "test accuracy, %", "test_loss": "test loss"}.items(), strict=True
    ):
        values = epochs(rows, case, metric)
        for panel, name in zip(line, AGAINST.values(), strict=True):
            spent = epochs(rows, case, name) if name else None
            for method in OPTIMISERS:
                y = values.loc[method]
                x = y.columns if spent is None else spent.loc[method].mean()
                panel.plot(x, y.mean(), color=COLOUR[method], label=method)
                panel.fill_between(x, y.min(), y.max(), color=COLOUR[method], alpha=0.12, linewidth=0)
        line[0].set(ylabel=label)
    for panel, effort in zip(panels[1], AGAINST, strict=True):
        panel.set(xlabel=effort)
    _legend(figure, panels[0, 0])
    return figure


def _legend(figure: Figure, panel: Axes) -> None:
    """The methods of `panel` above the whole figure."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=len(OPTIMISERS))


def _stated(panel: Axes, network: str) -> None:
    """The paper's accuracies, with the spread of its runs."""
    for line, (method, (value, spread)) in enumerate(TABLE_2[network].items()):
        panel.errorbar(value, line, xerr=spread, fmt="D", color=COLOUR[method], capsize=2)
    panel.set(title=f"{network}, paper", xlabel="best epoch, %")
    _names(panel, list(TABLE_2[network]))


def _measured(panel: Axes, table: pd.DataFrame, title: str, xlabel: str) -> None:
    """Every seed as a dot, and the mean with its interval below."""
    for line, method in enumerate(table):
        found = mean(table[method])
        panel.plot(table[method], [line - 0.15] * len(table), "o", color=COLOUR[method], alpha=0.45, markeredgewidth=0)
        panel.plot(found.ends, [line + 0.15] * 2, color=COLOUR[method])
        panel.plot(found.value, line + 0.15, "D", color=COLOUR[method])
    panel.set(title=title, xlabel=xlabel)
    _names(panel, list(table))


def _names(panel: Axes, methods: list[str]) -> None:
    panel.set_yticks(range(len(methods)), labels=methods)
    panel.set_ylim(len(methods) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)


@figure("resnet20", "resnet32")
def accuracy(rows: pd.DataFrame) -> Figure:
    """Shows: best-epoch accuracy of the residual networks beside the paper's Table 2."""
    figure, panels = style.axes(2, 2, height=4.2, sharex="row")
    for (stated, measured), case, network in zip(panels, ("resnet20", "resnet32"), TABLE_2, strict=True):
        _stated(stated, network)
        _measured(measured, accuracies(rows, case, best=True), f"{network}, here", "best epoch, %")
    return figure


@figure("small")
def small_accuracy(rows: pd.DataFrame) -> Figure:
    """Shows: the paper's Table 2 for ResNet-20, beside the accuracy of the small network after the last epoch."""
    figure, (stated, measured) = style.axes(1, 2, height=2.5)
    _stated(stated, "ResNet-20")
    _measured(measured, accuracies(rows, "small")[list(OPTIMISERS)], "small network, here", "last epoch, %")
    return figure


@figure("resnet20", "frequency")
def frequency(rows: pd.DataFrame) -> Figure:
    """Shows: accuracy and cost of ResNet-20 by the steps from one Hessian to the next, beside the paper's Table 8."""
    figure, (left, right) = style.axes(1, 2, height=2.6)
    best, time = accuracies(rows, "resnet20", "frequency", best=True), totals(rows, "seconds", "resnet20", "frequency")
    for k in TABLE_8_ACCURACY:
        for panel, table in ((left, best), (right, time)):
            panel.plot([k] * len(table), table[every(k)], "o", color=COLOUR["AdaHessian"], label="here" if k == 1 else None)
    left.plot(list(TABLE_8_ACCURACY), list(TABLE_8_ACCURACY.values()), "x", color=style.INK, label="paper")
    right.plot(list(TABLE_8_COST), list(TABLE_8_COST.values()), "x", color=style.INK, label="paper")
    right.plot(list(TABLE_8_COST), [1 + 2 / k for k in TABLE_8_COST], ":", color=style.GREY, label="1 + 2 / k")
    left.set(xlabel="steps from one Hessian to the next", ylabel="best-epoch accuracy, %")
    right.set(xlabel="steps from one Hessian to the next", ylabel="time over that of SGD", ylim=(0, None))
    for panel in (left, right):
        panel.set_xticks(list(TABLE_8_COST))
        panel.legend()
    return figure


@figure(cases={"variants": ("resnet20", "variants"), "small_variants": "small"})
def variants(rows: pd.DataFrame, *cases: str) -> Figure:
    """Shows: accuracy of cheaper and other curvatures, less that of AdaHessian, by the time that they take."""
    figure, panel = style.axes(height=2.6)
    table, time = accuracies(rows, *cases), totals(rows, "seconds", *cases).median()
    for method in table.columns.difference(["SGD", "Adam", "AdamW", "AdaHessian coupled"], sort=False):
        gap = table[method] - table["AdaHessian"]
        if method != "AdaHessian":
            panel.plot([time[method]] * len(gap), gap, "o", color=COLOUR[method], alpha=0.45, markeredgewidth=0)
            panel.plot([time[method]] * 2, mean(gap).ends, color=COLOUR[method])
        panel.plot(time[method], gap.mean(), "D", color=COLOUR[method], label=method)
    panel.axhline(0, color=style.GREY, linewidth=0.8)
    panel.set(xlabel="time of a run over that of SGD", ylabel="accuracy minus AdaHessian's, points", xlim=(0, None))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@figure(cases={"rate_sweep": "rates", "small_rate_sweep": "small_rates"})
def rate_sweep(rows: pd.DataFrame, case: str) -> Figure:
    """Shows: accuracy by the factor on each method's learning rate, beside the paper's Table 6."""
    figure, (stated, measured) = style.axes(1, 2, height=2.7)
    for method, scores in TABLE_6.items():
        stated.semilogx(list(scores), list(scores.values()), "D-", color=COLOUR[method], label=method)
    stated.set(title="translation, paper", xlabel="factor on the learning rate", ylabel="BLEU")
    stated.set_xticks([0.5, 1, 2, 5, 10], labels=["0.5", "1", "2", "5", "10"])
    stated.minorticks_off()
    for method, table in by_factor(rows, case).items():
        measured.semilogx(table.columns, table.mean(), color=COLOUR[method], label=method)
        for _, line in table.iterrows():
            measured.plot(table.columns, line, "o", color=COLOUR[method], alpha=0.45, markeredgewidth=0)
    measured.axhline(CHANCE, color=style.GREY, linewidth=0.8, linestyle=":")
    measured.set(title="image classification, here", xlabel="factor on the learning rate", ylabel="validation accuracy, %")
    factors = sorted({factor for table in by_factor(rows, case).values() for factor in table})
    measured.set_xticks(factors, labels=[f"{factor:g}" for factor in factors])
    measured.minorticks_off()
    _legend(figure, measured)
    return figure
