"""Does AdaHessian beat Adam on CIFAR-10, at what cost, and is it the curvature or the weight decay?

Claim: in the paper's Table 2, AdaHessian is 1.80 and 1.45 points above Adam on ResNet-20 and ResNet-32. There Adam decays its
weights by a penalty in the loss, and AdaHessian apart from it; AdamW, which does as AdaHessian, is .16 and .36 points below it.
So both are run with both kinds of decay. Table 8 has the accuracy with a Hessian every 1 to 5 steps; 'robust to its
hyper-parameters' is asked of the learning rate, from a tenth of each method's own to twenty times that.

A cell is one network in training: a method, a factor on its learning rate, a precision, a seed. Rows are its epochs. Runs with
the same seed start from the same weights and see the same batches and crops.

`quick`, `quick_rates`, `quick_frequency` and `quick_absolute` ask the same of a lease of fifteen minutes: as many epochs as its
pace allows, by a declared rule. `residual` and its kin ask it of a processor: ResNet-8, all images, 12 epochs; and of SGD
and AdamW with as many epochs as AdaHessian's run pays for.

`first_steps` is no comparison: loss and |theta| in the first steps of ResNet-20 at the paper's rate, and at a tenth of it.

Hardware: ResNet-20 and ResNet-32 need a GPU. `small` and its kin are a study of their own on one CPU core: a network of three
convolutions on the first 5,120 images, hours together. `residual` and its kin take days of one core.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.utils import get_total_norm
from torch.optim.lr_scheduler import LambdaLR

from secondlook.errors import Mistake
from secondlook.problems.cifar10 import METHODS, PRECISIONS, network, prepare
from secondlook.problems.images import ARRAY, CLASSES, SHAPE, Images, cifar10
from secondlook.study.cells import SHARED, kept
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Positive, PositiveInt, Text, one_of
from secondlook.study.place import Place
from secondlook.training import Checkpoints, Run, generator, take_turns, train

from .names import METRICS, OPTIMISERS, PACE, family, named


@dataclass(frozen=True)
class Params:
    images: one_of("cifar10", "generated")
    train: PositiveInt
    test: PositiveInt
    validation: Count
    network: Text
    width: PositiveInt
    batch: PositiveInt
    epochs: PositiveInt
    drops: tuple[PositiveInt, ...]
    gentle: Count
    momentum: Positive
    betas: tuple[Positive, ...]
    adam_epsilon: Positive
    epsilon: Positive
    weight_decay: Positive
    learning_rates: dict[str, Positive]
    factors: tuple[Positive, ...]
    precisions: tuple[one_of(*PRECISIONS), ...]
    methods: tuple[one_of(*METHODS), ...]


@case(
    Params,
    "resnet20",
    "resnet32",
    "frequency",
    "variants",
    "precision",
    "rates",
    "quick_rates",
    "residual_rates",
    "residual_pilot",
    "residual",
    "residual_longer",
    "small_rates",
    "small",
    "small_fine_rates",
    "small_robustness",
    "small_tuned",
    place=True,
)
def run(params: Params, seed: int, place: Place):
    yield from kept(place, {"seed": seed, "images": params.images}, lambda folder: _seen(params, place))
    for method, factor, precision in product(params.methods, params.factors, params.precisions):
        cell = {"seed": seed, "method": method, "factor": factor, "precision": precision}
        yield from kept(place, cell, lambda folder, cell=cell: _trained(params, place, cell, folder))


def _seen(params: Params, place: Place):
    """How many images there are, where they are from, and on which device they are seen."""
    images = _images(params, place)
    for metric, count in {"training images": len(images.train), "images to judge by": len(images.test)}.items():
        yield {"origin": images.origin, "device": place.device, "step": 0, "metric": metric, "value": count}


def _trained(params: Params, place: Place, cell: dict, folder: Path):
    """The rows of one network's epochs. Of one that others train beside there is no time."""
    method = cell["method"] if len(params.precisions) == 1 else named(cell["method"], cell["precision"])
    metrics = [metric for metric in METRICS if metric != "seconds" or place.at_once == 1]
    for row in train(
        _made(params, place, cell), Checkpoints(folder, deadline=place.deadline, settings=cell), place.at_once > 1
    ):
        if row is None:
            yield None
            continue
        for metric in metrics:
            values = {"step": row["epoch"], "metric": metric, "value": row[metric]}
            yield {"method": method, "factor": cell["factor"], **values}


def _made(params: Params, place: Place, cell: dict) -> Run:
    """The run of a cell, at its start."""
    images, method, seed = _images(params, place), METHODS[cell["method"]], cell["seed"]
    lr = cell["factor"] * params.learning_rates[family(cell["method"])]
    model = network(params.network, generator(seed, "start"), params.width).to(place.device)  # the same start on every device
    optimizer = method.optimizer(model, lr, params)
    return Run(
        model,
        optimizer,
        (images.train, images.train_labels),
        (images.test, images.test_labels),
        epochs=params.epochs,
        batch_size=params.batch,
        seed=seed,
        schedule=LambdaLR(optimizer, Schedule(params.gentle, params.drops)),
        prepare=prepare,
        make_step=method.make_step if place.may_capture(cell["method"]) else method.eager_step,
        cost=method.cost(optimizer),
        precision=PRECISIONS[cell["precision"]],
    )


@dataclass(frozen=True)
class Paced(Params):
    """`epochs` and `drops`, unless an epoch of all OPTIMISERS side by side takes at most `within` seconds: then it is the first
    of `longer` whose seconds they are, with drops at the same shares."""

    longer: tuple[PositiveInt, ...]
    within: tuple[Positive, ...]

    def at(self, seconds: float) -> "Paced":
        """With the epochs that this pace allows."""
        allowed = (epochs for epochs, most in zip(self.longer, self.within, strict=True) if seconds <= most)
        epochs = next(allowed, self.epochs)
        return replace(self, epochs=epochs, drops=tuple(drop * epochs // self.epochs for drop in self.drops))


@case(Paced, "quick", "quick_frequency", "quick_absolute", place=True)
def quick(params: Paced, seed: int, place: Place):
    """As many epochs as the machine's pace allows: it is measured once for all such cases, before any accuracy is seen."""
    about = {name: getattr(params, name) for name in ("images", "train", "network", "width", "batch", "precisions")}
    pace = list(kept(place, {SHARED: "pace", **about}, lambda folder: _pace(params, place)))
    if not pace:
        return  # where nothing is computed
    seconds = pace[0]["value"]
    chosen = params.at(seconds)
    for metric, value in {PACE: seconds, "epochs": chosen.epochs}.items():
        yield {"device": place.device, "step": 0, "metric": metric, "value": value}
    yield from run(chosen, seed, place)


def _pace(params: Paced, place: Place) -> list[dict]:
    """Seconds of one epoch of all OPTIMISERS side by side and of nothing else, with its evaluation. In the epoch before it
    steps are captured. Infinite where a method fails, so that the fewest epochs are taken."""
    cells = [{"method": method, "factor": 1.0, "precision": params.precisions[0], "seed": 0} for method in OPTIMISERS]
    runs = [_made(replace(params, epochs=2), place, cell) for cell in cells]
    for _ in range(2):
        start = perf_counter()
        ended = list(take_turns(map(_epoch, runs), place.at_once, place.device))
        seconds = math.inf if any(error for _, error in ended) else perf_counter() - start
    return [{"step": 0, "metric": PACE, "value": seconds}]


def _epoch(run: Run):
    """A turn for each step of the next epoch, which ends with an evaluation that waits for the device."""
    done = len(run.rows)
    while len(run.rows) == done:
        run.advance(1)
        yield None


@dataclass(frozen=True)
class Begun(Params):
    """The first `steps` of an epoch, for each number of gentle epochs in `starts`, which stands in place of `gentle`."""

    steps: PositiveInt
    starts: tuple[Count, ...]


@case(Begun, place=True)
def first_steps(params: Begun, seed: int, place: Place):
    """Loss and |theta| of each method from one step to the next, from a gentle start and from one at the full rate."""
    for method, gentle in product(params.methods, params.starts):
        cell = {"seed": seed, "method": method, "gentle": gentle, "factor": 1.0, "precision": params.precisions[0]}
        yield from kept(place, cell, lambda folder, cell=cell: _begun(replace(params, gentle=cell["gentle"]), place, cell))


def _begun(params: Begun, place: Place, cell: dict):
    """After so many steps, from none on: the loss on the next batch, and |theta|. Of a run that diverges, until then."""
    run = _made(params, place, cell)
    if params.steps > run.batches:
        raise Mistake(f"'steps' must be at most {run.batches}, the batches of an epoch, got {params.steps}")
    for step in range(params.steps):
        size = get_total_norm(run.model.parameters()).item()
        run.advance(1)
        if run.diverged:
            return
        for metric, value in {"loss": float(run.losses[step]), "size": size}.items():
            yield {"method": cell["method"], "gentle": cell["gentle"], "step": step, "metric": metric, "value": value}


class Schedule:
    """Factor on the learning rate in an epoch, counted from 0: a tenth in the first `gentle`, and a tenth more from each of
    `drops` on."""

    def __init__(self, gentle: int, drops: tuple[int, ...]):
        self.gentle, self.drops = gentle, list(drops)

    def __call__(self, epoch: int) -> float:
        return 0.1 ** ((epoch < self.gentle) + sum(epoch >= drop for drop in self.drops))


def _images(params: Params, place: Place) -> Images:
    """The declared subset, on the device; with a validation, the training images after it take the place of the test set."""
    sizes = (params.train, params.test, params.validation)
    found = _read(params.images, *sizes, place.data if params.images == "cifar10" else None, place.device)
    place.data_used(params.images, found.origin, found.sha256)
    return found


@cache
def _read(name: str, train: int, test: int, validation: int, folder: Path | None, device: str) -> Images:
    found = generated(train + validation, test) if folder is None else cifar10(folder / ARRAY)
    found = found.first(train + validation, test)
    return (found.validation(validation) if validation else found).to(device)


def generated(train: int, test: int) -> Images:
    """So many images of noise around a level of their class: no substitute for photographs, but a way to try everything out."""
    source = torch.Generator().manual_seed(0)
    sets = []
    for count in (train, test):
        labels = torch.arange(count) % len(CLASSES)
        level = 20.0 * labels[:, None, None, None] + 30 * torch.randn(count, *SHAPE, generator=source)
        sets += [level.clamp(0, 255).to(torch.uint8), labels]
    return Images(*sets, origin="generated", sha256="")
