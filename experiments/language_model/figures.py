"""Bits per character against work, time, learning rate and block size, beside the paper's tables. Less is better."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.problems.published import TABLE_6, TABLE_7
from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .names import TUNED
from .selections import by_block, by_factor, by_method, by_rate, counted, epochs

AGAINST = {"steps, in epochs": None, "gradient equivalents": "gradient_equivalents", "seconds of training": "seconds"}
BITS = "bits per character"


def _counted(panel: Axes, value: float, name: str) -> None:
    panel.axhline(value, color=style.GREY, linewidth=0.8, linestyle=":")
    panel.text(0.01, value, name, transform=panel.get_yaxis_transform(), va="top", fontsize=7)


@figure("comparison")
def curves(rows: pd.DataFrame) -> Figure:
    """Shows: bits per character on the test windows against epochs, work and time; bands are ranges over seeds."""
    figure, panels = style.axes(1, 3, height=2.7, sharey=True)
    values = epochs(rows, "comparison", "bits")
    for panel, (effort, name) in zip(panels, AGAINST.items(), strict=True):
        spent = epochs(rows, "comparison", name) if name else None
        comparisons.curves(panel, values, TUNED, spent)
        panel.axhline(counted(rows, "comparison", "bigram"), color=style.GREY, linewidth=0.8, linestyle=":")
        panel.set(xlabel=effort)
    panels[0].set(ylabel=f"{BITS}, test")
    comparisons.legend(figure, panels[0], 3)
    return figure


@figure("comparison")
def comparison(rows: pd.DataFrame) -> Figure:
    """Shows: bits per character on the test windows after the last epoch, every method at its own rate."""
    figure, panel = style.axes(height=2.6)
    comparisons.spreads(panel, by_method(rows))
    panel.set(xlabel=f"{BITS}, test")
    return figure


@figure("rates")
def rate_sweep(rows: pd.DataFrame) -> Figure:
    """Shows: bits on the validation windows by the factor on the centre of each method's learning rates."""
    figure, panel = style.axes(height=2.9)
    tables = by_rate(rows)
    comparisons.sweep(panel, tables)
    _counted(panel, counted(rows, "rates", "unigram"), "frequencies alone")
    comparisons.factors(panel, sorted({factor for table in tables.values() for factor in table}))
    panel.set(xlabel="factor on the centre of the rates", ylabel=f"{BITS}, validation")
    comparisons.legend(figure, panel, 3)
    return figure


@figure("comparison", "scaling")
def scaling(rows: pd.DataFrame) -> Figure:
    """Shows: the paper's Table 6, and bits here, by the factor on each method's tuned learning rate."""
    figure, (stated, measured) = style.axes(1, 2, height=2.8)
    comparisons.stated(stated, TABLE_6, "BLEU (more is better)")
    comparisons.sweep(measured, by_factor(rows))
    _counted(measured, counted(rows, "scaling", "unigram"), "frequencies alone")
    measured.set(title="characters, here", xlabel="factor on the learning rate", ylabel=f"{BITS} (less is better)")
    for panel in (stated, measured):
        comparisons.factors(panel, [0.5, 1, 2, 5, 10])
    comparisons.legend(figure, measured, 4)
    return figure


@figure("comparison", "blocks")
def blocks(rows: pd.DataFrame) -> Figure:
    """Shows: bits of AdaHessian by the size of its blocks, less those of blocks of one entry, in per cent, beside the range of
    the paper's Table 7.
    """
    figure, panel = style.axes(height=2.5)
    table = by_block(rows)
    change = 100 * table.div(table[1], axis=0) - 100
    for size in table.columns[1:]:
        comparisons.upright(panel, size, change[size], style.COLOUR["AdaHessian"])
    spread = 100 * (TABLE_7[1] / TABLE_7[0] - 1)
    panel.axhspan(-spread, spread, color=style.GREY, alpha=0.2, linewidth=0, label="range of BLEU in the paper")
    panel.axhline(0, color=style.GREY, linewidth=0.8)
    panel.set_xscale("log", base=2)
    comparisons.factors(panel, list(table.columns[1:]))
    panel.set(xlabel="entries in a block", ylabel="bits over those of\nblocks of one, %")
    panel.legend()
    return figure
