"""Figures of the experiment; each function says what it shows and which rows it needs."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondlook.reporting import style
from secondlook.study.declare import figure

from . import double_well
from .measures import PRINTED, PRINTED_EPOCH, printed_epochs
from .selections import against_step, iterations, losses, losses_at

GD, NEWTON, DAMPED = (style.COLOUR[name] for name in ("GD", "Newton", "damped Newton"))
FLOOR = 1e-34  # where a loss of zero is drawn on a logarithmic axis: a rounding error squared


@figure("toy", "scale")
def loss_curves(rows: pd.DataFrame) -> Figure:
    """The document's two curves, and the same two methods at learning rates of one scale.

    Shows: loss against the number of updates from the document's seed. (a) The printed losses where the document puts them,
    and where they hold. (b) Newton's method, and gradient descent at n/2 times its learning rate on top of it.
    """
    figure, (left, right) = style.axes(1, 2, height=2.7)
    epoch = printed_epochs(rows)["last"].value
    for method, name, colour in (("GD", "GD", GD), ("row by row", "Newton", DAMPED)):
        loss = losses(rows, method).loc[0]
        printed = float(PRINTED[name])
        left.plot(loss.index, loss, color=colour)
        left.plot(PRINTED_EPOCH, printed, "x", color=style.INK, markersize=6, clip_on=False, zorder=3)
        if np.isfinite(epoch):
            left.plot(epoch, loss[epoch], "o", color=style.INK, markerfacecolor="white", markersize=5, zorder=3)
            ends = {"xy": (epoch + 0.9, printed), "xytext": (PRINTED_EPOCH - 0.9, printed)}
            left.annotate("", **ends, arrowprops={"arrowstyle": "->", "color": style.INK, "linewidth": 0.7})
        style.note(left, f"printed: {PRINTED[name]}", (PRINTED_EPOCH, printed), offset=(3, 9), ha="right")
    style.note(left, "gradient descent, lr 0.1", (1, losses(rows, "GD").loc[0, 1]), GD, offset=(0, 10))
    style.note(left, "Newton, lr 0.1", (16, losses(rows, "row by row").loc[0, 16]), DAMPED, offset=(-6, -7), ha="right")
    left.set(yscale="log", ylim=(1e-5, 0.6), xlabel="updates", ylabel="loss")
    left.set_title("(a) as the document runs it", loc="left")

    for full, colour in ((False, DAMPED), (True, NEWTON)):
        newton, descent = (np.maximum(losses_at(rows, method, full).loc[0], FLOOR) for method in ("Newton", "GD"))
        right.plot(newton.index, newton, color=colour)
        right.plot(descent.index[::3], descent[::3], "o", color=GD, markerfacecolor="white", markersize=4, zorder=3)
    style.note(right, "Newton, lr 0.1", (39, 1e-5), DAMPED, offset=(0, 16), ha="right")
    style.note(right, "gradient descent, lr 1.25", (39, 1e-5), GD, offset=(0, -10), ha="right")
    style.note(right, "Newton, lr 1", (39, FLOOR), NEWTON, offset=(0, 20), ha="right")
    style.note(right, "gradient descent, lr 12.5", (39, FLOOR), GD, offset=(0, 10), ha="right")
    right.set(yscale="log", ylim=(FLOOR / 100, 1000), xlabel="updates")
    right.set_title("(b) with learning rates of one scale", loc="left")
    right.set_yticks([10.0**power for power in (0, -10, -20, -30)])
    return figure


@figure("conditioning")
def conditioning(rows: pd.DataFrame) -> Figure:
    """Where curvature matters: steps against the condition number.

    Shows: steps until the loss has fallen to its target on random rotated quadratics, a dot for each seed, against the
    condition number; closed forms as lines; the gradients that one Newton step costs as a dotted line.
    """
    figure, ax = style.axes(height=3.0, width=5.2)
    gd, newton, damped = iterations(rows, "GD", lr=1), iterations(rows, "Newton"), iterations(rows, "damped Newton")
    bound = iterations(rows, "GD bound").max()
    conditions = gd.columns
    jitter = np.exp(np.linspace(-0.25, 0.25, len(gd)))
    ax.plot(conditions, bound, color=GD, linewidth=0.9, linestyle="--")
    for counts, colour in ((gd, GD), (damped, DAMPED), (newton, NEWTON)):
        ax.plot(conditions, counts.median(), color=colour, linewidth=0.9)
        for condition in conditions:
            ax.plot(condition * jitter, counts[condition], "o", color=colour, markersize=2, alpha=0.6, markeredgewidth=0)
    price = rows[(rows.case == "conditioning") & (rows.metric == "gradients")].value.iloc[0]
    ax.axhline(price, color=NEWTON, linewidth=0.9, linestyle=":")
    last = conditions[-1]
    style.note(ax, "gradient descent,\nlr $2/(L + \\mu)$", (last, gd[last].median()), GD, offset=(10, -7))
    style.note(ax, "its bound", (conditions[-2], bound[conditions[-2]]), GD, offset=(-4, 8), ha="right")
    style.note(ax, "Newton, lr 0.1", (last, damped[last].median()), DAMPED, offset=(10, 4))
    style.note(ax, "one Newton step\nin gradients", (last, price), NEWTON, offset=(10, -9))
    style.note(ax, "Newton, lr 1", (last, 1), NEWTON, offset=(10, 0))
    ax.set(xscale="log", yscale="log", xlabel="condition number", ylabel="steps to the target loss", ylim=(0.5, 2e7))
    return figure


PANELS = ("GD", "Newton", "damped Newton", "Levenberg", "absolute-value Newton", "trust-region Newton")
ENDS = {True: NEWTON, False: style.COLOUR["AdaHessian"]}


@figure("paths")
def saddle_paths(rows: pd.DataFrame) -> Figure:
    """Six methods from the same starts on a double well.

    Shows: contours of f, the saddle (cross) and the minima (stars); the path of each method from each start (open circle),
    green if it ends at a minimum, orange and dotted if it ends at the saddle; the region where H is indefinite in grey.
    """
    figure, axes = style.axes(2, 3, height=3.6, sharex=True, sharey=True)
    x, y = np.meshgrid(np.linspace(-1.5, 1.5, 301), np.linspace(-1.1, 1.1, 221))
    f = double_well.value(np.array([x, y]))
    paths = rows[rows.case == "paths"]
    indefinite = 1 / np.sqrt(3)
    for ax, method in zip(axes.flat, PANELS, strict=True):
        ax.axvspan(-indefinite, indefinite, color="#f0f0f0", linewidth=0)
        ax.contour(x, y, f, levels=np.linspace(-0.24, 1.2, 13), cmap=style.SURFACE, linewidths=0.5, alpha=0.8)
        for _, walk in paths[paths.method == method].groupby("start"):
            course = walk.pivot(index="step", columns="metric", values="value")
            down = abs(course.theta_1.iloc[-1]) > indefinite
            colour = ENDS[down]
            ax.plot(
                course.theta_1,
                course.theta_2,
                "o-" if down else "o:",
                color=colour,
                linewidth=0.9,
                markersize=1.8,
                markeredgewidth=0,
            )
            ax.plot(*course.iloc[0], "o", color=colour, markerfacecolor="white", markersize=4, zorder=3)
        ax.plot(*double_well.SADDLE, "x", color=style.INK, markersize=5, zorder=4)
        ax.plot(*np.transpose(double_well.MINIMA), "*", color=style.INK, markersize=6, markeredgewidth=0, zorder=4)
        ax.set(title=method, xlim=(-1.5, 1.5), ylim=(-1.1, 1.1))
        ax.grid(False)
    for ax in axes[-1]:
        ax.set_xlabel(r"$\theta_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel(r"$\theta_2$")
    return figure


@figure("graph", "growth")
def growth(rows: pd.DataFrame) -> Figure:
    """What the document's loop costs as it goes on: the graph above, time and memory below.

    Shows: against the step, the nodes that a backward pass walks through and the time of a step (left), the nodes that the
    loop keeps alive and the memory that it holds (right); the manual Newton loop solid, the one that detaches dashed;
    medians over repeats with their range. The dotted line marks the document's 40 epochs.
    """
    figure, axes = style.axes(2, 2, height=4.2, sharex=True)
    panels = (
        ("graph", "nodes_of_loss", 1, "nodes behind the loss", "(a) nodes that each backward pass walks"),
        ("graph", "nodes_alive", 1000, "nodes alive, thousands", "(b) nodes that the loop keeps alive"),
        ("growth", "time_ms", 1, "time of a step, ms", "(c) time of a step, measured"),
        ("growth", "heap_bytes", 2**20, "memory held, MiB", "(d) memory that the loop holds, measured"),
    )
    lines = {"row by row": ("-", DAMPED), "GD": ("-", GD), "detached": ("--", DAMPED)}
    for ax, (case, metric, unit, label, title) in zip(axes.flat, panels, strict=True):
        for method, (line, colour) in lines.items():
            found = against_step(rows, case, metric, method) / unit
            if len(found):
                ax.plot(found.columns, found.median(), line, color=colour, marker="o" if case == "graph" else None)
                spread = found.quantile(0.25), found.quantile(0.75)
                ax.fill_between(found.columns, *spread, color=colour, alpha=0.3, linewidth=0)
        ax.axvline(PRINTED_EPOCH, color=style.INK, linewidth=0.6, linestyle=":")
        ax.set(ylabel=label, ylim=(0, None))
        ax.set_title(title, loc="left")
    counts = {method: against_step(rows, "graph", "nodes_of_loss", method).iloc[0] for method in lines}
    middle = counts["GD"].index[len(counts["GD"]) // 2]
    top = counts["row by row"][middle]
    style.note(axes[0, 0], "Newton, row by row", (middle, top), DAMPED, offset=(-8, 8), ha="right")
    style.note(axes[0, 0], "gradient descent", (middle, counts["GD"][middle]), GD, offset=(8, -8))
    style.note(axes[0, 0], "Newton, detached", (middle, 0), DAMPED, offset=(0, 8))
    style.note(axes[0, 0], "the document's 40", (PRINTED_EPOCH, counts["row by row"].max()), offset=(4, -2))
    for ax in axes[1]:
        ax.set_xlabel("step")
    return figure
