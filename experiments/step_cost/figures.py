"""The cost of a step, method by method, and against the count of operations."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.problems.published import TABLE_8_COST
from secondlook.reporting import style
from secondlook.study.declare import figure

from .selections import NETWORKS, PERIODS, operations, ratios

FLOOR = 3  # gradient steps: the matrix products of an exact Hessian-vector product with the gradient's
MARKERS = {"mlp": "o", "transformer": "s", "resnet": "^"}
LINES = {"mlp": "-", "transformer": "--", "resnet": "-."}
FIRST = (  # the methods of the first figure, where they were timed: one of each kind
    *("SGD", "SGD compiled", "fused Adam", "AdaHessian", "AdaHessian compiled", "AdaHessian every 4"),
    *("AdaHessian compiled every 4", "AdaHessian 1/4 batch", "AdaHessian Gauss-Newton", "AdaHessian on nn.BatchNorm2d"),
    *("torch-optimizer", "pytorch-optimizer"),
)
KINDS = {  # of saving or spending, and their colours: all are AdaHessian
    "every": ("Hessian every few steps", style.COLOUR["AdaHessian"]),
    "probes": ("more probes", style.COLOUR["AdaHessian, more probes"]),
    "batch": ("part of the batch", style.COLOUR["AdaHessian 1/4 batch"]),
    "Gauss-Newton": ("Gauss-Newton", style.COLOUR["AdaHessian Gauss-Newton"]),
}


@figure("mlp", "transformer", "resnet")
def costs(rows: pd.DataFrame) -> Figure:
    """Shows: the time of a step over that of eager SGD in the same round, every round as a dot, the median as a bar."""
    figure, panels = style.axes(1, 3, height=3.0, sharey=True, sharex=True)
    found = {name: ratios(rows, case, "SGD") for case, name in NETWORKS.items()}
    medians = pd.DataFrame({name: table.median() for name, table in found.items()}).mean(axis=1)
    order = sorted((method for method in FIRST if method in medians), key=lambda method: -medians[method])
    for panel, (name, table) in zip(panels, found.items(), strict=True):
        panel.axvline(1, color=style.GREY, linewidth=0.8)
        panel.axvline(FLOOR, color=style.GREY, linewidth=0.8, linestyle=":")
        for line, method in enumerate(order):
            if method in table:
                colour = _colour(method)
                panel.plot(table[method], [line] * len(table), "o", color=colour, alpha=0.4, markeredgewidth=0)
                panel.plot([table[method].median()] * 2, [line - 0.32, line + 0.32], color=colour, linewidth=2)
        panel.set(title=name, yticks=range(len(order)), yticklabels=order)
        panel.grid(axis="y", visible=False)
    panels[0].set_xlim(0, None)  # of all three, when all dots are there
    figure.supxlabel("time of a step over that of SGD", fontsize=9)
    return figure


@figure("mlp", "transformer", "resnet", "mlp_operations", "transformer_operations", "resnet_operations")
def savings(rows: pd.DataFrame) -> Figure:
    """Shows: median time of a step over SGD's, against the steps between two Hessians and against the count of operations."""
    figure, (left, right) = style.axes(1, 2, height=2.8)
    for case, name in NETWORKS.items():
        times, counts = ratios(rows, case, "SGD").median(), operations(rows, f"{case}_operations")
        known = {PERIODS[method]: times[method] for method in times.index.intersection(list(PERIODS))}
        look = {"marker": MARKERS[case], "linestyle": LINES[case], "linewidth": 1}
        left.plot(sorted(known), [known[k] for k in sorted(known)], label=name, color=style.COLOUR["AdaHessian"], **look)
        for method in times.index.intersection(counts.index):
            kind = next((kind for kind in KINDS if kind in method), "every" if method == "AdaHessian" else None)
            if kind:
                right.plot(counts[method], times[method], MARKERS[case], color=KINDS[kind][1], markersize=4.5, alpha=0.8)
    left.plot(list(TABLE_8_COST), list(TABLE_8_COST.values()), "x", color=style.INK, label="ResNet-20, paper")
    left.plot(range(1, 11), [1 + 2 / k for k in range(1, 11)], ":", color=style.GREY, label="1 + 2 / steps")
    left.set(xlabel="steps from one Hessian to the next", ylabel="time of a step over that of SGD", ylim=(0, None))
    left.set_xticks([1, 2, 3, 4, 5, 10])
    left.legend()
    most = right.get_xlim()[1]
    right.plot([1, most], [1, most], ":", color=style.GREY)
    for label, colour in KINDS.values():
        right.plot([], [], "o", color=colour, label=label)
    right.set(
        xlabel="operations of a step over those of SGD", ylabel="time of a step over that of SGD", xscale="log", yscale="log"
    )
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20) if tick <= max(most, right.get_ylim()[1])]
    right.set_xticks(ticks, labels=map(str, ticks), minor=False)
    right.set_yticks(ticks, labels=map(str, ticks), minor=False)
    right.minorticks_off()
    right.legend(loc="upper left")
    return figure


def _colour(method: str) -> str:
    """Ours in AdaHessian's colour, first-order ones in theirs, other packages in black."""
    if method.endswith("-optimizer"):
        return style.INK
    return style.COLOUR["AdaHessian" if method.startswith("AdaHessian") else "Adam" if "Adam" in method else "GD"]
