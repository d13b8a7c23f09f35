"""The toy, the rules' losses against Adam's, and what the instruments saw."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from secondlook.reporting import comparisons, style
from secondlook.study.comparison import simultaneous
from secondlook.study.declare import figure

from .names import MODELS, RULES, STARTS, TUNED
from .selections import QUESTIONS, by_epoch, families, instrument, networks, of_methods, test_losses, trials, watched

MAIN = ("Adam", "adaptive", "careful", "EVE")
LINE = {"careful": "--", "careful, back": ":", "EVE": "-."}
WIDTH = {"Adam": 3.0}  # wide, under what does the same as long as nothing is cut or chosen
EPS = 1e-5  # of the loss, added to target and predictions: what it sees
FROM = {"small": "from the small rate", "tuned": "from the tuned rate"}


@figure("paths")
def event(rows: pd.DataFrame) -> Figure:
    """Shows: the first event of the test set. Above: its tracks, z with its error, background hollow; below: density, target
    and the two networks' predictions, the last two with the loss's eps added, vertices dotted.
    """
    figure, (tracks, histograms) = style.axes(2, 1, height=3.6, sharex=True, height_ratios=[1, 1.6])

    def listed(metric: str) -> pd.Series:
        return watched(rows, metric).sort_values("at").set_index("at").value

    z, sigma, origin = (listed(f"track {name}") for name in ("z", "sigma", "vertex"))
    order = np.argsort(z.to_numpy())
    for height, i in enumerate(order):
        own = origin.iloc[i] >= 0
        face = style.INK if own else "white"
        tracks.errorbar(
            z.iloc[i], height, xerr=sigma.iloc[i], fmt="o", color=style.INK, markerfacecolor=face, markersize=3, elinewidth=0.8
        )
    tracks.set(ylabel="track", yticks=[])
    for axis in (tracks, histograms):
        for vertex in listed("vertex"):
            axis.axvline(vertex, color=style.GREY, linewidth=0.8, linestyle=":")
    density, target = listed("density"), listed("target")
    histograms.fill_between(density.index, density, step="mid", color="#d9d9d9", linewidth=0, label="density, tracks")
    histograms.plot(target.index, target + EPS, color=style.INK, label="target")
    for model, colour, line in zip(("AllCNN", "DDplus"), style.SERIES[::2], ("-", "--"), strict=False):
        found = watched(rows, "prediction").query("model == @model").sort_values("at")
        histograms.plot(found["at"], found.value + EPS, line, color=colour, linewidth=1.2, label=model)
    histograms.set(xlabel="z, mm", ylabel="in a bin", yscale="log", ylim=(EPS / 2, None))
    histograms.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return figure


@figure("rates")
def sweep(rows: pd.DataFrame) -> Figure:
    """Shows: the validation loss after the last epoch by the rate at the start, geometric means and seeds."""
    table = trials(rows)
    models = [model for model in MODELS if model in table.index]
    figure, panels = style.axes(1, len(models), height=2.4, squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        for rule in TUNED:
            losses = table.loc[model, rule]
            look = _look(rule)
            panel.plot(losses.index, np.exp(np.log(losses).mean(axis=1)), **look)
            for seed in losses:
                panel.plot(
                    losses.index, losses[seed], "o", color=style.COLOUR[rule], markersize=2, alpha=0.4, markeredgewidth=0
                )
        panel.set(title=model, xlabel="rate at the start", xscale="log", yscale="log")
        panel.minorticks_off()
        _plain(panel.yaxis)
    panels[0, 0].set_ylabel("validation loss")
    comparisons.legend(figure, panels[0, 0], 4)
    return figure


def _look(rule: str) -> dict:
    """The line of a rule."""
    look = {"color": style.COLOUR[rule], "linestyle": LINE.get(rule, "-"), "linewidth": WIDTH.get(rule, 1.4), "label": rule}
    return look | {"alpha": 0.6} if rule in WIDTH else look


def _plain(axis: Axis) -> None:
    """A logarithmic axis with few ticks, in plain numbers, as many to a decade as there is room for."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    steps = {0.35: (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8), 0.7: (1, 1.5, 2, 3, 5, 7), 1.6: (1, 2, 5), 2.6: (1, 3), np.inf: (1,)}
    axis.set_major_locator(LogLocator(subs=next(subs for most, subs in steps.items() if decades < most)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


@figure("vertices", "digits")
def ratios(rows: pd.DataFrame) -> Figure:
    """Shows: on every network the declared comparisons of each rule, the test loss over that of Adam alone, by their starts,
    on one scale; dots are seeds, diamonds geometric means with the intervals that hold together in a rule's family.
    """
    declared = families(rows)
    models = [model for model in MODELS if model in {cell[2] for family in declared for cell in family}]
    lines = list(dict.fromkeys(cell[:2] for family in declared for cell in family))
    heights = {line: at + 0.6 * TUNED.index(line[0]) for at, line in enumerate(lines)}
    figure, panels = style.axes(1, len(models), height=3.6, sharex=True, sharey=True, squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        for family in declared:
            for rule, name in (cell[:2] for cell in family if cell[2] == model):
                ours, adams = family[rule, name, model]
                look = {"show": np.exp, "level": simultaneous(len(family))}
                comparisons.spread(panel, heights[rule, name], ours - adams, style.COLOUR[rule], **look)
        panel.axvline(1, color=style.GREY, linewidth=0.8)
        panel.set(title=model, xscale="log", xlabel="loss over Adam's")
        panel.grid(axis="y", visible=False)
    _plain(panels[0, 0].xaxis)
    panels[0, 0].set_yticks(list(heights.values()), labels=[QUESTIONS[name].label for _, name in lines])
    panels[0, 0].set_ylim(max(heights.values()) + 0.7, -0.7)
    panels[0, 0].annotate(
        "rates of rule / of Adam", (0, 1.02), (-4, 0), "axes fraction", textcoords="offset points", ha="right"
    )
    for rule in TUNED[1:]:
        middle = np.mean([height for line, height in heights.items() if line[0] == rule])
        panels[0, -1].annotate(rule, (1.02, middle), xycoords=("axes fraction", "data"), rotation=-90, va="center")
    return figure


@figure("rules")
def variants(rows: pd.DataFrame) -> Figure:
    """Shows: on every network the test loss after the last epoch over that of Adam at its best constant rate; dots are seeds,
    bars geometric means with their intervals.
    """
    losses = np.log(test_losses(rows).iloc[:, -1])
    models = networks(losses)
    figure, panels = style.axes(1, len(models), height=4.2, sharex=True, sharey=True, squeeze=False)
    there = losses.index.droplevel(["model", "seed"]).unique()
    lines = [(start, rule) for start in STARTS for rule in RULES if (rule, start) in there]
    heights = {line: i + (line[0] == "tuned") for i, line in enumerate(lines)}
    for panel, model in zip(panels[0], models, strict=True):
        best = losses[model, "Adam", "tuned"]
        for (start, rule), height in heights.items():
            comparisons.spread(panel, height, losses[model, rule, start] - best, style.COLOUR[rule], show=np.exp)
        panel.axvline(1, color=style.GREY, linewidth=0.8)
        panel.set(title=model, xscale="log", xlabel="loss over best Adam's")
        panel.grid(axis="y", visible=False)
    _plain(panels[0, 0].xaxis)
    labels = [rule for _, rule in lines]
    panels[0, 0].set_yticks(list(heights.values()), labels=labels)
    panels[0, 0].set_ylim(max(heights.values()) + 0.7, -1.0)
    for start in STARTS:
        panels[0, -1].annotate(
            FROM[start], (1.02, heights[start, "Adam"] + 3.5), xycoords=("axes fraction", "data"), rotation=-90, va="center"
        )
    return figure


@figure("rules")
def traces(rows: pd.DataFrame) -> Figure:
    """Shows: learning rates by epoch, in thousandths, geometric means over seeds, from both starts."""
    acting = ("Adam", "adaptive", "careful", "careful, back", "adaptive + careful")
    return _grid(1000 * by_epoch(rows, "lr"), "1,000 lr", acting)


@figure("rules")
def curves(rows: pd.DataFrame) -> Figure:
    """Shows: test losses by epoch, geometric means over seeds, from both starts; bands are the ranges of the seeds."""
    return _grid(test_losses(rows), "test loss", MAIN, bands=True)


def _grid(table: pd.DataFrame, label: str, rules: tuple[str, ...], bands: bool = False) -> Figure:
    """A panel for each start and network, with a line for each rule: a metric by epoch."""
    models = networks(table)
    figure, panels = style.axes(2, len(models), height=4.2, sharex=True, squeeze=False)
    for line, start in zip(panels, STARTS, strict=True):
        for panel, model in zip(line, models, strict=True):
            for rule in rules:
                runs = table.loc[model, rule, start]
                panel.plot(runs.columns, np.exp(np.log(runs).mean()), **_look(rule))
                if bands:
                    panel.fill_between(runs.columns, runs.min(), runs.max(), color=style.COLOUR[rule], alpha=0.12, linewidth=0)
            panel.set(yscale="log")
            _plain(panel.yaxis)
        line[0].set_ylabel(f"{label}, {start} rate")
    for above, below, model in zip(*panels, models, strict=True):
        above.set(title=model)
        below.set(xlabel="epoch")
        below.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    comparisons.legend(figure, panels[0, 0], len(rules))
    return figure


@figure("rules")
def choices(rows: pd.DataFrame) -> Figure:
    """Shows: left, how often EVE takes each multiple of the epoch's step, by network and start; right, the share of epochs in
    which it stays, by epoch, all networks and seeds.
    """
    figure, (often, when) = style.axes(1, 2, height=2.8, width_ratios=[1.5, 1])
    chosen = by_epoch(rows, "chosen").xs("EVE", level="rule").dropna(axis=1, how="all")
    multiples = sorted(set(chosen.stack().dropna()))
    shades = dict(zip(multiples, np.linspace(0.85, 0.1, len(multiples)), strict=True))
    cells = [(model, start) for model in networks(chosen) for start in STARTS]
    for height, cell in enumerate(cells):
        values, left = chosen.loc[cell].stack().dropna(), 0.0
        for a in multiples:
            share = (values == a).mean()
            colour = colormaps[style.SURFACE](shades[a])
            often.barh(height, share, left=left, color=colour, label=f"{a:g}" if not height else None)
            left += share
    often.set_yticks(range(len(cells)), labels=[f"{model}, {start}" for model, start in cells])
    often.invert_yaxis()
    often.grid(visible=False)
    often.set(xlabel="share of epochs", xlim=(0, 1))
    often.legend(
        title="a", ncols=len(multiples), loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1, columnspacing=1
    )
    for start, style_of_line in zip(STARTS, ("-", "--"), strict=True):
        stays = (chosen.xs(start, level="start") == 0).mean()
        when.plot(stays.index, stays, style_of_line, color=style.COLOUR["EVE"], label=FROM[start])
    when.set(xlabel="epoch", ylabel="share of runs that stay", ylim=(0, 1.02))
    when.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


@figure("vertices", "digits")
def instruments(rows: pd.DataFrame) -> Figure:
    """Shows: what the instruments say of Adam alone on each network, from the small and the tuned rate: above the size of an
    epoch's step over the geometric mean of all epochs, below its cosine with the step before; lines are means, bands the middle
    four fifths of the seeds.
    """
    sizes = np.log(instrument(rows, "step size"))
    tables = {"size": sizes.sub(sizes.mean(axis=1), axis=0), "cosine": instrument(rows, "cosine")}
    figure, panels = style.axes(2, 2, height=3.6, sharex=True, sharey="row")
    for line, (name, table) in zip(panels, tables.items(), strict=True):
        for panel, start in zip(line, STARTS, strict=True):
            for model, colour, look in zip(networks(table), style.SERIES, ("-", "--", "-.", ":"), strict=False):
                runs = table.loc[start, model]
                panel.plot(runs.columns, runs.mean(), look, color=colour, label=model)
                low, high = runs.quantile(0.1), runs.quantile(0.9)
                panel.fill_between(runs.columns, low, high, color=colour, alpha=0.12, linewidth=0)
        line[0].set_ylabel({"size": "log size, less its mean", "cosine": "cosine"}[name])
    for panel, start in zip(panels[0], STARTS, strict=True):
        panel.set_title(FROM[start])
    for panel in panels[1]:
        panel.set_xlabel("epoch")
    comparisons.legend(figure, panels[0, 0], 4)
    return figure


@figure("paths")
def angles(rows: pd.DataFrame) -> Figure:
    """Shows: for one seed the cosines between the steps of any two epochs, by network and start; below the diagonal of the
    start's first run, above it of the second.
    """
    found = watched(rows, "cosine")
    models = [model for model in MODELS if model in set(found.model)]
    figure, panels = style.axes(len(STARTS), len(models), height=3.0, sharex=True, sharey=True, squeeze=False)
    epochs = int(found.step.max())
    for line, start in zip(panels, STARTS, strict=True):
        rules = list(dict.fromkeys(found[found.start == start].rule))
        for panel, model in zip(line, models, strict=True):
            matrix = np.eye(epochs)
            for rule, ends in zip(rules, (("step", "at"), ("at", "step")), strict=True):  # an epoch, and one before it
                run = found[(found.model == model) & (found.rule == rule) & (found.start == start)]
                i, j = (run[end].to_numpy(int) - 1 for end in ends)
                matrix[i, j] = run.value
            extent = (0.5, epochs + 0.5, epochs + 0.5, 0.5)
            drawn = panel.imshow(matrix, cmap=style.DIVERGING, vmin=-1, vmax=1, extent=extent)
            panel.plot([0.5, epochs + 0.5], [0.5, epochs + 0.5], color=style.INK, linewidth=0.6)
            panel.grid(False)
        line[0].set_ylabel(f"{start} rate\nepoch")
        line[-1].annotate(
            f"below: {rules[0]}\nabove: {rules[1]}", (1.04, 0.5), xycoords="axes fraction", rotation=-90, va="center"
        )
    for above, below, model in zip(panels[0], panels[-1], models, strict=True):
        above.set(title=model)
        below.set(xlabel="epoch")
    figure.colorbar(drawn, ax=panels, shrink=0.7, label="cosine", ticks=[-1, -0.5, 0, 0.5, 1])
    return figure


@figure("paths")
def paths(rows: pd.DataFrame) -> Figure:
    """Shows: for one seed and every network, above the size of each epoch's step, below the paths of the same runs on the two
    first principal axes of all of them; circle: the common start.
    """
    sizes, places, shares = (watched(rows, metric) for metric in ("step size", "coordinate", "share of axis"))
    models = [model for model in MODELS if model in set(sizes.model)]
    figure, panels = style.axes(2, len(models), height=4.2, squeeze=False)
    for (above, below), model in zip(panels.T, models, strict=True):
        for (rule, start), run in sizes[sizes.model == model].groupby(["rule", "start"], sort=False):
            look = {
                "color": style.COLOUR[rule],
                "linestyle": "-" if start == "tuned" else "--",
                "label": f"{rule}, {start} rate",
                "alpha": 0.6 if rule in WIDTH else 1,
            }
            above.plot(run.step, run.value, linewidth=WIDTH.get(rule, 1.2), **look)
            walked = places[(places.model == model) & (places.rule == rule) & (places.start == start)]
            points = walked.pivot(index="step", columns="at", values="value")
            below.plot(points[1], points[2], linewidth=WIDTH.get(rule, 1.2), **look)
        below.plot(*points.iloc[0], "o", color=style.INK, markerfacecolor="white", markersize=5, zorder=4)
        share = shares[shares.model == model].set_index("at").value
        above.set(title=model, xlabel="epoch", yscale="log")
        _plain(above.yaxis)
        below.set(xlabel=f"axis 1 ({share[1]:.0%})", ylabel=f"axis 2 ({share[2]:.0%})")
    panels[0, 0].set_ylabel("size of an epoch's step")
    comparisons.legend(figure, panels[0, 0], 4)
    return figure


@figure("steady")
def steadiness(rows: pd.DataFrame) -> Figure:
    """Do second-order steps point more steadily?

    Shows: for five optimisers at rates at which they arrive after about equally many steps, a dot for each seed and a bar at
    the mean: the mean cosine of neighbouring steps, that of neighbouring pieces of the path, and the detour.
    """
    figure, panels = style.axes(1, 4, height=2.3, sharey=True)
    titles = {
        "arrival": "steps to arrive",
        "cosine of steps": "cosine of\nneighbouring steps",
        "cosine of pieces": "cosine of\nneighbouring pieces",
        "detour": "distance travelled\nover displacement",
    }
    for panel, (metric, title) in zip(panels, titles.items(), strict=True):
        comparisons.bars(panel, of_methods(rows, metric))
        panel.set(xlabel=title)
    panels[0].set_xlim(0, None)
    return figure
