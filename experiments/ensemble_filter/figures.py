"""Bias after one update."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.study.declare import figure

from .selections import METHODS, updated

COLOUR = {"exact conditional mean": style.INK, "learnt conditional mean": "#4477aa", "Kalman filter": "#cc6677"}


@figure("posterior")
def posterior(rows: pd.DataFrame) -> Figure:
    """Shows: bias of the updated ensemble's mean against where the observation falls, for each prior."""
    found = updated(rows, "bias").mean(axis=1)
    priors = found.index.unique("prior")
    figure, panels = style.axes(1, len(priors), height=2.3, sharey=True)
    for panel, prior in zip(panels, priors, strict=True):
        for method, label in METHODS.items():
            own = found[prior, method]
            panel.plot(own.index, own, "o-", color=COLOUR[label], label=label)
        panel.set(title=prior, xlabel="quantile of the observation")
    panels[0].set_ylabel("bias / deviation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
