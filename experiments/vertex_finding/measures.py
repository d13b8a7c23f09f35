"""Ratios of test losses, paired by seed: geometric means with t intervals of the logarithms.

The comparisons that are declared for a rule are a family, whose intervals hold together and give the words, as in
`secondlook.study.comparison`: losses are the same within 5 %, and less is better.
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
from .selections import DECLARED, QUESTIONS, asked, by_epoch, last, networks, of_methods, test_losses, trials, turns, watched

MARGIN = np.log(1.05)  # within which two losses count as the same
HALF_OF_STATED = (3.685 / 9.92) ** 0.5  # half of what the document states for the careful rate, as a factor
STEADINESS = {"steps": "cosine of steps", "pieces": "cosine of pieces", "detour": "detour"}
ASKED = {
    "same": "both at the small rate",
    "control": "small rate, against the best constant rate",
    "tuned": "both at their best rates",
    "same_work": "both at the small rate, equal work",
    "tuned_work": "both at their best rates, equal work",
}
PAIRS = {  # without a memory of earlier gradients, and with one
    "newton_over_sgd": ("Newton", "SGD"),
    "kfac_over_sgd": ("K-FAC", "SGD"),
    "adahessian_over_adam": ("AdaHessian", "Adam"),
}


def _factor(found: Estimate) -> Estimate:
    """A mean logarithm as a factor."""
    return Estimate(*np.exp([found.value, *found.ends]), n=found.n, p=found.p)


class Losses:
    """Logarithms of the test losses of all runs by epoch, and their work as a share of that of all Adam's epochs."""

    def __init__(self, rows: pd.DataFrame):
        self.losses, spent = np.log(test_losses(rows)), by_epoch(rows, "work")
        epochs = self.losses.columns
        whole = spent.iloc[:, -1].xs("Adam", level="rule").groupby(level="model").median()
        alone = pd.DataFrame([epochs / epochs[-1]] * len(self.losses), self.losses.index, epochs)
        self.work = (
            spent.drop(index="Adam", level="rule")
            .div(whole, axis=0, level="model")
            .reindex_like(self.losses)
            .combine_first(alone)
        )

    def compared(self, model: str, rule: str, name: str) -> tuple[pd.Series, pd.Series]:
        """What the question compares, by seed: with the rule, and of Adam alone."""
        question = QUESTIONS[name]
        ours, adams = self.losses.loc[model, rule, question.start], self.losses.loc[model, "Adam", question.against]
        if question.equal_work:
            within = self.work.loc[model, rule, question.start] <= 1 + 1e-9
            ours = ours.where(within).ffill(axis=1)
        return ours.iloc[:, -1], adams.iloc[:, -1]


@measure("rules")
def ratios(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of every network, rule and question: test loss over that of Adam alone; allcnn_adaptive_same. Where the comparison is
    declared, with the interval of its family."""
    losses, declared = Losses(rows), _declared(rows)
    found = {}
    for model, rule, name in asked(rows):
        of_family = declared.get((rule, name, model))
        gap = of_family.difference if of_family else paired(*losses.compared(model, rule, name))
        found[f"{key(model, rule)}_{name}"] = _factor(gap)
    return found


def _families(rows: pd.DataFrame) -> dict[str, dict]:
    """The declared comparisons of each rule with Adam, logarithms of losses, by (rule, question, model)."""
    losses = Losses(rows)
    return {
        rule: {(rule, name, model): losses.compared(model, rule, name) for name in names for model in networks(rows)}
        for rule, names in DECLARED.items()
    }


def _declared(rows: pd.DataFrame) -> dict[tuple, comparison.Compared]:
    """All declared comparisons, each rule a family."""
    found = {}
    for family in _families(rows).values():
        found |= comparison.compare(family, MARGIN, sign=-1)
    return found


@measure("rules")
def n_to_decide(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seeds that would show a loss that is 5 % lower, of each declared comparison: allcnn_adaptive_same; and of those of a rule
    and a question the most: adaptive_same."""
    found = {}
    for family in _families(rows).values():
        for (rule, name, model), n in comparison.n_to_decide(family, MARGIN).items():
            found[f"{key(model, rule)}_{name}"] = n
            found[f"{key(rule)}_{name}"] = max(n, found.get(f"{key(rule)}_{name}", n), key=lambda n: n.value)
    return found


@measure("rules")
def seed_seconds(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Seconds of training of a seed on all networks from both starts: of Adam and a rule, by rule."""
    spent = last(rows, "seconds").unstack("rule")
    return {key(rule): mean(spent[["Adam", rule]].sum(axis=1).groupby(level="seed").sum()) for rule in DECLARED}


@measure("rules")
def learning(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Adam at its tuned rate: test loss after the last epoch, and over that before training (_share)."""
    logs, found = np.log(test_losses(rows)), {}
    for model in networks(rows):
        runs = logs.loc[model, "Adam", "tuned"]
        found[key(model)] = _factor(mean(runs.iloc[:, -1]))
        found[f"{key(model)}_share"] = _factor(paired(runs.iloc[:, -1], runs[0]))
    return found


@measure("rules")
def larger_rate(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Adam at its tuned rate over Adam at the small one: test loss, and the rate itself (_rate)."""
    logs, lr = np.log(test_losses(rows).iloc[:, -1]), by_epoch(rows, "lr").iloc[:, -1]
    found = {}
    for model in networks(rows):
        found[key(model)] = _factor(paired(logs[model, "Adam", "tuned"], logs[model, "Adam", "small"]))
        found[f"{key(model)}_rate"] = Estimate((lr[model, "Adam", "tuned"] / lr[model, "Adam", "small"]).median())
    return found


@measure("rules")
def training(rows: pd.DataFrame) -> dict[str, Estimate]:
    """The training loss of the last epoch over that of Adam alone, as `ratios`, at equal epochs; a run that diverged has none,
    and where one did the network is left out."""
    logs, found = np.log(last(rows, "train_loss")), {}
    for model, rule, name in asked(rows):
        question = QUESTIONS[name]
        ours, adams = logs[model, rule, question.start], logs[model, "Adam", question.against]
        if not question.equal_work and np.isfinite([ours, adams]).all():
            found[f"{key(model, rule)}_{name}"] = _factor(paired(ours, adams))
    return found


def _words(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each declared comparison: rule, question, model, p (Holm), word."""
    return pd.DataFrame(
        {"rule": rule, "question": name, "model": model, "p": found.holm, "word": found.word}
        for (rule, name, model), found in _declared(rows).items()
    )


@measure("rules")
def counts(rows: pd.DataFrame) -> dict[str, Estimate]:
    """On how many networks a rule is better, worse, equivalent, undecided: adaptive_same_better; worse or equivalent is
    adaptive_same_not_better."""
    table = _words(rows)
    found = {}
    for (rule, name), part in table.groupby(["rule", "question"]):
        found |= {f"{key(rule)}_{name}_{word}": Estimate((part.word == word).sum(), n=len(part)) for word in WORDS}
        found[f"{key(rule)}_{name}_not_better"] = Estimate(part.word.isin(["worse", "equivalent"]).sum(), n=len(part))
    return found


@measure("rules")
def interaction(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Whether what a rule gains hangs on the network: its ratio to Adam on one network over that on another,
    adaptive_same_ddplus_mlp. All pairs of networks and all questions of DECLARED with equal starts are one family. Of each
    question (adaptive_same_differ) and of all, how many comparisons differ and how many are equivalent; pairs: of all."""
    losses, family = Losses(rows), {}
    for rule, names in DECLARED.items():
        for name, pair in itertools.product(names, itertools.combinations(networks(rows), 2)):
            if QUESTIONS[name].start == QUESTIONS[name].against:
                family[rule, name, *pair] = [np.subtract(*losses.compared(model, rule, name)) for model in pair]
    compared = comparison.compare(family, MARGIN)
    found = {key(*cell): _factor(gap.difference) for cell, gap in compared.items()}
    words = pd.Series({cell: gap.word for cell, gap in compared.items()})
    for question, part in [*words.groupby(level=[0, 1]), ((), words)]:
        found[key(*question, "differ")] = Estimate(part.isin(["better", "worse"]).sum(), n=len(part))
        found[key(*question, "equivalent")] = Estimate((part == "equivalent").sum(), n=len(part))
    return found | {"pairs": Estimate(len(words)), "all_equivalent": Estimate((words == "equivalent").all(), n=len(words))}


@measure("rules")
def told_apart(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Share of the runs with the adaptive rate, by start, whose network is that with the nearest mean curve of cosines over the
    other seeds; and of the two networks for digits between these two alone, which have the same rates (_digits)."""
    found = {}
    for start, curves in turns(rows).groupby(level="start"):
        curves = curves.droplevel("start")
        found[start] = _told(curves)
        found[f"{start}_digits"] = _told(curves.loc[["MLP", "CNN"]])
    return found


def _told(curves: pd.DataFrame) -> Estimate:
    """The share of curves, a line for each (model, seed), that are nearest to the mean of their own network; n counts seeds."""
    hits = []
    for model, seed in curves.index:
        means = curves.drop(seed, level="seed").groupby(level="model").mean()
        away = ((means - curves.loc[model, seed]) ** 2).sum(axis=1)
        hits.append(away.idxmin() == model)
    return clustered_share(hits, curves.index.get_level_values("seed"))


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
    for model, rule in itertools.product(networks(rows), [rule for rule in RULES if "EVE" in rule]):
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
    cells = last(rows, "cuts").groupby(level=["model", "rule", "start"])
    return {key(*cell): mean(part) for cell, part in cells if "careful" in cell[1]}


@measure()
def divergences(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Runs that diverged, and all runs, of rates and of rules."""
    found = {}
    for case, flags in rows[rows.metric == "diverged"].groupby("case"):
        found |= {case: Estimate(flags.value.sum()), f"{case}_runs": Estimate(len(flags))}
    return found


def _validation(rows: pd.DataFrame) -> pd.Series:
    """Geometric mean over seeds of the validation loss, by network, rule and rate."""
    return np.exp(np.log(trials(rows)).mean(axis=1))


@measure("rates")
def too_large(rows: pd.DataFrame) -> dict[str, Estimate]:
    """At the largest rate of each network's trials, where the loss jumps: validation loss of the careful rate over Adam's, a
    family, and over all networks by seed (pooled); that rate over Adam's best (_rate); on how many networks it is better,
    worse, equivalent, or one of the last two (not_better); the most seeds that a network needs to show HALF_OF_STATED."""
    logs, best, family, found = np.log(trials(rows)), best_rates(rows), {}, {}
    for model in [model for model in MODELS if model in logs.index.unique("model")]:
        lr = logs.loc[model, "Adam"].index.max()
        family[key(model)] = logs.loc[model, "careful", lr], logs.loc[model, "Adam", lr]
        found[f"{key(model)}_rate"] = Estimate(lr / best[key(model, "Adam")].value)
    compared = comparison.compare(family, MARGIN, sign=-1)
    found |= {model: _factor(gap.difference) for model, gap in compared.items()}
    found["pooled"] = _factor(paired(*(sum(losses) / len(family) for losses in zip(*family.values(), strict=True))))
    words = [gap.word for gap in compared.values()]
    found |= {word: Estimate(words.count(word), n=len(words)) for word in WORDS}
    found["not_better"] = Estimate(words.count("worse") + words.count("equivalent"), n=len(words))
    needed = comparison.n_to_decide(family, -np.log(HALF_OF_STATED)).values()
    return found | {"n_to_decide": max(needed, key=lambda n: n.value)}


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


@measure("rules")
def comparisons(rows: pd.DataFrame) -> pd.DataFrame:
    """The declared comparisons as a table."""
    found, lines = ratios(rows), []
    for _, line in _words(rows).iterrows():
        ratio = found[f"{key(line.model, line.rule)}_{line.question}"]
        lines.append(
            {
                "Rule": line.rule,
                "Question": ASKED[line.question],
                "Network": line.model,
                "Ratio of test losses": interval(ratio, fixed),
                "p (Holm)": number(line.p, 2),
                "Word": line.word,
            }
        )
    return pd.DataFrame(lines)


@measure("rules")
def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """The words alone: a line for each rule and question, a column for each network."""
    table = _words(rows).pivot(index=["rule", "question"], columns="model", values="word")[networks(rows)]
    order = [(rule, name) for rule, names in DECLARED.items() for name in names]
    lines = [{"Rule": rule, "Against Adam": ASKED[name], **table.loc[rule, name]} for rule, name in order]
    return pd.DataFrame(lines)


@measure("rules")
def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Every rule from its tuned rate: its loss over Adam's on every network, work and seconds."""
    found, spent, lines = ratios(rows), cost(rows), []
    for rule in RULES[1:]:
        of_networks = {model: interval(found[f"{key(model, rule)}_tuned"], fixed) for model in networks(rows)}
        work, seconds = (number(spent[f"{key(rule)}_{metric}"]) for metric in ("work", "seconds"))
        lines.append({"Rule": rule, **of_networks, "Work": work, "Seconds": seconds})
    return pd.DataFrame(lines)


@measure("rates")
def trial_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Geometric means of the validation loss: all trials."""
    table = _validation(rows).unstack("rule")[list(TUNED)]
    lines = [(model, lr) for model in MODELS if model in table.index for lr in table.loc[model].index]
    return pd.DataFrame([{"Network": m, "lr": number(lr, 1), **table.loc[m, lr].map(number)} for m, lr in lines])


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
