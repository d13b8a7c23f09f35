"""The matrices, what each approximation costs and misses, and how good its step is."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from secondlook.reporting import style
from secondlook.study import statistics
from secondlook.study.declare import figure

from . import selections
from .selections import directions, document_arrays, drawn, layer_sizes, of_cells

LABELS = {
    "none": "none: the gradient",
    "diagonal": "diagonal",
    "row norms": "row norms",
    "K-FAC": "K-FAC",
    "best Kronecker": "nearest Kronecker",
    "low rank, small": "low rank, small",
    "neuron blocks": "neuron blocks",
    "low rank": "low rank",
    "layer blocks": "layer blocks",
}
COLOUR = {  # one for each kind of structure; K-FAC has its own
    "none": style.GREY,
    "diagonal": "#d55e00",
    "row norms": "#e69f00",
    "K-FAC": style.COLOUR["K-FAC"],
    "best Kronecker": "#f4a3bd",
    "low rank, small": "#b09ac0",
    "neuron blocks": "#4477aa",
    "low rank": "#7b4b94",
    "layer blocks": "#009e73",
}
NETWORKS = {"tanh": "tanh network", "ReLU": "ReLU network", "CNN": "convolutional network"}
STAGES = {"start": "at the start", "half": "half of the first loss", "late": "2 % of the first loss"}


@figure("document")
def document_array(rows: pd.DataFrame) -> Figure:
    """Shows: scipy's block_diag of the document's three matrices, entries that differ from the printed array crossed out."""
    made, printed = document_arrays(rows)
    figure, axis = style.axes(height=1.9, width=2.6)
    axis.imshow(made, cmap="Blues", vmin=0, vmax=2 * made.max())
    for (i, j), value in np.ndenumerate(made):
        right = made.shape == printed.shape and value == printed[i, j]
        axis.text(j, i, f"{value:g}", ha="center", va="center", color=style.GREY if value == 0 else style.INK)
        if not right:
            axis.plot(j, i, "x", color=COLOUR["diagonal"], markersize=14)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    return figure


@figure("picture")
def matrices(rows: pd.DataFrame) -> Figure:
    """Shows: the Gauss-Newton matrix of a small network and five approximations of it, as signed square roots."""
    titles = {
        "full": "the matrix $G$",
        "layer blocks": "layer blocks",
        "K-FAC": "K-FAC",
        "neuron blocks": "neuron blocks",
        "diagonal": "diagonal",
        "low rank": "low rank",
    }
    figure, panels = style.axes(2, 3, height=4.3, sharex=True, sharey=True)
    exact = drawn(rows, "full")
    limit = np.sqrt(np.abs(exact).max())
    borders = np.cumsum(layer_sizes(rows))[:-1] - 0.5
    for axis, (method, title) in zip(panels.flat, titles.items(), strict=True):
        M = drawn(rows, method)
        picture = axis.imshow(np.sign(M) * np.sqrt(np.abs(M)), cmap=style.DIVERGING, norm=TwoSlopeNorm(0, -limit, limit))
        picture.set_rasterized(True)
        for border in borders:
            axis.axhline(border, color=style.GREY, linewidth=0.4)
            axis.axvline(border, color=style.GREY, linewidth=0.4)
        error = np.linalg.norm(M - exact) / np.linalg.norm(exact)
        axis.set_title(title if method == "full" else f"{title}, error {error:.2f}")
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    bar = figure.colorbar(picture, ax=panels, shrink=0.6, aspect=30)
    ticks = limit * np.sqrt([1.0, 0.25, 0.04])
    bar.set_ticks([*-ticks, 0, *ticks[::-1]], labels=[f"{np.sign(x) * x**2:.2g}" for x in [*-ticks, 0, *ticks[::-1]]])
    bar.outline.set_linewidth(0.4)
    bar.set_label("entry; colour: its signed square root")
    return figure


def _over_cells(table: pd.DataFrame, method: str) -> statistics.Estimate:
    return statistics.mean(table.groupby("seed")[method].mean())


@figure("networks")
def tradeoff(rows: pd.DataFrame) -> Figure:
    """Shows: error of G, and quality of the step, against the share of the full matrix's numbers that is stored."""
    figure, (left, right) = style.axes(1, 2, height=3.0)
    stored = of_cells(rows, "stored", "G")
    size = stored.div(stored["full"], axis=0).groupby(["network"]).first().mean()
    shown = [method for method in LABELS if method != "none"]
    for axis, table, title in (
        (left, of_cells(rows, "error", "G"), "relative error of $G$"),
        (right, directions(rows, "G"), "share of the full step's model fall"),
    ):
        for method in shown:
            found = _over_cells(table, method)
            axis.plot([size[method]] * 2, found.ends, color=COLOUR[method], linewidth=1)
            axis.plot(size[method], found.value, "o", color=COLOUR[method], markersize=4.5)
            place = PLACES.get((axis is right, method), (5, 4, "left"))
            axis.annotate(
                LABELS[method],
                (size[method], found.value),
                place[:2],
                textcoords="offset points",
                ha=place[2],
                color=COLOUR[method],
                fontsize=8,
            )
        without = _over_cells(table, "none").value
        axis.axhline(without, color=style.GREY, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlim=(0.0015, 1.2), xlabel="numbers stored, share of the full matrix's", title=title)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    left.set(ylim=(0, 1.3))
    right.set(ylim=(0.4, 1))
    left.annotate("no curvature", (0.9, 1), (0, 3), textcoords="offset points", ha="right", color=style.GREY, fontsize=8)
    right.annotate("gradient", (0.9, without), (0, 3), textcoords="offset points", ha="right", color=style.GREY, fontsize=8)
    return figure


PLACES = {  # offsets in points and alignment of labels that would overlap: (right panel?, method)
    (False, "diagonal"): (0, -12, "center"),
    (False, "K-FAC"): (5, 3, "left"),
    (False, "best Kronecker"): (5, -4, "left"),
    (False, "low rank, small"): (5, -8, "left"),
    (False, "layer blocks"): (0, 6, "center"),
    (True, "row norms"): (-1, 8, "center"),
    (True, "diagonal"): (-1, -16, "center"),
    (True, "layer blocks"): (0, 6, "center"),
    (True, "best Kronecker"): (5, -4, "left"),
    (True, "low rank, small"): (5, 2, "left"),
}


def _dots(axis: Axes, table: pd.DataFrame, matrix: str) -> None:
    """Every seed of one cell as a dot and the mean as a bar, one line a method; H's mean as a diamond."""
    for at, method in enumerate(reversed(LABELS)):
        values = table[method].to_numpy()
        if matrix == "G":
            axis.plot(values, np.full(len(values), at), "o", color=COLOUR[method], markersize=2.6, alpha=0.6, markeredgewidth=0)
            axis.plot([values.mean()] * 2, [at - 0.32, at + 0.32], color=COLOUR[method], linewidth=1.6)
        else:
            axis.plot(values.mean(), at, "D", color="none", markeredgecolor=style.INK, markeredgewidth=0.6, markersize=3.6)


@figure("networks")
def step_quality(rows: pd.DataFrame) -> Figure:
    """Shows: share of the full step's model fall for each network and stage, every seed; diamonds: the same for H."""
    tables = {matrix: directions(rows, matrix) for matrix in ("G", "H")}
    stages = [stage for stage in STAGES if stage in tables["G"].index.unique("stage")]
    figure, panels = style.axes(len(NETWORKS), len(stages), height=5.6, sharex=True, sharey=True, squeeze=False)
    for line, (network, name) in zip(panels, NETWORKS.items(), strict=True):
        for axis, stage in zip(line, stages, strict=True):
            for matrix, table in tables.items():
                _dots(axis, table.loc[network, stage], matrix)
            axis.grid(False, axis="y")
        line[0].set_ylabel(name)
    for axis, stage in zip(panels[0], stages, strict=True):
        axis.set_title(STAGES[stage])
    panels[0, 0].set(xlim=(0, 1.02), yticks=range(len(LABELS)), yticklabels=list(reversed(LABELS.values())))
    panels[0, 0].xaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[-1, len(stages) // 2].set_xlabel("share of the full step's fall of the damped quadratic model")
    return figure


@figure("networks")
def dampings(rows: pd.DataFrame) -> Figure:
    """Shows: the step's quality on G and on H, and the true fall of the loss, against the damping."""
    figure, (on_g, on_h, true) = style.axes(1, 3, height=2.7)
    levels = selections.dampings(rows)
    shown = ("none", "diagonal", "K-FAC", "neuron blocks", "low rank", "layer blocks")
    for axis, metric, matrix, title in (
        (on_g, "model share", "G", "model, step from $G$"),
        (on_h, "model share", "H", "model, step from $|H|$"),
        (true, "fall", "G", "loss, step from $G$"),
    ):
        for method in shown if metric == "model share" else (*shown, "full"):
            found = [_over_cells(of_cells(rows, metric, matrix, damping), method) for damping in levels]
            colour = COLOUR.get(method, style.INK)
            low, high = zip(*(f.ends for f in found), strict=True)
            axis.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.semilogx(levels, [f.value for f in found], color=colour, marker="o", label=LABELS.get(method, "full matrix"))
        axis.set(title=title, xlabel="damping / mean $|$eigenvalue$|$", ylim=(0, 1.02))
        axis.yaxis.set_major_formatter(PercentFormatter(1, 0))
    on_g.set(ylabel="share of the full step's model fall")
    true.set(ylabel="loss that one step removes")
    handles, labels = true.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, handlelength=1.2, columnspacing=0.9, handletextpad=0.4)
    return figure
