"""The cost of a step, method by method."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style

from .rounds import NETWORKS, ratios

FLOOR = 3  # gradient steps: the matrix products of an exact Hessian-vector product with the gradient's


def costs(rows: pd.DataFrame) -> Figure:
    """Shows: the time of a step over that of eager SGD in the same round, every round as a dot, the median as a bar.

    Requires: cases mlp and transformer, metric milliseconds.
    """
    figure, panels = style.axes(1, 2, height=2.6, sharey=True, sharex=True)
    found = {name: ratios(rows, case, "SGD") for case, name in NETWORKS.items()}
    order = sorted(found["Perceptron"], key=lambda method: -found["Perceptron"][method].median())
    for panel, (name, table) in zip(panels, found.items(), strict=True):
        panel.axvline(1, color=style.GREY, linewidth=0.8)
        panel.axvline(FLOOR, color=style.GREY, linewidth=0.8, linestyle=":")
        for line, method in enumerate(order):
            colour = _colour(method)
            panel.plot(table[method], [line] * len(table), "o", color=colour, alpha=0.4, markeredgewidth=0)
            panel.plot([table[method].median()] * 2, [line - 0.32, line + 0.32], color=colour, linewidth=2)
        panel.set(xlabel="step over a step of SGD", title=name, yticks=range(len(order)), yticklabels=order, xlim=(0, None))
        panel.grid(axis="y", visible=False)
    return figure


def _colour(method: str) -> str:
    """Ours in AdaHessian's colour, first-order ones in theirs, other packages in black."""
    if method.endswith("-optimizer"):
        return style.INK
    return style.COLOUR["AdaHessian" if method.startswith("AdaHessian") else "Adam" if "Adam" in method else "GD"]
