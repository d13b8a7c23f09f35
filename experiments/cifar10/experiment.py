"""Does AdaHessian beat Adam on CIFAR-10, at what cost, and is it the curvature or the weight decay?

Claim: in the paper's Table 2, AdaHessian is 1.80 and 1.45 points above Adam on ResNet-20 and ResNet-32. There Adam decays its
weights by a penalty in the loss, and AdaHessian apart from it; AdamW, which does as AdaHessian, is .16 and .36 points below it.
So both are run with both kinds of decay. Table 8 has the accuracy with a Hessian every 1 to 5 steps; 'robust to its
hyper-parameters' is asked of the learning rate, from a tenth of each method's own to twenty times that.

A cell is one network in training: a method, a factor on its learning rate, a precision, a seed. Rows are its epochs. Runs with
the same seed start from the same weights and see the same batches and crops.

Hardware: the residual networks need a GPU. `small` and `small_rates` are a study of their own on one CPU core: a network of
three convolutions on the first 2,560 images, half an hour together.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch.optim.lr_scheduler import LambdaLR

from secondlook.problems.cifar10 import METHODS, PRECISIONS, network, prepare
from secondlook.problems.images import ARRAY, CLASSES, SHAPE, Images, cifar10
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Positive, PositiveInt, Text, one_of
from secondlook.study.place import Place
from secondlook.training import Checkpoints, Run, generator, train

from .names import METRICS, family, named


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


@case(Params, "resnet20", "resnet32", "frequency", "variants", "precision", "rates", "small_rates", "small", place=True)
def run(params: Params, seed: int, place: Place):
    images = _images(params, place)
    seen = {"origin": images.origin, "device": place.device, "step": 0}
    yield seen | {"metric": "training images", "value": len(images.train)}
    yield seen | {"metric": "images to judge by", "value": len(images.test)}
    for method, factor, precision in product(params.methods, params.factors, params.precisions):
        cell = {"seed": seed, "method": method, "factor": factor, "precision": precision}
        yield from kept(place, cell, lambda folder, cell=cell: _trained(params, images, place, cell, folder))


def _trained(params: Params, images: Images, place: Place, cell: dict, folder):
    """The rows of one network's epochs."""
    method, seed = METHODS[cell["method"]], cell["seed"]
    lr = cell["factor"] * params.learning_rates[family(cell["method"])]
    model = network(params.network, generator(seed, "start"), params.width).to(place.device)  # the same start on every device
    optimizer = method.optimizer(model, lr, params)
    schedule = LambdaLR(optimizer, Schedule(params.gentle, params.drops))
    made = Run(
        model,
        optimizer,
        (images.train, images.train_labels),
        (images.test, images.test_labels),
        epochs=params.epochs,
        batch_size=params.batch,
        seed=seed,
        schedule=schedule,
        prepare=prepare,
        make_step=method.make_step,
        cost=method.cost(optimizer),
        precision=PRECISIONS[cell["precision"]],
    )
    for row in train(made, Checkpoints(folder, deadline=place.deadline, settings=cell)):
        for metric in METRICS:
            values = {"step": row["epoch"], "metric": metric, "value": row[metric]}
            yield {"method": named(cell["method"], cell["precision"]), "factor": cell["factor"], **values}


class Schedule:
    """Factor on the learning rate in an epoch, counted from 0: a tenth in the first `gentle`, and a tenth more from each of
    `drops` on."""

    def __init__(self, gentle: int, drops: tuple[int, ...]):
        self.gentle, self.drops = gentle, list(drops)

    def __call__(self, epoch: int) -> float:
        return 0.1 ** ((epoch < self.gentle) + sum(epoch >= drop for drop in self.drops))


def _images(params: Params, place: Place) -> Images:
    """The declared subset, on the device; with a validation, the training images after it take the place of the test set."""
    found = generated(params) if params.images == "generated" else cifar10(place.data / ARRAY)
    place.data_used(params.images, found.origin, found.sha256)
    found = found.first(params.train + params.validation, params.test)
    return (found.validation(params.validation) if params.validation else found).to(place.device)


def generated(params: Params) -> Images:
    """Images of noise around a level of their class: no substitute for photographs, but a way to try everything out."""
    source = torch.Generator().manual_seed(0)
    sets = []
    for count in (params.train + params.validation, params.test):
        labels = torch.arange(count) % len(CLASSES)
        level = 20.0 * labels[:, None, None, None] + 30 * torch.randn(count, *SHAPE, generator=source)
        sets += [level.clamp(0, 255).to(torch.uint8), labels]
    return Images(*sets, origin="generated", sha256="")
