"""A training run: its state, and the loop that carries it from one epoch to the next.

    run = Run(model, AdaHessian(model.parameters()), (x, y), (x_test, y_test), epochs=160, batch_size=256, seed=100)
    for row in train(run, Checkpoints(folder)):
        print(row["epoch"], row["test_accuracy"])

All data are tensors on the model's device. A batch is x[i], y[i] for the next indices i of a random permutation, which is drawn
anew for every epoch. Every epoch sees every example once, so its last batch may be smaller than the others.

The `rules` act after an epoch, in their order and before the network is judged; see `rules`.

Row of an epoch (from 1), every value a number:
    lr                      of the first group, in this epoch
    train_loss              mean over the epoch's examples, each in training mode and before the update that it took part in
    test_loss               mean over the test examples after the epoch, in eval mode
    test_accuracy           share of them whose largest output is the label; nan where labels are not whole numbers
    gradients, products     work so far, in passes over a batch: gradients (with those of estimates), Hessian-vector products
    gradient_equivalents    the same as one number: gradients + 2 products, by the count of matrix products
    seconds                 that its training has taken: steps, with the preparation of their batches, and rules. Evaluation and
                            checkpoints are left out. Where other runs train at the same time, the seconds are shared
    diverged                1 from the epoch in which the loss was not finite

A run that diverges ends and does not raise. Its rows go on to the last epoch, with diverged = 1 and nan in every column but the
epoch, so that no mean or count loses it unnoticed. `run.diverged` says at which step it was.

A run that resumes from a checkpoint on a CPU gives the same bits as one that was never stopped, except for `seconds`. A model
that draws from torch's global generator, as dropout does, gives others, because that generator's state is not the run's.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler

from secondlook.arguments import COUNT
from secondlook.curvature.objective import Cost
from secondlook.errors import Diverged
from secondlook.training.checkpoint import Checkpoints
from secondlook.training.precision import FLOAT32, Precision
from secondlook.training.rules import Rule
from secondlook.training.steps import Criterion, Step, eager_step, estimates, price
from secondlook.training.streams import generator

Data = tuple[Tensor, Tensor]  # x (N, ...), y (N, ...)
Prepare = Callable[[Tensor, torch.Generator | None], Tensor]

ROW = ("epoch", "lr", "train_loss", "test_loss", "test_accuracy", "gradients", "products", "gradient_equivalents")
ROW += ("seconds", "diverged")
EVALUATED = 1000  # examples at a time: large, as no graph is kept


def as_is(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """The batch unchanged."""
    return x


class Run:
    """One network in training.

    Arguments:
        model, optimizer    the optimiser holds the model's parameters; its generator, if it has one, is seeded with `seed`
        train, test         pairs (x, y) of tensors
        epochs, batch_size  how long, and how many examples to a step
        seed                of the order, the augmentation and the probes; see `streams`
        schedule            a scheduler of torch for `optimizer`, advanced once after each epoch
        prepare             (x, generator) -> what the model takes; `generator` for augmentation, None in evaluation
        criterion           mean loss over a batch
        make_step           (optimizer, model, criterion) -> step; see `steps`
        precision           see `Precision`
        cost                of one estimate of curvature; by default `price(optimizer)`
        rules               see `rules`; what they change is in checkpoints, and their settings are the caller's to tell apart
        held_out            pair (x, y) for rules that ask for a loss

    `rows` has those of the epochs done; `diverged` says how the run ended, or is None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        train: Data,
        test: Data,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        schedule: LRScheduler | None = None,
        prepare: Prepare = as_is,
        criterion: Criterion = functional.cross_entropy,
        make_step: Callable[[torch.optim.Optimizer, nn.Module, Criterion], Step] = eager_step,
        precision: Precision = FLOAT32,
        cost: Cost | None = None,
        rules: Sequence[Rule] = (),
        held_out: Data | None = None,
    ):
        given = {"train": train, "test": test} | ({"held_out": held_out} if held_out else {})
        for name, (x, y) in given.items():
            if len(x) != len(y) or not len(x):
                raise ValueError(f"{name} must be two tensors of one length above zero, got {len(x)} and {len(y)} examples")
        COUNT.check(epochs=epochs, batch_size=batch_size)
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.train, self.test, self.held_out = train, test, held_out
        self.rules = list(rules)
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.prepare, self.criterion, self.precision = prepare, criterion, precision
        self.cost = price(optimizer) if cost is None else cost
        self.forward = precision.model(model)
        self.step = make_step(optimizer, self.forward, criterion)
        self.settings = self._settings()

        device = train[0].device
        self.order = generator(seed, "order")  # on the CPU, so that every device sees the same order
        self.augmentation = generator(seed, "augmentation", device)
        if isinstance(probes := getattr(optimizer, "generator", None), torch.Generator):
            probes.manual_seed(generator(seed, "probes").initial_seed())

        self.batches = math.ceil(len(train[0]) / batch_size)  # of an epoch
        self.batch = 0  # done of this epoch
        self.permutation = torch.empty(0, dtype=torch.long)  # of this epoch, on the CPU
        self.indices: Tensor | None = None  # the same on the device
        self.losses = torch.zeros(self.batches, dtype=torch.float64, device=device)  # of this epoch's batches
        self.seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self.diverged: str | None = None

    def _settings(self) -> dict[str, str]:
        """What makes this run this run, as far as it can be seen from here."""
        names = ("epochs", "batch_size", "seed", "precision")
        own = {name: getattr(self, name) for name in names} | {"optimizer": type(self.optimizer).__name__}
        own |= {"schedule": self.schedule and (type(self.schedule).__name__, _without_rates(self.schedule.state_dict()))}
        own |= {"examples": (len(self.train[0]), len(self.test[0]))}
        own |= {"rules": [type(rule).__name__ for rule in self.rules]}
        return {name: repr(value) for name, value in (own | self.optimizer.defaults).items()}

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict:
        """All that the rest of the run depends on."""
        return {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),  # with its generator
            "schedule": self.schedule and self.schedule.state_dict(),
            "rules": [rule.state_dict() for rule in self.rules],
            "order": self.order.get_state(),
            "augmentation": self.augmentation.get_state(),
            "permutation": self.permutation,
            "losses": self.losses,
            **{name: getattr(self, name) for name in ("batch", "seconds", "rows", "diverged")},
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`, of a run that was built in the same way."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        for rule, kept in zip(self.rules, state["rules"], strict=True):
            rule.load_state_dict(kept)
        self.order.set_state(state["order"])
        self.augmentation.set_state(state["augmentation"])
        self.permutation, self.indices = state["permutation"], None
        self.losses.copy_(state["losses"])
        for name in ("batch", "seconds", "rows", "diverged"):
            setattr(self, name, state[name])

    def advance(self, steps: int) -> None:
        """Take the next `steps` steps of this epoch, or as many as are left, and end the epoch after its last.

        On a GPU losses are read at the end of an epoch alone, as reading waits for the device; it is there that a run is found
        to have diverged.
        """
        start = time.perf_counter()
        if self.batch == 0:
            self.permutation, self.indices = torch.randperm(len(self.train[0]), generator=self.order), None
        first = self.batch
        self.model.train()
        with self.precision.active():
            for chosen in self._chosen(steps):
                x, y = (data[chosen] for data in self.train)
                x = self.precision.batch(self.prepare(x, self.augmentation))
                try:
                    self.losses[self.batch] = self.step(x, y)
                except torch.linalg.LinAlgError:  # a curvature that has no inverse, which is how some optimisers diverge
                    self.losses[self.batch] = math.nan
                self.batch += 1
        if self.losses.is_cuda:
            first = 0 if self.batch == self.batches else self.batch
        losses = self.losses[first : self.batch].tolist()
        self.seconds += time.perf_counter() - start
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            self._diverge(f"loss {losses[bad]} at step {len(self.rows) * self.batches + first + bad + 1}")
        elif self.batch == self.batches:
            self._end_epoch()

    def _chosen(self, steps: int) -> Sequence[Tensor]:
        """Indices of the next batches of this epoch."""
        if self.indices is None:
            self.indices = self.permutation.to(self.train[0].device)  # once an epoch: the copy waits for the device
        first = self.batch * self.batch_size
        return self.indices[first : first + steps * self.batch_size].split(self.batch_size)

    def _end_epoch(self) -> None:
        """Let the rules act, evaluate, add the epoch's row, and move on."""
        row = {"epoch": len(self.rows) + 1, "lr": self.lr, "train_loss": self._train_loss()}
        self._apply_rules(row["train_loss"])
        row["test_loss"], row["test_accuracy"] = evaluate(self, self.test)
        steps = row["epoch"] * self.batches
        if not math.isfinite(row["test_loss"]):
            self._diverge(f"test loss {row['test_loss']} after step {steps}")
            return
        spent = self._spent(steps)
        row |= {"gradients": spent.gradients, "products": spent.products, "gradient_equivalents": spent.in_gradients}
        self.rows.append(row | {"seconds": self.seconds, "diverged": 0})
        self.batch = 0
        if self.schedule:
            self.schedule.step()

    def _apply_rules(self, train_loss: float) -> None:
        start = time.perf_counter()
        for rule in self.rules:
            rule.after_epoch(train_loss, self._held_out_loss)
        self.seconds += time.perf_counter() - start

    def _held_out_loss(self) -> float:
        if self.held_out is None:
            raise ValueError("a rule asks for a loss: held_out must be given")
        return evaluate(self, self.held_out)[0]

    def _train_loss(self) -> float:
        sizes = torch.full((self.batches,), self.batch_size, dtype=torch.float64)
        sizes[-1] = len(self.train[0]) - self.batch_size * (self.batches - 1)
        return float(self.losses.cpu() @ sizes / sizes.sum())

    def _spent(self, steps: int) -> Cost:
        drawn = estimates(self.optimizer)
        return Cost(steps + drawn * self.cost.gradients, drawn * self.cost.products)

    def _diverge(self, what: str) -> None:
        """Say what happened, and give this epoch and all that would have followed their rows."""
        self.diverged = f"non-finite {what} ({type(self.optimizer).__name__}, lr {self.lr:g}, seed {self.seed})"
        warnings.warn(self.diverged, Diverged, stacklevel=2)
        unknown = {name: math.nan for name in ROW}
        first = len(self.rows) + 1
        self.rows += [unknown | {"epoch": epoch, "diverged": 1} for epoch in range(first, self.epochs + 1)]


def _without_rates(schedule: object) -> object:
    """A schedule's state, and those of the schedules in it, without the rates that it has from the optimiser."""
    if isinstance(schedule, list):
        return [_without_rates(part) for part in schedule]
    if isinstance(schedule, dict):
        return {name: _without_rates(part) for name, part in schedule.items() if name not in ("base_lrs", "_last_lr")}
    return schedule


@torch.no_grad()
def evaluate(run: Run, data: Data) -> tuple[float, float]:
    """Mean loss over `data` and accuracy there, nan where labels are not whole numbers, of the model as it is, in eval mode."""
    loss = right = 0.0
    run.model.eval()
    with run.precision.active():
        for x, y in zip(*(part.split(EVALUATED) for part in data), strict=True):
            outputs = run.forward(run.precision.batch(run.prepare(x, None)))
            loss += len(x) * run.criterion(outputs, y).double()
            right += math.nan if y.is_floating_point() else len(x) * (outputs.argmax(dim=1) == y).double().mean()
    examples = len(data[0])
    return float(loss) / examples, float(right) / examples


def train(run: Run, checkpoints: Checkpoints | None = None, turns: bool = False) -> Iterator[dict[str, float] | None]:
    """The rows of `run`, epoch by epoch to the last; those of a run that is already on disk come first. With `turns`, None
    after every step: see `take_turns`.

    Raises OutOfTime at the checkpoints' deadline, and Mistake where they are of another run or cannot be written.
    """
    if checkpoints and (state := checkpoints.load(run.settings)):
        run.load_state_dict(state)
    yield from run.rows
    stride = run.batches if run.losses.is_cuda and not turns else 1
    while (given := len(run.rows)) < run.epochs:
        run.advance(stride)
        if checkpoints and len(run.rows) == run.epochs:
            checkpoints.save(run.state_dict())
        elif checkpoints:
            checkpoints.look(run.state_dict, f"after {len(run.rows)} of {run.epochs} epochs")
        yield from run.rows[given:]
        if turns:
            yield None
