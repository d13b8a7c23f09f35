"""The numbers that the claims and the section quote.

A cell is a network at a stage of training. A number without a cell is the mean over all cells of one seed, then over seeds.
"""

import re

import numpy as np
import pandas as pd

from secondlook.study import comparison, statistics
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate
from secondlook.study.text import fixed, number, percent

from . import selections as select
from .names import THEIRS
from .selections import BY_PARTS, BY_PRODUCTS, EXACT, NETWORKS

MATTERS = np.log(1.1)  # a tenth more loss: of what a running mean is worth


def _key(*words) -> str:
    return re.sub(r"\W+", "_", "_".join(map(str, words)).replace("Diag++", "Diag plus"))


def _by_seed(table: pd.DataFrame) -> Estimate:
    """Mean over cells, then over seeds."""
    return statistics.mean(table.mean(axis=1))


@measure()
def mass_law(rows: pd.DataFrame) -> Estimate:
    """The largest relative distance of the running mean over |H_ii|, after all probes, from sqrt(1 + mass^2)."""
    ratios = select.of_case(rows, "matrices", "ratio")
    last = ratios[ratios.step == ratios.step.max()].groupby("level").value.mean()
    return Estimate(np.abs(last / np.sqrt(1 + last.index**2) - 1).max())


@measure()
def parameters(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Number of weights and biases."""
    return {
        name: Estimate(value)
        for name, value in select.of_case(rows, "networks", "parameters").groupby("network").value.first().items()
    }


@measure(
    each={
        "one_probe": "law",  # relative error, in the root mean square, of one probe's estimate: from the dense Hessian
        "limit": "limit",  # relative distance of the rows' norms from |H_ii|: where the running mean goes
        "limit_ratio": "median ratio",  # the median over the parameters of row norm / |H_ii|
        "limit_rank": "limit rank",  # rank correlation of row norm and |H_ii|
        "negative": "negative",  # share of the diagonal that is negative
    }
)
def of_cells(rows: pd.DataFrame, metric: str) -> dict[str, Estimate]:
    """One number of every cell."""
    table = select.of_cells(rows, metric)
    return {"all": _by_seed(table)} | {_key(*cell): statistics.mean(table[cell]) for cell in table}


@measure()
def distance(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Relative distance of the running mean after the most probes from |H_ii| and from the rows' norms; the least of the
    distances from |H_ii| over the cells, and the most of those from the rows' norms."""
    found = {}
    for key, metric in (("diagonal", "to diagonal"), ("row_norms", "to row norms")):
        table = select.running(rows, metric)
        last = table.loc[table.index.get_level_values("probes").max()]
        found |= {key: _by_seed(last)}
        worst = last.mean().idxmin() if key == "diagonal" else last.mean().idxmax()
        found[f"{key}_worst"] = statistics.mean(last[worst])
    return found


@measure()
def probes(rows: pd.DataFrame) -> Estimate:
    """The most probes in a running mean on networks."""
    return Estimate(select.running(rows, "to diagonal").index.get_level_values("probes").max())


@measure()
def block_means(rows: pd.DataFrame) -> dict[str, Estimate]:
    """What block means do to one probe's estimate, by network, averaging and block size, means over stages: variance and mean
    squared error over those without averaging, and the latter of the mean of ten such estimates; bias, relative to |H_ii|; and
    the relative distance from |H_ii| of what AdaHessian's mean of their squares tends to."""
    found = {}
    for averaging in ("signed", "absolute"):
        variance, bias2, ends = (select.averages(rows, m, averaging) for m in ("variance", "bias2", "average limit"))
        plain = select.averages(rows, "variance", "signed")[1]
        plain_error = plain + select.averages(rows, "bias2 law", "signed")[1]
        for network in NETWORKS:
            for block in variance:
                key = _key(network, averaging, int(block))
                found[f"{key}_variance"] = statistics.mean(variance[block].loc[network] / plain.loc[network])
                for name, probes in (("error", 1), ("error_of_ten", 10)):
                    squared = variance[block] / probes + bias2[block]
                    found[f"{key}_{name}"] = statistics.mean((probes * squared / plain_error).loc[network])
                found[f"{key}_bias"] = statistics.mean(bias2[block].loc[network].clip(lower=0) ** 0.5)
                found[f"{key}_limit"] = statistics.mean(ends[block].loc[network])
    return found


@measure()
def step_cosine(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Cosine of g / (|D| + damping) with the same of the exact diagonal, for the running mean of squares and for Hutchinson's
    mean, of ten probes each: means over draws, medians over cells, which are no trials."""
    cosines = select.over_draws(rows).cosine.xs(10, level="budget")
    found = {name: cosines.xs(name, level="method") for name in ("mean of squares", "Hutchinson")}
    return {_key(name): Estimate(values.median(), n=len(values)) for name, values in found.items()}


@measure()
def block_laws(rows: pd.DataFrame) -> Estimate:
    """The largest relative distance of a measured variance of signed means from its law, by network and block size."""
    measured, law = (select.averages(rows, m, "signed").groupby("network").mean() for m in ("variance", "variance law"))
    return Estimate((measured / law - 1).abs().to_numpy().max())


@measure()
def gain(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Error of plain Hutchinson over that of the best unbiased estimator at the same budget: least and median over the cells.
    `products`: of those that need nothing but products. What is exact counts as an error of EXACT."""
    errors = select.root_mean_square(select.draws(rows)).clip(lower=EXACT)
    found = {}
    for budget in sorted(errors.index.unique("budget")):
        for kind in ("products", "all"):
            gains = []
            for network, stage in errors.index.droplevel(["method", "budget"]).unique():
                methods = BY_PRODUCTS if kind == "products" else select.unbiased(network)
                chosen = select.best(errors, network, stage, budget, methods)
                gains.append(errors[network, stage, "Hutchinson", budget] / errors[network, stage, chosen, budget])
            found |= {
                f"{kind}_{budget}_least": Estimate(min(gains), n=len(gains)),
                f"{kind}_{budget}_median": Estimate(np.median(gains), n=len(gains)),
            }
    return found


@measure()
def error(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Relative error of every estimator in every cell at every budget: mean over draws."""
    return {_key(*line): statistics.mean(values.dropna()) for line, values in select.draws(rows).iterrows()}


@measure()
def hutchinson_law(rows: pd.DataFrame) -> Estimate:
    """The largest relative distance of Hutchinson's root mean square error from law / sqrt(budget), over cells and over the
    budgets that all draws have."""
    errors = select.root_mean_square(select.draws(rows).dropna()).xs("Hutchinson", level="method").unstack()
    laws = select.of_case(rows, "networks", "law").groupby(select.CELL).value.first()
    return Estimate((errors.mul(np.sqrt(errors.columns), axis=1).div(laws, axis=0) - 1).abs().to_numpy().max())


@measure()
def one_probe_bias(rows: pd.DataFrame) -> Estimate:
    """Squared bias of one probe's estimate over its variance: mean over networks and stages, then over seeds."""
    bias2, variance = (select.averages(rows, m, "signed")[1] for m in ("bias2", "variance"))
    return statistics.mean((bias2 / variance).groupby("seed").mean())


@measure()
def largest_bias(rows: pd.DataFrame) -> Estimate:
    """The largest squared bias, over the mean squared error, of an estimator without bias, over cells and over the budgets that
    all draws have."""
    table = select.over_draws(rows)[["bias2", "variance"]].loc[select.draws(rows).dropna().index]
    table = table[table.index.get_level_values("method").isin((*BY_PRODUCTS, *BY_PARTS)) & (table.variance > EXACT**2)]
    return Estimate((table.bias2 / table.sum(axis=1)).max(), n=len(table))


STAGES = {"start": "start", "middle": "half", "late": "2 %"}


@measure()
def which(rows: pd.DataFrame) -> pd.DataFrame:
    """Which estimator when: in every cell the error of plain Hutchinson and of the best unbiased ones at every budget.

    Up to ten products the best of all, beyond, where that is exact, the best of those that need products alone.
    """
    errors = select.root_mean_square(select.draws(rows))
    lines = []
    for network in NETWORKS:
        for stage in select.stages(rows, "networks"):
            line = {"Network": network, "Loss": STAGES.get(stage, stage)}
            for budget in sorted(errors.index.unique("budget")):
                name = select.best(errors, network, stage, budget, select.unbiased(network) if budget <= 10 else BY_PRODUCTS)
                value = errors[network, stage, name, budget]
                line[f"{budget}: plain"] = number(errors[network, stage, "Hutchinson", budget], 2)
                line[f"{budget}: best"] = f"{name} {'exact' if value < EXACT else number(value, 2)}"
            lines.append(line)
    return pd.DataFrame(lines)


@measure()
def quality(rows: pd.DataFrame) -> pd.DataFrame:
    """Every estimator at ten products: medians over the cells of means over the draws; bias and deviation are relative too."""
    table = select.over_draws(rows).assign(error=select.draws(rows).mean(axis=1), cost=select.costs(rows))
    table["bias"], table["deviation"] = table.bias2.clip(lower=0) ** 0.5, table.variance**0.5
    table = table.xs(10, level="budget").groupby("method").median()
    return pd.DataFrame(
        [
            {
                "Estimator": name,
                "Cost": fixed(line.cost, 1),
                "Error": number(line.error, 2),
                "Bias": number(line.bias, 2),
                "Deviation": number(line.deviation, 2),
                "Wrong signs": "–" if name == "mean of squares" else percent(line["wrong signs"]),
                "Rank corr.": fixed(line["rank"]),
                "Cosine": fixed(line.cosine),
            }
            for name, line in table.sort_values("error").iterrows()
        ]
    )


@measure("times")
def clock(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Time of an estimator over that of a gradient in the same round: median over rounds."""
    times = select.of_case(rows, "times", "milliseconds").pivot(
        index=["network", "round"], columns=["method", "budget"], values="value"
    )
    ratios = times.div(times["gradient", 0], axis=0)
    return {
        _key(network, method, int(budget)): statistics.median(table[method, budget])
        for network, table in ratios.groupby("network")
        for method, budget in table
    }


@measure("training")
def training(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Final loss over that with Hutchinson's one probe in the same run, at equal steps and at equal work: median over the runs.
    How many rates were chosen, and how many of them are at an end of the list.
    """
    found = {}
    for key, table in (("steps", select.losses_at_steps(rows)), ("work", select.losses_at_work(rows))):
        for network, runs in table.groupby("network"):
            for method in runs:
                found[_key(network, method, key)] = statistics.median(runs[method] / runs["Hutchinson"])
    rates = rows[(rows.case == "training") & (rows.part == "tuning")].lr
    chosen = rows[(rows.case == "training") & (rows.part != "tuning")].groupby(["network", "method", "part"]).lr.first()
    return found | {"at_edge": Estimate(chosen.isin([rates.min(), rates.max()]).sum()), "chosen": Estimate(len(chosen))}


@measure("training")
def trained(rows: pd.DataFrame) -> pd.DataFrame:
    """AdaHessian with each estimator: final loss and accuracy, medians over runs, and the rates."""
    steps, work = (table.groupby("network").median() for table in (select.losses_at_steps(rows), select.losses_at_work(rows)))
    accuracy = select.trained(rows, "accuracy", "equal steps")
    accuracy = accuracy[accuracy.step == accuracy.step.max()].groupby(["network", "method"]).value.median()
    rates = rows[(rows.case == "training") & (rows.part != "tuning")].groupby(["network", "method", "part"]).lr.first()
    per_step = rows[(rows.case == "training") & (rows.step == rows[rows.case == "training"].step.max())]
    per_step = (per_step.work / per_step.step).groupby([per_step.network, per_step.method]).first()
    lines = []
    for network in steps.index[::-1]:
        for method in steps:
            lines.append(
                {
                    "Network": network,
                    "Diagonal from": method,
                    "Gradients a step": fixed(per_step[network, method], 1),
                    "Loss, equal steps": fixed(steps.loc[network, method], 3),
                    "Test accuracy": percent(accuracy[network, method], 1),
                    "Loss, equal work": fixed(work.loc[network, method], 3),
                    "Rates": "; ".join(number(rates[network, method, part], 1) for part in ("equal steps", "equal work")),
                }
            )
    return pd.DataFrame(lines)


@measure("noise")
def noise(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of one probe's estimate on a batch, by network and size of the batch: the share of its noise that comes from the batch;
    and with means of 8, over the same without: the noise of probes, that of batches, and the squared error of both with the
    means' bias."""
    found = {}
    plain, averaged = ({m: select.noise(rows, m, block) for m in ("probes", "batches", "bias2")} for block in (1, 8))
    for network in NETWORKS:
        for size in plain["probes"]:
            before, after = ({m: table.loc[network][size] for m, table in part.items()} for part in (plain, averaged))
            key = _key(network, int(size))
            found[f"{key}_share"] = statistics.mean(before["batches"] / (before["probes"] + before["batches"]))
            for part in ("probes", "batches"):
                found[f"{key}_{part}"] = statistics.mean(after[part] / before[part])
            found[f"{key}_error"] = statistics.mean(sum(after.values()) / sum(before.values()))
    return found


@measure("peers")
def peers(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Error of every estimate of another package over the least of ours that takes no more operations in the same network:
    geometric mean over networks, stages and budgets, then over seeds; `least` and `median` are of the least favourable of these
    and the middle one, `ahead` is the share of them in which ours is at least as accurate; and the fewest operations of each,
    by network. Where no package was asked, our plain Hutchinson stands in."""
    table = select.peers(rows)
    names = table.index.get_level_values("method")
    theirs, logs = names.isin(THEIRS), {}
    for _, cell in table.groupby(["network", "stage", "seed"]):
        own = cell[~cell.index.get_level_values("method").isin(THEIRS)]
        for at, other in cell.iterrows():
            ours = own[own.operations <= other.operations * (1 + 1e-9)].error.min()
            logs[at] = np.log(other.error / ours)
    gains = pd.Series(logs).rename_axis(table.index.names)
    found = {}
    for name in THEIRS:
        method, key = name if theirs.any() else "Hutchinson", _key(name)
        values, counted = gains.xs(method, level="method"), table.operations.xs(method, level="method")
        by_seed = statistics.mean(values.groupby("seed").mean())
        cells = values.groupby([*select.CELL, "budget"]).mean()
        found[key] = Estimate(np.exp(by_seed.value), *np.exp(by_seed.ends), by_seed.n)
        found[f"{key}_least"] = Estimate(np.exp(cells.min()), n=by_seed.n)
        found[f"{key}_median"] = Estimate(np.exp(cells.median()), n=len(cells))
        found[f"{key}_ahead"] = Estimate((cells >= 0).mean(), n=len(cells))
        for network in NETWORKS:
            found[f"{key}_{network}_operations"] = Estimate(counted.loc[network].groupby("budget").mean().min(), n=by_seed.n)
    return found


@measure("peers")
def beside(rows: pd.DataFrame) -> pd.DataFrame:
    """Ours and the other packages': operations in gradients, and errors, medians over stages and seeds of each network."""
    table = select.peers(rows).groupby(["method", "budget", "network"]).median().unstack("network")
    lines = []
    for (method, budget), line in table.iterrows():
        kinds = {"Estimate": method, "Budget": f"{budget}"}
        for network in NETWORKS:
            error = line["error", network]
            kinds[f"{network}: work"] = fixed(line["operations", network], 1)
            kinds[f"{network}: error"] = "exact" if error <= EXACT else number(error, 2)
        lines.append(kinds)
    return pd.DataFrame(lines)


PAIRS = {  # of the same estimate: another package's, and ours
    "Hutchinson_10": (("curvlinops Hutchinson", 10), ("Hutchinson", 10)),
    "XDiag_100": (("curvlinops XDiag", 100), ("XDiag", 100)),
    "exact": (("BackPACK Hessian", 1), ("layer sums", 100)),
    "Gauss_Newton": (("BackPACK Gauss-Newton", 1), ("Gauss-Newton", 1)),
}


@measure("peer_times")
def peer_clock(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Time of another package's estimate over that of ours in the same round, by network: medians over rounds."""
    times = select.of_case(rows, "peer_times", "milliseconds").pivot(
        index=["network", "round"], columns=["method", "budget"], values="value"
    )
    return {
        _key(network, pair): statistics.median(table[theirs] / table[ours])
        for network, table in times.groupby("network")
        for pair, (theirs, ours) in PAIRS.items()
        if theirs in table and ours in table
    }


@measure("smoothing")
def smoothing(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Final loss without the running mean over that with it, by network: with the paper's eps and with the best, rates tuned in
    both; geometric means over runs, with the simultaneous intervals of these six. The runs that would show a factor of 1.1; how
    many rates and eps were chosen, and how many lie at an end of their list."""
    family = {}
    for part in ("paper's eps", "best eps"):
        for network, table in select.smoothed(rows, part).groupby("network"):
            family[part, network] = (table.iloc[:, 0], table.iloc[:, -1])
    found = {}
    for (part, network), difference in comparison.differences(family).items():
        found[_key(part.replace("'", ""), network)] = Estimate(
            np.exp(difference.value), *np.exp(difference.ends), difference.n, difference.p
        )
    needed = comparison.n_to_decide(family, MATTERS)
    found["needed"] = max(needed.values(), key=lambda n: n.value)
    of = rows[rows.case == "smoothing"]
    chosen = of[of.part != "tuning"].groupby(["network", "beta2", "part"])[["lr", "eps"]].first()
    ends = {name: (of[name].min(), of[name].max()) for name in ("lr", "eps")}
    at_edge = chosen.lr.isin(ends["lr"]).sum() + chosen.eps.xs("best eps", level="part").isin(ends["eps"]).sum()
    return found | {"at_edge": Estimate(at_edge), "chosen": Estimate(len(chosen) + len(chosen) // 2)}


@measure("smoothing")
def smooth(rows: pd.DataFrame) -> pd.DataFrame:
    """With the running mean and without: final loss, median over runs, rate and eps."""
    of = rows[(rows.case == "smoothing") & (rows.part != "tuning")]
    lines = []
    for (network, beta2, part), runs in of.groupby(["network", "beta2", "part"], sort=False):
        last = runs[runs.step == runs.step.max()].set_index("metric")
        lines.append(
            {
                "Network": network,
                "β₂": f"{beta2:g}",
                "ε": f"{runs.eps.iloc[0]:g}",
                "Rate": f"{runs.lr.iloc[0]:g}",
                "Chosen": part,
                "Loss": number(last.value["loss"].median(), 2),
                "Test accuracy": percent(last.value["accuracy"].median(), 1),
            }
        )
    return pd.DataFrame(lines)
