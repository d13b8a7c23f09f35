"""Ratios of test losses, paired by seed: geometric means with t intervals of the logarithms.

The comparisons of a claim are a family, whose intervals hold together and give the words, as in `secondlook.study.comparison`:
losses are the same within 5 %, and less is better.
"""

import itertools

import numpy as np
import pandas as pd

from secondlook.study import comparison
from secondlook.study.comparison import WORDS
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate, clustered_share, mean, median, paired
from secondlook.study.text import fixed, interval, key, number

from .names import MODELS, RULES, TUNED
from .selections import (
    DECLARED,
    QUESTIONS,
    by_epoch,
    decided,
    families,
    instrument,
    last,
    networks,
    of_methods,
    test_losses,
    trials,
    watched,
)

MARGIN = np.log(1.05)  # within which two losses count as the same
STATED = {"adaptive": 3.860 / 3.282, "careful": 9.92 / 3.685, "EVE": 10.05 / 9.47}  # loss without over loss with, the slides
STEADINESS = {"steps": "cosine of steps", "pieces": "cosine of pieces", "detour": "detour"}
PAIRS = {  # without a memory of earlier gradients, and with one
    "newton_over_sgd": ("Newton", "SGD"),
    "kfac_over_sgd": ("K-FAC", "SGD"),
    "adahessian_over_adam": ("AdaHessian", "Adam"),
}


def _factor(found: Estimate) -> Estimate:
    """A mean logarithm as a factor."""
    return Estimate(*np.exp([found.value, *found.ends]), n=found.n, p=found.p)


def _declared(rows: pd.DataFrame) -> dict[tuple[str, str, str], comparison.Compared]:
    """All declared comparisons by (rule, question, model), with the intervals of their families."""
    found = {}
    for family in families(rows):
        found |= comparison.compare(family, MARGIN, sign=-1)
    return found


@measure("vertices", "digits")
def ratios(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of every declared comparison the test loss over that of Adam alone, with the interval of its family:
    allcnn_adaptive_same."""
    return {f"{key(model, rule)}_{name}": _factor(found.difference) for (rule, name, model), found in _declared(rows).items()}


@measure("vertices", "digits")
def least(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of a rule and a question the least ratio over networks, the least lower end and the least upper end: adaptive_tuned. The
    upper one is below 1 where one network is, the lower one above 1 where all are. Of the networks on which the rule is better
    than Adam from the same small rate, the least ratio to Adam at its best constant rate: adaptive_over_constant."""
    declared = _declared(rows)
    groups: dict[str, list[Estimate]] = {}
    for (rule, name, model), found in declared.items():
        groups.setdefault(f"{key(rule)}_{name}", []).append(_factor(found.difference))
        same = declared.get((rule, "same", model)) or declared.get((rule, "same_work", model))
        if name == "control" and same.word == "better":
            groups.setdefault(f"{key(rule)}_over_constant", []).append(_factor(found.difference))
    for rule in ("adaptive", "EVE"):
        groups.setdefault(f"{key(rule)}_over_constant", [Estimate(np.nan)])
    return {
        name: Estimate(*(min(ends) for ends in zip(*((e.value, *e.ends) for e in each), strict=True)), n=min(e.n for e in each))
        for name, each in groups.items()
    }


@measure("vertices", "digits")
def n_to_decide(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seeds that would show the gain that the slides state, of each declared comparison (allcnn_adaptive_same), and of those of
    a rule and a question the most (adaptive_same); and that would show a loss that is 5 % lower (adaptive_same_within)."""
    found = {}
    for family, ending in itertools.product(families(rows), ("", "_within")):
        matters = MARGIN if ending else np.log(STATED[next(iter(family))[0]])
        for (rule, name, model), n in comparison.n_to_decide(family, matters).items():
            most = f"{key(rule)}_{name}{ending}"
            found[f"{key(model)}_{most}"] = n
            found[most] = max(n, found.get(most, n), key=lambda n: n.value)
    return found


@measure("vertices", "digits")
def seed_seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of training of a seed on all networks from the starts of a rule's comparisons: of Adam and the rule, by rule."""
    spent = decided(rows, "seconds")
    return {
        key(rule): Estimate(spent[["Adam", rule]].dropna().sum(axis=1).groupby(["model", "start"]).mean().sum())
        for rule in TUNED[1:]
    }


def _words(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each declared comparison: rule, question, model, p (Holm), word."""
    return pd.DataFrame(
        {"rule": rule, "question": name, "model": model, "p": found.holm, "word": found.word}
        for (rule, name, model), found in _declared(rows).items()
    )


@measure("vertices", "digits")
def counts(rows: pd.DataFrame) -> dict[str, Estimate]:
    """On how many networks a rule is better, worse, equivalent, undecided: adaptive_same_better; worse or equivalent is
    adaptive_same_not_better. Of both rates that are too large together: careful_too_large_better."""
    table = _words(rows)
    together = table[table.question.isin(["threefold", "tenfold"])].assign(question="too_large")
    found = {}
    for (rule, name), part in pd.concat([table, together]).groupby(["rule", "question"]):
        found |= {f"{key(rule)}_{name}_{word}": Estimate((part.word == word).sum(), n=len(part)) for word in WORDS}
        found[f"{key(rule)}_{name}_not_better"] = Estimate(part.word.isin(["worse", "equivalent"]).sum(), n=len(part))
    return found


@measure("vertices", "digits")
def interaction(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Whether what a rule gains hangs on the network: its ratio to Adam on one network over that on another,
    adaptive_same_ddplus_mlp, by Welch, as networks may have other numbers of seeds. All pairs of networks, the adaptive rate
    and EVE, from the small rate and from the best ones: one family. Of each question (adaptive_same_differ) and of all, how
    many comparisons differ and how many are equivalent; pairs: of all."""
    gains = {
        cell: ours - adams
        for family in families(rows)
        for cell, (ours, adams) in family.items()
        if cell[0] != "careful" and QUESTIONS[cell[1]].start == QUESTIONS[cell[1]].against
    }
    family = {
        (*one[:2], one[2], other[2]): (gains[one], gains[other])
        for one, other in itertools.combinations(gains, 2)
        if one[:2] == other[:2]
    }
    compared = comparison.compare(family, MARGIN, paired=False)
    found = {key(*cell): _factor(gap.difference) for cell, gap in compared.items()}
    words = pd.Series({cell: gap.word for cell, gap in compared.items()})
    for question, part in [*words.groupby(level=[0, 1]), ((), words)]:
        found[key(*question, "differ")] = Estimate(part.isin(["better", "worse"]).sum(), n=len(part))
        found[key(*question, "equivalent")] = Estimate((part == "equivalent").sum(), n=len(part))
    return found | {"pairs": Estimate(len(words)), "all_equivalent": Estimate((words == "equivalent").all(), n=len(words))}


@measure("vertices", "digits")
def told_apart(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The share of Adam's runs whose network is that with the nearest mean curve over the other seeds, by instrument and start:
    of the cosines between neighbouring epochs' steps (cosine_small), and of the logarithms of the steps' sizes less their mean
    (size_small), so that neither rate nor number of parameters tells. Of the seeds that all networks have; and of the two for
    digits, which share data and rates, between these alone (cosine_small_digits). The intervals hold together."""
    sizes = np.log(instrument(rows, "step size"))
    curves = {"cosine": instrument(rows, "cosine"), "size": sizes.sub(sizes.mean(axis=1), axis=0)}
    found = {}
    for (name, table), start in itertools.product(curves.items(), ("small", "tuned")):
        of_start = table.loc[start].fillna(0)  # a run that diverged
        seeds = of_start.groupby(level="seed").size()
        found[f"{name}_{start}"] = of_start[of_start.index.isin(seeds.index[seeds == seeds.max()], level="seed")]
        found[f"{name}_{start}_digits"] = of_start.loc[["CNN", "MLP"]]
    level = comparison.simultaneous(len(found))
    return {name: _told(table, level) for name, table in found.items()}


def _told(curves: pd.DataFrame, level: float) -> Estimate:
    """The share of curves, a line for each (model, seed), that are nearest to the mean of their own network; n counts seeds."""
    models, seeds = map(len, curves.index.remove_unused_levels().levels)
    C = curves.to_numpy().reshape(models, seeds, -1)
    others = (C.sum(1, keepdims=True) - C) / (seeds - 1)  # (models, seeds, epochs): the mean without this seed
    away = ((C[:, None] - others[None]) ** 2).sum(-1)  # (own, other, seeds)
    hits = away.argmin(1) == np.arange(models)[:, None]  # (own, seeds)
    return clustered_share(hits, np.broadcast_to(np.arange(seeds), hits.shape), level)


@measure("rules")
def variants(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of every network, rule and start of case rules the test loss over that of Adam alone from there: allcnn_eve_tuned."""
    logs = np.log(test_losses(rows).iloc[:, -1])
    cells = logs.index.droplevel("seed").unique()
    return {key(*cell): _factor(paired(logs[cell], logs[cell[0], "Adam", cell[2]])) for cell in cells if cell[1] != "Adam"}


@measure("rules")
def learning(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Adam at its tuned rate: test loss after the last epoch, and over that before training (_share)."""
    logs, found = np.log(test_losses(rows)), {}
    for model in networks(logs):
        runs = logs.loc[model, "Adam", "tuned"]
        found[key(model)] = _factor(mean(runs.iloc[:, -1]))
        found[f"{key(model)}_share"] = _factor(paired(runs.iloc[:, -1], runs[0]))
    return found


@measure("rules")
def larger_rate(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Adam at its tuned rate over Adam at the small one: test loss, and the rate itself (_rate)."""
    logs, lr = np.log(test_losses(rows).iloc[:, -1]), by_epoch(rows, "lr").iloc[:, -1]
    found = {}
    for model in networks(logs):
        found[key(model)] = _factor(paired(logs[model, "Adam", "tuned"], logs[model, "Adam", "small"]))
        found[f"{key(model)}_rate"] = Estimate((lr[model, "Adam", "tuned"] / lr[model, "Adam", "small"]).median())
    return found


@measure("rules")
def cost(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Work and seconds of a run over those of Adam alone from the same start, medians over starts and seeds: eve_work,
    eve_seconds, and of each network allcnn_eve_seconds."""
    found = {}
    for metric in ("work", "seconds"):
        spent = last(rows, metric)
        share = spent / spent.xs("Adam", level="rule").reindex(spent.index.droplevel("rule")).to_numpy()
        for rule in RULES[1:]:
            of_rule = share.xs(rule, level="rule").dropna()
            found[f"{key(rule)}_{metric}"] = median(of_rule)
            found |= {f"{key(model, rule)}_{metric}": median(part) for model, part in of_rule.groupby(level="model")}
    return found


@measure("rules")
def at_equal_time(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of every network and form of EVE, both at their tuned rates: the test loss after as many epochs as the rule's runs have
    done, by their median seconds on this network, when Adam has done all, over Adam's."""
    losses, found = np.log(test_losses(rows)), {}
    spent, epochs = cost(rows), losses.columns[-1]
    for model, rule in itertools.product(networks(losses), [rule for rule in RULES if "EVE" in rule]):
        done = min(int(epochs / spent[f"{key(model, rule)}_seconds"].value), epochs)
        found[key(model, rule)] = _factor(
            paired(losses.loc[model, rule, "tuned"][done], losses.loc[model, "Adam", "tuned"][epochs])
        )
    return found


@measure("rules")
def eve(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The share of epochs in which EVE stays where it is, by network and start, and over all; of both versions, and of EVE with
    the adaptive rate: eve_stays, allcnn_small_eve_stays."""
    stays = (by_epoch(rows, "chosen").dropna() == 0).mean(axis=1)
    found = {}
    for rule in stays.index.unique("rule"):
        of_rule = stays.xs(rule, level="rule")
        found[f"{key(rule)}_stays"] = mean(of_rule.groupby(level="seed").mean())
        found |= {
            f"{key(*cell, rule)}_stays": mean(part) for cell, part in of_rule.groupby(level=["model", "start"]) if len(part) > 1
        }
    return found


@measure("rules")
def rates_at_the_end(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The rate in the last epoch over that in the first, geometric mean by network, rule and start."""
    lr = by_epoch(rows, "lr")
    growth = np.log(lr.iloc[:, -1] / lr.iloc[:, 0]).dropna()
    cells = growth.groupby(level=["model", "rule", "start"])
    return {key(*cell): _factor(mean(part)) for cell, part in cells if len(part) > 1}


@measure("rules")
def cuts(rows: pd.DataFrame) -> dict[str, Estimate]:
    """How often the careful rate cuts, mean over seeds by network, rule and start."""
    cells = rows[rows.metric == "cuts"].groupby(["model", "rule", "start"]).value
    return {key(*cell): mean(part) for cell, part in cells if "careful" in cell[1]}


@measure()
def divergences(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Runs that diverged, and all runs, by case."""
    found = {}
    for case, flags in rows[rows.metric == "diverged"].groupby("case"):
        found |= {case: Estimate(flags.value.sum()), f"{case}_runs": Estimate(len(flags))}
    return found


def _validation(rows: pd.DataFrame) -> pd.Series:
    """Geometric mean over seeds of the validation loss, by network, rule and rate."""
    return np.exp(np.log(trials(rows)).mean(axis=1))


@measure("rates")
def best_rates(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The rate with the least validation loss, of every network and rule, and whether it lies inside the range (_inside)."""
    found = {}
    for cell, losses in _validation(rows).groupby(level=["model", "rule"]):
        lrs = losses.index.get_level_values("lr")
        best = lrs[losses.argmin()]
        found |= {key(*cell): Estimate(best), f"{key(*cell)}_inside": Estimate(lrs.min() < best < lrs.max())}
    return found


@measure("paths")
def neighbours(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Mean cosine between the steps of neighbouring epochs in the runs that the instruments watch, one seed; by network, rule
    and start: allcnn_adaptive_small."""
    found = watched(rows, "cosine")
    found = found[found["at"] == found.step - 1]
    return {key(*cell): Estimate(part.value.mean()) for cell, part in found.groupby(["model", "rule", "start"])}


@measure("steady")
def steadiness(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Means over seeds: newton_pieces, adam_detour, sgd_arrival."""
    metrics = STEADINESS | {"arrival": "arrival"}
    return {
        f"{_short(method)}_{name}": mean(values)
        for name, metric in metrics.items()
        for method, values in of_methods(rows, metric).items()
    }


@measure("steady")
def steadier(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Differences of PAIRS by seed: newton_over_sgd_pieces."""
    tables = {name: of_methods(rows, metric) for name, metric in STEADINESS.items()}
    return {f"{pair}_{name}": paired(table[a], table[b]) for name, table in tables.items() for pair, (a, b) in PAIRS.items()}


def _short(method: str) -> str:
    return method.lower().replace("-", "")


@measure("vertices", "digits")
def comparisons(rows: pd.DataFrame) -> pd.DataFrame:
    """The declared comparisons as a table."""
    found, lines = ratios(rows), []
    for _, line in _words(rows).iterrows():
        ratio = found[f"{key(line.model, line.rule)}_{line.question}"]
        lines.append(
            {
                "Rule": line.rule,
                "Starts": QUESTIONS[line.question].label,
                "Network": line.model,
                "Ratio of test losses": interval(ratio, fixed),
                "p (Holm)": number(line.p, 2),
                "Word": line.word,
            }
        )
    return pd.DataFrame(lines)


@measure("vertices", "digits")
def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """The words alone: a line for each rule and question, a column for each network."""
    table = _words(rows).pivot(index=["rule", "question"], columns="model", values="word")
    table = table[[model for model in MODELS if model in table]].fillna("")
    order = [(rule, name) for rule, names in DECLARED for name in names]
    return pd.DataFrame([{"Rule": rule, "Starts": QUESTIONS[name].label, **table.loc[(rule, name)]} for rule, name in order])


@measure("rules")
def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Every rule from its tuned rate: its loss over Adam's on every network, work and seconds."""
    models = networks(test_losses(rows))
    found, spent, lines = variants(rows), cost(rows), []
    for rule in RULES[1:]:
        of_networks = {model: interval(found[key(model, rule, "tuned")], fixed) for model in models}
        work, seconds = (number(spent[f"{key(rule)}_{metric}"]) for metric in ("work", "seconds"))
        lines.append({"Rule": rule, **of_networks, "Work": work, "Seconds": seconds})
    return pd.DataFrame(lines)


@measure("steady")
def steadiness_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Steadiness of each optimiser, with intervals."""
    found = steadiness(rows)
    return pd.DataFrame(
        [
            {
                "Optimiser": method,
                "Steps to arrive": interval(found[f"{_short(method)}_arrival"]),
                "Cosine, steps": interval(found[f"{_short(method)}_steps"], fixed),
                "Cosine, pieces": interval(found[f"{_short(method)}_pieces"], fixed),
                "Detour": interval(found[f"{_short(method)}_detour"], fixed),
            }
            for method in of_methods(rows, "arrival")
        ]
    )
