"""What a step and an epoch cost on a GPU, and how far that is from the least that they could.

A small network's step is hundreds of short operations. Started one by one they leave a GPU idle; captured as one graph they do
not, and then AdaHessian over SGD can be what the operations say, 3. Asked here: is the captured step the eager one
(`equality`); what does it take, by optimiser and precision (`resnet20`, `resnet32`); how far is that from the floor that
operations and bytes set (`floor`); how fast is a whole epoch beside the public packages in the loop that their users write
(`epochs`); and how many networks should train at once (`concurrent`).

Images are noise and rates tiny: no value changes a time.
Hardware: one GPU with nothing else running on it or its host; without --at-once, which would time rounds against each other.
Run time: estimated, not measured, at seven to eight minutes in all on a GPU of the H100 class, a third of it the usual loop.
"""

import gc
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from secondlook.curvature.vectors import flat
from secondlook.errors import Mistake
from secondlook.problems.cifar10 import METHODS, PRECISIONS, network, prepare
from secondlook.problems.images import CLASSES, SHAPE
from secondlook.problems.layers import DERIVED, with_layers_of_torch
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Count, Positive, PositiveInt, Text, one_of
from secondlook.study.place import Place
from secondlook.training import FLOAT32, Precision, Run, generator, train

from .methods import USUAL, Pictures, period, step_of, usual_epochs, usual_optimizer, wait, warm_up
from .names import AGAIN, CAPTURED, EAGER, ON_DEVICE, USUAL_LOOP

MODES = (EAGER, CAPTURED)
TYPES = {"float32": torch.float32, "float64": torch.float64}
NUMBERS_OF_A_RULE = {  # a step's tensors, each written once and read once at least; see `bytes_moved`
    "SGD": (2, 3),  # of an activation: value, gradient. Of a parameter: theta, g, momentum
    "AdaHessian": (4, 6),  # and the derivatives of both along z; theta, g, z, H z, m, v
}
BYTES = {name: 2 if precision.bf16 else 4 for name, precision in PRECISIONS.items()}  # of an activation
REPEATS = 4  # of a product or a copy between two looks at the clock
EPOCHS = 1000  # of a run that is timed epoch by epoch: more than there are rounds
LONGEST_WAIT = 300  # seconds, for processes that start together


@dataclass(frozen=True)
class Network:
    network: Text
    width: PositiveInt
    batch: PositiveInt
    momentum: Positive
    betas: tuple[Positive, ...]
    adam_epsilon: Positive
    epsilon: Positive
    weight_decay: Positive

    def start(self, device: str) -> nn.Module:
        """The network, always from the same weights."""
        return network(self.network, generator(0, "start"), self.width).to(device)

    def noise(self, count: int, device: str) -> tuple[Tensor, Tensor]:
        """So many images of noise, uint8, and their labels, always the same."""
        images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return images.to(device), (torch.arange(count) % len(CLASSES)).to(device)


@dataclass(frozen=True)
class Equality(Network):
    steps: PositiveInt
    learning_rates: dict[str, Positive]
    methods: tuple[one_of(*METHODS), ...]
    types: tuple[one_of(*TYPES), ...]


@case(Equality, place=True)
def equality(params: Equality, seed: int, place: Place):
    for method, type_ in product(params.methods, params.types):
        cell = {"seed": seed, "method": method, "type": type_}
        yield from kept(place, cell, lambda folder, cell=cell: _compared(params, cell["method"], cell["type"], place.device))


def _compared(params: Equality, method: str, type_: str, device: str):
    """How far a second eager walk and a captured one end from the first eager one."""
    start, losses, end = _walk(params, method, type_, EAGER, device)
    for walk, mode in ((AGAIN, EAGER), (CAPTURED, CAPTURED)):
        _, its_losses, its_end = _walk(params, method, type_, mode, device)
        row = {"method": method, "type": type_, "walk": walk, "step": params.steps}
        yield row | {"metric": "loss", "value": float(((its_losses - losses) / losses).abs().max())}
        yield row | {"metric": "parameters", "value": float((its_end - end).norm() / (end - start).norm())}


def _walk(params: Equality, method: str, type_: str, mode: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters at the start, losses of the steps, and parameters at the end, in float64; every step on another batch."""
    model = params.start(device).to(TYPES[type_])
    optimizer = METHODS[method].optimizer(model, params.learning_rates[METHODS[method].rule.__name__], params)
    step = step_of(method, mode, optimizer, model)
    images, labels = params.noise(params.steps * params.batch, device)
    x = prepare(images, None).to(TYPES[type_])
    parameters = list(model.parameters())
    start = flat(parameters).detach().double()
    with FLOAT32.active():
        batches = zip(x.split(params.batch), labels.split(params.batch), strict=True)
        losses = torch.stack([step(*batch).clone() for batch in batches])  # a captured step overwrites its loss
    return start, losses.double(), flat(parameters).detach().double()


@dataclass(frozen=True)
class Steps(Network):
    lr: Positive
    steps: PositiveInt
    methods: tuple[one_of(*METHODS), ...]
    modes: tuple[one_of(*MODES), ...]
    precisions: tuple[one_of(*PRECISIONS), ...]


@dataclass(frozen=True)
class Timed:
    """A step that is ready to be timed."""

    step: Callable[[], object]
    precision: Precision
    peak: float | None  # MiB that it and its network take on a GPU, at most

    def milliseconds(self, count: int, device: str) -> float:
        """Of one step, mean of `count`."""
        with self.precision.active():
            wait(device)
            start = perf_counter()
            for _ in range(count):
                self.step()
            wait(device)
        return 1e3 * (perf_counter() - start) / count


@cache
def _ready(params: Steps, device: str) -> dict[tuple[str, str, str], Timed]:
    """Every cell's step, warmed up and captured. Kept from round to round."""
    _release()
    return {cell: _warm(params, *cell, device) for cell in product(params.methods, params.modes, params.precisions)}


def _release() -> None:
    """Give back what earlier cases of the same command hold on the GPU: captured steps keep their memory."""
    _ready.cache_clear()
    _loops.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()


def _warm(params: Steps, method: str, mode: str, precision: str, device: str) -> Timed:
    held = _held(device)
    setting, model = PRECISIONS[precision], params.start(device)
    optimizer = METHODS[method].optimizer(model, params.lr, params)
    step = step_of(method, mode, optimizer, setting.model(model))
    images, y = params.noise(params.batch, device)
    x = setting.batch(prepare(images, None))
    timed = Timed(lambda: step(x, y), setting, None)
    timed.milliseconds(warm_up(method), device)
    return Timed(timed.step, setting, (torch.cuda.max_memory_allocated() - held) / 2**20 if device == "cuda" else None)


def _held(device: str) -> int:
    """Bytes on the GPU; its peak is counted from here."""
    if device != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _round(params: Steps, seed: int, device: str):
    """Milliseconds a step, the cells in an order drawn from the seed; `steps` steps, or whole periods of at least as many."""
    ready = list(_ready(params, device).items())
    for i in np.random.default_rng(seed).permutation(len(ready)):
        (method, mode, precision), timed = ready[i]
        count = math.ceil(params.steps / period(method)) * period(method)
        row = {"method": method, "mode": mode, "precision": precision, "step": count}
        yield row | {"metric": "milliseconds", "value": timed.milliseconds(count, device)}
        if timed.peak is not None:
            yield row | {"metric": "peak_mib", "value": timed.peak}


@case(Steps, "resnet20", "resnet32", "resnet20_all", "resnet32_all", place=True)
def steps(params: Steps, seed: int, place: Place):
    yield from kept(place, {"seed": seed}, lambda folder: _round(params, seed, _trusted(place, params.methods)))


def _trusted(place: Place, methods: tuple[str, ...]) -> str:
    """The device, where steps of `methods` can be captured: what is called captured is so. Raises Mistake where a self-test
    found that they cannot; until the stage ends, a capture that fails is an error."""
    if place.device == "cuda" and (barred := [method for method in methods if not place.may_capture(method)]):
        raise Mistake(f"the captured step of {barred[0]} is not the eager one here: it is not timed")
    warnings.filterwarnings("error", message=".* cannot be captured and stays eager")
    return place.device


@dataclass(frozen=True)
class Floor(Steps):
    side: PositiveInt
    copied: PositiveInt


@case(Floor, place=True)
def floor(params: Floor, seed: int, place: Place):
    yield from kept(place, {"seed": seed}, lambda folder: _floor(params, seed, _trusted(place, params.methods)))


def _floor(params: Floor, seed: int, device: str):
    """Steps, what they must do, and how fast the device does such things, all in the same round."""
    yield from _round(params, seed, device)
    for method in params.methods:
        row = {"method": method, "step": 1}
        yield row | {"metric": "operations", "value": operations(params, method, device)}
        for precision in params.precisions:
            yield row | {"precision": precision, "metric": "bytes", "value": bytes_moved(params, method, precision)}
    row = {"step": REPEATS}
    yield row | {"metric": "bytes a second", "value": _bytes_per_second(params.copied * 2**20, device)}
    for precision in params.precisions:
        rate = _operations_per_second(params.side, PRECISIONS[precision], device)
        yield row | {"precision": precision, "metric": "operations a second", "value": rate}


@cache
def operations(params: Floor, method: str, device: str) -> int:
    """Multiplications and additions of all convolutions and matrix products of a step, as torch counts them. For both
    methods whose bytes are counted it is the least possible."""
    model = params.start(device)
    step = step_of(method, EAGER, METHODS[method].optimizer(model, params.lr, params), model)
    images, y = params.noise(params.batch, device)
    x = prepare(images, None)
    with FLOAT32.active(), FlopCounterMode(display=False) as counter:
        step(x, y)
    return counter.get_total_flops()


def bytes_moved(params: Network, method: str, precision: str) -> int:
    """The least that a step moves through memory if it computes nothing twice:

        2 a A b + 2 p 4 n + 4 |x|

    A numbers in the outputs of convolutions and linear layers over the batch, b bytes each (norms, sums and rectifiers may be
    fused with those), a tensors of that size; n parameters, p tensors of that size; each tensor written once and read once. The
    images x are read once.
    """
    activation, parameter = NUMBERS_OF_A_RULE[method]
    model, counts = params.start("cpu").eval(), []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, given, output: counts.append(output.numel()))
    with torch.no_grad():
        model(torch.zeros(1, *SHAPE))
    n = sum(p.numel() for p in model.parameters())
    images = params.batch * math.prod(SHAPE)
    return 2 * activation * params.batch * sum(counts) * BYTES[precision] + 2 * parameter * 4 * n + 4 * images


def _operations_per_second(side: int, precision: Precision, device: str) -> float:
    """Of a product of two square matrices of random numbers."""
    source = torch.Generator(device).manual_seed(0)
    a, b = torch.randn(2, side, side, generator=source, device=device).to(torch.bfloat16 if precision.bf16 else torch.float32)
    return _rate(2 * side**3, lambda: a @ b, precision, device)


def _bytes_per_second(size: int, device: str) -> float:
    """Of a copy of `size` bytes, which are read and written."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device, generator=torch.Generator(device).manual_seed(0))
    target = torch.empty_like(source)
    return _rate(2 * size, lambda: target.copy_(source), FLOAT32, device)


def _rate(amount: int, work: Callable[[], object], precision: Precision, device: str) -> float:
    """Of `amount`, what `work` does, a second; not of its first time, in which libraries choose their algorithms."""
    timed = Timed(work, precision, None)
    timed.milliseconds(1, device)
    return 1e3 * amount / timed.milliseconds(REPEATS, device)


@dataclass(frozen=True)
class Epochs(Network):
    lr: Positive
    images: PositiveInt
    readers: Count
    methods: tuple[one_of(*METHODS), ...]
    precisions: tuple[one_of(*PRECISIONS), ...]
    usual: tuple[one_of(*USUAL), ...]


@case(Epochs, place=True)
def epochs(params: Epochs, seed: int, place: Place):
    yield from kept(place, {"seed": seed}, lambda folder: _epoch_of_each(params, seed, _trusted(place, params.methods)))


def _epoch_of_each(params: Epochs, seed: int, device: str):
    ready = list(_loops(params, device).items())
    for i in np.random.default_rng(seed).permutation(len(ready)):
        (loop, method, precision), seconds = ready[i]
        row = {"loop": loop, "method": method, "precision": precision, "step": params.images}
        yield row | {"metric": "images a second", "value": params.images / next(seconds)}


@cache
def _loops(params: Epochs, device: str) -> dict[tuple[str, str, str], Iterator[float]]:
    """Seconds of one epoch after another, of each loop, warmed up. Kept from round to round."""
    _release()
    found = {}
    for method, precision in product(params.methods, params.precisions):
        found[ON_DEVICE, method, precision] = _own_epochs(params, method, precision, device)
    for method in params.usual:
        model = with_layers_of_torch(params.start("cpu"), *DERIVED).to(device)
        optimizer = usual_optimizer(method, params.lr, params.momentum, model)
        pictures = Pictures(*params.noise(params.images, "cpu"))
        found[USUAL_LOOP, method, "as torch does"] = usual_epochs(
            optimizer, model, pictures, params.batch, params.readers, device
        )
    return found


def _own_epochs(params, method: str, precision: str, device: str) -> Iterator[float]:
    """Seconds of one epoch's training after another, as cifar10 trains; without the first, in which steps are captured."""
    model = params.start(device)
    optimizer = METHODS[method].optimizer(model, params.lr, params)
    made = Run(
        model,
        optimizer,
        params.noise(params.images, device),
        params.noise(params.batch, device),
        epochs=EPOCHS,
        batch_size=params.batch,
        seed=0,
        prepare=prepare,
        make_step=METHODS[method].make_step,
        cost=METHODS[method].cost(optimizer),
        precision=PRECISIONS[precision],
    )
    rows = train(made)
    before = next(rows)["seconds"]
    for row in rows:
        yield row["seconds"] - before
        before = row["seconds"]


@dataclass(frozen=True)
class Concurrent(Network):
    lr: Positive
    images: PositiveInt
    rounds: PositiveInt
    precision: one_of(*PRECISIONS)
    methods: tuple[one_of(*METHODS), ...]
    processes: tuple[PositiveInt, ...]


@case(Concurrent, place=True)
def concurrent(params: Concurrent, seed: int, place: Place):
    for count in params.processes:
        cell = {"seed": seed, "processes": count}
        yield from kept(place, cell, lambda folder, count=count: _together(params, count, place.device))


def _together(params: Concurrent, count: int, device: str):
    """Images a second of `count` processes in all, by the slowest of them; they begin every epoch together."""
    _release()
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, context, torch.set_num_threads, (1,)) as pool:
        barrier = manager.Barrier(count, timeout=LONGEST_WAIT)
        found = [process.result() for process in [pool.submit(_one_of_them, params, device, barrier) for _ in range(count)]]
    for method, seconds in zip(params.methods, zip(*found, strict=True), strict=True):
        for step, slowest in enumerate(np.max(seconds, axis=0), 1):
            row = {"method": method, "processes": count, "step": step, "metric": "images a second"}
            yield row | {"value": count * params.images / slowest}


def _one_of_them(params: Concurrent, device: str, barrier) -> list[list[float]]:
    """Seconds of each epoch of each method, in a process of its own."""
    found = []
    try:
        for method in params.methods:
            epochs = _own_epochs(params, method, params.precision, device)
            found.append([])
            for _ in range(params.rounds):
                barrier.wait()
                found[-1].append(next(epochs))
    except BaseException:
        barrier.abort()  # or the others would wait for this one
        raise
    return found
