"""The article's figures, and what the grid says about its claims."""

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from secondlook.reporting import style
from secondlook.study.declare import figure
from secondlook.study.statistics import Estimate
from secondlook.study.text import key

from . import measures, selections
from .selections import STATED

METHODS = ("AdaHessian", "Adam")
HALO = [effects.withStroke(linewidth=2.0, foreground="white")]
LEVELS = np.array([0.002, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4])
FRAMES = 50


def _run(rows: pd.DataFrame, condition: str, method: str) -> pd.DataFrame:
    """Epochs by w, b and loss, of case article."""
    chosen = rows[(rows.case == "article") & (rows.condition == condition) & (rows.method == method)]
    return chosen.pivot(index="step", columns="metric", values="value")


def _surface(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """w, b and the loss, each b by w."""
    table = rows[(rows.case == "surface") & (rows.metric == "loss")].pivot(index="b", columns="w", values="value")
    return *np.meshgrid(table.columns, table.index), table.to_numpy()


def _minimum(rows: pd.DataFrame) -> tuple[float, float]:
    found = rows[(rows.case == "surface") & (rows.metric == "minimum")]
    return found.w.item(), found.b.item()


def _labels(rows: pd.DataFrame, condition: str) -> dict[str, str]:
    """Labels such as 'AdaHessian, lr 0.0645'."""
    rates = measures.article_rates(rows)
    return {m: f"{m}, lr {rates[key(condition, m)].value:.3g}" for m in METHODS}


def _plan(axis: Axes, rows: pd.DataFrame) -> None:
    """Contours of the loss with the start and the minimum."""
    w, b, loss = _surface(rows)
    axis.contourf(w, b, loss, levels=[0, *LEVELS, loss.max()], cmap=style.SURFACE, alpha=0.25)
    axis.contour(w, b, loss, levels=LEVELS, cmap=style.SURFACE, linewidths=0.5)
    start, lowest = _run(rows, "equal rate", "Adam").loc[0, ["w", "b"]], _minimum(rows)
    axis.plot(*start, "o", color=style.INK, markersize=4.5, zorder=5)
    axis.plot(*lowest, "*", color=style.INK, markersize=8, zorder=5)
    axis.annotate("start", start, (4, -11), textcoords="offset points", fontsize=8)
    axis.annotate("minimum", lowest, (5, 4), textcoords="offset points", fontsize=8, path_effects=HALO)
    axis.set(xlabel="weight $w$")
    axis.grid(False)


def _path(axis: Axes, run: pd.DataFrame, method: str, label: str | None = None) -> None:
    axis.plot(run.w, run.b, color=style.COLOUR[method], path_effects=HALO, label=label)
    axis.plot(run.w.iloc[-1], run.b.iloc[-1], "o", color=style.COLOUR[method], markeredgecolor="white", zorder=4)


def _relief(rows: pd.DataFrame, methods, condition: str) -> Figure:
    """The surface of the loss with paths on it, and contours with the same paths below."""
    figure, axis = style.axes(height=3.7, width=4.6, subplot_kw={"projection": "3d", "computed_zorder": False})
    w, b, loss = _surface(rows)
    floor = -0.35
    axis.contour(w, b, loss, levels=LEVELS, cmap=style.SURFACE, linewidths=0.6, offset=floor, zorder=0)
    for method in methods:
        run = _run(rows, condition, method)
        axis.plot(run.w, run.b, floor, color=style.COLOUR[method], linewidth=1.1, zorder=1)
    axis.plot_surface(w, b, loss, cmap=style.SURFACE, alpha=0.55, linewidth=0, rcount=45, ccount=45, zorder=2)
    for method in methods:
        run = _run(rows, condition, method)
        axis.plot(run.w, run.b, run.loss, color=style.COLOUR[method], label=_labels(rows, condition)[method], zorder=4)
    first = run.iloc[0]
    lowest = _minimum(rows)
    axis.plot(first.w, first.b, first.loss, "o", color=style.INK, markersize=4.5, zorder=5)
    for height in (0, floor):
        axis.plot(*lowest, height, "*", color=style.INK, markersize=7, zorder=5)
    axis.set(xlabel="weight $w$", ylabel="bias $b$", zlabel="loss", zlim=(floor, 0.5), zticks=[0, 0.2, 0.4])
    axis.view_init(elev=28, azim=-58)
    axis.set_box_aspect((1.1, 1, 0.85), zoom=0.9)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0.98))
    return figure


@figure("article")
def adahessian_loss(rows: pd.DataFrame) -> Figure:
    """Shows: AdaHessian's loss over 200 epochs, and where it counts as stable."""
    figure, axis = style.axes(height=2.1, width=4.2)
    loss = _run(rows, "stated epochs", "AdaHessian").loss
    axis.plot(loss, color=style.COLOUR["AdaHessian"])
    epoch = STATED["AdaHessian"]
    axis.axvline(epoch, color=style.GREY, linewidth=0.8, linestyle=":")
    axis.annotate(f"epoch {epoch}", (epoch, loss[0] / 2), (-4, 0), textcoords="offset points", ha="right", fontsize=8)
    axis.set(xlabel="epoch", ylabel="loss", xlim=(0, loss.index[-1]), ylim=(0, None))
    return figure


@figure("article", "surface")
def contours(rows: pd.DataFrame) -> Figure:
    """Shows: contours of the loss and AdaHessian's path from start to minimum."""
    figure, axis = style.axes(height=2.9, width=3.6)
    _plan(axis, rows)
    _path(axis, _run(rows, "stated epochs", "AdaHessian"), "AdaHessian")
    axis.set(ylabel="bias $b$")
    return figure


@figure("article", "surface")
def surface(rows: pd.DataFrame) -> Figure:
    """Shows: the loss as a surface with AdaHessian's path on it and contours below."""
    return _relief(rows, ("AdaHessian",), "stated epochs")


@figure("article", "surface")
def surface_both(rows: pd.DataFrame) -> Figure:
    """Shows: the same with both paths, at each one's best rate."""
    return _relief(rows, METHODS, "own best rate")


CONDITIONS = {
    "stated epochs": "rates that give the epochs",
    "equal rate": "equal rate",
    "own best rate": "each at its own best rate",
}


@figure("article")
def losses(rows: pd.DataFrame) -> Figure:
    """Shows: both losses over 200 epochs under three choices of learning rates."""
    figure, panels = style.axes(1, 3, height=2.2, sharey=True)
    for axis, (condition, title) in zip(panels, CONDITIONS.items(), strict=True):
        for method, label in _labels(rows, condition).items():
            run = _run(rows, condition, method)
            loss, target = run.loss, run.target[0]
            axis.semilogy(loss, color=style.COLOUR[method], label=label)
            if condition == "stated epochs":
                axis.plot(STATED[method], loss[STATED[method]], "o", color=style.COLOUR[method], markeredgecolor="white")
        axis.axhline(target, color=style.GREY, linewidth=0.8, linestyle=":")
        axis.legend(loc="lower left", handlelength=1.2, borderaxespad=0.2)
        axis.set(xlabel="epoch", xlim=(0, loss.index[-1]), ylim=(1e-11, 2), title=title)
    panels[0].set(ylabel="loss")
    return figure


@figure("article", "surface")
def paths(rows: pd.DataFrame) -> Figure:
    """Shows: both paths over the contours of the loss under three choices of learning rates."""
    figure, panels = style.axes(1, 3, height=2.4, sharey=True)
    for axis, (condition, title) in zip(panels, CONDITIONS.items(), strict=True):
        _plan(axis, rows)
        for method in METHODS:
            _path(axis, _run(rows, condition, method), method, label=method)
        axis.set(title=title)
    panels[0].set(ylabel="bias $b$")
    panels[0].legend(loc="lower left", handlelength=1.2)
    return figure


@figure("article", "surface", kind="animation")
def descent(rows: pd.DataFrame) -> style.Animation:
    """Shows: both paths and losses at an equal learning rate, epoch by epoch."""
    figure, (plan, curve) = style.axes(1, 2, height=2.5, width=5.6)
    _plan(plan, rows)
    plan.set(ylabel="bias $b$")
    runs = {method: _run(rows, "equal rate", method) for method in METHODS}
    labels = _labels(rows, "equal rate")
    drawn = {}
    for method in runs:
        colour = style.COLOUR[method]
        drawn[method] = (
            *plan.plot([], [], color=colour),
            *plan.plot([], [], "o", color=colour, markersize=5),
            *curve.semilogy([], [], color=colour, label=labels[method]),
        )
    last = runs["Adam"].index[-1]
    curve.set(xlabel="epoch", xlim=(0, last), ylim=(1e-5, 1), title="loss")
    curve.legend(loc="lower left")
    plan.set_title("epoch 0")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for every frame

    def draw(frame: int):
        epoch = round(frame * last / (FRAMES - 1))
        plan.set_title(f"epoch {epoch}")
        for method, run in runs.items():
            path, head, loss = drawn[method]
            path.set_data(run.w[: epoch + 1], run.b[: epoch + 1])
            head.set_data([run.w[epoch]], [run.b[epoch]])
            loss.set_data(run.index[: epoch + 1], run.loss[: epoch + 1])

    return style.Animation(figure, draw, FRAMES, pause=120)


@figure("windows", "grid", "probes")
def stabilisation(rows: pd.DataFrame) -> Figure:
    """Shows: the epoch of stabilisation against the learning rate on the ancestor's set-up, and its distribution over the grid,
    with the article's epochs."""
    figure, (one, all_) = style.axes(1, 2, height=2.5)
    for method, stated in STATED.items():
        colour, curve = style.COLOUR[method], selections.window(rows, method).stabilised
        one.semilogx(curve, color=colour)
        rate = (curve - stated).abs().idxmin()
        one.plot(rate, stated, "o", color=colour, markeredgecolor="white", zorder=4)
        one.annotate(
            f"{method}\nat {stated}",
            (rate, stated),
            (-7, -6) if method == "Adam" else (7, -2),
            textcoords="offset points",
            ha="right" if method == "Adam" else "left",
            va="center",
            color=colour,
            fontsize=8,
        )
    one.set(
        xlabel="learning rate", ylabel="epoch of stabilisation", title="the ancestor's set-up", xlim=(0.003, 0.4), ylim=(0, 205)
    )
    runs = selections.runs(rows)
    bins = np.arange(0, 201, 10)
    for rule, label, line in (("Adam", "Adam", "-"), ("exact", "AdaHessian", "-"), ("probes", "AdaHessian, one probe", ":")):
        epochs = runs[runs.rule == rule].stabilised
        colour = style.COLOUR["Adam" if rule == "Adam" else "AdaHessian"]
        weights = np.full(len(epochs), 1 / len(epochs))
        all_.hist(epochs, bins, weights=weights, histtype="step", color=colour, linestyle=line, label=label, linewidth=1.2)
    for method, stated in STATED.items():
        all_.axvline(stated, color=style.COLOUR[method], linewidth=0.8, linestyle="--")
    all_.legend(loc="upper left", bbox_to_anchor=(0.08, 1))
    all_.set(xlabel="epoch of stabilisation", ylabel="share of runs", title="the grid", xlim=(0, 200))
    all_.yaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


def _shares(curve: pd.DataFrame, found: dict[str, Estimate], label: str) -> Figure:
    """Share of cells in which AdaHessian is better: against the equal rate, and in all, at equal and at own best rates."""
    figure, (axis, overall) = style.axes(1, 2, height=2.4, sharey=True, width_ratios=[3, 1.3])
    colour = style.COLOUR["AdaHessian"]
    axis.semilogx(curve.lr, curve.share, color=colour, marker="o")
    axis.set(xlabel="learning rate of both", ylabel=label, ylim=(0, 1.02), title="at an equal rate")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.yaxis.set_major_formatter(PercentFormatter(1, 0))
    for shift, (rule, name, face) in zip(
        (-0.12, 0.12), (("exact", "exact", colour), ("probes", "one probe", "white")), strict=True
    ):
        for at, where in enumerate(("equal", "best")):
            share = found[f"{where}_{rule}"]
            point = overall.plot(at + shift, share.value, "o", color=colour, markerfacecolor=face, markersize=5)
        point[0].set_label(name)
    for panel in (axis, overall):
        panel.axhline(0.5, color=style.GREY, linewidth=0.8)
    overall.legend(loc="lower center", title="diagonal", title_fontsize=8, ncols=2, handletextpad=0.1, columnspacing=0.8)
    overall.set(xlim=(-0.5, 1.5), xticks=[0, 1], xticklabels=["equal\nrate", "own best\nrate"], title="in all")
    return figure


@figure("grid", "probes")
def faster(rows: pd.DataFrame) -> Figure:
    """Shows: share of cells in which AdaHessian arrives first."""
    return _shares(
        selections.by_rate(selections.speed(selections.at_equal_rate(rows))), measures.faster(rows), "AdaHessian arrives first"
    )


@figure("grid", "probes")
def directness(rows: pd.DataFrame) -> Figure:
    """Shows: share of cells in which AdaHessian's path is more direct."""
    return _shares(
        selections.by_rate(selections.directness(selections.at_equal_rate(rows))),
        measures.more_direct(rows),
        "AdaHessian is more direct",
    )
