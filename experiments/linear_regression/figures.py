"""Figures of the experiment; each function says what it shows and which rows it needs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .selections import by_epoch, cosines, course, line, listed, of_methods, of_rules

ADAM = style.COLOUR["Adam"]
TIME = LinearSegmentedColormap.from_list(
    "time", ["#c6dbef", ADAM, "#08306b"]
)  # of Adam's colour, from the first step to the last
NAMED = 60  # the step at which a curve has its name
SHOWN = (0, 30, 60, 120, 313)  # steps whose line is drawn; the last is an epoch
METHODS = ("Adam", "AdaHessian", "SGD", "Newton", "K-FAC")
RULES = ("Adam", "Adam, larger lr", "adaptive", "careful", "EVE", "EVE, walk")


def _data(ax: Axes, rows: pd.DataFrame) -> None:
    ax.plot(listed(rows, "x"), listed(rows, "y"), "o", color=style.GREY, markersize=2, alpha=0.5, markeredgewidth=0)
    ax.set(xlabel="$x$", ylabel="$y$", xlim=(0, 1), ylim=(0.2, 1.5))


def _surface(ax: Axes, rows: pd.DataFrame) -> None:
    """Contours of the loss above its least value, and the minimum."""
    loss = line(rows)
    m, b = np.meshgrid(np.linspace(-0.05, 0.75, 201), np.linspace(0.35, 0.78, 201))
    excess = loss.excess(np.stack([m, b], axis=-1))
    ax.contour(m, b, excess, levels=np.geomspace(1e-4, 0.3, 12), norm=LogNorm(), cmap=style.SURFACE, linewidths=0.6)
    ax.plot(*loss.minimum, "*", color=style.INK, markersize=7, markeredgewidth=0, zorder=4)
    ax.set(xlabel="$m$", ylabel="$b$", xlim=(-0.05, 0.75), ylim=(0.35, 0.78))
    ax.grid(False)


@figure("path")
def training(rows: pd.DataFrame) -> Figure:
    """The document's demonstration.

    Shows: with seed 0, (a) some of the points and the line after 0, 30, 60, 120 and 313 steps; (b) slope m and intercept b
    against the step, their values at the minimum dotted; (c) contours of the loss over (m, b), the path of all steps and, as
    dots, the ends of epochs; (d) the loss above its least value against the step.
    """
    figure, ((data, parameters), (surface, loss)) = style.axes(2, 2, height=4.6)
    theta, known = course(rows, "m", "b"), line(rows)
    ends = [0, *by_epoch(rows, "path", "step size").columns]
    batches = theta.index[-1] // ends[-1]
    _data(data, rows)
    for i, t in enumerate(step for step in SHOWN if step <= theta.index[-1]):
        data.axline((0, theta.b[t]), slope=theta.m[t], color=TIME(i / (len(SHOWN) - 1)), label=f"{t}")
    data.legend(title="after steps", ncol=2, loc="upper left", columnspacing=1, handlelength=1.2)
    data.set_title("(a) predictions", loc="left")
    for name, colour, best in zip("mb", (ADAM, style.COLOUR["AdaHessian"]), known.minimum, strict=True):
        parameters.axhline(best, color=colour, linewidth=0.8, linestyle=":")
        parameters.plot(theta.index, theta[name], color=colour, linewidth=1)
        beside = {"textcoords": "offset points", "xytext": (-10, 2) if name == "b" else (6, -9), "annotation_clip": False}
        parameters.annotate(f"${name}$", (NAMED, theta[name][NAMED]), color=colour, **beside)
    parameters.set(xlabel="step", ylabel="parameter")
    parameters.set_title("(b) parameters", loc="left")
    _surface(surface, rows)
    surface.plot(theta.m, theta.b, color=ADAM, linewidth=0.9)
    surface.plot(theta.m[::batches], theta.b[::batches], "o", color=ADAM, markerfacecolor="white", markersize=4, zorder=3)
    surface.set_title("(c) loss and path", loc="left")
    loss.plot(theta.index, known.excess(theta.to_numpy()), color=ADAM, linewidth=0.8)
    loss.set(yscale="log", xlabel="step", ylabel="loss above the least")
    loss.set_title("(d) loss", loc="left")
    return figure


@figure("demo", "path")
def angles(rows: pd.DataFrame) -> Figure:
    """What the instruments say of the demonstration.

    Shows: (a) the size of each epoch's step, a dot for each seed, and the line through the medians; (b) the cosine between the
    steps of any two epochs, mean over seeds; (c) with seed 0, the size of every step of Adam and (d) the cosine of each with
    the one before; dotted: the ends of epochs.
    """
    figure, ((sizes, matrix), (small, turns)) = style.axes(2, 2, height=4.4)
    size = by_epoch(rows, "demo", "step size")
    jitter = np.linspace(-0.15, 0.15, len(size))
    sizes.plot(size.columns, size.median(), color=ADAM, linewidth=0.9)
    for epoch in size:
        sizes.plot(epoch + jitter, size[epoch], "o", color=ADAM, markersize=2.5, alpha=0.6, markeredgewidth=0)
    sizes.set(yscale="log", xlabel="epoch", ylabel="size of its step", xticks=size.columns)
    sizes.set_title("(a) steps of epochs", loc="left")

    count = size.columns[-1]
    mean = np.eye(count)
    for (i, j), values in cosines(rows).items():
        mean[i - 1, int(j) - 1] = mean[int(j) - 1, i - 1] = values.mean()
    drawn = matrix.imshow(mean, cmap=style.DIVERGING, vmin=-1, vmax=1)
    for i, j in np.ndindex(count, count):
        light = abs(mean[i, j]) > 0.6
        matrix.text(j, i, f"{mean[i, j]:.2f}", ha="center", va="center", fontsize=7, color="white" if light else style.INK)
    ticks = {"ticks": range(count), "labels": range(1, count + 1)}
    matrix.set_xticks(**ticks)
    matrix.set_yticks(**ticks)
    matrix.set(xlabel="epoch", ylabel="epoch")
    matrix.grid(False)
    matrix.set_title("(b) cosine between them, mean", loc="left")
    figure.colorbar(drawn, ax=matrix, shrink=0.9)

    steps = course(rows, "size of step", "cosine of step")
    batches = steps.index[-1] // by_epoch(rows, "path", "step size").columns[-1]
    for ax, name in ((small, "size of step"), (turns, "cosine of step")):
        ax.plot(steps.index, steps[name], ".", color=ADAM, markersize=1.5, markeredgewidth=0)
        for end in range(batches, steps.index[-1] + 1, batches):
            ax.axvline(end, color=style.INK, linewidth=0.6, linestyle=":")
        ax.set(xlabel="step", ylabel=name)
    small.set(yscale="log")
    turns.set(ylim=(-1.05, 1.05))
    small.set_title("(c) steps inside epochs", loc="left")
    turns.set_title("(d) their turns", loc="left")
    return figure


@figure("steady")
def steadiness(rows: pd.DataFrame) -> Figure:
    """Do second-order steps point more steadily?

    Shows: for five optimisers at rates at which they arrive after equally many steps, a dot for each seed and a bar at the
    mean: the mean cosine of neighbouring steps, that of neighbouring pieces of the path, that between a piece and the way to
    the minimum, and the detour.
    """
    figure, panels = style.axes(1, 4, height=2.5, sharey=True)
    titles = {
        "cosine of steps": "cosine of\nneighbouring steps",
        "cosine of pieces": "cosine of\nneighbouring pieces",
        "aim": "cosine with the way\nto the minimum",
        "detour": "distance travelled\nover displacement",
    }
    for ax, (metric, title) in zip(panels, titles.items(), strict=True):
        comparisons.bars(ax, of_methods(rows, metric))
        ax.set(xlabel=title)
    return figure


@figure("rules")
def rules(rows: pd.DataFrame) -> Figure:
    """A first look at the document's rules.

    Shows: left, the loss above its least value after each epoch over that of Adam alone, a thin line for each seed and a thick
    one for their geometric mean; right, the learning rate.
    """
    figure, (ratio, rate) = style.axes(1, 2, height=2.7)
    excess, lr = of_rules(rows, "excess"), of_rules(rows, "lr")
    for rule in RULES:
        colour = style.COLOUR[rule]
        over = np.log(excess[rule] / excess["Adam"])
        above = {"zorder": 3} if rule == "Adam" else {}
        ratio.plot(over.columns, np.exp(over.T), color=colour, linewidth=0.4, alpha=0.5)
        ratio.plot(over.columns, np.exp(over.mean()), color=colour, label=rule, **above)
        rate.plot(lr[rule].columns, lr[rule].mean(), "o-", color=colour, markersize=3, **above)
    ratio.set(yscale="log", xlabel="epoch", ylabel="loss above the least, over Adam's", xticks=excess["Adam"].columns)
    rate.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None), xticks=excess["Adam"].columns)
    figure.legend(*ratio.get_legend_handles_labels(), loc="outside right center")
    return figure


FRAMES = 30


@figure("path", kind="animation")
def descent(rows: pd.DataFrame) -> style.Animation:
    """The demonstration in motion.

    Shows: with seed 0, the line among the points and the path over the contours of the loss; the steps of a frame grow with
    time.
    """
    figure, (data, surface) = style.axes(1, 2, height=2.6)
    theta = course(rows, "m", "b")
    _data(data, rows)
    _surface(surface, rows)
    (prediction,) = data.plot([], [], color=ADAM, linewidth=2)
    (way,) = surface.plot([], [], color=ADAM, linewidth=1.2)
    (head,) = surface.plot([], [], "o", color=ADAM, markeredgecolor="white", markersize=7, zorder=5)
    data.set_title(f"step {theta.index[-1]}", loc="left")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for every frame
    steps = np.unique(np.round(theta.index[-1] * np.linspace(0, 1, FRAMES) ** 2).astype(int))

    def draw(frame: int):
        t = steps[frame]
        data.set_title(f"step {t}", loc="left")
        prediction.set_data([0, 1], [theta.b[t], theta.m[t] + theta.b[t]])
        way.set_data(theta.m[: t + 1], theta.b[: t + 1])
        head.set_data(theta.m[t : t + 1], theta.b[t : t + 1])

    return style.Animation(figure, draw, len(steps), pause=180)
