"""Selections of rows. Without torch: measures and figures use them.

A run is Adam with a rule, on a network, from a start: 'small', the document's rate or one that is as small, or 'tuned', the
rate that was best for Adam with that rule. A run that diverged stays in: from there on it has the loss of the network before
any training.
"""

import itertools
from dataclasses import dataclass

import pandas as pd

from .names import MODELS, RULES

RUN = ["model", "rule", "start", "seed"]


@dataclass(frozen=True)
class Question:
    """The test loss of Adam with a rule from one start, over that of Adam alone from another; at equal epochs, or at equal
    work: after the last epoch that ends within Adam's gradient equivalents."""

    start: str
    against: str
    equal_work: bool = False


QUESTIONS = {
    "same": Question("small", "small"),
    "control": Question("small", "tuned"),
    "tuned": Question("tuned", "tuned"),
    "same_work": Question("small", "small", equal_work=True),
    "tuned_work": Question("tuned", "tuned", equal_work=True),
}
EPOCHS = ("same", "control", "tuned")
DECLARED = {"adaptive": EPOCHS, "careful": EPOCHS, "EVE": tuple(QUESTIONS)}  # compared on every network; Holm within a rule


def by_epoch(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case rules: one line for each run of RUN, one column for each epoch."""
    chosen = rows[(rows.case == "rules") & (rows.metric == metric)]
    return chosen.pivot(index=RUN, columns="step", values="value").sort_index()


def test_losses(rows: pd.DataFrame) -> pd.DataFrame:
    """The test loss of every run by epoch. That of epoch 0 is the untrained network's, and stands in after a divergence."""
    table = by_epoch(rows, "test_loss")
    return table.T.fillna(table[0]).T


def last(rows: pd.DataFrame, metric: str) -> pd.Series:
    """A metric of every run of case rules after its last epoch."""
    return by_epoch(rows, metric).iloc[:, -1]


def turns(rows: pd.DataFrame) -> pd.DataFrame:
    """By (model, start, seed) of the adaptive rate, lr (1 + c cos): c cos of the steps of neighbouring epochs, as the rate's
    growth tells it, by the later epoch, which is no last one; 0 from a divergence on."""
    lr = by_epoch(rows, "lr").xs("adaptive", level="rule")
    return (lr.shift(-1, axis=1) / lr - 1).iloc[:, 1:-1].fillna(0)


def asked(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Network, rule and name of the question, of all that case rules can answer."""
    there = by_epoch(rows, "test_loss").index.droplevel("seed").unique()
    cells = itertools.product(networks(rows), RULES[1:], QUESTIONS)
    return [(model, rule, name) for model, rule, name in cells if (model, rule, QUESTIONS[name].start) in there]


def networks(rows: pd.DataFrame) -> list[str]:
    """Those of MODELS that case rules has."""
    there = set(rows[rows.case == "rules"].model)
    return [model for model in MODELS if model in there]


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Validation losses of case rates: one line for each (model, rule, lr), one column a seed."""
    found = rows[(rows.case == "rates") & (rows.metric == "validation loss")]
    return found.pivot(index=["model", "rule", "lr"], columns="seed", values="value").sort_index()


def of_methods(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case steady: one line a seed, one column an optimiser."""
    found = rows[(rows.case == "steady") & (rows.metric == metric)]
    return found.pivot(index="seed", columns="method", values="value")[list(dict.fromkeys(found.method))]


def watched(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of case paths with this metric, of its first seed."""
    found = rows[(rows.case == "paths") & (rows.metric == metric)]
    return found[found.seed == found.seed.min()]
