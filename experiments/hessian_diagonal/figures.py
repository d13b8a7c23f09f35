"""Where AdaHessian's running mean goes, which estimator to use at which budget, what averaging does, and what it is worth."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from secondlook.reporting import style
from secondlook.reporting.comparisons import lines, spread
from secondlook.study import statistics
from secondlook.study.declare import figure

from . import selections as select
from .selections import NETWORKS

COLOUR = {  # after Okabe and Ito, as in style.COLOUR
    "Hutchinson": style.GREY,
    "XDiag": "#0072b2",
    "Diag++": "#56b4e9",
    "layer by layer": "#7b4b94",
    "block means": "#e69f00",
    "mean of squares": "#d55e00",
    "per example": "#cc79a7",
    "layer sums": "#009e73",
    "Gauss-Newton": style.INK,
}
MARK = dict(zip(COLOUR, "oXPvs^<hD", strict=True))
STAGES = {"start": "at the start", "middle": "half of the first loss", "late": "2 % of the first loss"}
FLOOR = 1e-3  # of errors on logarithmic axes; what is exact stands there


def _band(axis: Axes, x, values: pd.DataFrame, colour: str, middle=statistics.mean, **options) -> None:
    """Means of the columns of `values`, or another `middle`, with their intervals: a line and a band."""
    found = [middle(values[column].dropna()) for column in values]
    low, high = zip(*(f.ends for f in found), strict=True)
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(x, [f.value for f in found], color=colour, **options)


def _plain(axis: Axes, *names: str) -> None:
    """Ordinary numbers on logarithmic axes."""
    for name in names:
        getattr(axis, f"{name}axis").set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
        getattr(axis, f"{name}axis").set_minor_formatter(NullFormatter())


def _exact(axis: Axes) -> None:
    """An axis of errors whose lowest mark says that there are none."""
    ticks = [FLOOR, 0.01, 0.1, 1, 10]
    axis.set_yticks(ticks, labels=["exact", *(f"{tick:g}" for tick in ticks[1:])])
    axis.minorticks_off()


def _names(figure: Figure, methods: Iterable[str]) -> None:
    """Colours and marks of the methods, above the whole figure."""
    handles = [Line2D([], [], color=COLOUR[name], marker=MARK[name], label=name) for name in methods]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, columnspacing=1.4)


@figure("matrices", "limits", "networks")
def limit(rows: pd.DataFrame) -> Figure:
    """Shows: AdaHessian's running mean of squares on matrices and on networks, as probes are added, and entry by entry."""
    figure, (left, middle, right) = style.axes(1, 3, height=2.75)
    orange, blue = style.COLOUR["AdaHessian"], style.COLOUR["Adam"]
    ratios = select.of_case(rows, "matrices", "ratio").pivot(index=["level", "draw"], columns="step", values="value")
    counts = list(ratios)
    for mass, values in ratios.groupby("level"):
        theory = np.sqrt(1 + mass**2)
        left.plot([counts[0], counts[-1]], [theory, theory], "--", color=style.INK, linewidth=0.7)
        found = [statistics.mean(values[count]) for count in counts]
        left.errorbar(
            counts, [f.value for f in found], [f.high - f.value for f in found], fmt="o", color=orange, elinewidth=0.8
        )
        below = -9 if mass == 0 else -3
        left.annotate(f"{mass:g}", (counts[-1], theory), (6, below), textcoords="offset points", fontsize=8)
    left.annotate("mass", (counts[-1], theory), (-4, 7), textcoords="offset points", fontsize=8)
    left.set(xscale="log", xlabel="probes", ylabel="running mean / $|H_{ii}|$", title="matrices")
    left.set(xlim=(0.6, counts[-1] * 5), ylim=(0, 1.15 * theory), xticks=counts)
    for metric, colour, label in (("to diagonal", orange, "from $|H_{ii}|$"), ("to row norms", blue, "from row norms")):
        table = select.running(rows, metric).mean(axis=1).unstack("probes")
        _band(middle, list(table), table, colour, marker="o")
        middle.annotate(label, (10, table[10].mean()), (2, 7), textcoords="offset points", color=colour, fontsize=8)
    end = select.of_cells(rows, "limit").mean(axis=1).mean()
    middle.axhline(end, color=style.INK, linewidth=0.7, linestyle="--")
    middle.annotate("row norms from $|H_{ii}|$", (1, end), (0, -11), textcoords="offset points", fontsize=8)
    middle.set(xscale="log", yscale="log", ylim=(None, 3 * end), xticks=list(table))
    middle.set(xlabel="probes", ylabel="relative distance", title="networks")
    entries = rows[(rows.case == "networks") & rows.entry.notna()].pivot(index="entry", columns="metric", values="value")
    shown = entries[entries["|H_ii|"] > 0]
    for metric, colour in (("|H_ii|", orange), ("row norm", blue)):
        right.plot(shown[metric], shown["running mean"], ".", color=colour, markersize=1.6, alpha=0.5, rasterized=True)
    low, high = np.quantile(shown["|H_ii|"], 0.005) / 2, 2 * shown["running mean"].max()
    right.plot([low, high], [low, high], color=style.INK, linewidth=0.7)
    right.text(0.05, 0.93, "against $|H_{ii}|$", transform=right.transAxes, color=orange, fontsize=8)
    right.text(0.95, 0.28, "against\nrow norm", transform=right.transAxes, color=blue, fontsize=8, ha="right")
    right.set(xscale="log", yscale="log", xlim=(low, high), ylim=(shown["running mean"].min() / 2, high))
    right.set(xlabel="true value", ylabel="running mean", title="a network's parameters")
    _plain(left, "x")
    _plain(middle, "x", "y")
    _plain(right, "x", "y")
    for axis in (left, middle):
        axis.minorticks_off()
    return figure


@figure("matrices")
def matrices(rows: pd.DataFrame) -> Figure:
    """Shows: error against products for each mass off the diagonal, and against the decay of the eigenvalues."""
    figure, (left, right) = style.axes(1, 2, height=2.7)
    errors = select.of_case(rows, "matrices", "error")
    laws = select.of_case(rows, "matrices", "law").set_index(["family", "level"]).value
    masses = errors[(errors.family == "mass") & (errors.method == "Hutchinson") & (errors.level > 0)]
    shades = np.linspace(0.4, 1, masses.level.nunique())
    for shade, (mass, table) in zip(shades, masses.groupby("level"), strict=True):
        values = table.pivot(index="draw", columns="step", values="value")
        x = np.array(list(values), float)
        left.plot(x, laws["mass", mass] / np.sqrt(x), ":", color=style.INK, linewidth=0.8)
        found = [statistics.mean(values[step]) for step in values]
        left.errorbar(
            x, [f.value for f in found], [f.high - f.value for f in found], fmt="o", color=COLOUR["Hutchinson"], alpha=shade
        )
        left.annotate(f"{mass:g}", (x[-1], found[-1].value), (6, -3), textcoords="offset points", fontsize=8)
    left.annotate("mass", (x[-1], found[-1].value), (1, 8), textcoords="offset points", fontsize=8)
    left.set(
        xscale="log", yscale="log", xlabel="Hessian-vector products", ylabel="relative error", title="mass off the diagonal"
    )
    left.set_xlim(0.7, x[-1] * 2)
    most = errors.step.max()
    decays = errors[(errors.family == "decay") & (errors.step == most)]
    for method in ("Hutchinson", "Diag++", "XDiag"):
        values = decays[decays.method == method].pivot(index="draw", columns="level", values="value").clip(lower=FLOOR)
        _band(right, list(values), values, COLOUR[method], marker="o")
        right.annotate(
            method,
            (values.columns[-1], values.iloc[:, -1].mean()),
            (6, -3),
            textcoords="offset points",
            color=COLOUR[method],
            fontsize=8,
        )
    law = (laws["decay"] / np.sqrt(most)).clip(lower=FLOOR)
    right.plot(law.index, law, ":", color=style.INK, linewidth=0.8)
    right.set(yscale="log", xlabel="decay $p$ of the eigenvalues $i^{-p}$", title=f"decaying eigenvalues, {most:g} products")
    right.set_xlim(None, values.columns[-1] * 1.35)
    right.set_xticks(list(values))
    _plain(left, "x", "y")
    _exact(right)
    return figure


@figure("networks")
def budgets(rows: pd.DataFrame) -> Figure:
    """Shows: relative error against cost, for each network and stage; dotted, the law of Hutchinson's variance."""
    stages = select.stages(rows, "networks")
    errors, costs = select.draws(rows), select.costs(rows)
    laws = select.of_case(rows, "networks", "law").groupby(select.CELL).value.first()
    figure, panels = style.axes(len(NETWORKS), len(stages), height=5.4, sharex=True, sharey=True, squeeze=False)
    top = 2 * errors.xs("Hutchinson", level="method").max().max()
    for line, (network, name) in zip(panels, NETWORKS.items(), strict=True):
        for axis, stage in zip(line, stages, strict=True):
            axis.set(xscale="log", yscale="log", xlim=(0.4, 2000), ylim=(FLOOR / 1.4, top))
            cell, x = errors.loc[network, stage], np.array([1, 1000])
            axis.plot(x, laws[network, stage] / np.sqrt(x), ":", color=style.INK, linewidth=0.9)
            for method, colour in COLOUR.items():
                if method == "Diag++" or method not in cell.index:
                    continue
                values = cell.loc[method].clip(lower=FLOOR).T
                at = costs[network, stage, method]
                _band(axis, at, values, colour, marker=MARK[method], linewidth=1.2)
        line[0].set_ylabel(f"{name}\nrelative error")
    for axis, stage in zip(panels[0], stages, strict=True):
        axis.set_title(STAGES.get(stage, stage))
    for axis in panels[-1]:
        axis.set_xlabel("cost in Hessian-vector products" if axis is panels[-1][len(stages) // 2] else "")
    _plain(panels[0, 0], "x", "y")
    _exact(panels[0, 0])
    panels[0, 0].set_xticks([1, 10, 100, 1000])
    there = errors.index.unique("method")
    _names(figure, (method for method in COLOUR if method in there and method != "Diag++"))
    return figure


@figure("limits")
def averaging(rows: pd.DataFrame) -> Figure:
    """Shows: bias and standard deviation of block means of one probe's estimate, and the limit of AdaHessian's running mean."""
    figure, panels = style.axes(1, 3, height=2.75, sharex=True)
    kinds = dict(zip(("signed", "absolute"), style.SERIES, strict=False))
    titles = {"variance": "standard deviation", "bias2": "bias", "average limit": "limit of the mean of squares"}
    for axis, (metric, title) in zip(panels, titles.items(), strict=True):
        for averaging, colour in kinds.items():
            table = select.averages(rows, metric, averaging)
            table = table.clip(lower=0) ** 0.5 if metric != "average limit" else table
            for network, mark in zip(NETWORKS, ("o", "s", "^"), strict=True):
                _band(axis, list(table), table.loc[network], colour, marker=mark, linewidth=1)
                if averaging == "signed" and f"{metric} law" in rows.metric.values:
                    law = select.averages(rows, f"{metric} law", "signed").loc[network].mean() ** 0.5
                    axis.plot(law.index, law, ":", color=style.INK, linewidth=0.9)
        axis.set(xscale="log", ylim=(0, None), title=title, xlabel="entries in a block")
        axis.set_xticks(list(table), labels=[f"{block:g}" for block in table])
        axis.minorticks_off()
    panels[0].set_ylabel("relative to $|D|$")
    handles = [panels[0].plot([], [], color=colour, label=name)[0] for name, colour in kinds.items()]
    handles += [
        panels[0].plot([], [], mark, color=style.GREY, label=name)[0]
        for mark, name in zip(("o", "s", "^"), NETWORKS.values(), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


@figure("times")
def clock(rows: pd.DataFrame) -> Figure:
    """Shows: relative error against time, in gradients of the same round; medians over rounds, bars over the quartiles."""
    taken, errors = (
        select.of_case(rows, "times", m).pivot(index=["network", "round"], columns=["method", "budget"], values="value")
        for m in ("milliseconds", "error")
    )
    taken, errors = taken.div(taken["gradient", 0], axis=0).sort_index(axis=1), errors.sort_index(axis=1)
    figure, panels = style.axes(1, 3, height=2.9, sharey=True, sharex=True)
    for axis, (network, name) in zip(panels, NETWORKS.items(), strict=True):
        axis.set(xscale="log", yscale="log", ylim=(FLOOR / 1.4, 20), title=name)
        for method, colour in COLOUR.items():
            if method not in errors:
                continue
            t, e = taken.loc[network, method], errors.loc[network, method].clip(lower=FLOOR)
            middle = t.median()
            axis.errorbar(
                middle, e.median(), xerr=[middle - t.quantile(0.25), t.quantile(0.75) - middle],
                color=colour, marker=MARK[method], elinewidth=0.7,
            )  # fmt: skip
    panels[0].set_ylabel("relative error")
    panels[1].set_xlabel("time, in gradients")
    _plain(panels[0], "x", "y")
    _exact(panels[0])
    there = errors.columns.unique("method")
    _names(figure, (method for method in COLOUR if method in there))
    return figure


@figure("training")
def training(rows: pd.DataFrame) -> Figure:
    """Shows: AdaHessian's training loss with each estimator of the diagonal, against steps and work: medians over runs."""
    colours = {
        "exact": style.INK,
        "Hutchinson": style.GREY,
        "Hutchinson 10": "#0072b2",
        "per example": COLOUR["per example"],
        "layer sums": COLOUR["layer sums"],
        "Gauss-Newton": COLOUR["block means"],
    }
    figure, panels = style.axes(2, 2, height=4.6, sharey="row", sharex="col")
    names = [network for network in NETWORKS if network in set(rows[rows.case == "training"].network)]
    for line, network in zip(panels, names, strict=True):
        for axis, part, x in zip(line, ("equal steps", "equal work"), ("step", "work"), strict=True):
            table = select.trained(rows, "loss", part)
            limit = table[table.method == "Hutchinson"][x].max()
            for method, colour in colours.items():
                runs = table[(table.network == network) & (table.method == method)]
                values = runs.pivot(index="run", columns=x, values="value")
                values = values[[at for at in values if at <= limit]]
                _band(axis, list(values), values, colour, statistics.median, label=method)
            axis.set(yscale="log", xlim=(0, limit))
        line[0].set_ylabel(f"{NETWORKS[network]}\ntraining loss")
    panels[0, 0].set_title("at the best rate for equal steps")
    panels[0, 1].set_title("at the best rate for equal work")
    panels[1, 0].set_xlabel("steps")
    panels[1, 1].set_xlabel("work, in gradients of a batch")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, handlelength=1.4, columnspacing=1)
    return figure


@figure("noise")
def noise(rows: pd.DataFrame) -> Figure:
    """Shows: standard deviation of one probe's estimate from the probe and from the batch, against the size of the batch."""
    figure, panels = style.axes(1, 3, height=2.75, sharey=True, sharex=True)
    kinds = dict(zip(("probes", "batches"), style.SERIES, strict=False))
    for axis, (network, name) in zip(panels, NETWORKS.items(), strict=True):
        for part, colour in kinds.items():
            for block, line in ((1, "-"), (8, "--")):
                table = select.noise(rows, part, block).loc[network] ** 0.5
                _band(axis, list(table), table, colour, marker="o", linestyle=line, linewidth=1)
        axis.set(xscale="log", yscale="log", title=name)
        axis.set_xticks(list(table), labels=[f"{size:g}" for size in table])
        axis.minorticks_off()
    _plain(panels[0], "y")
    panels[0].set_ylabel("deviation, relative to $|D|$")
    panels[1].set_xlabel("pictures in a batch")
    handles = [panels[0].plot([], [], color=colour, label=f"from {part}")[0] for part, colour in kinds.items()]
    handles += [
        panels[0].plot([], [], line, color=style.GREY, label=label)[0] for line, label in (("-", "plain"), ("--", "means of 8"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@figure("peers")
def peers(rows: pd.DataFrame) -> Figure:
    """Shows: error against operations of ours, filled, and of two other packages, hollow; medians over stages and seeds."""
    table = select.peers(rows).groupby(["method", "network", "budget"]).median()
    figure, panels = style.axes(1, 3, height=3.1, sharey=True, sharex=True)
    colours = {
        "Hutchinson": style.GREY,
        "XDiag": COLOUR["XDiag"],
        "layer sums": COLOUR["layer sums"],
        "Hessian": COLOUR["layer sums"],  # exact, as layer sums are with enough probes
        "Gauss-Newton": COLOUR["mean of squares"],
        "Gauss-Newton, drawn": COLOUR["per example"],
    }
    marks = {"": "o", "curvlinops": "s", "BackPACK": "D"}
    for axis, (network, name) in zip(panels, NETWORKS.items(), strict=True):
        axis.set(xscale="log", yscale="log", ylim=(FLOOR / 1.4, 30), title=name)
        for method in table.index.unique("method"):
            package = next((package for package in marks if package and method.startswith(package)), "")
            line = table.loc[method, network].sort_values("operations")
            colour = colours[method.removeprefix(package).removesuffix(", one probe").strip()]
            axis.plot(
                line.operations, line.error.clip(lower=FLOOR), color=colour, marker=marks[package],
                linestyle=":" if package else "-", linewidth=1, markerfacecolor="none" if package else colour,
            )  # fmt: skip
    _plain(panels[0], "x")
    _exact(panels[0])
    panels[0].set_ylabel("relative error")
    panels[1].set_xlabel("operations, in gradients")
    handles = [panels[0].plot([], [], color=colour, label=name)[0] for name, colour in colours.items() if name != "Hessian"]
    handles += [
        panels[0].plot(
            [], [], mark, color=style.INK, markerfacecolor="none" if package else style.INK, label=package or "ours"
        )[0]
        for package, mark in marks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@figure("smoothing")
def smoothing(rows: pd.DataFrame) -> Figure:
    """Shows: loss without the running mean over that with it, in every run, means with intervals; eps as in the paper, and
    tuned."""
    figure, panels = style.axes(1, 2, height=2.2, sharex=True, sharey=True)
    for axis, part in zip(panels, ("paper's eps", "best eps"), strict=True):
        table = select.smoothed(rows, part)
        logs = (table.iloc[:, 0] - table.iloc[:, -1]).unstack("network")[list(NETWORKS)]
        for at, network in enumerate(logs):
            spread(axis, at, logs[network], style.COLOUR["AdaHessian"], np.exp)
        lines(axis, (NETWORKS[network] for network in logs))
        axis.axvline(1, color=style.INK, linewidth=0.7)
        axis.set(xscale="log", title="the paper's $\\epsilon$" if part == "paper's eps" else "the best $\\epsilon$")
    figure.supxlabel("loss without the running mean, over that with it", fontsize=9)
    _plain(panels[0], "x")
    return figure
