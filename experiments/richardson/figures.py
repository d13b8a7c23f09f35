"""Errors against steps and strengths, plain and extrapolated; what extrapolation gains and loses; two uses elsewhere."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secondlook.reporting import comparisons, style
from secondlook.study.declare import figure

from .measures import GAIN, LOSS
from .selections import ORDERS, POLYTOPES, SETTINGS, at_minima, averaging, cells, frank_wolfe, levels, ridge, smoothed, table

PLAIN, EXTRAPOLATED, THIRD_ORDER, FOURTH = style.GREY, "#0072b2", "#009e73", "#d55e00"  # Okabe and Ito, as in style.COLOUR
COLOUR = dict(zip(ORDERS, (PLAIN, EXTRAPOLATED, THIRD_ORDER, FOURTH), strict=True))
ABOVE, BESIDE = ((-5, 5), "right"), ((7, -5), "left")  # a line: where its label stands, and its alignment
TIMES = {"order 0": "plain", "order 1": "once", "order 2": "twice", "order 3": "three times"}


def _math(name: str) -> str:
    return name.replace("l1", r"$\ell_1$")


def _first_below(curve: pd.Series, bound: float) -> tuple[float, float]:
    """The first point of a curve below `bound`, or its last."""
    at = curve.index[(curve < bound) | (curve.index == curve.index[-1])][0]
    return at, curve[at]


def _band(ax: Axes, values: pd.DataFrame, colour: str, **options) -> pd.Series:
    """The median over seeds as a line, its quartiles as a band. Returns the median."""
    middle = values.median()
    ax.fill_between(values.columns, values.quantile(0.25), values.quantile(0.75), color=colour, alpha=0.2, linewidth=0)
    ax.plot(values.columns, middle, color=colour, **options)
    return middle


def _guide(ax: Axes, power: int, at: tuple[float, float], to: float, label: str, offset=(3, 3), **options) -> None:
    """A thin line of slope `power` from the point `at` to the abscissa `to`."""
    x = np.array([at[0], to])
    ax.plot(x, at[1] * (x / at[0]) ** power, color=style.INK, linewidth=0.7, linestyle=":")
    style.note(ax, label, (to, at[1] * (to / at[0]) ** power), style.INK, offset, **options)


@figure("averaging", "penalties")
def averaging_and_ridge(rows: pd.DataFrame) -> Figure:
    """Shows: gap of the mean iterate, of its extrapolation and of the last iterate, without and with noise; bias and risk of
    ridge regression against the penalty. Medians and quartiles over seeds; dots: the best penalty.
    """
    figure, panels = style.axes(2, 2, height=4.6)
    decay = levels(rows, "averaging", "decay")[-1]
    noises = levels(rows, "averaging", "noise")
    titles = (f"(a) exact gradients, variances $i^{{-{decay:g}}}$", f"(b) gradients with noise {noises[-1]:g}")
    for ax, noise, title in zip(panels[0], (noises[0], noises[-1]), titles, strict=True):
        for method, colour, line in (("plain", PLAIN, "-"), ("extrapolated", EXTRAPOLATED, "-"), ("last", style.INK, "--")):
            _band(ax, averaging(rows, decay, noise, method).clip(lower=1e-16), colour, linestyle=line)
        ax.set(xscale="log", yscale="log", xlabel="iteration $k$")
        ax.set_title(title, loc="left")
    panels[0, 0].set(ylim=(1e-15, 0.1), ylabel="$f(\\theta) - f(\\theta^\\star)$")
    plain, once, last = (averaging(rows, decay, noises[0], m).median() for m in ("plain", "extrapolated", "last"))
    style.note(panels[0, 0], "mean", (plain.index[-8], plain.iloc[-8]), PLAIN, (0, 9))
    style.note(panels[0, 0], "extrapolated\nmean", _first_below(once, 1e-9), EXTRAPOLATED, (7, 0))
    style.note(panels[0, 0], "last iterate", _first_below(last, 1e-12), style.INK, (-12, 0), ha="right")
    noisy = {m: averaging(rows, decay, noises[-1], m).median() for m in ("plain", "extrapolated", "last")}
    style.note(panels[0, 1], "mean", (noisy["plain"].index[-4], noisy["plain"].iloc[-4]), PLAIN, (-4, -11), ha="right")
    style.note(panels[0, 1], "extrapolated", (noisy["plain"].index[-5], noisy["extrapolated"].iloc[-5]), EXTRAPOLATED, (0, 9))
    style.note(panels[0, 1], "last iterate", (noisy["last"].index[-5], noisy["last"].iloc[-5]), style.INK, (0, 9), ha="center")

    smoothness, noise = levels(rows, "penalties", "smoothness")[-1], levels(rows, "penalties", "noise")[1]
    for order in ORDERS[:3]:
        bias = _band(panels[1, 0], ridge(rows, "bias", smoothness, 0.0, order), COLOUR[order])
        at = bias.index[4]
        style.note(panels[1, 0], TIMES[order], (at, bias[at]), COLOUR[order], *(BESIDE if order == "order 2" else ABOVE))
        risk = _band(panels[1, 1], ridge(rows, "risk", smoothness, noise, order), COLOUR[order])
        panels[1, 1].plot(risk.idxmin(), risk.min(), "o", color=COLOUR[order], markersize=5)
    panels[1, 0].set(xscale="log", yscale="log", xlabel="penalty $s$", ylabel="distance to least squares", ylim=(1e-13, 10))
    panels[1, 0].set_title(f"(c) ridge, no noise, truth $i^{{-{smoothness:g}}}$", loc="left")
    panels[1, 1].set(xscale="log", yscale="log", xlabel="penalty $s$", ylabel="risk", ylim=(4e-4, 2))
    panels[1, 1].set_title(f"(d) ridge, noise {noise:g}, truth $i^{{-{smoothness:g}}}$", loc="left")
    return figure


@figure("polytopes")
def polytopes(rows: pd.DataFrame) -> Figure:
    """Shows: gap of Frank-Wolfe's iterate and of its projected extrapolation, every seed; dotted: slopes -1 and -2."""
    problems = (*POLYTOPES[::2], ("Euclidean ball", "1/k"), *POLYTOPES[1::2], ("simplex, line search", "line search"))
    figure, panels = style.axes(2, 3, height=4.2, sharex=True, sharey=True)
    for ax, (region, rule) in zip(panels.flat, problems, strict=True):
        for method, colour in (("plain", PLAIN), ("projected", EXTRAPOLATED)):
            gaps = frank_wolfe(rows, region, rule, method).clip(lower=1e-13)
            ax.plot(gaps.columns, gaps.T, color=colour, linewidth=0.5, alpha=0.7)
        ax.set(xscale="log", yscale="log", ylim=(1e-10, 1e-1))
        ax.set_title(_math(region) if rule == "line search" else f"{_math(region)}, $\\rho_k = {rule}$", loc="left")
    first, last = gaps.columns[0], gaps.columns[-1]
    for ax in panels.flat:
        _guide(ax, -1, (first, 2e-2), last, "$1/k$", (-2, 6), ha="right")
        _guide(ax, -2, (first, 1e-7), last, "$1/k^2$", (-12, 0), ha="right")
    for ax in panels[-1]:
        ax.set_xlabel("iteration $k$")
        comparisons.factors(ax, (300, 1000, 3000))
    for ax in panels[:, 0]:
        ax.set_ylabel("$f(x) - f(x^\\star)$")
    lines = [panels[0, 0].plot([], [], color=colour)[0] for colour in (PLAIN, EXTRAPOLATED)]
    figure.legend(lines, ["$x_k$", "$2 x_k - x_{k/2}$, projected"], loc="outside lower center", ncols=2)
    return figure


@figure("smoothing")
def smoothing(rows: pd.DataFrame) -> Figure:
    """Shows: gap of the lasso at the exact smoothed minimum against the strength; gap against the number of gradients at the
    best strength, and of the proximal method. Log cosh; medians and quartiles over seeds.
    """
    figure, (left, right) = style.axes(1, 2, height=2.9)
    for order in ORDERS:
        exact = at_minima(rows, "log cosh", order)
        middle = _band(left, exact.loc[:, exact.median() > 1e-15], COLOUR[order])
        at = middle.index[middle > 2e-14][1 if order == "order 2" else 4]
        style.note(left, TIMES[order], (at, middle[at]), COLOUR[order], *(BESIDE if order == "order 3" else ABOVE))
        _band(right, smoothed(rows, "log cosh", order), COLOUR[order], label=TIMES[order])
    direct = smoothed(rows, "none", "proximal")
    _band(right, direct.loc[:, direct.median() > 1e-8], style.INK, linestyle="--", label="proximal, no smoothing")
    budgets = direct.columns
    _guide(right, -1, (budgets[0], 3e-2), budgets[-1], "$1/k$", (-2, 7), ha="right")
    _guide(right, -2, (budgets[0], 1e-3), budgets[-1], "$1/k^2$", (-30, 0), ha="right")
    left.set(xscale="log", yscale="log", xlabel="strength $s$", ylabel="$F(x) - F(x^\\star)$", ylim=(1e-15, 10))
    left.set_title("(a) exact minimum of $F_s$", loc="left")
    right.set(xscale="log", yscale="log", xlabel="gradients", ylim=(1e-11, 0.1))
    right.set_title("(b) accelerated gradient method, best $s$", loc="left")
    right.legend(loc="lower right", handlelength=1.4)
    return figure


LIMITS = (1e-4, 100)  # of the ratios that are drawn; those beyond are drawn at the edge
INSIDE = (LIMITS[0] * 1.0001, LIMITS[1] / 1.0001)


@figure("averaging", "polytopes", "smoothing", "penalties")
def gains(rows: pd.DataFrame) -> Figure:
    """Shows: error with one extrapolation over the plain one at equal cost, every cell and seed; bars: medians."""
    found = list(cells(rows))
    height, labels, at = 0.0, [], []
    figure, ax = style.axes(height=4.3)
    ax.axvspan(*(GAIN, LOSS), color="#eeeeee", linewidth=0)
    for setting, title in SETTINGS.items():
        style.note(ax, title, (LIMITS[0] * 0.45, height), style.INK, (0, 0), ha="right")
        for _, name, ratio in [cell for cell in found if cell[0] == setting]:
            height += 1
            shown = ratio.clip(*LIMITS)
            spread = height + np.linspace(-0.25, 0.25, len(shown))
            kinds = {EXTRAPOLATED: shown <= GAIN, PLAIN: (shown > GAIN) & (shown < LOSS), FOURTH: shown >= LOSS}
            for colour, chosen in kinds.items():
                for beyond, marker in ((shown == LIMITS[0], "<"), (shown == LIMITS[1], ">"), (shown.between(*INSIDE), "o")):
                    drawn = (chosen & beyond).to_numpy()
                    ax.plot(shown[drawn], spread[drawn], marker, color=colour, markersize=2.8, alpha=0.7, markeredgewidth=0)
            ax.plot([shown.median()] * 2, [height - 0.35, height + 0.35], color=style.INK, linewidth=1)
            labels.append(_math(name))
            at.append(height)
        height += 1.6
    ax.axvline(1, color=style.INK, linewidth=0.6)
    ax.set(xscale="log", xlim=(LIMITS[0] * 0.6, LIMITS[1] * 1.6), ylim=(height - 0.9, -0.8), yticks=at, yticklabels=labels)
    ax.set_xlabel("error with extrapolation / plain error (arrows: further out)")
    ax.tick_params("y", labelcolor="#555555")
    ax.grid(False, axis="y")
    return figure


@figure("differences", "constant_rate")
def elsewhere(rows: pd.DataFrame) -> Figure:
    """Shows: error of a Hessian-vector product by differences against the step; bias of the mean iterate against the learning
    rate, plain and extrapolated. Medians and quartiles over seeds.
    """
    figure, (left, right) = style.axes(1, 2, height=3.0)
    for order, colour in zip(levels(rows, "differences", "order"), (PLAIN, EXTRAPOLATED, THIRD_ORDER), strict=True):
        for dtype, line in (("float64", "-"), ("float32", "--")):
            error = table(rows, "differences", "error", "strength", dtype=dtype, order=order)
            middle = _band(left, error, colour, linestyle=line)
            if dtype == "float64":
                style.note(left, f"order {order:g}", (middle.idxmin(), middle.min()), colour, (0, -8), ha="center")
    left.set(xscale="log", yscale="log", xlabel="relative step", ylabel="relative error of $H v$", ylim=(5e-15, 10))
    left.set_title("(a) products by differences", loc="left")
    style.note(left, "float32", (1e-7, 3), style.INK, (0, 0))
    style.note(left, "float64", (1e-8, 1e-9), style.INK, (4, -14))
    for method, marker in (("SGD", "o"), ("AdaHessian", "s")):
        for order, filled in ((0, True), (1, False)):
            bias = table(rows, "constant_rate", "bias", "strength", method=method, order=order)
            face = style.COLOUR[method] if filled else "white"
            line = "-" if filled else "--"
            name = method if filled else f"{method}, extrapolated"
            options = {"linestyle": line, "marker": marker, "markerfacecolor": face, "label": name}
            _band(right, bias, style.COLOUR[method], **options)
    right.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="distance of the mean iterate", ylim=(4e-4, 1))
    comparisons.factors(right, (0.025, 0.05, 0.1, 0.2, 0.4, 0.8))
    right.set_title("(b) constant learning rates", loc="left")
    right.legend(loc="lower left", handlelength=1.8)
    return figure
