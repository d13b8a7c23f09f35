"""How a comparison of methods is drawn: every seed, the mean with its interval, curves against effort, sweeps over rates.

Tables of runs have a method (and whatever else names a run) as the first level of their index; the colour is the method's own.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.reporting.style import COLOUR
from secondlook.study.statistics import LEVEL, mean

DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (2, 1)))  # of the methods of a sweep, told apart in grey
BESIDE = 0.15  # how far dots and interval lie from their line


def spread(panel: Axes, at: float, values: pd.Series, colour: str, show: Callable = lambda x: x, level: float = LEVEL) -> None:
    """On the line `at`, every value as a dot above, and below a diamond at the mean with its interval; drawn as `show` maps
    them, say from logarithms to factors."""
    found = mean(values, level)
    panel.plot(show(values), [at - BESIDE] * len(values), "o", color=colour, alpha=0.45, markeredgewidth=0)
    panel.plot([show(end) for end in found.ends], [at + BESIDE] * 2, color=colour)
    panel.plot(show(found.value), at + BESIDE, "D", color=colour)


def upright(panel: Axes, at: float, values: pd.Series, colour: str, label: str | None = None) -> None:
    """The same at the abscissa `at`, dots and interval in one column."""
    found = mean(values)
    panel.plot([at] * len(values), values, "o", color=colour, alpha=0.45, markeredgewidth=0)
    panel.plot([at] * 2, found.ends, color=colour)
    panel.plot(at, found.value, "D", color=colour, label=label)


def lines(panel: Axes, names: Iterable[str]) -> None:
    """A line of the panel for each name, the first on top."""
    names = list(names)
    panel.set_yticks(range(len(names)), labels=names)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)


def spreads(panel: Axes, table: pd.DataFrame) -> None:
    """A line with its spread for each method, a column of `table`."""
    for at, method in enumerate(table):
        spread(panel, at, table[method], COLOUR[method])
    lines(panel, table)


def bars(panel: Axes, table: pd.DataFrame) -> None:
    """For each method, a column of `table`, every value as a dot, one above the other, and a bar at the mean."""
    beside = np.linspace(-0.2, 0.2, len(table))
    for at, method in enumerate(table):
        values, colour = table[method], COLOUR[method]
        panel.plot(values, at + beside, "o", color=colour, markersize=2.5, alpha=0.6, markeredgewidth=0)
        panel.plot([values.mean()] * 2, [at - 0.35, at + 0.35], color=colour, linewidth=1.6)
    lines(panel, table)


def curves(panel: Axes, values: pd.DataFrame, methods: Iterable[str], spent: pd.DataFrame | None = None) -> None:
    """Means over runs, and their range as a band, against the columns of `values`, or against the means of `spent`."""
    for method in methods:
        y = values.loc[method]
        x = y.columns if spent is None else spent.loc[method].mean()
        panel.plot(x, y.mean(), color=COLOUR[method], label=method)
        panel.fill_between(x, y.min(), y.max(), color=COLOUR[method], alpha=0.12, linewidth=0)


def sweep(panel: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    """For each method the means over seeds by factor on its rate, and every seed as a dot."""
    for (method, table), dashes in zip(tables.items(), itertools.cycle(DASHES), strict=False):
        panel.semilogx(table.columns, table.mean(), color=COLOUR[method], linestyle=dashes, label=method)
        for _, line in table.iterrows():
            panel.plot(table.columns, line, "o", color=COLOUR[method], alpha=0.45, markeredgewidth=0)


def stated(panel: Axes, scores: Mapping[str, Mapping[float, float]], ylabel: str) -> None:
    """A sweep that a paper prints: scores by factor."""
    for method, found in scores.items():
        panel.semilogx(list(found), list(found.values()), "D-", color=COLOUR[method], label=method)
    panel.set(title="translation, paper", xlabel="factor on the learning rate", ylabel=ylabel)


def factors(panel: Axes, found: Iterable[float]) -> None:
    """Ticks at these factors, in plain numbers, and nowhere else."""
    found = list(found)
    panel.set_xticks(found, labels=[f"{factor:g}" for factor in found])
    panel.minorticks_off()


def legend(figure: Figure, panel: Axes, columns: int) -> None:
    """The names of `panel` above the whole figure."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=columns)
