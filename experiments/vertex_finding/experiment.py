"""Do the document's learning-rate rules help, against Adam at the same rate and against Adam at its best constant rate?

Claim     instrumenting-adam, on the networks AllCNN and DDplus that find vertices of proton collisions: an adaptive rate takes
          AllCNN from a loss of 3.860 to 3.282 in 200 epochs, a careful one DDplus from 9.92 to 3.685, EVE DDplus from 10.05 to
          9.47; one run each. The adaptive rate rose from 1.5e-5 to 5.7e-5: the control that is missing is a larger constant
          rate. Here every rule is tried from a small rate and from its own tuned one, beside Adam at both, on four networks.
Data      a generated toy in place of the document's events, which are not public, and handwritten digits.
Cases     rates (all trials by which rates are chosen), rules (all rules and their variants, a few seeds), vertices and digits
          (three rules on as many fresh seeds as the comparisons ask for, also from rates that are too large, and instruments on
          Adam), paths (more instruments, one seed), steady (do second-order steps point more steadily?).
Hardware  one CPU core; an hour and a quarter in all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from secondlook.optim import Newton
from secondlook.study.cells import kept
from secondlook.study.declare import case
from secondlook.study.parameters import Fraction, Positive, PositiveInt, one_of
from secondlook.study.place import Place
from secondlook.training import Run, generator, train
from secondlook.training.instruments import Recorder
from secondlook.training.loop import Data, evaluate
from secondlook.training.path import Path
from secondlook.training.steps import Step, eager_step

from .methods import OPTIMISERS, RULES, chosen, cuts, evaluations
from .models import PROBLEMS, Problem, events, perceptron, toy
from .names import TUNED, family

DIGITS = 5  # significant digits of a kept loss or rate


@dataclass(frozen=True)
class Shared:
    bins: PositiveInt
    bin_width: Positive
    vertices: Positive
    tracks: Positive
    background: Fraction
    resolution: tuple[Positive, ...]
    impact: Positive
    far: Positive
    width: Positive
    reach: Positive
    most_tracks: PositiveInt
    first: dict[str, Positive]
    toy_examples: tuple[PositiveInt, ...]
    toy_batch: PositiveInt
    digit_examples: tuple[PositiveInt, ...]
    digit_batch: PositiveInt
    epochs: PositiveInt
    c: Positive
    rise: Positive
    factor: Fraction


def prepared(p: Shared, problem: Problem, judged: Data, rule: str, lr: float, seed: int) -> Run:
    """Adam with `rule` on `problem`, from the rate `lr`."""
    model = problem.network(generator(seed, "start"))
    optimizer = torch.optim.Adam(model.parameters(), lr)
    return Run(
        model,
        optimizer,
        problem.train,
        judged,
        epochs=p.epochs,
        batch_size=problem.batch,
        seed=seed,
        criterion=problem.criterion,
        rules=RULES[rule](optimizer, model, p),
        held_out=problem.held_out,
    )


def rounded(x: float) -> float:
    return float(f"{x:.{DIGITS}g}")


@dataclass(frozen=True)
class Rates(Shared):
    models: tuple[one_of(*PROBLEMS), ...]
    rates: dict[str, tuple[Positive, ...]]


@case(Rates, place=True)
def rates(p: Rates, seed: int, place: Place):
    """The loss on the validation examples after the last epoch, of Adam and of the three rules from every rate."""
    for model in p.models:
        problem = PROBLEMS[model](p, seed)
        for rule in TUNED:
            for lr in p.rates[model]:
                cell = {"model": model, "rule": rule, "lr": lr}
                compute = partial(_trial, p, problem, cell, seed)
                yield from kept(place, cell | {"seed": seed}, compute)


def _trial(p: Rates, problem: Problem, cell: dict, seed: int, _) -> Iterator[dict]:
    run = prepared(p, problem, problem.validation, cell["rule"], cell["lr"], seed)
    untrained, _ = evaluate(run, problem.validation)
    *_, row = train(run)
    found = {"validation loss": untrained if row["diverged"] else row["test_loss"], "diverged": row["diverged"]}
    for metric, value in found.items():
        yield {**cell, "step": p.epochs, "metric": metric, "value": rounded(value)}


@dataclass(frozen=True)
class Starts(Shared):
    models: tuple[one_of(*PROBLEMS), ...]
    small: dict[str, Positive]
    tuned: dict[str, dict[str, Positive]]

    def rate(self, model: str, rule: str, start: str) -> float:
        """The rate of Adam with `rule` at the start."""
        return self.small[model] if start == "small" else self.tuned[model][family(rule)]


@dataclass(frozen=True)
class Rules(Starts):
    rules: dict[str, tuple[one_of(*RULES), ...]]  # from each start


def every(p: Rules, seed: int, place: Place, compute: Callable[..., Iterator[dict]]) -> Iterator[dict]:
    """What `compute` gives of every rule from every start on every network."""
    for model in p.models:
        problem = PROBLEMS[model](p, seed)
        for start, rule in ((start, rule) for start, found in p.rules.items() for rule in found):
            cell, lr = {"model": model, "rule": rule, "start": start}, p.rate(model, rule, start)
            yield from kept(place, cell | {"seed": seed}, partial(compute, p, problem, cell, lr, seed))


def work(run: Run, row: dict) -> float:
    """Gradients of a batch until after the epoch of `row`; a held-out loss is a pass forward, a third of a gradient, over its
    examples."""
    return row["gradient_equivalents"] + len(run.held_out[0]) / run.batch_size / 3 * evaluations(run.rules)


@case(Rules, place=True)
def rules(p: Rules, seed: int, place: Place):
    """Every rule on every network from both starts: see `_compared` for the rows."""
    yield from every(p, seed, place, _compared)


def _compared(p: Rules, problem: Problem, cell: dict, lr: float, seed: int, _) -> Iterator[dict]:
    """By epoch: the test loss, from epoch 0; the rate; with EVE the multiple that it chose and the work so far. Of the last
    epoch: training loss, work and seconds; of the careful rate its cuts."""
    run = prepared(p, problem, problem.test, cell["rule"], lr, seed)
    yield {**cell, "step": 0, "metric": "test_loss", "value": rounded(evaluate(run, problem.test)[0])}
    for row in train(run):
        found = {"test_loss": row["test_loss"], "lr": row["lr"]}
        if not row["diverged"] and (a := chosen(run.rules)) is not None:
            found |= {"chosen": a, "work": work(run, row)}
        if row["epoch"] == p.epochs:
            found |= {"train_loss": row["train_loss"], "work": work(run, row), "seconds": row["seconds"]}
            found |= {"diverged": row["diverged"], "cuts": cuts(run.rules)}
        for metric, value in found.items():
            yield {**cell, "step": row["epoch"], "metric": metric, "value": rounded(value)}


@dataclass(frozen=True)
class Decided(Rules):
    multiples: dict[str, Positive]  # starts that are too large: so many times Adam's tuned rate

    def rate(self, model: str, rule: str, start: str) -> float:
        times = self.multiples.get(start)
        return super().rate(model, rule, start) if times is None else times * self.tuned[model]["Adam"]


@case(Decided, "vertices", "digits", place=True)
def decided(p: Decided, seed: int, place: Place):
    """Adam and the slides' rules from starts that are small, tuned and too large: see `_decided` for the rows."""
    yield from every(p, seed, place, _decided)


def _decided(p: Decided, problem: Problem, cell: dict, lr: float, seed: int, _) -> Iterator[dict]:
    """The test loss after the last epoch, and after the last that ends within the work of as many epochs of Adam; that of the
    network before training where the run diverged. Seconds; cuts of the careful rate. Of Adam from a start that is not too
    large, by epoch: the size of the epoch's step, and its cosine with the one before."""
    run = prepared(p, problem, problem.test, cell["rule"], lr, seed)
    path = Path(run.model.parameters(), size=0)
    untrained, _ = evaluate(run, problem.test)
    within = untrained
    for row in train(run):
        path.record()
        loss = untrained if row["diverged"] else row["test_loss"]
        within = loss if row["diverged"] or work(run, row) <= p.epochs * run.batches else within
    found = {"test loss": loss, "test loss, equal work": within, "diverged": row["diverged"], "seconds": row["seconds"]}
    for metric, value in (found | {"cuts": cuts(run.rules)}).items():
        yield {**cell, "step": p.epochs, "metric": metric, "value": rounded(value)}
    if cell["rule"] == "Adam" and cell["start"] not in p.multiples:
        for metric, values in {"step size": path.norms, "cosine": path.cosines[1:]}.items():
            for epoch, value in enumerate(values.tolist(), p.epochs + 1 - len(values)):
                yield {**cell, "step": epoch, "metric": metric, "value": rounded(value)}


SHOWN = (("Adam", "small"), ("adaptive", "small"), ("Adam", "tuned"), ("EVE", "tuned"))  # runs that the instruments watch
RECORDED = ("step size", "travelled", "displacement", "inner cosine", "cosine")


@dataclass(frozen=True)
class Paths(Starts):
    sketch: PositiveInt


@case(Paths, place=True)
def paths(p: Paths, seed: int, place: Place):
    """What the instruments say of the runs SHOWN, their paths on common principal axes; and of the toy an event."""
    yield from _event(p, seed)
    for model in p.models:
        yield from kept(place, {"model": model, "seed": seed}, partial(_watched, p, model, seed))


def _watched(p: Paths, model: str, seed: int, _) -> Iterator[dict]:
    """Rows of the recorder; the coordinates of the ends of epochs on the two first axes of all paths together, and the axes'
    shares; the prediction of Adam's network for the first event of the test set."""
    problem = PROBLEMS[model](p, seed)
    walked = {}
    for rule, start in SHOWN:
        cell = {"model": model, "rule": rule, "start": start}
        run = prepared(p, problem, problem.test, rule, p.rate(model, rule, start), seed)
        recorder = Recorder(run.optimizer, size=p.sketch)
        for _ in train(run):
            for row in recorder.epoch():
                if row["metric"] in RECORDED:
                    yield {**cell, **row, "value": rounded(row["value"])}
        walked[rule, start] = recorder.epochs.steps.cumsum(0)
        if model in ("AllCNN", "DDplus") and (rule, start) == ("Adam", "tuned"):
            yield from _prediction(p, run, model)
    coordinates, share = principal(list(walked.values()))
    for (rule, start), ends in zip(walked, coordinates, strict=True):
        cell = {"model": model, "rule": rule, "start": start, "metric": "coordinate"}
        for epoch, place in enumerate(ends.tolist()):
            yield from ({**cell, "step": epoch, "at": axis, "value": rounded(x)} for axis, x in enumerate(place, 1))
    for axis, value in enumerate(share.tolist(), 1):
        yield {"model": model, "step": 0, "at": axis, "metric": "share of axis", "value": rounded(value)}


def principal(paths: list[Tensor], axes: int = 2) -> tuple[list[Tensor], Tensor]:
    """Paths from a common start, each (T, k) as places beside it: their points (T + 1, axes), the start first, on the first
    principal axes of all points, and the axes' shares (axes,)."""
    points = [torch.cat([path.new_zeros(1, path.shape[1]), path]) for path in paths]
    middle = torch.cat(points).mean(0)
    _, sigma, V = torch.linalg.svd(torch.cat(points) - middle, full_matrices=False)
    return [(part - middle) @ V[:axes].T for part in points], (sigma**2 / (sigma**2).sum())[:axes]


def _event(p: Shared, seed: int) -> Iterator[dict]:
    """The first event of the test set: density and target by z, vertices, and z, sigma and origin of the tracks."""
    first, drawn = sum(p.toy_examples[:3]), events(p, seed)
    for metric, values in {"density": drawn.density, "target": drawn.target}.items():
        for z, value in zip(toy(p).middles.tolist(), values[first].tolist(), strict=True):
            yield {"step": 0, "at": rounded(z), "metric": metric, "value": rounded(value)}
    for i, z in enumerate(drawn.vertices[first][~drawn.vertices[first].isnan()].tolist()):
        yield {"step": 0, "at": i, "metric": "vertex", "value": rounded(z)}
    there = drawn.mask[first]
    columns = {
        "track z": drawn.tracks[first][:, 0],
        "track sigma": drawn.tracks[first][:, 1],
        "track vertex": drawn.vertex[first],
    }
    for metric, values in columns.items():
        for i, value in enumerate(values[there].tolist()):
            yield {"step": 0, "at": i, "metric": metric, "value": rounded(value)}


@torch.no_grad()
def _prediction(p: Shared, run: Run, model: str) -> Iterator[dict]:
    run.model.eval()
    found = run.model(run.test[0][:1])[0]
    for z, value in zip(toy(p).middles.tolist(), found.tolist(), strict=True):
        yield {"model": model, "step": p.epochs, "at": rounded(z), "metric": "prediction", "value": rounded(value)}


@dataclass(frozen=True)
class Steady(Shared):
    hidden: PositiveInt
    reduction: Fraction
    most_steps: PositiveInt
    piece: PositiveInt
    damping: Positive
    floor: Positive
    optimisers: dict[str, Positive]


@case(Steady, place=True)
def steady(p: Steady, seed: int, place: Place):
    """The path of each optimiser until the loss on all training examples is `reduction` times the first: see `_steadiness`."""
    problem = PROBLEMS["MLP"](p, seed)
    for method, lr in p.optimisers.items():
        cell = {"method": method, "lr": lr}
        yield from kept(place, cell | {"seed": seed}, partial(_steadiness, p, problem, cell, seed))


def _steadiness(p: Steady, problem: Problem, cell: dict, seed: int, _=None) -> Iterator[dict]:
    """Number of steps to arrive, or `most_steps`; mean cosine of neighbouring steps, and of neighbouring pieces of the path;
    distance travelled by pieces over displacement."""
    model = perceptron(generator(seed, "start"), p.hidden, activation=nn.Tanh)
    optimizer = OPTIMISERS[cell["method"]](model, cell["lr"], p)
    steps, pieces = Path(model.parameters(), size=0), Path(model.parameters(), size=0)
    for t in walk(p, problem, model, step_of(optimizer, model, problem), seed):
        steps.record()
        if t % p.piece == 0:
            pieces.record()
    found = {
        "arrival": len(steps),
        "cosine of steps": steps.cosines.nanmean().item(),
        "cosine of pieces": pieces.cosines.nanmean().item(),
        "detour": pieces.travelled / pieces.displacement,
    }
    for metric, value in found.items():
        yield {**cell, "step": 0, "metric": metric, "value": rounded(value)}


def walk(p: Steady, problem: Problem, model: nn.Module, step: Step, seed: int) -> Iterator[int]:
    """The number of each step that is taken, from 1, until the loss has fallen to `reduction` times the first."""
    x, y = problem.train
    order = generator(seed, "order")

    @torch.no_grad()
    def loss() -> float:
        return problem.criterion(model(x), y).item()

    target, t = p.reduction * loss(), 0
    while True:
        for batch in torch.randperm(len(x), generator=order).split(problem.batch):
            step(x[batch], y[batch])
            t += 1
            yield t
            if t == p.most_steps or not loss() > target:
                return


def step_of(optimizer: torch.optim.Optimizer, model: nn.Module, problem: Problem) -> Step:
    """As `eager_step`, and for Newton, whose step takes a closure."""
    if isinstance(optimizer, Newton):
        return lambda x, y: optimizer.step(lambda: problem.criterion(model(x), y))
    return eager_step(optimizer, model, problem.criterion)
