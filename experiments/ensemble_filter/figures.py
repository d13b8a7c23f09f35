"""Bias after one update, errors of conditional means, and how far the filters are from the truth."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.reporting.comparisons import factors
from secondlook.study.declare import figure
from secondlook.study.statistics import mean

from .selections import ESTIMATES, FILTERS, METHODS, OPTIMISERS, cells, compared, errors, tracked, updated

LEARNT, ROOT, KALMAN, *_ = style.SERIES  # of what is no optimiser
COLOUR = {"conditional mean": style.INK, "learnt": LEARNT, "EnKF": KALMAN, "ETKF": ROOT}
COLOUR |= {"linear": KALMAN, "chosen": LEARNT, "likelihood": style.INK}
TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 2, 5)  # of errors
BENDS = {"joint": "one", "components": "all"}
MARKER = {"conditional mean": "s", "learnt": "o", "EnKF": "^", "ETKF": "D", "linear": "^", "chosen": "o", "likelihood": "v"}


@figure("posterior")
def posterior(rows: pd.DataFrame) -> Figure:
    """Shows: bias of the updated ensemble's mean against where the observation falls, for each prior; means over seeds."""
    found = updated(rows, "bias").mean(axis=1)
    priors = list(dict.fromkeys(rows[rows.case == "posterior"].prior))
    figure, panels = style.axes(1, len(priors), height=2.4, sharey=True)
    for panel, prior in zip(panels, priors, strict=True):
        for method, label in METHODS.items():
            own = found[prior, method]
            panel.plot(own.index, own, marker=MARKER[method], color=COLOUR[method], label=label)
        panel.set(title=prior, xlabel="quantile of the observation")
    panels[0].set_ylabel("bias / deviation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@figure("dimensions")
def dimensions(rows: pd.DataFrame) -> Figure:
    """Shows: error of estimated conditional means against the dimension, for each prior and ensemble size; means and ranges
    over runs."""
    found = errors(rows)
    sizes, priors = found.index.unique("members"), list(dict.fromkeys(rows[rows.case == "dimensions"].prior))
    figure, panels = style.axes(len(priors), len(sizes), height=3.9, sharex=True, sharey=True, squeeze=False)
    for line, prior in zip(panels, priors, strict=True):
        for panel, members in zip(line, sizes, strict=True):
            for method, label in ESTIMATES.items():
                own = found.loc[prior].xs((members, method), level=("members", "method"))
                look = {"color": COLOUR[method], "label": label}
                panel.plot(own.index, own.mean(axis=1), marker=MARKER[method], **look)
                panel.fill_between(own.index, own.min(axis=1), own.max(axis=1), color=COLOUR[method], alpha=0.2, linewidth=0)
            panel.set(xscale="log", yscale="log")
            panel.set_title(f"{members:,} members", loc="left")
            factors(panel, own.index)
    for panel in panels[-1]:
        panel.set_xlabel("dimension")
    for panel, prior in zip(panels[:, 0], priors, strict=True):
        panel.set_ylabel(f"error, $\\varphi$ bends in {BENDS[prior]}")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _spread(panel: Axes, at: float, values: pd.Series, colour: str, marker: str) -> None:
    """Every run as a dot, and beside them the mean with its interval."""
    found = mean(values)
    panel.plot([at - 0.1] * len(values), values, "o", color=colour, alpha=0.35, markersize=2.5, markeredgewidth=0)
    panel.plot([at + 0.1] * 2, found.ends, color=colour)
    panel.plot(at + 0.1, found.value, marker, color=colour, markersize=4)


@figure("tracking")
def tracking(rows: pd.DataFrame) -> Figure:
    """Shows: error of three filters, each at its own best inflation, on every system: dots are runs, marks means with their
    intervals."""
    found = tracked(rows)
    systems = list(dict.fromkeys(name for name, _ in cells(rows)))
    figure, panels = style.axes(1, len(systems), height=2.7)
    for panel, system in zip(panels, systems, strict=True):
        sizes = [members for name, members in cells(rows) if name == system]
        for i, members in enumerate(sizes):
            for j, method in enumerate(FILTERS):
                _spread(panel, 4 * i + j, found.loc[system, members, method], COLOUR[method], MARKER[method])
        panel.set_xticks([4 * i + 1 for i in range(len(sizes))], labels=[f"{members} members" for members in sizes])
        panel.set_title(system, loc="left")
        panel.grid(visible=False, axis="x")
        panel.set_yscale("log")
        low, high = found.loc[system].min(axis=None), found.loc[system].max(axis=None)
        panel.set_yticks(ticks := [y for y in TICKS if low <= y <= high], labels=[f"{y:g}" for y in ticks])
        panel.minorticks_off()
    panels[0].set_ylabel("root mean square error")
    marks = [panels[0].plot([], [], MARKER[m], color=COLOUR[m], linestyle="-")[0] for m in FILTERS]
    figure.legend(marks, list(FILTERS.values()), loc="outside upper center", ncols=3)
    return figure


@figure("optimisers")
def optimisers(rows: pd.DataFrame) -> Figure:
    """Shows: error of the filter and loss on held-out members against the gradients at an update, by the optimiser of the
    network; dots are runs."""
    figure, panels = style.axes(1, 2, height=2.6)
    titles = {"rmse": "(a) root mean square error", "held_out": "(b) loss on held-out members"}
    for panel, (metric, title) in zip(panels, titles.items(), strict=True):
        found = compared(rows, metric)
        works = sorted(found.index.unique("work"))
        for i, optimiser in enumerate(OPTIMISERS):
            own, beside = found.loc[optimiser].loc[works], 1.07 ** (i - 1)
            colour = style.COLOUR[optimiser]
            panel.plot(np.array(works) * beside, own.mean(axis=1), "o-", color=colour, label=optimiser)
            panel.plot(np.array(works) * beside, own, "o", color=colour, alpha=0.35, markersize=2, markeredgewidth=0)
        panel.set(xscale="log", xlabel="gradients at an update")
        panel.set_title(title, loc="left")
        factors(panel, works)
    panels[1].axhline(1, color=style.INK, linewidth=0.6, linestyle=":")
    panels[1].set_yscale("log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
