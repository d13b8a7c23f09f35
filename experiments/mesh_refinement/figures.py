"""Errors by cells, what a policy loses elsewhere, meshes side by side, transport, and learning."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .names import FAMILIES, FORESIGHT, ORACLE, POLICIES, PRESENT, SIZES, UPSTREAM
from .selections import JUDGE, at_end, carried, cells, learned, log_errors, way

LOOK = {  # colour and line of rules and policies
    "uniform": (style.GREY, ":"),
    JUDGE: (style.SERIES[2], (0, (6, 1, 1, 1, 1, 1))),
    "jumps": ("#999933", "-."),
    POLICIES[0]: (style.SERIES[0], "-"),
    POLICIES[1]: (style.SERIES[1], "--"),
    "policy": (style.SERIES[0], "-"),
    "policy, reversed": (style.SERIES[1], "--"),
    PRESENT: (style.SERIES[3], (0, (3, 1))),
    UPSTREAM["jumps"]: ("#999933", ":"),
    UPSTREAM[JUDGE]: (style.SERIES[2], ":"),
    ORACLE: (style.INK, "-"),
    FORESIGHT: (style.INK, "--"),
}
FRAMES = 6  # of an animation, in an interval
LABEL = {POLICIES[0]: "policy, independent", POLICIES[1]: "policy, messages"}


@figure("static")
def errors(rows: pd.DataFrame) -> Figure:
    """Shows: the error in L2 against the cells that were added, geometric means over problems and seeds, each policy on the
    family that it was trained on; above meshes as in training, below larger problems.
    """
    table = log_errors(rows, "static", "size", "family", "method", "trained")
    figure, panels = style.axes(2, len(FAMILIES), height=4.4, sharey="row")
    for line, size in zip(panels, SIZES, strict=True):
        for panel, family in zip(line, FAMILIES, strict=True):
            for method in ("uniform", JUDGE, "jumps", *POLICIES, ORACLE):
                values = np.exp(
                    table.loc[size, family, method, family if method in POLICIES else "none"].dropna().groupby("step").mean()
                )
                colour, dashes = LOOK[method]
                added = 3 * values.index.to_numpy()  # a cut makes four cells of one
                panel.plot(added, values, color=colour, linestyle=dashes, label=LABEL.get(method, method))
            panel.set(yscale="log", title=family if size == SIZES[0] else f"{family}, larger", xlabel="cells added")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.yaxis.set_minor_locator(NullLocator())
        line[0].set_ylabel("error in $L_2$")
    comparisons.legend(figure, panels[0, 0], 3)
    return figure


@figure("static")
def transfer(rows: pd.DataFrame) -> Figure:
    """Shows: the error of a policy over that of the estimator in L2 on the same problems, by what it was trained on. Dots are
    seeds, diamonds geometric means with their intervals; lines: the estimators (1, and by jumps) and the oracle (black).
    """
    ends = at_end(rows)
    figure, panels = style.axes(2, len(FAMILIES), height=4.2, sharex=True, sharey=True)
    lines = [(policy, trained) for policy in POLICIES for trained in FAMILIES]
    for line, size in zip(panels, SIZES, strict=True):
        for panel, family in zip(line, FAMILIES, strict=True):
            judge = ends.loc[size, family, JUDGE, "none"]
            for at, (policy, trained) in enumerate(lines):
                comparisons.spread(panel, at, ends.loc[size, family, policy, trained] - judge, LOOK[policy][0], show=np.exp)
            for rule in ("jumps", ORACLE):
                panel.axvline(np.exp((ends.loc[size, family, rule, "none"] - judge).mean()), color=LOOK[rule][0], linewidth=0.8)
            panel.axvline(1, color=style.GREY, linewidth=0.8)
            panel.set(title=f"tested on {family}" + (", larger" if size == SIZES[1] else ""))
            comparisons.lines(panel, [f"{'messages, ' if policy == POLICIES[1] else ''}{trained}" for policy, trained in lines])
    for panel in panels[1]:
        panel.set_xlabel(f"error over that of {JUDGE}")
    for line in panels:
        line[0].set_ylabel("trained on")
    return figure


@figure("static")
def meshes(rows: pd.DataFrame) -> Figure:
    """Shows: a larger problem, several circles: the meshes of the estimator in L2, of a policy that was trained on single
    circles, and of greedy cuts by the true error, all with as many cells, darker where finer.
    """
    figure, panels = style.axes(1, 3, height=2.3)
    for panel, (method, title) in zip(panels, ((JUDGE, JUDGE), (POLICIES[0], "policy"), (ORACLE, ORACLE)), strict=True):
        _draw(panel, cells(rows, "static", size=SIZES[1], family="circles", method=method))
        panel.set_title(title)
    return figure


def _draw(panel: Axes, mesh: pd.DataFrame) -> None:
    """The cells of a mesh, darker where finer."""
    shade = colormaps["Blues"](0.15 * np.log2(mesh.side.max() / mesh.side))
    squares = [Rectangle((cell.x, cell.y), cell.side, cell.side) for cell in mesh.itertuples()]
    panel.add_collection(PatchCollection(squares, facecolors=shade, edgecolors=style.INK, linewidths=0.25))
    whole = (0, (mesh.x + mesh.side).max())
    panel.set(xlim=whole, ylim=whole, xticks=[], yticks=[], aspect="equal")
    panel.grid(visible=False)


@figure("transport")
def transport(rows: pd.DataFrame) -> Figure:
    """Shows: the error at the end of every interval over that of greedy cuts by the true error; dots are seeds, lines geometric
    means.
    """
    table = carried(rows)
    figure, panel = style.axes(1, 1, height=2.3)
    for method in (
        JUDGE,
        UPSTREAM[JUDGE],
        "jumps",
        UPSTREAM["jumps"],
        "policy",
        PRESENT,
        "policy, reversed",
        FORESIGHT,
        "uniform",
    ):
        ratio = (table.loc[method] - table.loc[ORACLE]).unstack("seed")
        colour, dashes = LOOK[method]
        panel.plot(ratio.index, np.exp(ratio.mean(axis=1)), color=colour, linestyle=dashes, label=method)
        for seed in ratio:
            panel.plot(ratio.index, np.exp(ratio[seed]), "o", color=colour, markersize=2, alpha=0.4, markeredgewidth=0)
    panel.axhline(1, color=LOOK[ORACLE][0], linewidth=0.8, label=ORACLE)
    panel.set(yscale="log", xlabel="interval", ylabel="error over greedy's", xticks=ratio.index)
    ticks = (0.5, 0.7, 1, 1.4)
    panel.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    comparisons.legend(figure, panel, 4)
    return figure


@figure("transport")
def fronts(rows: pd.DataFrame) -> Figure:
    """Shows: the meshes of the first interval for one circle that moves as the arrow does: of greedy cuts by the true error, of
    the estimator in L2, of the policy, and of the oracle that looks ahead.
    """
    figure, panels = style.axes(1, 4, height=1.9)
    dx, dy = way(rows)
    for panel, method in zip(panels, (ORACLE, JUDGE, "policy", FORESIGHT), strict=True):
        _draw(panel, cells(rows, "transport", method=method, step=1))
        panel.set_title(method)
        middle, length = panel.get_xlim()[1] / 2, panel.get_xlim()[1] / 8 / np.hypot(dx, dy)
        ends = {"xytext": (middle - length * dx, middle - length * dy), "xy": (middle + length * dx, middle + length * dy)}
        panel.annotate("", **ends, arrowprops={"arrowstyle": "-|>", "color": style.SERIES[2], "linewidth": 1.5})
    return figure


@figure("transport", kind="animation")
def chase(rows: pd.DataFrame) -> style.Animation:
    """Shows: a front that is carried over the meshes of the estimator in L2 and of the policy, which are made anew at every
    interval; darker where finer.
    """
    figure, panels = style.axes(1, 2, height=3.0, width=5.4)
    methods = (JUDGE, "policy")
    at = rows[rows.metric == "front"][["x", "y"]].to_numpy() + 0.5  # (cells, 2)
    intervals = sorted(rows[(rows.case == "transport") & (rows.metric == "side")].step.unique())
    meshes = {(i, method): cells(rows, "transport", method=method, step=i) for i in intervals for method in methods}
    whole = (meshes[intervals[0], JUDGE].x + meshes[intervals[0], JUDGE].side).max()
    carried_by = way(rows)

    def draw(frame: int):
        interval = frame // FRAMES
        for panel, method in zip(panels, methods, strict=True):
            panel.clear()
            _draw(panel, meshes[intervals[interval], method])
            panel.plot(*((at + carried_by * frame / FRAMES) % whole).T, ".", color=style.SERIES[2], markersize=2.5)
            panel.set_title(f"{method}: interval {interval + 1}")

    return style.Animation(figure, draw, FRAMES * len(intervals), pause=200)


@figure("optimisers")
def learning(rows: pd.DataFrame) -> Figure:
    """Shows: the error of the policy over that of greedy cuts by the true error, by updates and by work in gradients, trained
    by Adam and by AdaHessian; means and ranges over seeds.
    """
    oracle = rows[(rows.case == "optimisers") & (rows.metric == "oracle")].groupby("seed").value.first()
    spent = rows[(rows.case == "optimisers") & (rows.metric == "work")].groupby(["method", "step"]).value.first()
    table = learned(rows, "optimisers").droplevel("lr")
    figure, panels = style.axes(1, 2, height=2.4, sharey=True)
    for method in table.index.unique("method"):
        ratio = np.exp(table.loc[method] - oracle)
        ratio = ratio[ratio.index > 0]
        for panel, x in zip(panels, (ratio.index, spent[method][ratio.index]), strict=True):
            panel.plot(x, ratio.mean(axis=1), "o-", color=style.COLOUR[method], label=method)
            panel.fill_between(x, ratio.min(axis=1), ratio.max(axis=1), color=style.COLOUR[method], alpha=0.15, linewidth=0)
    panels[0].set(xlabel="updates", ylabel="error over the oracle's")
    panels[1].set(xlabel="work, gradients")
    comparisons.legend(figure, panels[0], 2)
    return figure
