"""What placements send and hold, against the closed form and the model; and the way to the target accuracy."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.study.declare import figure

from .selections import DEVICES, KINDS, METHODS, NETWORKS, TARGET, counted, divisors, expected, fitted, on_paper

COLOURS = dict(zip(("factors", "inverses", "directions"), style.SERIES[1:], strict=False))
MARKERS = {1: "o", 2: "s", 4: "^"}
MIB = 2**20


@figure("steps")
def traffic(rows: pd.DataFrame) -> Figure:
    """Shows: bytes that an event of each kind sends and bytes held by the rank with most, against the share; lines: formula."""
    found, closed = counted(rows), expected(rows)
    figure, (left, right) = style.axes(1, 2, height=2.7)
    most = found.ranks.max()
    points, lines = found[found.ranks == most], closed[closed.ranks == most]
    for kind in KINDS:
        left.plot(lines.share, lines[kind] / MIB, "-", color=COLOURS[kind], linewidth=0.8)
        left.plot(points.share, points[kind] / MIB, "o", color=COLOURS[kind], label=kind)
    left.set(xlabel="share of ranks with the inverses", ylabel=f"MiB sent at one event, {most} processes", xlim=(0, 1.05))
    left.set_ylim(0, None)
    left.legend()
    for ranks, cell in found.groupby("ranks"):
        line = closed[closed.ranks == ranks]
        for kind in KINDS[:2]:
            right.plot(line.share, line[f"held {kind}"] / MIB, "-", color=COLOURS[kind], linewidth=0.8)
            right.plot(cell.share, cell[f"held {kind}"] / MIB, MARKERS.get(ranks, "o"), color=COLOURS[kind])
        right.plot([], [], MARKERS.get(ranks, "o"), color=style.INK, label=f"P = {ranks}")
    right.set(xlabel="share of ranks with the inverses", ylabel="MiB held, rank with most", xlim=(0, 1.05))
    right.set_ylim(0, None)
    right.legend()
    return figure


@figure("steps")
def model(rows: pd.DataFrame) -> Figure:
    """Shows: left, measured milliseconds of a step against the fitted model's; right, the model on paper: a step of K-FAC over
    one of SGD on many devices, against the share.
    """
    _, table = fitted(rows)
    figure, (left, right) = style.axes(1, 2, height=2.7)
    for ranks, cell in table.groupby("ranks"):
        for sgd, part in cell.groupby(cell.share == 0):
            colour = style.COLOUR["SGD" if sgd else "K-FAC"]
            left.plot(part.model, part.value, MARKERS.get(ranks, "o"), color=colour)
        left.plot([], [], MARKERS.get(ranks, "o"), color=style.COLOUR["K-FAC"], label=f"K-FAC, P = {ranks}")
    left.plot([], [], "o", color=style.COLOUR["SGD"], label="SGD")
    ends = [min(table.model.min(), table.value.min()), max(table.model.max(), table.value.max())]
    left.plot(ends, ends, ":", color=style.GREY)
    left.set(xlabel="milliseconds of the model", ylabel="milliseconds measured", xscale="log", yscale="log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if ends[0] <= tick <= ends[1]]
    left.set_xticks(ticks, labels=map(str, ticks))
    left.set_yticks(ticks, labels=map(str, ticks))
    left.minorticks_off()
    left.legend()
    for name, colour in zip(NETWORKS, style.SERIES, strict=False):
        shares = [w / DEVICES for w in divisors(DEVICES)]
        ratios = [kfac / sgd for sgd, kfac, _ in (on_paper(name, share) for share in shares)]
        right.plot(shares, ratios, "o--", color=colour, markerfacecolor="white", label=name)
    right.set(xlabel="share of ranks with the inverses", ylabel=f"step over SGD's, {DEVICES} devices (model)", xscale="log")
    right.set_ylim(1, None)
    right.legend(loc="lower left")
    return figure


@figure("training")
def accuracy(rows: pd.DataFrame) -> Figure:
    """Shows: test accuracy by epochs and by seconds of training, every seed as a line, on one process."""
    found = rows[(rows.case == "training") & (rows.ranks == 1)]
    figure, (left, right) = style.axes(1, 2, height=2.7, sharey=True)
    for method in METHODS:
        for _, run in found[found.method == method].groupby("seed"):
            table = run.pivot(index="step", columns="metric", values="value")
            left.plot(table.epochs, table.accuracy, color=style.COLOUR[method], alpha=0.5, linewidth=0.8)
            right.plot(table.seconds, table.accuracy, color=style.COLOUR[method], alpha=0.5, linewidth=0.8)
        left.plot([], [], color=style.COLOUR[method], label=method)
    for panel in (left, right):
        panel.axhline(TARGET, color=style.INK, linestyle=":", linewidth=0.8)
    left.set(xlabel="epochs", ylabel="test accuracy", ylim=(0.8, 1.0), xlim=(0, None))
    right.set(xlabel="seconds of training", xlim=(0, None))
    left.legend()
    return figure
