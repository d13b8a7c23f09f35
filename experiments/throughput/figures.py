"""Times of steps, their floor, and images a second."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .names import CAPTURED, EAGER, NETWORKS, ON_DEVICE, PRECISIONS
from .selections import epochs, floors, times, together

PRECISION = dict(zip(PRECISIONS, style.SERIES, strict=False))
MARKER = {EAGER: "o", CAPTURED: "D"}
METHODS = ("SGD", "AdaHessian")


def _log(panel) -> None:
    """A logarithmic axis of milliseconds with plain numbers."""
    panel.set(xscale="log")
    low, high = panel.get_xlim()
    ticks = [digit * 10.0**power for power in range(-6, 6) for digit in (1, 2, 5)]
    panel.set_xticks([tick for tick in ticks if low <= tick <= high])
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()


@figure(cases={"steps": ("resnet20", "resnet32"), "steps_all": ("resnet20_all", "resnet32_all")})
def steps(rows: pd.DataFrame, *cases: str) -> Figure:
    """Shows: milliseconds of a step by optimiser and precision, eager and captured; every round is a dot."""
    figure, panels = style.axes(1, 2, height=2.4, sharey=True)
    columns = pd.concat([times(rows, case) for case in cases]).columns
    order = list(columns.unique("method"))
    shown = {name: colour for name, colour in PRECISION.items() if name in columns.unique("precision")}
    for panel, (case, name) in zip(panels, zip(cases, NETWORKS, strict=True), strict=True):
        table = times(rows, case)
        for method, mode, precision in table:
            line = order.index(method) + 0.18 * (list(shown).index(precision) - (len(shown) - 1) / 2)
            x = table[method, mode, precision]
            panel.plot(x, [line] * len(x), MARKER[mode], color=PRECISION[precision], alpha=0.6, markeredgewidth=0)
        panel.set(title=name, xlabel="milliseconds a step")
        _log(panel)
        comparisons.lines(panel, order)
    for name, colour in shown.items():
        panels[0].plot([], [], "s", color=colour, label=name)
    for mode, marker in MARKER.items():
        panels[0].plot([], [], marker, color=style.INK, label=mode)
    comparisons.legend(figure, panels[0], 3)
    return figure


@figure("floor")
def floor(rows: pd.DataFrame) -> Figure:
    """Shows: the captured step, and what its operations and its bytes take at the rates that the device reached."""
    figure, panel = style.axes(height=2.6)
    table = floors(rows)
    cells = [
        (method, precision) for method in METHODS for precision in PRECISION if (method, precision) in table.index.droplevel(0)
    ]
    for line, (method, precision) in enumerate(cells):
        found = table.xs((method, precision), level=["method", "precision"])
        first = line == 0
        panel.plot(found.step, [line] * len(found), "o", color=style.COLOUR[method], alpha=0.6, markeredgewidth=0)
        panel.plot(found.operations.median(), line, "|", color=style.INK, markersize=9, label="operations" if first else None)
        panel.plot(found.bytes.median(), line, "x", color=style.INK, label="bytes" if first else None)
    panel.plot([], [], "o", color=style.GREY, label="step")
    panel.set(xlabel="milliseconds")
    _log(panel)
    comparisons.lines(panel, [f"{method}, {precision}" for method, precision in cells])
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@figure("epochs")
def throughput(rows: pd.DataFrame) -> Figure:
    """Shows: images a second over whole epochs, preparation included, here and in the usual loop; every round is a dot."""
    figure, panel = style.axes(height=2.4)
    table = epochs(rows)
    order = list(table.median().sort_values(ascending=False).index)
    for line, (loop, method, precision) in enumerate(order):
        x = table[loop, method, precision]
        colour = style.COLOUR[method] if loop == ON_DEVICE else style.INK
        panel.plot(x, [line] * len(x), "o", color=colour, alpha=0.6, markeredgewidth=0)
        panel.plot([x.median()] * 2, [line - 0.3, line + 0.3], color=colour)
    panel.set(xlabel="images a second", xlim=(0, None))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    comparisons.lines(panel, [f"{method}, {precision}: {loop}" for loop, method, precision in order])
    return figure


@figure("concurrent")
def concurrent(rows: pd.DataFrame) -> Figure:
    """Shows: images a second of all processes that train at once, by their number; every epoch is a dot."""
    figure, panel = style.axes(height=2.4, width=style.TEXT_WIDTH * 0.6)
    for method in METHODS:
        colour = style.COLOUR[method]
        table = together(rows, method)
        panel.plot(table.columns, table.median(), color=colour, label=method)
        for _, line in table.iterrows():
            panel.plot(table.columns, line, "o", color=colour, alpha=0.6, markeredgewidth=0)
    panel.set(xlabel="processes", ylabel="images a second, all together", ylim=(0, None))
    panel.set_xticks(list(table.columns))
    panel.legend()
    return figure
