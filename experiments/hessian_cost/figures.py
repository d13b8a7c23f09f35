"""Figures of the experiment; each function says what it shows and which rows it needs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from secondlook.reporting import style
from secondlook.study.declare import figure

from .measures import BYTES
from .selections import HESSIANS, SOLVERS, against_n, exponent, fitted

COLOUR = dict(zip(HESSIANS, style.SERIES, strict=True)) | dict(zip(SOLVERS, style.SERIES, strict=True))


def _powers(ax: Axes, rows: pd.DataFrame, case: str, metric: str, ways: tuple[str, ...]) -> None:
    """Every round as a dot, and the fitted power law where it was fitted, with its exponent in the legend."""
    for way in ways:
        values = against_n(rows, case, metric, way)
        for _, measured in values.iterrows():
            ax.plot(measured.index, measured, "o", color=COLOUR[way], alpha=0.5, markersize=3, markeredgewidth=0)
        slope, medians = exponent(values).value, fitted(values)
        if np.isnan(slope):  # a peak that cannot be told from what the process held before
            ax.plot([], [], color=COLOUR[way], label=way)
            continue
        n = medians.index.to_numpy(dtype=float)
        law = np.exp(np.log(medians).mean() + slope * (np.log(n) - np.log(n).mean()))
        ax.plot(n, law, color=COLOUR[way], label=f"{way}: $n^{{{slope:.2f}}}$")
    ax.set(xscale="log", yscale="log", xlabel="parameters $n$")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="upper left", handlelength=1.2)


@figure("dense", "memory")
def hessian(rows: pd.DataFrame) -> Figure:
    """Time and memory of the dense Hessian against n.

    Shows: (a) seconds, (b) peak memory of five ways to H, every round as a dot; lines are power laws fitted from n = 1000 on.
    Dotted, in (b): the n^2 numbers of H alone.
    """
    figure, (left, right) = style.axes(1, 2, height=3.2)
    _powers(left, rows, "dense", "seconds", HESSIANS)
    _powers(right, rows, "memory", "peak_mib", HESSIANS)
    n = np.sort(rows[rows.case == "memory"].n.unique())
    right.plot(n, BYTES * n**2 / 2**20, ":", color=style.INK, linewidth=1)
    left.set(ylabel="seconds")
    left.set_title("(a) time of the whole Hessian", loc="left")
    right.set(ylabel="MiB")
    right.set_title("(b) peak memory", loc="left")
    for ax in (left, right):
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
    right.annotate("$H$ alone", (n[0], BYTES * n[0] ** 2 / 2**20), (12, -2), textcoords="offset points", fontsize=8)
    return figure


@figure("solve")
def newton_step(rows: pd.DataFrame) -> Figure:
    """Time of Newton's step against n.

    Shows: seconds to p with H p = -g, every round as a dot; lines are power laws fitted from n = 1000 on.
    """
    figure, ax = style.axes(height=3.0, width=4.2)
    _powers(ax, rows, "solve", "seconds", SOLVERS)
    low, high = ax.get_ylim()
    ax.set(ylabel="seconds", xlim=(None, 1.1e4), ylim=(low, high * (high / low) ** 0.4))  # a second decade; room for the legend
    return figure
