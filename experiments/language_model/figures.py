"""Bits per character against work, time, learning rate and block size, beside the paper's tables. Less is better."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from secondlook.problems.published import TABLE_6, TABLE_7
from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .names import BLOCKS, block
from .selections import averaging, by_block, by_factor, by_method, by_rate, compared, counted, epochs, learning_rates

AGAINST = {"steps, in epochs": None, "gradient equivalents": "gradient_equivalents", "seconds of training": "seconds"}
BITS = "bits per character"


def _counted(panel: Axes, value: float, name: str) -> None:
    panel.axhline(value, color=style.GREY, linewidth=0.8, linestyle=":")
    panel.text(0.01, value, name, transform=panel.get_yaxis_transform(), va="top", fontsize=7)


@figure("comparison")
def curves(rows: pd.DataFrame) -> Figure:
    """Shows: bits per character on the test windows against epochs, work and time; bands are ranges over seeds."""
    figure, panels = style.axes(1, 3, height=2.7, sharey=True)
    for panel, (effort, name) in zip(panels, AGAINST.items(), strict=True):
        for case, few in compared(rows).items():
            spent = epochs(rows, case, name) if name else None
            comparisons.curves(panel, epochs(rows, case, "bits"), few, spent)
        panel.axhline(counted(rows, "comparison", "bigram"), color=style.GREY, linewidth=0.8, linestyle=":")
        panel.set(xlabel=effort)
    panels[0].set(ylabel=f"{BITS}, test")
    comparisons.legend(figure, panels[0], 3)
    return figure


@figure("comparison")
def comparison(rows: pd.DataFrame) -> Figure:
    """Shows: bits per character on the test windows after the last epoch, every method at its own rate."""
    figure, panel = style.axes(height=2.6)
    runs = [(method, by_method(rows, case=case)[method]) for case, few in compared(rows).items() for method in few]
    for at, (method, values) in enumerate(runs):
        comparisons.spread(panel, at, values, style.COLOUR[method])
    comparisons.lines(panel, [method for method, _ in runs])
    panel.set(xlabel=f"{BITS}, test")
    return figure


@figure("rates", "fine_rates")
def rate_sweep(rows: pd.DataFrame) -> Figure:
    """Shows: bits on the validation windows by the factor on the centre of each method's rates, round by round."""
    rounds = {"rates": "half decades", "fine_rates": "factors of 1.5 around the best", "peer_rates": "Muon and SOAP"}
    rounds = {case: title for case, title in rounds.items() if case in set(rows.case)}
    figure, panels = style.axes(1, len(rounds), height=2.9, sharey=True)
    for panel, (case, title) in zip(panels, rounds.items(), strict=True):
        tables = by_rate(rows, case)
        comparisons.sweep(panel, tables)
        _counted(panel, counted(rows, case, "unigram"), "frequencies alone")
        comparisons.factors(panel, sorted({factor for table in tables.values() for factor in table})[::2])
        panel.set(title=title, xlabel="factor on the centre")
    panels[0].set(ylabel=f"{BITS}, validation")
    named = {name: line for panel in panels for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=-(-len(named) // 2))
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


@figure(
    "comparison",
    cases={"absolute_blocks": ("absolute_rates", "absolute_blocks"), "signed_blocks": ("signed_rates", "signed_blocks")},
)
def blocks(rows: pd.DataFrame, trials: str, case: str) -> Figure:
    """Shows: AdaHessian by the size of its blocks. Left: bits on the validation windows of all trials. Right: bits on the test
    windows less those of blocks of one entry, in per cent, beside the range of the paper's Table 7.
    """
    figure, (tuning, test) = style.axes(1, 2, height=2.8)
    tables, rate = by_rate(rows, trials), learning_rates(rows, trials)
    for size, colour in zip(BLOCKS, style.SERIES, strict=False):
        name = block(size, averaging(case))
        tuning.semilogx(rate[name], tables[name].mean(), "o-", color=colour, label=f"blocks of {size}")
    tuning.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    tuning.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    tuning.xaxis.set_minor_formatter(NullFormatter())
    tuning.set(xlabel="learning rate", ylabel=f"{BITS}, validation")
    tuning.legend()

    table = by_block(rows, case)
    change = 100 * table.div(table[1], axis=0) - 100
    for size in BLOCKS:
        comparisons.upright(test, size, change[size], style.COLOUR["AdaHessian"])
    spread = 100 * (TABLE_7[1] / TABLE_7[0] - 1)
    test.axhspan(-spread, spread, color=style.GREY, alpha=0.2, linewidth=0, label="range of BLEU in the paper")
    test.axhline(0, color=style.GREY, linewidth=0.8)
    test.set_xscale("log", base=2)
    comparisons.factors(test, BLOCKS)
    test.set(xlabel="entries in a block", ylabel="bits over those of\nblocks of one, %")
    test.legend()
    return figure
