"""The figure of the experiment."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.study.declare import figure

from .selections import outcomes

KEPT, BROKEN = style.COLOUR["Newton"], style.COLOUR["AdaHessian"]
PROMISES = {
    "said as stated": lambda found: found["as stated"] == 1,
    "no traceback": lambda found: found.tracebacks == 0,
    "nothing half-written": lambda found: found.unfinished == 0,
    "nothing left running": lambda found: found.running == 0,
    "no row lost": lambda found: found.lost == 0,
}


@figure("commands", "workflow")
def promises(rows: pd.DataFrame) -> Figure:
    """Which promise held under which fault.

    Shows: a filled dot where a promise held, an open one where it did not; one line a fault.
    """
    found = outcomes(rows)
    figure, ax = style.axes(height=0.7 + 0.16 * len(found))
    lines = np.arange(len(found))
    for column, holds in enumerate(PROMISES.values()):
        kept = holds(found).to_numpy()
        ax.plot(np.full(kept.sum(), column), lines[kept], "o", color=KEPT)
        ax.plot(np.full((~kept).sum(), column), lines[~kept], "o", color=BROKEN, markerfacecolor="white")
    ax.set_yticks(lines, found.index.get_level_values("fault"))
    ax.set_xticks(range(len(PROMISES)), PROMISES, rotation=25, ha="left")
    ax.xaxis.tick_top()
    ax.set(xlim=(-0.5, len(PROMISES) - 0.5), ylim=(len(found) - 0.5, -0.5))
    return figure
