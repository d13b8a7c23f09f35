"""Selections of rows. Without torch: measures and figures use them.

A run is Adam with a rule, on a network, from a start: 'small', the document's rate or one that is as small; 'tuned', the rate
that was best for Adam with that rule; 'threefold' and 'tenfold', so many times Adam's best. A run that diverged stays in: it
has the loss of the network before any training.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .names import MODELS

RUN = ["model", "rule", "start", "seed"]
DECIDED = ("vertices", "digits")  # the cases by which the claims are judged


@dataclass(frozen=True)
class Question:
    """The test loss of Adam with a rule from one start, over that of Adam alone from another; at equal epochs, or at equal
    work: after the last epoch that ends within Adam's gradient equivalents."""

    start: str
    against: str
    equal_work: bool = False

    @property
    def label(self) -> str:
        """The two starts, as tables and figures have them."""
        return f"{self.start} / {self.against}" + ", equal work" * self.equal_work


QUESTIONS = {
    "same": Question("small", "small"),
    "control": Question("small", "tuned"),
    "tuned": Question("tuned", "tuned"),
    "same_work": Question("small", "small", equal_work=True),
    "tuned_work": Question("tuned", "tuned", equal_work=True),
    "threefold": Question("threefold", "threefold"),
    "tenfold": Question("tenfold", "tenfold"),
    "threefold_control": Question("threefold", "tuned"),
    "tenfold_control": Question("tenfold", "tuned"),
}
DECLARED = (  # the questions of a claim are a family, on every network that was run from their starts
    ("adaptive", ("same", "control")),
    ("adaptive", ("tuned",)),
    ("careful", ("threefold", "tenfold")),
    ("careful", ("threefold_control", "tenfold_control")),
    ("EVE", ("same_work", "control")),
    ("EVE", ("tuned_work",)),
)
Family = dict[tuple[str, str, str], tuple[pd.Series, pd.Series]]


def decided(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of every run of DECIDED: one line for each (model, start, seed), one column a rule."""
    found = rows[rows.case.isin(DECIDED) & (rows.metric == metric)]
    return found.pivot(index=["model", "start", "seed"], columns="rule", values="value")


def families(rows: pd.DataFrame) -> list[Family]:
    """The families of DECLARED, each comparison by (rule, question, model): logarithms of test losses by seed, with the rule
    and of Adam alone."""
    last, within = (np.log(decided(rows, f"test loss{when}")) for when in ("", ", equal work"))
    there = last.index.droplevel("seed")
    found = []
    for rule, names in DECLARED:
        family = {}
        for name, model in itertools.product(names, networks(last)):
            asked = QUESTIONS[name]
            if (model, asked.start) in there:
                ours = (within if asked.equal_work else last).loc[(model, asked.start), rule]
                family[rule, name, model] = ours, last.loc[(model, asked.against), "Adam"]
        found.append(family)
    return found


def instrument(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What an instrument says of Adam's runs in DECIDED: one line for each (start, model, seed), one column an epoch."""
    found = rows[rows.case.isin(DECIDED) & (rows.metric == metric)]
    return found.pivot(index=["start", "model", "seed"], columns="step", values="value").sort_index()


def by_epoch(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of case rules: one line for each run of RUN, one column for each epoch."""
    chosen = rows[(rows.case == "rules") & (rows.metric == metric)]
    return chosen.pivot(index=RUN, columns="step", values="value").sort_index()


def test_losses(rows: pd.DataFrame) -> pd.DataFrame:
    """The test loss of every run of case rules by epoch. That of epoch 0 is the untrained network's, and stands in after a
    divergence."""
    table = by_epoch(rows, "test_loss")
    return table.T.fillna(table[0]).T


def last(rows: pd.DataFrame, metric: str) -> pd.Series:
    """A metric of every run of case rules after its last epoch."""
    return by_epoch(rows, metric).iloc[:, -1]


def networks(table: pd.DataFrame | pd.Series) -> list[str]:
    """Those of MODELS that the index of a table has."""
    there = table.index.unique("model")
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
