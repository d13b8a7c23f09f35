"""What is timed: steps of this project's methods, eager or captured, and the loop that users of other packages write."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import islice
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset

from secondlook.errors import Mistake
from secondlook.problems.cifar10 import METHODS, differentiate_on_a_part
from secondlook.problems.images import MEAN, PAD, STD
from secondlook.training import captured_step, eager_step
from secondlook.training.steps import WARM_UP, Step, differentiate

USUAL = {
    "SGD": None,
    "torch-optimizer": ("torch_optimizer", "Adahessian"),
    "pytorch-optimizer": ("pytorch_optimizer", "AdaHessian"),
}
FIRST = 3  # batches of the usual loop before the clock starts: libraries choose their algorithms


def step_of(name: str, mode: str, optimizer: torch.optim.Optimizer, model: nn.Module) -> Step:
    """The step of the method `name`; where there is no GPU, a captured step is an eager one."""
    part = METHODS[name].part
    make = captured_step if mode == "captured" and next(model.parameters()).is_cuda else eager_step
    return make(optimizer, model, cross_entropy, differentiate if part == 1 else partial(differentiate_on_a_part, part))


def period(name: str) -> int:
    """Steps from one Hessian to the next."""
    return METHODS[name].options.get("every", 1)


def warm_up(name: str) -> int:
    """Steps after which every graph of a captured step is there, in whole periods."""
    return (WARM_UP + 1) * period(name)


def wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


class Pictures(Dataset):
    """Images that are cropped, mirrored, scaled and shifted one at a time on a CPU, as data sets of torchvision do it."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels
        self.generator = torch.Generator().manual_seed(0)
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = self.images[i]
        height, width = image.shape[1:]
        top, left, mirrored = (torch.randint(most, (), generator=self.generator) for most in (2 * PAD + 1, 2 * PAD + 1, 2))
        image = pad(image, (PAD,) * 4)[:, top : top + height, left : left + width]
        image = image.flip(2) if mirrored else image
        return (image.float() / 255 - self.mean) / self.std, self.labels[i]


def usual_optimizer(name: str, lr: float, momentum: float, model: nn.Module) -> torch.optim.Optimizer:
    """SGD, or AdaHessian of a package with its own settings. Raises Mistake where the package is not installed."""
    if USUAL[name] is None:
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    package, rule = USUAL[name]
    try:
        return getattr(import_module(package), rule)(model.parameters(), lr=lr)
    except ImportError as error:
        raise Mistake(f"throughput needs the package {package}: install the extra 'benchmark'") from error


def usual_epochs(
    optimizer: torch.optim.Optimizer, model: nn.Module, pictures: Pictures, batch: int, readers: int, device: str
) -> Iterator[float]:
    """Seconds of one epoch after another, without end, in the eager loop with a DataLoader. Optimisers of other
    packages ask for a gradient with a graph."""
    order = torch.Generator().manual_seed(0)
    stay = {"num_workers": readers, "persistent_workers": readers > 0}  # so that no epoch waits for them to start
    loader = DataLoader(pictures, batch, shuffle=True, generator=order, pin_memory=device == "cuda", **stay)
    second_order = not isinstance(optimizer, torch.optim.SGD)

    def go_through(batches) -> None:
        model.train()
        for x, y in batches:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward(create_graph=second_order)
            optimizer.step()
        wait(device)

    go_through(islice(loader, FIRST))
    while True:
        start = perf_counter()
        go_through(loader)
        yield perf_counter() - start
