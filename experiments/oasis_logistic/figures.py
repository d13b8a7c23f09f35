"""How fast untuned OASIS is beside tuned methods, and what wrong constants cost."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .selections import METHODS, STOCHASTIC, at_the_end, level_of, levels, problems, ratio, until, work, wrong

LINE = {"OASIS, fixed": "--", "L-BFGS": ":", "AdGD": "-."}
MARK = {"Adam": "o", "AdaHessian": "s"}  # where lines are alike in grey
WIDE = {"OASIS": 2.4}
SHOWN = (
    "cancer",
    "digits",
    "rotated 1e2",
    "rotated 1e4",
    "sparse 1e4",
    "sparse 1e6",
)  # of each kind, the easier and the harder
MISS = 3.0  # where a miss is drawn, in multiples of the most epochs seen
MOST = 10.0  # of the axis of gaps; what is beyond is drawn there


@figure("deterministic")
def courses(rows: pd.DataFrame) -> Figure:
    """Shows: median epochs until the gap has fallen to each level, on two problems of each kind; a line ends where the median
    misses.
    """
    names = [name for name in SHOWN if name in problems(rows, "deterministic")]
    steps, columns = levels(rows, "deterministic"), 3
    figure, panels = style.axes(-(-len(names) // columns), columns, height=4.0, sharey=True, sharex=True, squeeze=False)
    medians = {level: until(rows, "deterministic", level).groupby(level="problem").median() for level in steps}
    for panel, name in zip(panels.flat, names, strict=False):
        for method in METHODS:
            epochs = np.array([1, *(medians[level].loc[name, method] for level in steps)])
            there = np.isfinite(epochs)
            look = {"color": style.COLOUR[method], "linestyle": LINE.get(method, "-"), "linewidth": WIDE.get(method, 1.2)}
            panel.plot(epochs[there], np.array([1, *steps])[there], marker=MARK.get(method), label=method, **look)
        panel.set(xscale="log", yscale="log", title=name, xlim=(1, None))
        panel.set_yticks([1, 1e-2, 1e-4, 1e-6, 1e-8])
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("epochs")
    for panel in panels[:, 0]:
        panel.set_ylabel("gap")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=7, columnspacing=1.2)
    return figure


@figure("deterministic")
def ratios(rows: pd.DataFrame) -> Figure:
    """Shows: for each method and problem, epochs to the target over those of OASIS, a dot a seed and a bar at the median, and
    below a diamond at the median of work; to the right of the line at 1 OASIS is faster, in the grey band slower by less than
    2. At the edges only one of the two arrives.
    """
    names = problems(rows, "deterministic")
    shown = ("GD", "AdGD", "L-BFGS", "Adam", "AdaHessian", "OASIS, fixed")
    figure, panels = style.axes(2, 3, height=5.4, sharex=True, sharey=True)
    edge = 300.0
    spent = until(rows, "deterministic")
    tables = {"epochs": spent, "work": work(spent)}
    for panel, method in zip(panels.flat, shown, strict=True):
        panel.axvspan(1 / 2, 1, color="#e6e6e6", linewidth=0)
        panel.axvline(1, color=style.INK, linewidth=0.7)
        colour = style.COLOUR[method]
        for row, name in enumerate(names):
            for metric, table in tables.items():
                found = ratio(table.loc[name, method], table.loc[name, "OASIS"]).clip(1 / edge, edge)
                if found.empty:
                    continue
                if metric == "work":
                    panel.plot(found.median(), row + 0.25, "D", color=colour, markersize=3.5, markerfacecolor="white")
                    continue
                panel.plot(found, [row - 0.15] * len(found), "o", color=colour, markersize=3, alpha=0.4, markeredgewidth=0)
                panel.plot(found.median(), row - 0.15, "|", color=colour, markersize=8, markeredgewidth=1.8)
        panel.set(xscale="log", xlim=(0.7 / edge, 1.4 * edge), title=method)
        comparisons.lines(panel, names)
    panels[0, 0].set_xticks([1 / edge, 0.1, 1, 10, edge], ["OASIS\nmisses", "0.1", "1", "10", "method\nmisses"])
    panels[0, 0].minorticks_off()
    figure.supxlabel("epochs (dots, bar) and work (diamond) of the method, over those of OASIS", fontsize=9)
    return figure


@figure("constants")
def constants(rows: pd.DataFrame) -> Figure:
    """Shows: median epochs to the level against the factor by which a constant is wrong, one panel a problem: above the
    constants of OASIS, below the rates of the others. Bars are the seeds' range; misses lie on the dashed line.
    """
    names = problems(rows, "constants")
    figure, panels = style.axes(2, len(names), height=4.0, sharey="row", sharex=True, squeeze=False)
    lines = {
        "first rate": ("OASIS", "lr", style.COLOUR["OASIS"], "-"),
        r"$1 - \beta_2$": ("OASIS", "beta2", style.SERIES[0], "-."),
        r"$\alpha$": ("OASIS", "alpha", style.SERIES[2], "--"),
    }
    others = {m: (m, "lr", style.COLOUR[m], LINE.get(m, "-")) for m in ("GD", "Adam", "AdaHessian", "AdGD")}
    top = rows[(rows.case == "constants") & np.isfinite(rows.value) & (rows.metric == "epochs")].value.max()
    top = MISS * (top if np.isfinite(top) else 1)
    for column, name in enumerate(names):
        level = level_of(rows, name)
        for panel, shown in zip(panels[:, column], (lines, others), strict=True):
            for mark, (label, (method, constant, colour, line)) in zip("osDv", shown.items(), strict=False):
                table = wrong(rows, name, method, constant, level).replace(np.inf, top).clip(lower=1)
                middle = table.median()
                spread = [middle - table.min(), table.max() - middle]
                look = {"color": colour, "linestyle": line, "marker": mark, "markersize": 4, "elinewidth": 0.7}
                panel.errorbar(table.columns, middle, yerr=spread, label=label, **look)
            panel.axhline(top, color=style.INK, linewidth=0.6, linestyle="--")
            panel.set(xscale="log", yscale="log", ylim=(3, 1.6 * top))
            panel.set_xticks([0.01, 1, 100], ["0.01", "1", "100"])
        panels[0, column].set_title(f"{name}, {level:.0e}".replace("e-0", "e-"), fontsize=8)
        panels[1, column].set_xlabel("wrong by")
    for panel, shown in zip(panels[:, 0], ("OASIS", "others"), strict=True):
        panel.set_ylabel(f"{shown}: epochs")
        panel.set_yticks([10, 100, top], ["10", "100", "miss"])
    for panel in panels[:, -1]:
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@figure("batches")
def batches(rows: pd.DataFrame) -> Figure:
    """Shows: with mini-batches, the gap at the end of the run, one panel a problem; a dot a seed, a bar at the median. The
    target is dotted, the start solid; hollow: gradients compared on one batch. What diverged is at the right edge.
    """
    names, ends = problems(rows, "batches"), at_the_end(rows, "batches")
    figure, panels = style.axes(1, len(names), height=2.9, sharey=True, squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        for height, method in enumerate(STOCHASTIC):
            colour = style.COLOUR[method.removesuffix(", same batch")]
            found = np.clip(ends.loc[name][method], None, MOST)
            face = "white" if method.endswith("same batch") else colour
            panel.plot(found, np.full(len(found), height), "o", color=colour, markerfacecolor=face, markersize=3.5, alpha=0.5)
            panel.plot(np.median(found), height, "|", color=colour, markersize=9, markeredgewidth=2)
        panel.axvline(1, color=style.INK, linewidth=0.7)
        panel.axvline(1e-2, color=style.INK, linewidth=0.7, linestyle=":")
        panel.set(xscale="log", title=name, xlabel="gap", xlim=(1e-4, 1.3 * MOST))
        panel.set_xticks([1e-3, 1e-1, 10])
        panel.grid(axis="y", visible=False)
    panels[0, 0].set_yticks(range(len(STOCHASTIC)), STOCHASTIC)
    panels[0, 0].invert_yaxis()
    return figure


@figure("network", "network_batches")
def network(rows: pd.DataFrame) -> Figure:
    """Shows: on the network, epochs until the training loss is at the target, with all examples and with mini-batches; a dot a
    seed, a bar at the median; what misses lies on the dashed line. Hollow: gradients compared on one batch.
    """
    figure, panels = style.axes(1, 2, height=2.7)
    titles = {"network": "all examples", "network_batches": "mini-batches"}
    for panel, (case, title) in zip(panels, titles.items(), strict=True):
        spent = until(rows, case)
        methods = [method for method in dict.fromkeys((*METHODS, *STOCHASTIC)) if method in spent]
        top = spent.to_numpy()[np.isfinite(spent)].max(initial=1.0)
        for height, method in enumerate(methods):
            colour = style.COLOUR[method.removesuffix(", same batch")]
            face = "white" if method.endswith("same batch") else colour
            found = spent[method].replace(np.inf, MISS * top)
            beside = height + np.linspace(-0.2, 0.2, len(found))
            panel.plot(found, beside, "o", color=colour, markerfacecolor=face, markersize=2.5, alpha=0.5)
            panel.plot(np.median(found), height, "|", color=colour, markersize=9, markeredgewidth=2)
        panel.axvline(MISS * top, color=style.INK, linewidth=0.6, linestyle="--")
        panel.set(xscale="log", title=title, xlabel="epochs")
        ticks = [tick for tick in (1, 3, 10, 30, 100, 300) if spent.to_numpy().min() / 2 <= tick <= top]
        panel.set_xticks([*ticks, MISS * top], [*map(str, ticks), "miss"])
        panel.minorticks_off()
        panel.set_yticks(range(len(methods)), methods)
        panel.invert_yaxis()
        panel.grid(axis="y", visible=False)
    return figure
