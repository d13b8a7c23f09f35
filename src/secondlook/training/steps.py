"""One training step of any optimiser, and what its estimates of curvature cost.

A step is a function `step(x, y) -> loss` on one batch: it takes the gradient, the curvature where it is due, and the update.
The loss is a tensor without a graph, taken before the update. `eager_step` makes a step of single operations, `captured_step`
one that a GPU replays, and `optim.compiled_step` one that is compiled. They take the same arguments and can stand for each
other.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secondlook.curvature.objective import Cost
from secondlook.optim.base import Checked, SecondOrder

Criterion = Callable[[Tensor, Tensor], Tensor]  # (outputs (B, ...), y (B, ...)) -> scalar, a mean over the B examples
Step = Callable[[Tensor, Tensor], Tensor]
Differentiate = Callable[[torch.optim.Optimizer, nn.Module, Criterion, Tensor, Tensor], Tensor]  # -> loss, without a graph

WARM_UP = 3  # steps before one is captured: libraries choose their algorithms in them, and state is made


def differentiate(optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
    """Put into `.grad`, and into the optimiser, all that its step needs."""
    optimizer.zero_grad()
    outputs = model(x)
    loss = criterion(outputs, y)
    if isinstance(optimizer, Checked):
        optimizer.differentiate(loss, outputs)
    else:
        loss.backward()
    return loss.detach()


def eager_step(
    optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion, differentiate: Differentiate = differentiate
) -> Step:
    """The step of `optimizer` on criterion(model(x), y), operation by operation."""

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = differentiate(optimizer, model, criterion, x, y)
        optimizer.step()
        return loss

    return step


def captured_step(
    optimizer: torch.optim.Optimizer, model: nn.Module, criterion: Criterion, differentiate: Differentiate = differentiate
) -> Step:
    """As `eager_step` for a model on a GPU, with all that comes before the update replayed as one CUDA graph.

    A small network's step is hundreds of kernels that the GPU finishes sooner than the host can start them; a replay starts
    all of them at once. The update stays eager: a few kernels, whose numbers (rate, step count) change from step to step.
    There is a graph for every shape of a batch, with and without curvature, each captured after three eager steps of its kind;
    its buffers stay allocated. A batch smaller than the largest so far, such as an epoch's last, stays eager. The operations
    are those of the eager step, and so are probes and numbers, but for the algorithms that libraries choose. The loss returned
    is overwritten by the next step. Where a capture fails, a warning says why, and all is eager from there on.

    Raises ValueError for parameters or a generator that are not on a GPU, for K-FAC, whose hooks a replay does not call, and
    for a data-parallel optimiser, whose curvature it would not average.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    devices = {p.device.type for p in params}
    if isinstance(optimizer, SecondOrder):
        devices.add(optimizer.generator.device.type)
    if getattr(optimizer, "HOOKED", False) or devices != {"cuda"}:
        raise ValueError("optimizer must not be K-FAC and must have parameters and generator on a GPU, to be captured")
    if getattr(optimizer, "replicas", None) is not None:
        raise ValueError("optimizer must not be data-parallel to be captured")
    side = torch.cuda.Stream()

    def eager(x: Tensor, y: Tensor) -> Tensor:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # a capture must find nothing on the default stream
            loss = differentiate(optimizer, model, criterion, x, y)
        torch.cuda.current_stream().wait_stream(side)
        return loss

    def capture(x: Tensor, y: Tensor) -> Captured:
        return Captured.of(optimizer, x, y, lambda x, y: differentiate(optimizer, model, criterion, x, y), side)

    return replaying(optimizer, eager, capture)


def replaying(optimizer: torch.optim.Optimizer, eager: Step, capture: Callable[[Tensor, Tensor], "Captured"]) -> Step:
    """The step that computes with `eager`, and from the fourth of a kind on by replays of what `capture` made of that kind.

    Once a capture has failed, all is eager: the optimiser has other probes than what was captured before.
    """
    captured: dict[object, Captured] = {}
    seen: Counter[object] = Counter()
    largest: float = 0

    def step(x: Tensor, y: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(x))
        kind = (x.shape, x.dtype, due(optimizer))
        if kind not in captured and seen[kind] == WARM_UP and len(x) == largest:
            captured[kind] = attempted(optimizer, lambda: capture(x, y))
            largest = len(x) if captured[kind] else math.inf
        if len(x) == largest and kind in captured:
            loss = captured[kind].replay(optimizer, x, y)
        else:
            seen[kind] = min(seen[kind] + 1, WARM_UP)
            loss = eager(x, y)
        optimizer.step()
        return loss

    return step


def attempted(optimizer: torch.optim.Optimizer, capture: Callable[[], "Captured"]) -> "Captured | None":
    """What `capture` makes; None, with a warning, where it fails: stream and probes are then as they were."""
    stream = torch.cuda.current_stream()
    probes = optimizer.generator.clone_state() if isinstance(optimizer, SecondOrder) else None
    try:
        return capture()
    except RuntimeError as error:
        torch.cuda.set_stream(stream)
        optimizer.zero_grad()
        if isinstance(optimizer, SecondOrder) and probes is not None:
            optimizer.generator = probes  # its predecessor waits for a replay that will not come
        why = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"a step of {type(optimizer).__name__} cannot be captured and stays eager: {why}", stacklevel=3)
        return None


@dataclass(frozen=True)
class Captured:
    """A graph that reads `x` and `y` and writes the other tensors, always in the same places."""

    graph: "torch.cuda.CUDAGraph"
    x: Tensor
    y: Tensor
    loss: Tensor
    gradients: dict[Tensor, Tensor]
    curvature: dict[Tensor, Tensor] | None

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, compute: Step, side: torch.cuda.Stream) -> "Captured":
        """Of `compute`, on the stream `side`, the optimiser's gradients and curvature included. Nothing is computed yet."""
        x, y = x.clone(), y.clone()
        graph = torch.cuda.CUDAGraph()
        if isinstance(optimizer, SecondOrder):
            graph.register_generator_state(optimizer.generator)  # each replay draws the numbers that come next
        optimizer.zero_grad()
        with torch.cuda.graph(graph, stream=side):
            loss = compute(x, y)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = {p: p.grad for p in params if p.grad is not None}
        return cls(graph, x, y, loss, gradients, optimizer.curvature if isinstance(optimizer, SecondOrder) else None)

    def replay(self, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
        """The loss on (x, y); gradients and curvature are handed to `optimizer`."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        for p, g in self.gradients.items():
            p.grad = g
        if isinstance(optimizer, SecondOrder) and self.curvature is not None:
            optimizer.curvature = dict(self.curvature)
        return self.loss


def due(optimizer: torch.optim.Optimizer) -> tuple[bool, ...]:
    """Of each parameter of an optimiser of second order, whether its curvature is estimated in the next step."""
    if not isinstance(optimizer, SecondOrder):
        return ()
    return tuple(optimizer.due(p, group) for group in optimizer.param_groups for p in group["params"] if p.requires_grad)


def price(optimizer: torch.optim.Optimizer) -> Cost:
    """What one estimate of curvature costs beside the step's gradient, in passes over the batch.

    Raises ValueError where that depends on more than the optimiser and its estimator.
    """
    if not isinstance(optimizer, Checked):
        return Cost()
    try:
        return optimizer.price
    except ValueError as error:
        raise ValueError(f"price must be given: {error}") from None


def estimates(optimizer: torch.optim.Optimizer) -> int:
    """How many estimates of curvature the optimiser has had."""
    return optimizer.estimates if isinstance(optimizer, Checked) else 0
