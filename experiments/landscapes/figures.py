"""Surfaces with paths, sensitivity to the learning rate, the captions of the animations, and what the rules do."""

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from secondlook.reporting import style
from secondlook.study.declare import figure
from secondlook.study.statistics import Estimate, share

from . import measures
from .selections import CLASSICAL, best_rates, reported, sweep

RACERS = ("SGD", "momentum", "Nesterov", "Adagrad", "RMSprop", "Adam", "AdaBelief", "AdaHessian", "absolute-value Newton")
HALO = [effects.withStroke(linewidth=2.2, foreground="white")]
LEVELS = {
    "Beale": np.geomspace(0.1, 150, 12),
    "long valley": [0.01, 0.03, 0.06, 0.12, 0.3, 0.8, 2, 4, 8, 12],
    "saddle": [0.03, 0.1, 0.2, 0.25, 0.3, 0.5, 0.8, 1.2, 1.8],
}
FRAMES = 48


def _surface(rows: pd.DataFrame, name: str):
    """x, y and the height above the minimum, y by x; and the minima."""
    found = rows[(rows.case == "surfaces") & (rows.landscape == name)]
    table = found[found.metric == "height"].pivot(index="y", columns="x", values="value")
    return table.columns, table.index, table.to_numpy(), found[found.metric == "minimum"][["x", "y"]].to_numpy()


def _path(rows: pd.DataFrame, name: str, method: str) -> np.ndarray:
    """(steps + 1, 2)."""
    x, y = (sweep(rows, metric) for metric in ("x", "y"))
    return np.stack([f[(f.landscape == name) & (f.method == method)].sort_values("step").value for f in (x, y)], -1)


def _plan(axis: Axes, rows: pd.DataFrame, name: str) -> None:
    x, y, height, minima = _surface(rows, name)
    axis.contour(x, y, height, levels=LEVELS[name], cmap=style.SURFACE, linewidths=0.5, alpha=0.55)
    axis.plot(*minima.T, "*", color=style.INK, markersize=9, markeredgecolor="white", markeredgewidth=0.6, zorder=6)
    axis.set(title=name, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="$x$")
    axis.grid(False)


@figure("surfaces", "sweep")
def contours(rows: pd.DataFrame) -> Figure:
    """The three surfaces of the animations with all paths.

    Shows: paths of nine optimisers from one start (circle), each at its own best rate without noise; minima as stars. Above
    those whose step is the gradient or a mean of it, and Newton's; below those that divide it by its size.
    """
    figure, panels = style.axes(2, 3, height=4.6, sharex="col", sharey="col")
    for row, (methods, line) in enumerate(zip((RACERS[:3] + RACERS[-1:], RACERS[3:-1]), panels, strict=True)):
        for axis, name in zip(line, CLASSICAL, strict=True):
            _plan(axis, rows, name)
            for method, look in zip(methods, ("-", "--", "-.", ":", (0, (5, 1, 1, 1))), strict=False):
                path = _path(rows, name, method)
                axis.plot(*path.T, linestyle=look, color=style.COLOUR[method], linewidth=1.1, label=method)
            axis.plot(*path[0], "o", color=style.INK, markerfacecolor="white", markersize=5, zorder=6)
            axis.set(title="" if row else name, xlabel="$x$" if row else "")
        line[0].set_ylabel("$y$")
        line[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.2)
    return figure


@figure("sweep", each={"beale": "Beale", "long_valley": "long valley", "saddle": "saddle"}, kind="animation")
def race(rows: pd.DataFrame, name: str) -> style.Animation:
    """Shows: nine optimisers on one surface, step by step; the steps of a frame grow with time."""
    figure, axis = style.axes(height=3.5, width=5.4)
    _plan(axis, rows, name)
    axis.set_ylabel("$y$")
    paths = {method: _path(rows, name, method) for method in RACERS}
    drawn = {
        method: (
            *axis.plot([], [], color=style.COLOUR[method], linewidth=1.3),
            *axis.plot([], [], "o", color=style.COLOUR[method], markeredgecolor="white", markersize=7, label=method, zorder=5),
        )
        for method in RACERS
    }
    figure.legend(loc="outside right center", handletextpad=0.2)
    last = len(paths["SGD"]) - 1
    axis.set_title(f"{name}: step {last}")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for every frame
    steps = np.unique(np.round(last * np.linspace(0, 1, FRAMES) ** 2.5).astype(int))

    def draw(frame: int):
        step = steps[frame]
        axis.set_title(f"{name}: step {step}")
        for method, (line, head) in drawn.items():
            path = paths[method][: step + 1]
            line.set_data(*path.T)
            head.set_data(*path[-1:].T)

    return style.Animation(figure, draw, len(steps), pause=180)


@figure("sweep")
def sensitivity(rows: pd.DataFrame) -> Figure:
    """Which learning rates work.

    Shows: for each optimiser and rate, the share of reported starts that arrive, as colour; a dot marks the rate that the
    tuning starts chose. Top without noise, below with noise.
    """
    figure, panels = style.axes(2, 3, height=3.9, sharex=True, sharey=True)
    arrivals, chosen = reported(rows), best_rates(rows)
    arrivals = arrivals.assign(hit=np.isfinite(arrivals.value))
    methods = arrivals.method.unique()
    for line, noise in zip(panels, ("exact", "noisy"), strict=True):
        for axis, name in zip(line, CLASSICAL, strict=True):
            cells = arrivals[(arrivals.landscape == name) & (arrivals.noise == noise)]
            table = cells.pivot_table(index="method", columns="lr", values="hit").loc[methods]
            powers = np.log2(table.columns).to_numpy().round()
            extent = (powers[0] - 0.5, powers[-1] + 0.5, len(methods), 0)
            mesh = axis.imshow(table, cmap=style.SURFACE, vmin=0, vmax=1, extent=extent, aspect="auto", interpolation="nearest")
            best = chosen[(chosen.landscape == name) & (chosen.noise == noise)].set_index("method").lr[methods]
            arrives = np.array([table.loc[method, rate] > 0 for method, rate in best.items()])
            axis.plot(
                np.log2(best)[arrives],
                np.flatnonzero(arrives) + 0.5,
                "o",
                color="white",
                markeredgecolor=style.INK,
                markersize=4,
            )
            axis.set(title=f"{name}, {'with' if noise == 'noisy' else 'without'} noise")
            axis.set(yticks=np.arange(len(methods)) + 0.5, yticklabels=methods, ylim=(len(methods), 0))
            axis.grid(False)
    shown = powers[powers % 5 == 0].astype(int)
    for axis in panels[1]:
        axis.set(xlabel="learning rate")
        axis.set_xticks(shown, labels=[f"$2^{{{power}}}$" for power in shown])
    bar = figure.colorbar(mesh, ax=panels, location="right", shrink=0.5, aspect=18, label="starts that arrive")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


@figure("sweep")
def statements(rows: pd.DataFrame) -> Figure:
    """The captions of the animations, as shares of comparisons.

    Shows: share of comparisons in which a caption holds, with 95 % intervals over starts, without noise (filled) and with noise
    (open), or with one of both where that is all that is asked; beyond the line the caption holds more often than not.
    """
    figure, axis = style.axes(height=3.0, width=5.6)
    smoother, overshoots, faster = measures.smoother(rows), measures.overshoots(rows), measures.faster(rows)
    steadier, calmer, leaves = measures.steadier(rows), measures.calmer(rows), measures.leaves(rows)
    swings, belief = measures.swings(rows), measures.belief_wins(rows)
    lines: list[tuple[str, Estimate | None, Estimate | None, str]] = [
        ("C4a: momentum turns less", smoother["exact"], smoother["noisy"], "momentum"),
        ("C4e: momentum overshoots more", overshoots["exact"], overshoots["noisy"], "momentum"),
        ("C4b: adaptive rates arrive first", faster["exact"], faster["noisy"], "Adam"),
        ("C4f: adaptive rates work at more rates", steadier["exact"], steadier["noisy"], "Adam"),
        ("C4g: adaptive rates jitter less", calmer["exact"], calmer["noisy"], "Adam"),
        ("C4c: adaptive rates leave before SGD", leaves["plain"], None, "Adam"),
        ("C4c: the same, both with momentum", leaves["with_momentum"], None, "Adam"),
        ("C4h: momentum swings more, saddle", swings["more_saddle"], None, "momentum"),
        ("C4h: the same, at equal rates", swings["more_at_equal_rates_saddle"], None, "momentum"),
        ("C4d: momentum swings to and fro, saddle", swings["momentum_saddle"], None, "momentum"),
        ("C5b: AdaBelief arrives before Adam", belief["faster_exact"], belief["faster_noisy"], "AdaBelief"),
        ("C5c: AdaBelief works at more rates", belief["steadier_exact"], belief["steadier_noisy"], "AdaBelief"),
        ("C5d: AdaBelief jitters less", None, belief["calmer_noisy"], "AdaBelief"),
    ]
    for at, (_, exact, noisy, method) in enumerate(lines):
        for found, shift, face in ((exact, -0.14, style.COLOUR[method]), (noisy, 0.14, "white")):
            if found:
                axis.plot(found.ends, [at + shift] * 2, color=style.COLOUR[method], linewidth=1.2)
                axis.plot(found.value, at + shift, "o", color=style.COLOUR[method], markerfacecolor=face, markersize=5)
    axis.plot([], [], "o", color=style.INK, markersize=5, label="without noise")
    axis.plot([], [], "o", color=style.INK, markerfacecolor="white", markersize=5, label="with noise")
    axis.axvline(0.5, color=style.GREY, linewidth=0.8)
    axis.set(
        yticks=range(len(lines)), yticklabels=[line[0] for line in lines], ylim=(len(lines) - 0.5, -0.5), xlim=(-0.02, 1.02)
    )
    axis.set(xlabel="share of comparisons in which it holds")
    axis.xaxis.set_major_formatter(PercentFormatter(1, 0))
    figure.legend(loc="outside upper right", ncols=2, handletextpad=0.1)
    return figure


@figure("rules")
def nesterov(rows: pd.DataFrame) -> Figure:
    """Nesterov's momentum, heavy ball, and what the article prints.

    Shows: w and |w| on w^2 against the step, for torch's two rules as lines, and as rings the article's code and the look-ahead
    that its text asks for.
    """
    found = rows[(rows.case == "rules") & (rows.metric == "w")]
    table = found.pivot(index="step", columns="method", values="value")
    figure, (left, right) = style.axes(1, 2, height=2.2)
    for rule, of_torch, label in (
        ("printed Nesterov", "heavy ball", "the article's 'Nesterov'"),
        ("look-ahead", "Nesterov", "gradient looked up ahead"),
    ):
        colour = style.COLOUR["momentum" if of_torch == "heavy ball" else "Nesterov"]
        names = {"line": f"{'heavy ball' if of_torch == 'heavy ball' else 'Nesterov'}, torch", "ring": label}
        for axis, values in ((left, table), (right, table.abs())):
            axis.plot(values[of_torch], color=colour, label=names["line"])
            axis.plot(values[rule], "o", color=colour, markerfacecolor="white", markersize=4.5, label=names["ring"])
    left.axhline(0, color=style.GREY, linewidth=0.6)
    left.set(xlabel="step", ylabel="$w$", xlim=(-0.2, 12.5), title="the first steps on $w^2$")
    right.set(xlabel="step", ylabel="$|w|$", yscale="log", title="and the others")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1.2, handlelength=1.5)
    return figure


@figure("belief")
def belief(rows: pd.DataFrame) -> Figure:
    """AdaBelief's two regimes.

    Shows: the mean of (g - m)^2 on a straight walk against the curvature, dots measured and lines expected: left without noise
    at two speeds, right at one speed under three sizes of noise.
    """
    found = rows[rows.case == "belief"]
    table = found.pivot_table(index="curvature", columns=["metric", "speed", "sigma"], values="value")
    speeds, sigmas = np.unique(found.speed), np.unique(found.sigma)
    positive = table.index > 0
    zero = table.index[positive][0] / 10  # where curvature 0 is drawn
    at = np.where(positive, table.index, zero)
    figure, (left, right) = style.axes(1, 2, height=2.3, sharey=True)
    colour, shades = style.COLOUR["AdaBelief"], (1.0, 0.65, 0.4)
    for axis, cells in ((left, [(u, sigmas[0]) for u in speeds[::-1]]), (right, [(speeds[0], s) for s in sigmas[::-1]])):
        for (speed, sigma), shade in zip(cells, shades, strict=False):
            measured, expected = table["belief", speed, sigma], table["expected", speed, sigma]
            shown = (measured > 0).to_numpy()
            axis.loglog(at[shown], expected[shown], color=colour, alpha=shade)
            axis.loglog(at[shown], measured[shown], "o", color=colour, alpha=shade, markeredgecolor="white", markersize=5)
            label = f"speed {speed:g}" if axis is left else f"noise {sigma:g}"
            offset, side = ((8, -9), "left") if sigma == 0 and speed == speeds[0] else ((-6, 5), "right")
            place = {"xytext": offset, "textcoords": "offset points", "ha": side, "fontsize": 8}
            axis.annotate(label, (at[2], expected.iloc[2]), color=colour, **place)
        axis.set(xlabel="curvature $h$", xticks=[zero, *table.index[positive]], xlim=(zero / 2, at[-1] * 2))
        axis.set_xticklabels(["0", *(f"{h:g}" for h in table.index[positive])])
        axis.minorticks_off()
    left.set(ylabel="mean of $(g - m)^2$", title="curved, no noise")
    right.set(title=f"curved, with noise, speed {speeds[0]:g}")
    return figure


@figure("taylor")
def taylor(rows: pd.DataFrame) -> Figure:
    """Models of first and second order, and a trust region.

    Shows: the floor of the saddle (black) with its linear (grey) and quadratic model (green) at a point (dot); where the
    quadratic one is stationary (cross); and its lowest point in the trust region (triangle).
    """
    found = rows[rows.case == "taylor"]
    figure, panels = style.axes(1, 2, height=2.2, sharey=True)
    for axis, at in zip(panels, found["at"].unique(), strict=True):
        cells = found[found["at"] == at]
        numbers = cells[cells.y.isna()].set_index("metric").value
        curves = cells[cells.y.notna()].pivot(index="y", columns="metric", values="value")
        g, h, radius, f = (numbers[name] for name in ("gradient", "curvature", "radius", "value"))
        newton = at - g / h
        step = -g / h if h > 0 and abs(g / h) <= radius else -np.sign(g) * radius
        axis.axvspan(at - radius, at + radius, color="#f0f0f0", linewidth=0)
        axis.plot(curves.loss, color=style.INK, label="loss")
        axis.plot(curves["first"], color=style.COLOUR["SGD"], linestyle="--", label="first order")
        axis.plot(curves.second, color=style.COLOUR["Newton"], label="second order")
        axis.plot(at, f, "o", color=style.INK, markersize=5, zorder=5)
        axis.plot(newton, f - g**2 / h / 2, "x", color=style.COLOUR["Newton"], markersize=6, markeredgewidth=1.6, zorder=5)
        model = f + g * step + h * step**2 / 2
        axis.plot(at + step, model, "^", color=style.COLOUR["trust-region Newton"], markersize=6, zorder=5)
        axis.set(xlabel="$y$", ylim=(-0.6, 0.6), title=f"curvature {h:.3g} at $y = {at:g}$".replace("-", "−"))
    panels[0].set(ylabel="loss")
    panels[0].legend(loc="upper left", bbox_to_anchor=(0.2, 1.0))
    return figure


@figure("one_step")
def one_step(rows: pd.DataFrame) -> Figure:
    """AdaHessian on its paper's two toys.

    Shows: left, the largest coordinate after one step from each start, sorted, on 10 x^2 + y^2 and on a rotated quadratic,
    with the limit of convergence; right, the share of starts on the ripples that reach the bottom in the paper's number of
    steps, by rate.
    """
    found = rows[rows.case == "one_step"]
    figure, (left, right) = style.axes(1, 2, height=2.2)
    colour = style.COLOUR["AdaHessian"]
    for name, label, line in (("bowl", "$10 x^2 + y^2$", "-"), ("rotated", "rotated, condition 100", ":")):
        worst = found[(found.landscape == name) & (found.metric == "coordinate")].value.sort_values().to_numpy()
        left.semilogy(np.linspace(0, 1, len(worst)), worst, color=colour, linestyle=line)
        left.annotate(label, (0.5, np.median(worst)), (0, 8), textcoords="offset points", ha="right", color=colour, fontsize=8)
    left.axhline(1e-3, color=style.GREY, linewidth=0.8, linestyle="--")
    left.set(xlabel="share of starts", ylabel="largest coordinate", title="after one step, one probe")
    left.xaxis.set_major_formatter(PercentFormatter(1, 0))
    ripples = found[(found.landscape == "ripples")]
    there = ripples[(ripples.step == 0) & (ripples.value > 0)].start
    moving = ripples[(ripples.step > 0) & ~ripples.start.isin(there)]
    for memory, line in (("mean of curvatures", "-"), ("last curvature", ":")):
        shares = {lr: share(cells.value) for lr, cells in moving[moving.memory == memory].groupby("lr")}
        rates, values = list(shares), [found.value for found in shares.values()]
        if line == "-":
            right.fill_between(rates, *np.transpose([s.ends for s in shares.values()]), color=colour, alpha=0.18, linewidth=0)
        right.semilogx(rates, values, line, color=colour, base=2, label=memory)
    right.set(xlabel="learning rate", ylabel="starts that get there", ylim=(0, 1), title="ripples, after seven steps")
    right.yaxis.set_major_formatter(PercentFormatter(1, 0))
    right.legend(loc="upper left")
    return figure


@figure("data")
def descents(rows: pd.DataFrame) -> Figure:
    """Batch, mini-batch and stochastic descent on data.

    Shows: the loss against the epochs seen, each kind at its best rate: the median of the runs, and their middle half.
    """
    found = rows[(rows.case == "data") & (rows.metric == "loss")]
    figure, axis = style.axes(1, 1, height=2.6)
    sizes = rows[(rows.case == "data") & (rows.metric == "examples")].groupby("method").step.first()
    for kind, colour in zip(sizes.index, style.SERIES, strict=False):
        losses = found[found.method == kind].pivot(index="step", columns="start", values="value")
        epochs = losses.index / sizes["batch"]
        axis.fill_between(epochs, *losses.quantile([0.25, 0.75], axis=1).to_numpy(), color=colour, alpha=0.18, linewidth=0)
        label = f"{kind}, {sizes[kind]} of {sizes['batch']} pictures a step"
        axis.semilogy(epochs, losses.median(axis=1), color=colour, marker="o" if kind == "batch" else None, label=label)
    axis.set(xlabel="epochs seen", ylabel="loss on all pictures")
    axis.legend()
    return figure
