"""The loss against the step."""

import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.study.declare import figure


@figure("decay")
def losses(rows: pd.DataFrame) -> Figure:
    """Shows: the loss of every seed."""
    figure, axis = style.axes(height=2.2)
    for _, one in rows[rows.case == "decay"].groupby("seed"):
        axis.semilogy(one.step, one.value, color=style.COLOUR["GD"])
    axis.set(xlabel="step", ylabel="loss")
    return figure
