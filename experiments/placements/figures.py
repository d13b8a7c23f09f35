"""What placements send and hold, against the closed form and the model; and the way to the target."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .measures import gain
from .methods import METHODS
from .selections import (
    DEVICES,
    KINDS,
    NETWORKS,
    PREFIX,
    PUBLISHED,
    arrivals,
    counted,
    divisors,
    efficiency,
    epoch_ratios,
    expected,
    fitted,
    on_paper,
)

COLOURS = dict(zip(("factors", "inverses", "directions"), style.SERIES[1:], strict=False))
MARKERS = {1: "o", 2: "s", 4: "^"}
LINES = dict(zip(METHODS, (":", "-", "--"), strict=True))
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
    """Shows: left, measured milliseconds of a step against the fitted model's; the model on paper: middle, a step of K-FAC over
    one of SGD on many devices, against the share; right, scaling efficiency, K-FAC's at its best placement full, SGD's dashed.
    """
    _, table = fitted(rows)
    figure, (left, middle, right) = style.axes(1, 3, height=2.5)
    for ranks, cell in table.groupby("ranks"):
        for sgd, part in cell.groupby(cell.share == 0):
            colour = style.COLOUR["SGD" if sgd else "K-FAC"]
            left.plot(part.model, part.value, MARKERS.get(ranks, "o"), color=colour)
        left.plot([], [], MARKERS.get(ranks, "o"), color=style.COLOUR["K-FAC"], label=f"K-FAC, P = {ranks}")
    left.plot([], [], "o", color=style.COLOUR["SGD"], label="SGD")
    ends = [min(table.model.min(), table.value.min()), max(table.model.max(), table.value.max())]
    left.plot(ends, ends, ":", color=style.GREY)
    left.set(xlabel="ms of the model", ylabel="ms measured", xscale="log", yscale="log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if ends[0] <= tick <= ends[1]]
    left.set_xticks(ticks, labels=map(str, ticks))
    left.set_yticks(ticks, labels=map(str, ticks))
    left.minorticks_off()
    left.legend(loc="lower right", handletextpad=0.2, borderaxespad=0.1)
    for name, colour in zip(NETWORKS, style.SERIES, strict=False):
        workers = divisors(DEVICES)
        shares = [w / DEVICES for w in workers]
        ratios = [kfac / sgd for sgd, kfac, _ in (on_paper(name, w) for w in workers)]
        middle.plot(shares, ratios, "o--", color=colour, markerfacecolor="white", label=name)
        for course, line in zip(efficiency(name), ("--", "-"), strict=True):
            right.plot(workers, course, line, color=colour)
    middle.set(xlabel="share with the inverses", ylabel="step over SGD's (model)", xscale="log")
    middle.set_ylim(1, None)
    middle.legend(loc="lower left")
    right.set(xlabel="devices", ylabel="scaling efficiency (model)", xscale="log")
    right.set_ylim(0, None)
    return figure


@figure("epochs", "training")
def target(rows: pd.DataFrame) -> Figure:
    """Shows: left, the share of runs that have reached the target, by epochs; right, the part of SGD's epochs and of its time
    that each variant of K-FAC saves until then: for epochs a dot for each seed, diamonds with intervals that hold together;
    shaded: the part of the time, as published.
    """
    figure, (left, right) = style.axes(1, 2, height=2.8)
    table = arrivals(rows, "epochs").epochs
    for method in METHODS:
        left.ecdf(table.loc[method], color=style.COLOUR[method], linestyle=LINES[method], label=method)
    left.set(xlabel="epochs", ylabel="share of runs at the target", xlim=(0, None))
    comparisons.legend(figure, left, len(METHODS))
    names = {"epochs": "epochs", "seconds_p1": "time, 1 process", "seconds_p2": "time, 2 processes"}
    found, each = gain(rows), 1 - epoch_ratios(rows)
    for first, (variant, prefix) in zip((0, len(names)), PREFIX.items(), strict=True):
        colour = style.COLOUR[variant]
        dots = each[variant]
        right.plot(dots, [first - comparisons.BESIDE] * len(dots), "o", color=colour, alpha=0.25, markeredgewidth=0)
        for at, name in enumerate(names, first):
            saved = found[prefix + name]
            right.plot(saved.ends, [at + comparisons.BESIDE] * 2, color=colour)
            right.plot(saved.value, at + comparisons.BESIDE, "D", color=colour)
    right.axvspan(*PUBLISHED, color=style.GREY, alpha=0.2, linewidth=0)
    right.axvline(0, color=style.GREY, linewidth=0.8)
    right.set(xlabel="part saved (right is faster)")
    comparisons.lines(right, [f"{variant}: {name}" for variant in PREFIX for name in names.values()])
    return figure
