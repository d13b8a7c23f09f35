"""The experiment that is harmed: seconds of work that use every part of the machinery. `project` copies it into a project.

A file `harm` in the project's folder says what is to happen to it: `kill rows`, `kill training` or `nan training`. Functions
that need torch import it, so that a command that computes rows alone does not wait for it.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Positive, PositiveInt, one_of
from secondlook.study.place import Place

HARM = Path("harm")
BAD_STEP = 6  # of the second network: in the middle of its second epoch
OPTIMISERS = ("SGD", "Adam")


def _harmed(what: str) -> bool:
    return HARM.exists() and HARM.read_text(encoding="utf-8") == what


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Rows:
    steps: PositiveInt
    lr: Positive


@case(Rows, "rows", "gpu")
def rows(p: Rows, seed: int):
    """Gradient descent on theta^2; killed in its second seed."""
    if seed == 1 and _harmed("kill rows"):
        _die()
    theta = np.random.default_rng(seed).uniform(1, 2)
    for t in range(p.steps + 1):
        yield {"optimiser": "GD", "step": t, "metric": "loss", "value": theta**2}
        theta -= p.lr * 2 * theta


@dataclass(frozen=True)
class Training:
    epochs: PositiveInt
    lr: Positive
    optimisers: tuple[one_of(*OPTIMISERS), ...]


@case(Training, place=True)
def training(p: Training, seed: int, place: Place):
    """A linear classifier under each optimiser, with a checkpoint after every step; the last one is harmed at BAD_STEP."""
    for name in p.optimisers:
        last = name == p.optimisers[-1]
        yield from kept(place, {"seed": seed, "optimiser": name}, lambda folder, n=name, x=last: _train(p, seed, n, x, folder))


def _train(p: Training, seed: int, name: str, last: bool, folder: Path):
    import torch

    from secondlook.training import Checkpoints, Run, generator, train

    x = torch.randn(24, 5, generator=generator(seed, "start"))
    y = (x[:, 0] > 0).long()
    model = torch.nn.Linear(5, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=p.lr)
    harm = lambda x, g: _harm(x) if last and g is not None and _step(run) == BAD_STEP else x  # noqa: E731
    run = Run(model, optimizer, (x, y), (x, y), epochs=p.epochs, batch_size=6, seed=seed, prepare=harm)
    found = list(train(run, Checkpoints(folder, minutes=0)))
    for row in found:
        for metric in ("test_loss", "diverged"):
            yield {"optimiser": name, "step": int(row["epoch"]), "metric": metric, "value": row[metric]}


def _step(run) -> int:
    """The step that is being taken, from 1."""
    return len(run.rows) * run.batches + run.batch + 1


def _harm(x):
    if _harmed("kill training"):
        _die()
    return x * float("nan") if _harmed("nan training") else x


@dataclass(frozen=True)
class Pixels:
    pass


@case(Pixels, place=True)
def pixels(p: Pixels, seed: int, place: Place):
    """The mean of its CIFAR-10, which has 30 images."""
    from secondlook.problems import images

    images.COUNT.update(train=20, test=10)
    found = images.cifar10(place.data / images.ARRAY)
    place.data_used("cifar10", found.origin, found.sha256)
    yield {"optimiser": "", "step": 0, "metric": "mean", "value": found.train.double().mean().item()}
