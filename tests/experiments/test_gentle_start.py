"""Twenty steps of every method: at a tenth of its rate no loss runs away, at its own AdaHessian's does."""

from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from secondlook.errors import Mistake
from secondlook.problems.cifar10 import METHODS, prepare
from secondlook.problems.images import ARRAY, cifar10
from secondlook.problems.resnet import resnet
from secondlook.study.experiment import Experiment
from secondlook.training import eager_step, generator

SETTING = Experiment(ROOT, "cifar10").setting("resnet20").parameters
STEPS, BATCH = 20, 40


def like_photographs(count: int) -> tuple[Tensor, Tensor]:
    """Images whose contrasts are the greater, the coarser they are, around a pattern of their class; and their labels."""
    source, labels = torch.Generator().manual_seed(0), torch.arange(count) % 10
    pixels = torch.zeros(count, 3, 32, 32)
    for side, contrast in ((2, 1.0), (4, 0.7), (8, 0.5), (16, 0.35), (32, 0.25)):
        pattern = torch.randn(10, 3, side, side, generator=torch.Generator().manual_seed(side))
        fields = torch.randn(count, 3, side, side, generator=source) + pattern[labels] / 2
        pixels += contrast * interpolate(fields, size=(32, 32), mode="bilinear", align_corners=False)
    return (125 + 50 * pixels).clamp(0, 255).to(torch.uint8), labels


def photographs(count: int) -> tuple[Tensor, Tensor]:
    try:
        found = cifar10(ROOT / "data" / ARRAY)
    except Mistake:
        pytest.skip("the array file of CIFAR-10 is not built")
    return found.train[:count], found.train_labels[:count]


def losses(images, method: str, factor: float) -> list[float]:
    """Of every step, before it, on batches that are each seen once."""
    x, y = images(STEPS * BATCH)
    model = resnet(8, generator(0, "start"), width=8).train()
    optimizer = METHODS[method].optimizer(model, SETTING["learning_rates"][method], SimpleNamespace(**SETTING))
    for group in optimizer.param_groups:
        group["lr"] *= factor  # as a schedule does
    step = eager_step(optimizer, model, cross_entropy)
    return [step(*batch).item() for batch in zip(prepare(x, None).split(BATCH), y.split(BATCH), strict=True)]


@pytest.mark.parametrize("images", [like_photographs, photographs])
@pytest.mark.parametrize("method", SETTING["methods"])
def test_at_a_tenth_of_its_rate_no_method_runs_away(images, method):
    """From 3.2 at the start, no more than a tenth up on the way, and down at the end."""
    found = losses(images, method, 0.1)
    assert max(found) < 1.1 * found[0] and found[-1] < found[0]


def test_at_its_own_rate_adahessians_first_steps_are_wild():
    """The loss grows to more than three times what it was, within three steps: what the gentle start is for."""
    found = losses(like_photographs, "AdaHessian", 1.0)
    assert max(found[:4]) > 3 * found[0]
