"""Is AdaHessian better than Adam and AdamW on language, is it more robust to its learning rate, and does its block size matter?

Claim: AdaHessian's paper has it above AdamW on translation (IWSLT14, WMT14) and on language models (Penn Treebank 54.2 to 51.5
in perplexity, WikiText-103 20.9 to 19.9); its Table 6 multiplies the learning rate by .5 to 10 on IWSLT14, where AdamW
collapses from 5 on, and its Table 7 has BLEU between 35.66 and 35.79 for blocks of 1 to 128 entries. Those networks are too
large here. The proxy is a character transformer on the plays of Shakespeare, trained for seconds; its numbers are bits per
character, and no number of the paper is one of them. A direction is all that can be compared.

A cell is one network in training: a method, a factor on its learning rate, a seed. Runs with the same seed start from the same
weights and see the same batches.

Cases     rates, fine_rates (trials by which rates are chosen, on the validation windows: half decades, then factors of 1.5),
          comparison (every method at its own rate, on the test windows, epoch by epoch), scaling (Table 6), absolute_rates,
          signed_rates (trials of every size of block, with averages of |D| and of D), absolute_blocks, signed_blocks
          (Table 7), peer_rates, peers (the same for what a user would pick today).
Hardware  one CPU core; two hours in all. peer_rates and peers need the extra 'benchmark' for SOAP.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from torch.optim.lr_scheduler import LambdaLR

from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Positive, PositiveInt, Text, one_of
from secondlook.study.place import Place
from secondlook.training import Checkpoints, Run, generator, train

from .methods import METHODS
from .texts import NAME, PARTS, Windows, entropies, generated, original, windows
from .transformer import transformer

LAST = ("bits", "train_bits", "diverged")  # what is kept of the last epoch: no times, so that every run gives the same
ALL = (*LAST, "seconds", "gradient_equivalents", "lr")


@dataclass(frozen=True)
class Params:
    text: one_of(NAME, "generated")
    sha256: Text
    characters: PositiveInt
    shares: tuple[Positive, ...]
    windows: tuple[PositiveInt, ...]
    judged: one_of(*PARTS[1:])
    length: PositiveInt
    width: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt
    batch: PositiveInt
    schedule: tuple[Positive, ...]
    momentum: Positive
    betas: tuple[Positive, ...]
    adam_epsilon: Positive
    epsilon: Positive
    sophia_betas: tuple[Positive, ...]
    sophia_gamma: Positive
    sophia_every: PositiveInt
    weight_decay: Positive
    learning_rates: dict[str, Positive]
    factors: tuple[Positive, ...]
    methods: tuple[one_of(*METHODS), ...]


@dataclass(frozen=True)
class WithPeers(Params):
    """Those of Muon and SOAP too."""

    muon_momentum: Positive
    soap_betas: tuple[Positive, ...]
    soap_every: PositiveInt


@case(Params, "rates", "fine_rates", "scaling", place=True)
@case(Params, "absolute_rates", "signed_rates", "absolute_blocks", "signed_blocks", place=True)
@case(WithPeers, "peer_rates", place=True)
def run(params: Params, seed: int, place: Place):
    """Of every network its rate, and what it reaches in the last epoch; and what models that only count characters reach."""
    yield from _counted(params, place)
    for row in _runs(params, seed, place):
        if row["metric"] == "rate" or (row["step"] == len(params.schedule) and row["metric"] in LAST):
            yield row


@case(Params, "comparison", place=True)
@case(WithPeers, "peers", place=True)
def comparison(params: Params, seed: int, place: Place):
    """As `run`, with the rows of every epoch, and times."""
    yield from _counted(params, place)
    yield from _runs(params, seed, place)


def _counted(params: Params, place: Place) -> Iterator[dict]:
    text = _windows(params, place)
    for metric, value in entropies(text.vocabulary, text.train, getattr(text, params.judged)).items():
        yield {"step": 0, "metric": metric, "value": value}


def _runs(params: Params, seed: int, place: Place) -> Iterator[dict]:
    text = _windows(params, place)
    for method, factor in product(params.methods, params.factors):
        cell = {"seed": seed, "method": method, "factor": factor}
        yield from kept(place, cell, lambda folder, cell=cell: _trained(params, text, place, cell, folder))


def _trained(params: Params, text: Windows, place: Place, cell: dict, folder: Path) -> Iterable[dict]:
    """The rate, and the rows of one network's epochs; once it has diverged, `diverged` alone is a number."""
    method, seed = METHODS[cell["method"]], cell["seed"]
    lr = cell["factor"] * params.learning_rates[cell["method"]]
    shape = (params.width, params.blocks, params.heads, params.length)
    model = transformer(text.vocabulary, *shape, generator(seed, "start"))
    optimizer = method.optimizer(model, lr, params)
    made = Run(
        model,
        optimizer,
        text.train,
        getattr(text, params.judged),
        epochs=len(params.schedule),
        batch_size=params.batch,
        seed=seed,
        schedule=LambdaLR(optimizer, lambda epoch: params.schedule[min(epoch, len(params.schedule) - 1)]),
        make_step=method.make_step,
    )
    named = {"method": cell["method"], "factor": cell["factor"]}
    yield {**named, "step": 0, "metric": "rate", "value": lr}
    for row in train(made, Checkpoints(folder, deadline=place.deadline, settings=cell)):
        found = row | {"bits": row["test_loss"] / math.log(2), "train_bits": row["train_loss"] / math.log(2)}
        for metric in ALL:
            yield {**named, "step": row["epoch"], "metric": metric, "value": found[metric]}


def _windows(params: Params, place: Place) -> Windows:
    """The declared windows of the declared text."""
    if params.text == "generated":
        text = generated(params.characters)
    else:
        text = original(place.data / NAME, params.sha256)
        place.data_used(NAME, "original", params.sha256)
    return windows(text[: params.characters], params.shares, params.windows, params.length)
