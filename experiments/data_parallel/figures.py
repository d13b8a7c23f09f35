"""Replicas that stay equal or do not, and the variance of probes that are averaged over processes."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.study.declare import figure
from secondlook.study.statistics import mean

from .selections import OURS, errors, methods, spreads

MARKERS = {"torch-optimizer": "s", "pytorch-optimizer": "^"}
FLOOR = 1e-9  # where a difference of zero is drawn on a logarithmic axis


@figure("replicas", "variance")
def replicas(rows: pd.DataFrame) -> Figure:
    """Shows: (a) the largest difference of a parameter between ranks against the step, every seed; (b) mean squared error of D
    over that of one probe against the number of processes, with 95 % intervals; dotted: 1 / processes.
    """
    figure, (left, right) = style.axes(1, 2, height=2.7)
    for method in methods(rows):
        ours = method in OURS
        colour = style.COLOUR["AdaHessian"] if ours else style.INK
        for _, line in spreads(rows, method).iterrows():
            left.plot(line.index, line.clip(lower=FLOOR), "o-" if ours else f"{MARKERS[method]}-", color=colour, alpha=0.6)
    left.plot([], [], "o-", color=style.COLOUR["AdaHessian"], label="this library, four methods")
    for method in (m for m in methods(rows) if m not in OURS):
        left.plot([], [], f"{MARKERS[method]}-", color=style.INK, label=method)
    left.set(xscale="log", yscale="log", ylim=(FLOOR / 3, None), xlabel="step", ylabel="largest difference between replicas")
    left.set_yticks([FLOOR, 1e-6, 1e-3, 1], labels=["0", "$10^{-6}$", "$10^{-3}$", "1"])
    left.legend(loc="center right")
    left.set_title("(a) parameters of two replicas", loc="left")

    found = {label: mean(values) for label, values in errors(rows).items()}
    counts = sorted({processes for _, processes in found})
    for probes, colour in (("independent", style.COLOUR["AdaHessian"]), ("equal", style.GREY)):
        points = [found[probes, processes] for processes in counts]
        bars = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
        right.errorbar(counts, [p.value for p in points], bars, fmt="o", color=colour, capsize=3, label=f"{probes} probes")
    right.plot(counts, [1 / processes for processes in counts], ":", color=style.GREY)
    right.set(ylim=(0, None), xlabel="processes", ylabel="variance over that of one probe")
    right.set_xticks(counts)
    right.legend()
    right.set_title("(b) curvature, averaged over processes", loc="left")
    return figure
