"""Training: what the seed fixes and what it does not, what a run counts, and that a run which was stopped goes on bit for bit.

Run as a program, this file trains networks with checkpoints at every step, in processes that are killed in the middle of one.
"""

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import HANG
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, SequentialLR

from secondlook.curvature import Cost, Exact, GaussNewtonBartlett, Hutchinson, PerExample
from secondlook.errors import Mistake, OutOfTime
from secondlook.optim import KFAC, OASIS, AdaHessian, compiled_step
from secondlook.training import Checkpoints, Precision, Run, captured_step, eager_step, generator, price, train
from secondlook.training.loop import ROW
from secondlook.training.rules import EVE, AdaptiveRate, CarefulRate
from secondlook.training.steps import attempted, differentiate, replaying

torch.set_num_threads(1)
EPOCHS, BATCH = 3, 8
X = torch.randint(
    0, 256, (30, 2, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)  # 4 batches, the last of 6
Y = torch.arange(30) % 3
X_TEST, Y_TEST = X[:7].flip(3), Y[:7]


def network(seed: int) -> nn.Module:
    """Convolution, batch norm and a linear layer, about a hundred numbers, that start from the run's seed."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))
    start = generator(seed, "start")
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-0.3, 0.3, generator=start)
    return model


def flip(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Each image as it is or mirrored, as numbers around zero."""
    if generator is not None:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x.float() / 128 - 1


OPTIMISERS: dict[str, Callable] = {
    "momentum": lambda model: torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4),
    "Adam": lambda model: torch.optim.Adam(model.parameters(), 0.01),
    "AdaHessian": lambda model: AdaHessian(model.parameters(), 0.05, weight_decay=5e-4),
    "every 2": lambda model: AdaHessian(model.parameters(), 0.05, every=2, diagonal=Hutchinson(probes=2)),
    "K-FAC": lambda model: KFAC(model, 0.01, fisher="mc"),
}
KILLED = ("momentum", "Adam", "AdaHessian")
each = pytest.mark.parametrize("name", OPTIMISERS)


def make(optimizer: str | Callable, seed: int = 100, **more) -> Run:
    """A run of three epochs on 30 images, of an entry of OPTIMISERS or one like it."""
    model = network(seed)
    optimizer = OPTIMISERS.get(optimizer, optimizer)(model)
    options = {"epochs": EPOCHS, "batch_size": BATCH, "schedule": MultiStepLR(optimizer, [1, 2]), "prepare": flip}
    return Run(model, optimizer, (X, Y), (X_TEST, Y_TEST), seed=seed, **options | more)


def weights(run: Run) -> list[Tensor]:
    """Every parameter and buffer."""
    return [value.clone() for value in run.model.state_dict().values()]


def timeless(rows: list[dict]) -> list[dict]:
    return [{**row, "seconds": 0} for row in rows]


def same(run: Run, other: Run) -> bool:
    return timeless(run.rows) == timeless(other.rows) and all(map(torch.equal, weights(run), weights(other)))


def finished(run: Run, checkpoints: Checkpoints | None = None) -> Run:
    for _ in train(run, checkpoints):
        pass
    return run


def stopped(run: Run, folder: Path, steps: int = 1) -> None:
    """Carry `run` on for some steps, each of them a process's life that ends at its deadline."""
    for _ in range(steps):
        with pytest.raises(OutOfTime, match="time is up after . of 3 epochs"):
            finished(run, Checkpoints(folder, deadline=time.monotonic()))


# The rest of a run is in its checkpoint.


def descent(model: nn.Module) -> torch.optim.Optimizer:
    """Steps so short that the loss falls along each of them, and along eight times as much."""
    return torch.optim.SGD(model.parameters(), 1e-3)


def ascent(model: nn.Module) -> torch.optim.Optimizer:
    """Uphill: the loss of every epoch is above that of the one before."""
    return torch.optim.SGD(model.parameters(), 0.5, maximize=True)


# Each rule, a run in which it has to act whatever the last bits are, and whether it did at the end of every epoch that it may.
RULES: dict[str, tuple[Callable, Callable, Callable]] = {
    "adaptive": (lambda run: AdaptiveRate(run.optimizer, c=0.5), descent, lambda rule: rule.optimizer.param_groups[0]["lr"] > 1.3e-3),
    "careful": (lambda run: CarefulRate(run.optimizer), ascent, lambda rule: rule.cuts == 2),
    "roll-back": (lambda run: CarefulRate(run.optimizer, model=run.model), ascent, lambda rule: rule.cuts == 2),
    "EVE": (lambda run: EVE(run.model.parameters()), descent, lambda rule: rule.chosen == [8.0] * 3),
}  # fmt: skip


def ruled(name: str) -> Run:
    rule, optimizer, _ = RULES[name]
    run = make(optimizer, schedule=None, held_out=(X, Y))
    run.rules.append(rule(run))
    return run


@pytest.mark.parametrize("name", RULES)
def test_rules_act_between_epochs_and_a_run_with_them_resumes(name, tmp_path):
    _, optimizer, acted = RULES[name]
    for _ in range(EPOCHS * 4 - 1):
        stopped(ruled(name), tmp_path)
    resumed = finished(ruled(name), Checkpoints(tmp_path))
    assert same(resumed, finished(ruled(name))) and acted(resumed.rules[0])
    assert not same(resumed, finished(make(optimizer, schedule=None)))


@each
def test_a_run_that_is_stopped_at_every_step_gives_the_bits_of_one_that_is_not(name, tmp_path):
    for _ in range(EPOCHS * 4 - 1):
        stopped(make(name), tmp_path)
    resumed = finished(make(name), Checkpoints(tmp_path))
    assert same(resumed, finished(make(name))) and len(resumed.rows) == EPOCHS
    assert same(finished(make(name), Checkpoints(tmp_path)), resumed)  # and once more, from the finished run


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A folder for each of KILLED, left behind by a process that died in the middle of its seventh step."""
    folder = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, str(folder)], env=environment, check=True, timeout=HANG)
    return folder


@pytest.mark.parametrize("name", KILLED)
def test_a_run_that_was_killed_goes_on_bit_for_bit(name, killed):
    resumed = make(name)
    checkpoints = Checkpoints(killed / name)
    resumed.load_state_dict(checkpoints.load(resumed.settings))
    assert (len(resumed.rows), resumed.batch) == (1, 2)  # six steps of four to an epoch
    assert same(finished(make(name), checkpoints), finished(make(name)))


@pytest.mark.parametrize("newest", ["altered", "truncated", "empty", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(newest, tmp_path):
    stopped(make("AdaHessian"), tmp_path, steps=6)
    path = tmp_path / "checkpoint"
    data = path.read_bytes()
    if newest == "missing":  # a kill between the two renames
        path.unlink()
        resumed = finished(make("AdaHessian"), Checkpoints(tmp_path))
    else:
        path.write_bytes({"altered": data[:-9] + b"x" + data[-8:], "truncated": data[:-1], "empty": b""}[newest])
        with pytest.warns(UserWarning, match=f"^{path} is corrupt or truncated: going on from the checkpoint before it"):
            resumed = finished(make("AdaHessian"), Checkpoints(tmp_path))
    assert same(resumed, finished(make("AdaHessian")))


def test_the_checkpoint_before_a_damaged_one_is_not_the_run_from_the_start(tmp_path):
    stopped(make("momentum"), tmp_path, steps=6)
    (tmp_path / "checkpoint").write_bytes(b"")
    run = make("momentum")
    with pytest.warns(UserWarning, match="corrupt"):
        run.load_state_dict(Checkpoints(tmp_path).load(run.settings))
    assert (len(run.rows), run.batch) == (1, 1)


def test_a_run_starts_anew_where_no_checkpoint_is_whole(tmp_path):
    stopped(make("momentum"), tmp_path, steps=2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning) as warned:
        assert same(finished(make("momentum"), Checkpoints(tmp_path)), finished(make("momentum")))
    assert len(warned) == 2


@pytest.mark.parametrize(
    "other, settings, names",
    [
        (lambda: make(lambda model: torch.optim.SGD(model.parameters(), 0.06, 0.9, weight_decay=5e-4)), {}, "lr"),
        (lambda: make("momentum", seed=101), {}, "seed"),
        (lambda: make("momentum", epochs=4), {}, "epochs"),
        (lambda: make("momentum", schedule=None), {}, "schedule"),
        (lambda: make("momentum", precision=Precision(channels_last=True)), {}, "precision"),
        (lambda: make("momentum"), {"width": 8}, "width"),
        (lambda: make("momentum", epochs=4, batch_size=9), {"width": 8, "depth": 32}, "epochs, batch_size, depth, width"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(other, settings, names, tmp_path):
    own = {"depth": 20, "width": 16}
    with pytest.raises(OutOfTime):
        finished(make("momentum"), Checkpoints(tmp_path, deadline=0.0, settings=own))
    run = other()
    with pytest.raises(Mistake, match=f"^{tmp_path} holds a run with other settings: {names}$"):
        finished(run, Checkpoints(tmp_path, settings=own | settings))
    assert not run.rows and run.batch == 0


def test_checkpoints_are_kept_every_so_many_minutes(tmp_path, monkeypatch):
    """The clock goes on by a minute whenever it is read: at the start, at every look, and after every checkpoint."""
    minutes = iter(range(100))
    monkeypatch.setattr("secondlook.training.checkpoint.time.monotonic", lambda: 60.0 * next(minutes))
    saved = []
    save = Checkpoints.save

    def note(self, state):
        saved.append(4 * len(state["rows"]) + state["batch"])
        save(self, state)

    monkeypatch.setattr(Checkpoints, "save", note)
    finished(make("momentum"), Checkpoints(tmp_path, minutes=2.5))
    assert saved == [3, 6, 9, 12]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    stopped(make("momentum"), tmp_path, steps=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("secondlook.training.checkpoint.os.fsync", full)
        with pytest.raises(Mistake, match=f"^cannot write {tmp_path / 'checkpoint'}: No space left on device$"):
            finished(make("momentum"), Checkpoints(tmp_path, minutes=0))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# The seed.


class Seen:
    """`prepare` and `make_step` that note what the optimiser is given."""

    def __init__(self):
        self.batches: list[Tensor] = []

    def prepare(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        x = flip(x, generator)
        if generator is not None:
            self.batches.append(x)
        return x


def test_every_optimiser_sees_the_same_start_batches_and_crops():
    seen = {name: Seen() for name in OPTIMISERS}
    starts = {name: weights(make(name)) for name in OPTIMISERS}
    for name, record in seen.items():
        finished(make(name, prepare=record.prepare))
    for name in OPTIMISERS:
        assert all(map(torch.equal, starts[name], starts["momentum"]))
        assert len(seen[name].batches) == 12 and all(map(torch.equal, seen[name].batches, seen["momentum"].batches))


def test_another_seed_gives_another_start_and_other_batches():
    one, other = Seen(), Seen()
    finished(make("momentum", seed=100, prepare=one.prepare))
    finished(make("momentum", seed=101, prepare=other.prepare))
    assert not torch.equal(one.batches[0], other.batches[0])
    assert not torch.equal(weights(make("momentum", seed=100))[0], weights(make("momentum", seed=101))[0])


def test_the_seed_fixes_the_probes():
    one, again, other = (finished(make("AdaHessian", seed=seed)) for seed in (100, 100, 101))
    assert same(one, again) and not same(one, other)
    drawn = generator(100, "probes").get_state()
    assert torch.equal(make("AdaHessian").optimizer.generator.get_state(), drawn)


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own():
    seen = []

    def spy(optimizer, model, criterion):
        return lambda x, y: seen.append(x[:, 0, 0, 0]) or torch.tensor(0.0)

    numbered = torch.arange(30.0)[:, None, None, None].expand(30, 2, 6, 6)
    model = network(100)
    run = Run(
        model,
        torch.optim.SGD(model.parameters()),
        (numbered, Y),
        (X_TEST.float(), Y_TEST),
        epochs=2,
        batch_size=8,
        seed=0,
        make_step=spy,
    )
    finished(run)
    assert [len(batch) for batch in seen] == [8, 8, 8, 6] * 2
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert torch.equal(first.sort().values, torch.arange(30.0)) and torch.equal(second.sort().values, torch.arange(30.0))
    assert not torch.equal(first, second)


def test_the_global_random_state_is_left_alone():
    run = make("AdaHessian")  # whose layers torch fills from the global state
    before = torch.get_rng_state()
    finished(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_are_apart_and_of_a_known_use():
    draws = {
        torch.rand(1, generator=generator(seed, use)).item()
        for seed in (0, 1)
        for use in ("start", "order", "augmentation", "probes")
    }
    assert len(draws) == 8
    with pytest.raises(ValueError, match="^use must be one of"):
        generator(0, "dropout")


def test_the_loop_is_this_loop():
    run, model = finished(make("momentum", schedule=None)), network(100)
    order, augmentation, optimizer = generator(100, "order"), generator(100, "augmentation"), OPTIMISERS["momentum"](model)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(30, generator=order).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(flip(X[chosen], augmentation)), Y[chosen]).backward()
            optimizer.step()
    assert all(map(torch.equal, run.model.state_dict().values(), model.state_dict().values()))


# What a row says.


def test_losses_are_means_over_all_examples():
    """With a rate of zero the model rests, so each loss is that of its first weights: batch norm is left out."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    x, x_test = X.float() / 128 - 1, X_TEST.float() / 128 - 1
    expected = [functional.cross_entropy(model(a), b).item() for a, b in ((x, Y), (x_test, Y_TEST))]
    accuracy = (model(x_test).argmax(1) == Y_TEST).double().mean().item()
    run = Run(model, torch.optim.SGD(model.parameters(), 0.0), (x, Y), (x_test, Y_TEST), epochs=2, batch_size=8, seed=0)
    for row in train(run):
        assert row["train_loss"] == pytest.approx(expected[0], rel=1e-6)
        assert row["test_loss"] == pytest.approx(expected[1], rel=1e-6)
        assert row["test_accuracy"] == pytest.approx(accuracy, rel=1e-12)


def test_evaluation_goes_over_all_its_batches_in_eval_mode(monkeypatch):
    run = finished(make("momentum"))
    row = run.rows[-1]
    monkeypatch.setattr("secondlook.training.loop.EVALUATED", 3)  # batches of 3, 3 and 1
    again = finished(make("momentum")).rows[-1]
    outputs = run.model.eval()(flip(X_TEST, None))
    assert row["test_loss"] == pytest.approx(functional.cross_entropy(outputs, Y_TEST).item(), rel=1e-6)
    assert again["test_loss"] == pytest.approx(row["test_loss"], rel=1e-6) and again["test_accuracy"] == row["test_accuracy"]


def test_labels_that_are_not_whole_numbers_have_no_accuracy():
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 1), nn.Flatten(0))
    data = (X.float() / 255, Y.float())
    run = Run(
        model,
        torch.optim.SGD(model.parameters(), 1e-3),
        data,
        data,
        epochs=1,
        batch_size=8,
        seed=0,
        criterion=functional.mse_loss,
    )
    (row,) = train(run)
    assert math.isnan(row["test_accuracy"]) and row["diverged"] == 0 and math.isfinite(row["test_loss"])


@pytest.mark.parametrize(
    "name, schedule, rates",
    [
        ("momentum", lambda optimizer: None, [0.05] * 5),
        ("AdaHessian", lambda optimizer: MultiStepLR(optimizer, [2, 4]), [0.05, 0.05, 0.005, 0.005, 0.0005]),
        (
            "momentum",
            lambda optimizer: SequentialLR(optimizer, [LinearLR(optimizer, 0.5, 1, 2), MultiStepLR(optimizer, [1])], [2]),
            [0.025, 0.0375, 0.05, 0.005, 0.005],
        ),
    ],
)
def test_a_schedule_is_applied_at_its_epochs(name, schedule, rates, tmp_path):
    """Milestones 80 and 120 of 160 in small: the rate falls after two epochs of five, and after four; stopping changes nothing."""
    applied = []

    def spy(optimizer, model, criterion):
        step = eager_step(optimizer, model, criterion)
        return lambda x, y: applied.append(optimizer.param_groups[0]["lr"]) or step(x, y)

    def run() -> Run:
        made = make(name, epochs=5, schedule=None, make_step=spy)
        made.schedule = schedule(made.optimizer)
        return made

    for stops in (0, 9):
        applied.clear()
        for _ in range(stops):
            with pytest.raises(OutOfTime):
                finished(run(), Checkpoints(tmp_path, deadline=0.0))
        rows = list(train(run(), Checkpoints(tmp_path) if stops else None))
        assert [row["lr"] for row in rows] == pytest.approx(rates, rel=1e-12)
        assert applied == pytest.approx([rate for rate in rates for _ in range(4)], rel=1e-12)


@pytest.mark.parametrize(
    "optimizer, equivalents",
    [
        (lambda model: torch.optim.SGD(model.parameters()), 1),
        (lambda model: torch.optim.AdamW(model.parameters()), 1),
        (lambda model: KFAC(model), 1),
        (lambda model: KFAC(model, fisher="mc"), 5 / 3),
        (lambda model: AdaHessian(model.parameters()), 3),
        (lambda model: AdaHessian(model.parameters(), every=2), 2),
        (lambda model: AdaHessian(model.parameters(), every=4), 1.5),
        (lambda model: AdaHessian(model.parameters(), diagonal=Hutchinson(probes=3)), 7),
        (lambda model: AdaHessian(model.parameters(), diagonal=GaussNewtonBartlett()), 5 / 3),
        (lambda model: OASIS(model.parameters(), warmup=5, every=8), 1 + 2 * 5 / 8),
    ],
)
def test_gradient_equivalents_of_a_step(optimizer, equivalents):
    rows = list(train(make(optimizer, epochs=2, schedule=None)))  # 8 steps
    assert rows[-1]["gradient_equivalents"] == pytest.approx(8 * equivalents, rel=1e-12)
    assert rows[-1]["gradients"] + 2 * rows[-1]["products"] == rows[-1]["gradient_equivalents"]


def test_products_are_those_that_were_taken(monkeypatch):
    """The count is read off the optimiser's state; here it is held against the calls."""
    taken = []
    call = Hutchinson.__call__
    monkeypatch.setattr(Hutchinson, "__call__", lambda self, *rest: taken.append(self.probes) or call(self, *rest))
    assert finished(make("every 2")).rows[-1]["products"] == sum(taken) == 12


def test_the_cost_of_an_estimate_that_is_not_known_must_be_given():
    parameters = list(network(0).parameters())
    n = sum(p.numel() for p in parameters)
    assert price(AdaHessian(parameters, diagonal=Exact())) == Cost(products=n)
    with pytest.raises(
        ValueError, match="^price must be given: the cost of PerExample depends on how much data its objective has$"
    ):
        price(AdaHessian(parameters, diagonal=PerExample()))
    with pytest.raises(ValueError, match="^price must be given: the cost of K-FAC with fisher='exact' depends on"):
        price(KFAC(network(0), fisher="exact"))
    run = finished(make("AdaHessian", cost=Cost(gradients=0.25, products=0.25)))  # such as of a quarter of the batch
    assert run.rows[-1]["gradient_equivalents"] == 12 * 1.75


# Divergence.


def blowing_up(step: int, value: float) -> Callable:
    """A `make_step` whose loss is `value` at one step, counted from 1, and after it."""

    def maker(optimizer, model, criterion):
        taken = iter(range(1, 10**6))
        return lambda x, y: torch.tensor(value if next(taken) >= step else 1.0)

    return maker


@pytest.mark.parametrize("stride", [1, 3, 20])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverges_says_at_which_step_and_keeps_its_place(value, stride, monkeypatch):
    run = make("AdaHessian", seed=7, schedule=None, make_step=blowing_up(6, value))
    while len(run.rows) < run.epochs:
        run.advance(stride)
    assert run.diverged == f"non-finite loss {value} at step 6 (AdaHessian, lr 0.05, seed 7)"
    assert [row["diverged"] for row in run.rows] == [0, 1, 1]
    assert [row["epoch"] for row in run.rows] == [1, 2, 3] and all(tuple(row) == ROW for row in run.rows)
    assert all(math.isnan(value) for row in run.rows[1:] for name, value in row.items() if name not in ("epoch", "diverged"))


def test_a_rate_that_is_far_too_large_is_a_row_and_not_an_exception(tmp_path):
    def regression() -> Run:
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 1), nn.Flatten(0))
        data = (X.float(), Y.float())
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        return Run(model, optimizer, data, data, epochs=3, batch_size=8, seed=3, criterion=functional.mse_loss)

    first, again = regression(), regression()
    rows = list(train(first, Checkpoints(tmp_path)))
    assert rows[-1]["diverged"] == 1 and len(rows) == 3
    assert re.fullmatch(r"non-finite loss (inf|nan) at step \d+ \(SGD, lr 0\.5, seed 3\)", first.diverged)
    assert repr(list(train(again, Checkpoints(tmp_path)))) == repr(rows) and again.diverged == first.diverged


@pytest.mark.parametrize("fisher", ["empirical", "mc"])
def test_a_curvature_without_inverse_is_divergence_and_not_an_exception(fisher):
    """Examples that are no numbers, of which K-FAC's step by itself raises."""
    run = make(
        lambda model: KFAC(model, 0.01, fisher=fisher), seed=3, schedule=None, prepare=lambda x, g: flip(x, g) * math.nan
    )
    assert finished(run).diverged == "non-finite loss nan at step 1 (KFAC, lr 0.01, seed 3)"
    assert [row["diverged"] for row in run.rows] == [1, 1, 1]


def test_weights_that_the_last_step_ruins_are_seen_in_evaluation():
    def ruin(optimizer, model, criterion):
        def step(x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                model[0].weight.fill_(math.nan)
            return torch.tensor(1.0)

        return step

    run = finished(make("momentum", make_step=ruin))
    assert run.diverged == "non-finite test loss nan after step 4 (SGD, lr 0.05, seed 100)"
    assert [row["diverged"] for row in run.rows] == [1, 1, 1]


# Arguments and options.


def test_a_run_refuses_what_makes_no_sense():
    model = network(0)
    run = partial(Run, model, torch.optim.SGD(model.parameters()), seed=0)
    with pytest.raises(ValueError, match="^train must be two tensors of one length above zero, got 30 and 29 examples$"):
        run((X, Y[1:]), (X_TEST, Y_TEST), epochs=1, batch_size=8)
    with pytest.raises(ValueError, match="^test must be"):
        run((X, Y), (X[:0], Y[:0]), epochs=1, batch_size=8)
    with pytest.raises(ValueError, match="^epochs must be a positive integer, got 0$"):
        run((X, Y), (X_TEST, Y_TEST), epochs=0, batch_size=8)
    with pytest.raises(ValueError, match="^batch_size must be a positive integer, got 2.5$"):
        run((X, Y), (X_TEST, Y_TEST), epochs=1, batch_size=2.5)


def first_estimates(run: Run) -> Tensor:
    """Gradient and curvature at the start, of all examples at once: where they come from, before any step has amplified rounding."""
    parts = [p.grad for p in run.model.parameters()]
    parts += [state["exp_hessian_diag_sq"].sqrt() for state in run.optimizer.state.values()]
    return torch.cat([part.flatten() for part in parts])


def off(run: Run, other: Run) -> float:
    """Relative distance of their first gradients and curvatures, once both are done."""
    one, two = (first_estimates(finished(r)) for r in (run, other))
    return float((one - two).norm() / two.norm())


def test_channels_last_changes_the_layout_and_no_more_than_rounding():
    once = partial(make, "AdaHessian", epochs=1, batch_size=30)
    run = once(precision=Precision(channels_last=True))
    assert off(run, once()) < 1e-5
    assert run.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not once().model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_in_the_forward_pass_alone():
    once = partial(make, "AdaHessian", epochs=1, batch_size=30)
    run = once(precision=Precision(bf16=True))
    types = set()
    run.model[0].register_forward_hook(lambda module, given, output: types.add(output.dtype))
    assert 1e-5 < off(run, once()) < 0.05  # bfloat16 has 8 bits of mantissa: 0.004
    assert types == {torch.bfloat16} and run.forward(flip(X_TEST, None)).dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in run.model.parameters())


def test_a_compiled_step_stands_in_for_the_eager_one():
    def run(make_step: Callable) -> Run:
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
        with torch.no_grad():
            model[1].weight.uniform_(-0.3, 0.3, generator=generator(0, "start"))
            model[1].bias.zero_()
        data = {"train": (X[:24], Y[:24]), "test": (X_TEST, Y_TEST)}
        optimizer = AdaHessian(model.parameters(), 0.01, eps=0.01)
        return finished(Run(model, optimizer, **data, epochs=2, batch_size=8, seed=0, prepare=flip, make_step=make_step))

    compiled, eager = run(partial(compiled_step, backend="eager")), run(eager_step)
    assert all(map(partial(torch.allclose, rtol=1e-5, atol=1e-6), weights(compiled), weights(eager)))
    assert compiled.rows[-1]["gradient_equivalents"] == eager.rows[-1]["gradient_equivalents"] == 18


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("name", [name for name in OPTIMISERS if name != "K-FAC"] + ["Gauss-Newton"])
def test_a_captured_step_stands_in_for_the_eager_one(name):
    made = OPTIMISERS | {"Gauss-Newton": lambda model: AdaHessian(model.parameters(), 0.05, diagonal=GaussNewtonBartlett())}
    x, y = flip(X, None).cuda(), Y.cuda()
    losses, ends = [], []
    for make_step in (eager_step, captured_step):
        model = network(0).cuda()
        step = make_step(made[name](model), model, functional.cross_entropy)
        losses.append([step(x[i : i + 8], y[i : i + 8]).item() for i in (0, 8, 16, 24) * 5])  # the last batch is smaller
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["Adam", "K-FAC"])
def test_a_captured_step_says_what_it_needs(name):
    model = network(0)
    with pytest.raises(ValueError, match="must have parameters and generator on a GPU"):
        captured_step(OPTIMISERS[name](model), model, functional.cross_entropy)


class Replay:
    """Stands for a captured step: computes eagerly, and tells of it."""

    def __init__(self, model: nn.Module, told: list):
        self.model, self.told = model, told

    def replay(self, optimizer, x: Tensor, y: Tensor) -> Tensor:
        self.told.append(("replayed", len(x)))
        return differentiate(optimizer, self.model, functional.cross_entropy, x, y)


@pytest.mark.parametrize(
    "sizes, told",
    {
        "the last, smaller batch stays eager": ([8, 8, 6] * 4, "eeeererrerre"),
        "a run may go on with its smallest batch": ([6, 8, 8, 8, 8, 8, 6], "eeeerre"),
    }.values(),
)
def test_a_step_is_captured_after_three_of_its_kind_and_smaller_batches_never(sizes, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    model, optimizer, calls = network(0), None, []

    def eager(x, y):
        calls.append(("eager", len(x)))
        return differentiate(optimizer, model, functional.cross_entropy, x, y)

    def walk(make_step) -> list[float]:
        nonlocal model, optimizer
        model = network(0)
        optimizer = OPTIMISERS["AdaHessian"](model)
        step = make_step(model, optimizer)
        return [step(flip(X[:size], None), Y[:size]).item() for size in sizes]

    found = walk(lambda model, optimizer: replaying(optimizer, eager, lambda x, y: Replay(model, calls)))
    assert found == walk(lambda model, optimizer: eager_step(optimizer, model, functional.cross_entropy))
    assert [size for _, size in calls] == sizes
    assert [how[0] for how, _ in calls] == list(told)


def test_each_kind_of_step_is_captured_once(monkeypatch):
    """With a Hessian every second step there are two kinds: three eager steps of each, then each has its graph."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    model, calls, captures = network(0), [], []
    optimizer = OPTIMISERS["every 2"](model)

    def eager(x, y):
        calls.append("e")
        return differentiate(optimizer, model, functional.cross_entropy, x, y)

    def capture(x, y):
        captures.append(optimizer.state_dict()["state"][0]["step"])
        return Replay(model, told)

    told = []
    step = replaying(optimizer, eager, capture)
    for _ in range(12):
        step(flip(X[:8], None), Y[:8])
    assert captures == [6, 7] and len(calls) == 6 and len(told) == 6


def test_a_capture_that_fails_leaves_stream_and_probes_as_they_were(monkeypatch):
    """The stream is the one from before, the probes' generator a new one at the same place; and the run goes on eagerly."""
    streams, attempts = ["before"], []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    model = network(0)
    optimizer = OPTIMISERS["AdaHessian"](model)
    x, y = flip(X[:8], None), Y[:8]

    def capture(x, y):
        attempts.append(optimizer.generator)
        streams.append("side")
        differentiate(optimizer, model, functional.cross_entropy, x, y)  # draws probes, leaves gradients and curvature
        raise RuntimeError("operation failed due to a previous error during capture\nmore")

    def eager(x, y):
        return differentiate(optimizer, model, functional.cross_entropy, x, y)

    step = replaying(optimizer, eager, capture)
    with pytest.warns(UserWarning, match="AdaHessian cannot be captured and stays eager: operation failed .* during capture$"):
        found = [step(x, y).item() for _ in range(6)]
    assert streams == ["before", "side", "before"] and len(attempts) == 1 and optimizer.generator is not attempts[0]
    other = network(0)
    same_step = eager_step(OPTIMISERS["AdaHessian"](other), other, functional.cross_entropy)
    assert found == [same_step(x.clone(), y).item() for _ in range(6)]
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_after_a_capture_that_fails_nothing_is_replayed(monkeypatch):
    """Not even what was captured before, which would draw from the probes that were given up."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    model, told = network(0), []
    optimizer = OPTIMISERS["every 2"](model)

    def eager(x, y):
        told.append(("eager", len(x)))
        return differentiate(optimizer, model, functional.cross_entropy, x, y)

    def capture(x, y):
        if optimizer.state_dict()["state"][0]["step"] % 2:
            raise RuntimeError("only steps with a Hessian can be captured")
        return Replay(model, told)

    step = replaying(optimizer, eager, capture)
    with pytest.warns(UserWarning, match="cannot be captured"):
        for _ in range(12):
            step(flip(X[:8], None), Y[:8])
    assert [how[0] for how, _ in told] == list("eeeeeer" + "eeeee")


def test_a_mistake_in_a_capture_is_no_failed_capture(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)

    def capture():
        raise TypeError("a programming error")

    with pytest.raises(TypeError, match="a programming error"):
        attempted(torch.optim.SGD(network(0).parameters()), capture)


def test_tf32_is_off_unless_declared_and_left_as_it_was():
    def settings() -> tuple[str, str]:
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision

    before = settings()
    for precision, expected in ((Precision(), "ieee"), (Precision(tf32=True), "tf32")):
        seen = []

        def spy(optimizer, model, criterion, seen=seen):
            return lambda x, y: seen.append(settings()) or torch.tensor(0.0)

        rows = train(make("momentum", schedule=None, precision=precision, make_step=spy))
        next(rows)
        assert set(seen) == {(expected, expected)} and settings() == before  # between two epochs too


def train_and_be_killed(name: str, folder: Path) -> None:
    calls = iter(range(1, 100))

    def prepare(x: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is not None and next(calls) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return flip(x, generator)

    finished(make(name, prepare=prepare), Checkpoints(folder, minutes=0))


if __name__ == "__main__":
    for name in KILLED:
        child = os.fork()
        if not child:
            train_and_be_killed(name, Path(sys.argv[1]) / name)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
