r"""Rules that act between two epochs, beside any optimiser and schedule.

    rules = [AdaptiveRate(optimizer), EVE(model.parameters())]
    run = Run(model, optimizer, ..., rules=rules, held_out=(x, y))

or, in a loop of one's own, after each epoch,

    for rule in rules:
        rule.after_epoch(train_loss, evaluate)      # evaluate() -> the loss on a held-out slice, at theta as it is

With s_e = theta at the end of epoch e minus theta at the end of epoch e-1, and L_e the training loss of epoch e:

    AdaptiveRate    lr <- lr (1 + c cos(s_e, s_{e-1}))                                        c = 0.05, or 0.15
    CarefulRate     lr <- factor lr  where  L_e > (1 + rise) L_{e-1}                          factor = 0.8, rise = 0.02
    EVE             theta <- theta + a s_e,  a = argmin over {0, 0.5, 1, 2, 4, 8} of the held-out loss
        on the slides, with search=Walk():   theta <- theta + 0.1 s_e, again and again while the held-out loss falls

Source: the document instrumenting-adam and the settings of its runs. Rules compose: each sees what those before it left.

A changed rate lasts under any schedule of torch: the rate of every group is scaled and, where a schedule is given, its base
rates with it, from which some schedules (LambdaLR) set the rate anew.

Cost: AdaptiveRate 2 n numbers; CarefulRate nothing, with a roll-back a copy of model and optimiser; EVE n numbers and six
held-out losses an epoch, one for each a, or with Walk two more than it takes strides.

Deviations from the published rules
    CarefulRate     a loss that is not finite counts as a rise, where a plain comparison would let nan pass.
    EVE             a held-out loss that is not finite is never chosen.
    Walk            ends after MOST_STRIDES strides; the published loop has no end where the loss keeps falling.

Defects of the published rules, which are kept
    AdaptiveRate    far from a minimum neighbours' cosines are positive whatever the rate, so that it grows without bound, by up
                    to a factor 1 + c an epoch; in the noise around a minimum it shrinks, also where it is small already.
    CarefulRate     compares with the epoch before alone: any rise that is slow enough passes, and after a jump the bad loss is
                    the new measure. Without a roll-back the bad step stays.
    EVE             the optimiser's means m and v stay those of the place that was left. The slice that chooses a is no
                    longer a fair measure of the loss. Buffers, such as those of batch norm, do not move with theta.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from secondlook.arguments import BETA, BETWEEN, NOT_NEGATIVE, POSITIVE
from secondlook.curvature.vectors import flat, split

Evaluate = Callable[[], float]

MOST_STRIDES = 1000


class Rule:
    """Something to do at the end of an epoch; `evaluate()` is the loss on a held-out slice, which a rule may not need."""

    STATE: tuple[str, ...]  # fields on which the rest of a run depends
    params: list[Tensor]

    def after_epoch(self, train_loss: float, evaluate: Evaluate) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict) -> None:
        for name in self.STATE:
            value = state[name]
            setattr(self, name, value.to(self.params[0].device) if isinstance(value, Tensor) else value)


def scale_rate(optimizer: Optimizer, factor: float, schedule: LRScheduler | None = None) -> None:
    """Multiply the rate of every group by `factor`, for good: also the base rates of `schedule` and of those inside it."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    for part in _parts(schedule):
        part.base_lrs = [lr * factor for lr in part.base_lrs]


def _parts(schedule: LRScheduler | None) -> list[LRScheduler]:
    """The schedules of one rate each in `schedule`, itself or, of a SequentialLR or ChainedScheduler, those inside it."""
    if schedule is None:
        return []
    inside = getattr(schedule, "_schedulers", None)
    return [schedule] if inside is None else [part for given in inside for part in _parts(given)]


class AdaptiveRate(Rule):
    """lr <- lr (1 + c cos(s_e, s_{e-1})), from the second epoch on; an epoch that does not move leaves the rate alone.

    Arguments:
        optimizer, schedule     whose rate it is
        c                       in [0, 1); 0.15 in the document's main run
    """

    STATE = ("end", "step")

    def __init__(self, optimizer: Optimizer, schedule: LRScheduler | None = None, c: float = 0.05):
        BETA.check(c=c)
        self.optimizer, self.schedule, self.c = optimizer, schedule, c
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.end = _values(self.params)  # of the epoch before
        self.step: Tensor | None = None

    def after_epoch(self, train_loss: float, evaluate: Evaluate) -> None:
        end = _values(self.params)
        step, before = end - self.end, self.step
        self.end, self.step = end, step
        cosine = math.nan if before is None else (step @ before / (step.norm() * before.norm())).item()
        if math.isfinite(cosine):
            scale_rate(self.optimizer, 1 + self.c * cosine, self.schedule)


class CarefulRate(Rule):
    """lr <- factor lr where the epoch's training loss is more than (1 + rise) times that of the epoch before.

    Arguments:
        optimizer, schedule     whose rate it is
        rise, factor            the document also tried 0.05 and 0.7
        model                   given, a rise also takes the model (parameters and buffers) and the state of the optimiser back,
                                bit for bit, to the last epoch that did not rise; the loss to compare with stays that epoch's

    `cuts` counts the epochs that rose.
    """

    STATE = ("last", "kept", "cuts")

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: LRScheduler | None = None,
        rise: float = 0.02,
        factor: float = 0.8,
        model: nn.Module | None = None,
    ):
        NOT_NEGATIVE.check(rise=rise)
        BETWEEN.check(factor=factor)
        self.optimizer, self.schedule, self.rise, self.factor, self.model = optimizer, schedule, rise, factor, model
        self.last = math.inf  # the loss to compare with
        self.cuts = 0
        self.kept = self._state()

    def after_epoch(self, train_loss: float, evaluate: Evaluate) -> None:
        rose = not train_loss <= (1 + self.rise) * self.last
        if rose:
            self._go_back()
            scale_rate(self.optimizer, self.factor, self.schedule)
            self.cuts += 1
        if not rose or self.kept is None:
            self.last = train_loss if math.isfinite(train_loss) else self.last
            self.kept = self._state()

    def _state(self) -> dict | None:
        if self.model is None:
            return None
        return copy.deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})

    def _go_back(self) -> None:
        """To what was kept, but for the rates, which cuts since then and the schedule have moved on."""
        if self.model is None or self.kept is None:
            return
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.model.load_state_dict(self.kept["model"])
        self.optimizer.load_state_dict(copy.deepcopy(self.kept["optimizer"]))
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr


@dataclass(frozen=True)
class Among:
    """The a of `multiples` with the least loss, the first of equals; 0 where no loss is finite."""

    multiples: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)

    def __post_init__(self) -> None:
        if 0 not in self.multiples:
            raise ValueError(f"multiples must contain 0, the end of the epoch, got {self.multiples!r}")

    def __call__(self, loss_at: Callable[[float], float]) -> float:
        losses = [loss_at(a) for a in self.multiples]
        best = min(losses)
        return self.multiples[losses.index(best)] if best < math.inf else 0.0


@dataclass(frozen=True)
class Walk:
    """a = stride, 2 stride, ... while the loss falls: the last a at which it did."""

    stride: float = 0.1

    def __post_init__(self) -> None:
        POSITIVE.check(stride=self.stride)

    def __call__(self, loss_at: Callable[[float], float]) -> float:
        loss = loss_at(0.0)
        for strides in range(MOST_STRIDES):
            ahead = loss_at((strides + 1) * self.stride)
            if not ahead < loss:
                return strides * self.stride
            loss = ahead
        return MOST_STRIDES * self.stride


class EVE(Rule):
    """theta <- theta + a s_e, with the a that `search` finds: `Among()` six multiples, or on the slides `Walk()`.

    s_e is measured from where the rule left theta after the epoch before. `chosen` has the a of every epoch, and `evaluations`
    counts held-out losses.
    """

    STATE = ("start", "chosen", "evaluations")

    def __init__(self, params: Iterable[Tensor], search: Callable[[Callable[[float], float]], float] | None = None):
        self.params = list(params)
        self.search = Among() if search is None else search
        self.start = _values(self.params)
        self.chosen: list[float] = []
        self.evaluations = 0

    def after_epoch(self, train_loss: float, evaluate: Evaluate) -> None:
        end = _values(self.params)
        step = end - self.start

        def loss_at(a: float) -> float:
            _move(self.params, end, a, step)
            self.evaluations += 1
            loss = evaluate()
            return loss if math.isfinite(loss) else math.inf

        a = self.search(loss_at)
        _move(self.params, end, a, step)
        self.start = _values(self.params)
        self.chosen.append(a)


def _values(params: list[Tensor]) -> Tensor:
    return flat([p.detach() for p in params]).clone()


@torch.no_grad()
def _move(params: list[Tensor], end: Tensor, a: float, step: Tensor) -> None:
    """theta = end + a step; for a = 0 bit for bit `end`, also where the step is not finite."""
    theta = end + a * step if a else end
    for p, value in zip(params, split(theta, params), strict=True):
        p.copy_(value)
