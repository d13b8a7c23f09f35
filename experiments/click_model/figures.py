"""Trials, the pass of every method, and what a pair of runs differs by."""

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .selections import ADAHESSIAN, COMPARED, GAIN, final, gradients, looks, trials


@figure("rates")
def sweep(rows: pd.DataFrame) -> Figure:
    """Shows: for each method, excess after the pass in millinats by the rate of the networks and that of the tables, means over
    seeds; framed: its least. White: a run diverged.
    """
    tables = trials(rows)
    figure, panels = style.axes(1, len(tables), height=2.6)
    finite = np.concatenate([table.to_numpy()[np.isfinite(table)] for table in tables.values()])
    norm = LogNorm(finite.min(), finite.max())
    for panel, (method, table) in zip(panels, tables.items(), strict=True):
        shown = table.where(np.isfinite(table))
        panel.imshow(shown, cmap=style.SURFACE, norm=norm, origin="lower", aspect="auto")
        for (row, column), excess in np.ndenumerate(shown):
            if np.isfinite(excess):
                colour = "white" if norm(excess) < 0.5 else style.INK
                panel.text(column, row, f"{excess:.1f}", ha="center", va="center", fontsize=7, color=colour)
                if excess == shown.min().min():
                    panel.add_patch(Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, fill=False, color="white", linewidth=1.5))
        panel.set_xticks(range(len(table.columns)), labels=[f"{rate:g}" for rate in table.columns])
        panel.set_yticks(range(len(table)), labels=[f"{rate:g}" for rate in table.index])
        panel.set(title=method.replace(" + ", "\n+ "))
        panel.grid(False)
    panels[0].set(ylabel="rate of the networks")
    panels[len(panels) // 2].set(xlabel="rate of the tables")
    return figure


def _decimal(axis: Axis) -> None:
    """A logarithmic axis that counts 1, 2, 5, 10, 20."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


@figure("comparison")
def curves(rows: pd.DataFrame) -> Figure:
    """Shows: excess on the way, means over seeds, against steps and against gradient equivalents."""
    figure, panels = style.axes(1, 2, height=2.5, sharey=True)
    excess, work = looks(rows, "excess"), gradients(rows)
    for method in excess.index.unique("method"):
        course = excess.loc[method].mean().iloc[1:]
        for panel, effort in zip(panels, (1, work[method]), strict=True):
            panel.plot(effort * course.index, course, color=style.COLOUR[method], label=method)
    for panel, label in zip(panels, ("steps", "gradient equivalents"), strict=True):
        panel.set(xlabel=label, yscale="log", xlim=(0, None))
    _decimal(panels[0].yaxis)
    panels[0].set(ylabel="excess log-loss, millinats")
    comparisons.legend(figure, panels[0], 5)
    return figure


@figure("comparison")
def differences(rows: pd.DataFrame) -> Figure:
    """Shows: AdaHessian + Adagrad less each of the others, in accuracy and in excess: a dot for each seed, a diamond at the
    mean with its interval; dashed: the gain of the paper.
    """
    figure, panels = style.axes(1, 2, height=2.3, sharey=True)
    labels = {"accuracy": "accuracy, points (right is better)", "excess": "excess, millinats (left is better)"}
    for panel, (metric, label) in zip(panels, labels.items(), strict=True):
        table = final(rows, metric)
        for line, other in enumerate(COMPARED.values()):
            comparisons.spread(panel, line, table[ADAHESSIAN] - table[other], style.COLOUR[other])
        panel.axvline(0, color=style.GREY, linewidth=0.8)
        panel.set(xlabel=label)
        comparisons.lines(panel, [f"less {other}" for other in COMPARED.values()])
    panels[0].axvline(GAIN, color=style.INK, linewidth=0.8, linestyle="--")
    return figure
