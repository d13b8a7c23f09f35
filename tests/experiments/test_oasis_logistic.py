"""OASIS against tuned methods: problems as they are declared, minima to rounding, fair descents, and numbers that read what they say."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from scipy.optimize import minimize

from experiments.oasis_logistic import experiment, measures, names, problems, selections
from experiments.oasis_logistic.descents import Watch, descend, lbfgs, shuffled
from experiments.oasis_logistic.methods import AdGD, methods
from experiments.oasis_logistic.problems import PROBLEMS, STEEPEST, Problem
from secondlook.curvature import Source
from secondlook.optim import OASIS
from secondlook.study import claims
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.place import Place
from secondlook.study.text import fill
from secondlook.training import generator

OASIS_LOGISTIC = Experiment(ROOT, "oasis_logistic")
KINDS = {
    "problems": experiment.Shared,
    "rates": experiment.Rates,
    "deterministic": experiment.Compared,
    "batch_rates": experiment.BatchRates,
    "batches": experiment.Batches,
    "constants": experiment.Constants,
    "times": experiment.Times,
    "fresh": experiment.Compared,
    "network_rates": experiment.Rates,
    "network": experiment.Compared,
    "network_batch_rates": experiment.BatchRates,
    "network_batches": experiment.Batches,
}
LEVELS = (1e-2, 1e-6)


def params(case: str, scale: str = "paper", changes=()):
    return build(KINDS[case], OASIS_LOGISTIC.setting(case, scale, changes).parameters, "config.yaml")


def small(name: str, seed: int = 0) -> Problem:
    return PROBLEMS[name](seed, 80, 6)


@pytest.mark.parametrize("fit", ["logistic", "squares"])
def test_losses_are_the_formulas(fit):
    p = Problem(torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double(), torch.tensor([1.0, 0.0]).double(), 0.2, fit)
    theta = torch.tensor([[0.3, 50.0], [-0.7, 40.0]]).double()
    found = []
    for column in theta.T.tolist():
        total = 0.0
        for x, y in zip(p.X.tolist(), p.y.tolist(), strict=True):
            u = sum(a * b for a, b in zip(x, column, strict=True))
            s = 1 / (1 + math.exp(-u))
            total += {"logistic": math.log(1 + math.exp(u)) - y * u, "squares": (y - s) ** 2}[fit] / 2
        found.append(total + 0.1 * sum(c * c for c in column))
    assert p.losses(theta).tolist() == pytest.approx(found, rel=1e-14)
    assert p.losses(theta, torch.tensor([1])).tolist() != pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("fit", STEEPEST)
def test_steepest_bounds_the_curvature_of_an_example_and_is_reached(fit):
    u = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
    curvatures = []
    for y in (0.0, 1.0):
        (g,) = torch.autograd.grad(problems.FITS[fit](u, torch.full_like(u, y)).sum(), u, create_graph=True)
        curvatures.append(torch.autograd.grad(g.sum(), u)[0].abs().max().item())
    assert max(curvatures) == pytest.approx(STEEPEST[fit], rel=1e-3) and max(curvatures) <= STEEPEST[fit]


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "network"])
def test_minimum_is_one_to_rounding(name):
    p = PROBLEMS[name](3, 200, 20)
    g = torch.func.grad(p.loss)(p.minimum)
    curvature = torch.linalg.eigvalsh(p.hessian(p.minimum))
    assert curvature[0] > 0  # a strict minimum, of least squares too
    assert g @ torch.linalg.solve(p.hessian(p.minimum), g) / 2 < 1e-15 * (p.ends[0] - p.ends[1])  # what is left to gain
    assert p.gaps(torch.stack(p.ends)).tolist() == [1, 0]
    assert curvature[-1] <= p.smoothness


def scaled(H: torch.Tensor) -> float:
    scale = H.diagonal().rsqrt()
    return experiment.condition(scale[:, None] * H * scale)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_generated_problems_have_their_spectrum(condition):
    h = np.logspace(0, -np.log10(condition), 20)
    rotated = problems.rotated(0, 200, 20, condition=condition)
    H = rotated.hessian(torch.zeros(20).double())
    assert torch.linalg.eigvalsh(H).numpy()[::-1] == pytest.approx(h, rel=1e-8)
    assert scaled(H) > condition / 4  # which the diagonal does not show
    sparse = problems.sparse(0, 200, 20, condition=condition)
    H = sparse.hessian(torch.zeros(20).double())
    assert H.diagonal().sort(descending=True).values.numpy() == pytest.approx(h, rel=1e-8)
    assert scaled(H) < 10
    assert 0.05 < (sparse.X != 0).double().mean() < 0.4


def test_shipped_examples_are_drawn_by_the_seed():
    one, same, other = (PROBLEMS["cancer"](seed, 500, 1) for seed in (0, 0, 1))
    assert one.X.shape == (500, 31) and torch.equal(one.X, same.X) and not torch.equal(one.X, other.X)
    assert len(one.X.unique(dim=0)) == 500 and one.penalty == 1 / 500 and (one.X[:, -1] == 1).all()
    digits = PROBLEMS["digits, squares"](0, 500, 1)
    assert digits.X.shape == (500, 65) and digits.X.max() == 1 and digits.fit == "squares"


def test_the_network_is_two_layers_with_tanh_and_is_judged_by_its_first_loss():
    p = problems.network(0, 40, 1)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)).double()
    torch.nn.utils.vector_to_parameters(p.start, layers.parameters())
    losses = [torch.nn.functional.cross_entropy(layers(p.X[part]), p.y[part]).item() for part in (slice(None), slice(0, 10))]
    two = torch.stack([p.start, 0 * p.start], 1)
    assert p.losses(two).tolist() == pytest.approx([losses[0], math.log(10)], rel=1e-14)
    assert p.losses(two, slice(0, 10))[0].item() == pytest.approx(losses[1], rel=1e-14)
    assert p.gaps(p.losses(two))[0].item() == pytest.approx(1, rel=1e-14) and len(p.y.unique()) == 10
    hidden, rest = p.start[: 32 * 65], p.start[32 * 65 :]
    assert hidden.abs().max() <= 1 / 8 < rest.abs().max() <= 32**-0.5
    assert not torch.equal(p.start, problems.network(1, 40, 1).start)


class Ones:
    """A curvature of one everywhere."""

    source = Source.GRAPH

    def __call__(self, H, generator):
        return [torch.ones_like(p) for p in H.params]


def test_adgd_is_oasis_in_the_metric_of_the_identity():
    p = small("cancer, squares")
    paths = []
    for make in (lambda theta: AdGD([theta], 0.1), lambda theta: OASIS([theta], 0.1, adaptive=True, warmup=1, diagonal=Ones())):
        theta = torch.zeros(31, dtype=torch.float64, requires_grad=True)
        optimizer = make(theta)
        for _ in range(30):
            optimizer.zero_grad()
            getattr(optimizer, "backward", torch.Tensor.backward)(p.loss(theta))
            optimizer.step()
        paths.append(theta.detach())
    assert torch.allclose(*paths, rtol=1e-12) and p.loss(theta) < 0.5 * p.ends[0]


def test_descents_side_by_side_are_those_alone():
    p = small("sparse 1e2")
    for name in names.TUNED:
        make = methods(0.99, 1e-3)[name]
        rates = [1e-3, 0.3, 1e300]  # the last diverges
        together = descend(p, make, rates, LEVELS, 40, generator(0, "probes"))
        if name in ("GD", "Adam"):  # the others draw their probes in turn
            alone = [descend(p, make, [lr], LEVELS, 40, generator(0, "probes"))[0] for lr in rates]
            assert [list(run.epochs) for run in together] == [list(run.epochs) for run in alone]
        assert np.isinf(together[2].epochs).all() and np.isinf(together[2].last)
        assert np.isfinite(together[0].last) and np.isfinite(together[1].last)


def test_arrivals_of_gradient_descent_are_those_of_a_literal_loop():
    p, lr = small("rotated 1e2"), 2.0
    (found,) = descend(p, methods(0.99, 1e-3)["GD"], [lr], LEVELS, 600, generator(0, "probes"))
    theta, epochs, t = torch.zeros(6).double(), [], 0
    for level in LEVELS:
        while (p.loss(theta) - p.ends[1]) / (p.ends[0] - p.ends[1]) > level:
            theta, t = theta - lr * torch.func.grad(p.loss)(theta), t + 1
        epochs.append(t)
    assert list(found.epochs) == epochs and 0 < epochs[0] < epochs[1] < 600
    assert (np.diff(found.seconds) > 0).all() and found.last <= LEVELS[-1]


def test_quasi_newton_arrives_where_newton_is():
    p = small("digits, squares")
    found = lbfgs(p, LEVELS, 500)
    assert 0 < found.epochs[0] < found.epochs[1] < 100 and 0 <= found.last + 1e-12 < 1e-12 + 1e-9
    short = lbfgs(p, LEVELS, 5)
    assert np.isinf(short.epochs[1]) and short.last > LEVELS[1]


@pytest.mark.parametrize("name", ["cancer", "digits, squares", "rotated 1e3", "sparse 1e4"])
def test_quasi_newton_is_as_fast_as_scipys(name):
    p, watch, count = PROBLEMS[name](0, 500, 50), Watch((1e-2, 1e-4), 1), 0

    def evaluate(x):
        nonlocal count
        theta = torch.from_numpy(x).clone().requires_grad_()
        loss = p.loss(theta)
        loss.backward()
        watch.see(p.gaps(loss.detach())[None].numpy(), count, 0.0)
        count += 1
        return loss.item(), theta.grad.numpy()

    options = {"maxcor": 10, "maxiter": 800, "maxfun": 800, "ftol": 0.0, "gtol": 1e-12}
    minimize(evaluate, np.zeros_like(p.minimum.numpy()), jac=True, method="L-BFGS-B", options=options)
    (theirs,), ours = watch.arrivals(), lbfgs(p, (1e-2, 1e-4), 800)
    assert (ours.epochs < 1.5 * theirs.epochs + 5).all() and (theirs.epochs < 1.5 * ours.epochs + 5).all()


def test_a_level_once_reached_stays_reached():
    watch = Watch([0.1, 0.01], 2)
    assert not watch.see(np.array([1.0, 1.0]), 0, 0.0)
    assert not watch.see(np.array([0.05, math.nan]), 1, 0.5)
    assert watch.see(np.array([0.001, math.inf]), 2, 1.0)
    first, second = watch.arrivals()
    assert list(first.epochs) == [1, 2] and list(first.seconds) == [0.5, 1.0] and first.last == 0.001
    assert np.isinf([*second.epochs, *second.seconds, second.last]).all()


def test_batches_are_an_epoch_and_the_same_for_all():
    make = shuffled(53, 10, generator(0, "order"))
    epochs = [list(make()) for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [10] * 5 and len(torch.cat(epochs[0]).unique()) == 50
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert torch.equal(torch.cat(epochs[0]), torch.cat(list(shuffled(53, 10, generator(0, "order"))())))


@pytest.mark.parametrize("name", ["OASIS", "AdGD"])
def test_gradients_are_compared_on_the_present_batch(name):
    p, make = small("sparse 1e2"), methods(0.99, 1e-3)[name]
    one, two = torch.arange(40), torch.arange(40, 80)
    # with the same batch twice nothing changes; with another, the rate is what the second batch alone would give
    same, plain = (
        descend(p, make, [0.1], LEVELS, 3, generator(0, "probes"), lambda: [one, one], same_batch=flag)[0].last
        for flag in (True, False)
    )
    assert same == pytest.approx(plain, rel=1e-12)
    other, mixed = (
        descend(p, make, [0.1], LEVELS, 3, generator(0, "probes"), lambda: [one, two], same_batch=flag)[0].last
        for flag in (True, False)
    )
    assert other != pytest.approx(mixed, rel=1e-3)


def test_prices_are_the_products_and_gradients_that_are_taken():
    p = small("sparse 1e2")
    for name, price in names.PRICES.items():
        if name == names.QUASI_NEWTON:
            continue
        for steps in (1, 4):
            gradients, products = count(p, name, steps)
            assert price.of(steps) == gradients + 2 * products, (name, steps)
    assert names.PRICES["OASIS"].of(np.array([0, 2])).tolist() == [0, 24]


def count(p: Problem, name: str, steps: int) -> tuple[int, int]:
    """Gradients and Hessian-vector products of a run, as the methods' own estimator and losses see them."""
    products = gradients = 0

    class Counting(Problem):
        def losses(self, theta, batch=slice(None)):
            nonlocal gradients
            gradients += theta.requires_grad
            return super().losses(theta, batch)

    counted = Counting(p.X, p.y, p.penalty)
    assert counted.ends  # Newton's method is over
    gradients = 0

    def make(groups, generator):
        nonlocal products
        optimizer = methods(0.99, 1e-3)[name](groups, generator)
        if hasattr(optimizer, "diagonal"):
            estimator = optimizer.diagonal

            class Counted:
                source = estimator.source

                def __call__(self, H, generator):
                    nonlocal products
                    products += 1
                    return estimator(H, generator)

            optimizer.diagonal = Counted()
        return optimizer

    descend(counted, make, [1e-6], [1e-9], steps, generator(0, "probes"), same_batch=name in names.SAME_BATCH)
    return gradients, products


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("work")
    settings = [OASIS_LOGISTIC.setting(case, "smoke") for case in OASIS_LOGISTIC.cases]
    return pd.concat([run(OASIS_LOGISTIC, setting, Place(folder / setting.case)) for setting in settings], ignore_index=True)


def test_the_text_and_the_verdicts_can_be_written(rows):
    found = study.from_plain(study.to_plain(study.summarise(OASIS_LOGISTIC, rows)))
    judged = {claim["id"]: claims.judge(claim, OASIS_LOGISTIC, found) for claim in claims.declared(OASIS_LOGISTIC)}
    assert list(judged) == ["E9", "E9b", "E9c", "E9d", "E9e", "E9f"]
    names = {
        "has": lambda case: True,
        "verdict": lambda name: judged[name]["verdict"],
        "table": lambda table: f"{len(table)} lines",
        "csv": lambda table, title: title,
    }
    text = fill(
        (ROOT / "experiments/oasis_logistic/section.md").read_text(), {**found.measures, "tables": found.tables, **names}, ""
    )
    assert "<<" not in text


def test_tuning_is_on_other_seeds_with_as_many_trials_for_each_and_none_is_at_an_edge():
    for case, compared in zip(
        ("rates", "batch_rates", "network_rates", "network_batch_rates"),
        ("deterministic", "batches", "network", "network_batches"),
        strict=True,
    ):
        p = params(case)
        assert {len(rates) for rates in p.rates.values()} == {len(p.multiples)} == {8}
        assert set(p.rates) | {"GD"} == set(names.TUNED)
        assert not set(OASIS_LOGISTIC.setting(case).seeds) & set(OASIS_LOGISTIC.setting(compared).seeds)
        tuned = params(compared).tuned
        assert set(tuned) == set(p.problems)
        for rates in tuned.values():
            for method, lr in rates.items():
                tried = p.multiples if method == "GD" else p.rates[method]
                assert min(tried) < lr < max(tried) and lr in tried
    one = params("deterministic")
    assert {(p.lr, p.beta2, p.alpha) for p in map(params, KINDS)} == {(one.lr, one.beta2, one.alpha)} == {(0.1, 0.99, 1e-3)}


def arrivals_of(case: str, cells: dict, level: float = 1e-4) -> pd.DataFrame:
    """Rows of epochs: {(problem, method): one value a seed}."""
    lines = [
        {"case": case, "problem": problem, "method": method, "seed": seed, "level": level, "metric": "epochs", "value": value}
        for (problem, method), values in cells.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(lines)


def test_ratios_count_misses_and_leave_out_what_neither_reaches():
    miss = math.inf
    cells = {
        ("a", "OASIS"): [10.0, 30.0, 20.0],
        ("a", "GD"): [20.0, 15.0, 10.0],
        ("b", "OASIS"): [5.0, 6.0, 7.0],
        ("b", "GD"): [miss, miss, miss],
        ("c", "OASIS"): [miss, miss, miss],
        ("c", "GD"): [miss, miss, 9.0],
        ("d", "OASIS"): [miss, miss, miss],
        ("d", "GD"): [miss, miss, miss],
    }
    spent = selections.until(arrivals_of("deterministic", cells), "deterministic")
    found = measures._compared(spent, "OASIS", ["GD"])
    assert (found["a_gd"].value, found["a_gd"].low, found["a_gd"].high) == (2.0, 0.5, 2.0)
    assert found["b_gd"].value == 0 and found["c_gd"].value == miss and found["c_gd"].n == 1 and found["d_gd"].n == 0
    assert [found[f"gd_{name}"].value for name in ("compared", "within", "ahead")] == [2, 2, 1]  # c: one seed of three
    priced = selections.work(spent)  # 3 for a step, and 18 for the warm-up
    assert priced.loc["a", "OASIS"].tolist() == [48, 108, 78] and priced.loc["a", "GD"].tolist() == [20, 15, 10]


def test_a_problem_counts_as_reached_where_the_seeds_leave_no_doubt():
    """OASIS from 20 and from 11 of 20 seeds, gradient descent from 20 and from none."""
    miss = math.inf
    cells = {("a", "OASIS"): [1.0] * 20, ("a", "GD"): [1.0] * 20}
    cells |= {("b", "OASIS"): [1.0] * 11 + [miss] * 9, ("b", "GD"): [miss] * 20}
    found = measures.arrivals(arrivals_of("deterministic", cells))
    assert [(e.value, e.low, e.high) for e in (found["oasis"], found["gd"], found["oasis_more"])] == [
        (2, 1, 2),
        (1, 1, 1),
        (1, 0, 1),
    ]


def test_ratios_on_the_network_are_of_seeds_of_which_one_arrives():
    miss = math.inf
    cells = {("network", "GD"): [10.0, 10.0, miss, miss], ("network", "OASIS"): [15.0, 30.0, 9.0, miss]}
    rows = arrivals_of("network", cells, level=1e-2)
    rows = pd.concat([rows, rows.assign(metric="gap")])
    found = measures.network(rows, "network")
    assert (found["oasis"].value, found["oasis"].n, found["oasis_arrives"].value) == (1.5, 3, 0.75)


def test_fresh_seeds_replace_those_of_their_problem_alone():
    table = {("a", "OASIS"): [3.0] * 12, ("a", "GD"): [2.0] * 12, ("b", "OASIS"): [5.0] * 12, ("b", "GD"): [4.0] * 12}
    again = {("a", "OASIS"): [1.0] * 12, ("a", "GD"): [2.0] * 12}
    found = measures.worst(pd.concat([arrivals_of("deterministic", table), arrivals_of("fresh", again)]))
    assert found["gd"].value == 1.25


def test_the_worst_problem_decides_with_an_interval_for_all_problems():
    fast = {("a", "OASIS"): [1.0] * 12, ("a", "GD"): [2.0] * 12}
    slow = {("b", "OASIS"): [15.0] * 10 + [19.0, 21.0], ("b", "GD"): [10.0] * 12}
    found = measures.worst(arrivals_of("deterministic", fast | slow))
    assert (found["gd"].value, found["gd"].low, found["gd"].high, found["gd"].n) == (
        1.5,
        1.5,
        1.9,
        12,
    )  # ranks 2 and 11: 97.5 % for two
    alone = measures.worst(arrivals_of("deterministic", slow))
    assert alone["gd"].high == 1.5 and found["seeds"].value >= alone["seeds"].value > 0


def test_wrong_constants_are_set_beside_the_right_one():
    table = {0.1: [50.0, 50.0], 1.0: [10.0, 30.0], 10.0: [math.inf, math.inf]}
    cells = [
        ("OASIS", "lr", table),
        ("OASIS", "alpha", table | {0.1: [30.0, 30.0], 10.0: [20.0, 20.0]}),
        ("OASIS", "beta2", table),
    ]
    cells += [(m, "lr", table) for m in (*names.TUNED, "AdGD")]
    frames = []
    for method, constant, values in cells:
        for by, epochs in values.items():
            frames.append(arrivals_of("constants", {("a", method): epochs}).assign(wrong=by, constant=constant))
    rows = pd.concat(frames, ignore_index=True)
    found = measures.wrong_by(rows)
    assert found["oasis_lr_10_worst"].value == math.inf and found["oasis_lr_10_share"].value == 0
    assert found["oasis_alpha_10_worst"].value == 1.5 and found["oasis_alpha_10_share"].value == 1
    assert measures.costs(rows)["a_oasis_alpha_x0_1"].value == 1.5


def test_the_best_rate_goes_by_the_target_then_by_weaker_levels_then_by_the_gap():
    lines = []
    arrivals = {0.1: (5.0, 40.0), 1.0: (3.0, 20.0), 10.0: (2.0, math.inf)}
    for problem, kept in (("a", 2), ("b", 1), ("c", 0)):  # how many levels count as reached
        for lr, epochs in arrivals.items():
            cell = {"case": "rates", "problem": problem, "method": "GD", "lr": lr, "seed": 0}
            for i, (level, value) in enumerate(zip((1e-2, 1e-4), epochs, strict=True)):
                lines.append(cell | {"level": level, "metric": "epochs", "value": value if i < kept else math.inf})
            lines.append(cell | {"metric": "gap", "value": lr})
    found = selections.best(pd.DataFrame(lines), "rates")
    assert found.lr.tolist() == [1.0, 10.0, 0.1] and found.inside.tolist() == [True, False, False]
