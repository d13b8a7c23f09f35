"""The landscapes: their minima, their batches; the experiment's rules against torch, its measures on hand-made paths."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from secondlook.optim import Newton
from secondlook.optim.directions import Absolute, Plain
from secondlook.problems.digits import digits
from secondlook.problems.landscapes import LANDSCAPES, gradient_noise
from secondlook.study import claims, measures
from secondlook.study.arrivals import first, from_then_on
from secondlook.study.experiment import Experiment, run

EXPERIMENT = Experiment(ROOT, "landscapes")
article, basins, methods, courses, experiment = (
    EXPERIMENT.part(name) for name in ("article", "basins", "methods", "courses", "experiment")
)

EACH = pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=list(LANDSCAPES))
METHODS = methods.methods(0.9, (0.9, 0.999))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@EACH
def test_the_minima_are_stationary_and_have_the_lowest_value(landscape):
    theta = torch.tensor(landscape.minima, dtype=torch.float64, requires_grad=True)
    value = landscape.value(theta)
    assert (value - landscape.lowest).abs().max() < 1e-12
    assert torch.autograd.grad(value.sum(), theta)[0].abs().max() < 1e-9
    assert landscape.distance(theta.detach()).max() == 0


@EACH
def test_nothing_on_a_grid_is_lower(landscape):
    axis = torch.linspace(-4.5, 4.5, 1801 if len(landscape.minima[0]) == 2 else 90001, dtype=torch.float64)
    theta = torch.cartesian_prod(*[axis] * len(landscape.minima[0])).reshape(-1, len(landscape.minima[0]))
    value = landscape.value(theta)
    assert value.min() >= landscape.lowest - 1e-12
    assert landscape.distance(theta[value.argmin()]) < 0.01


@EACH
def test_cells_are_independent(landscape):
    theta = normal(5, 3, len(landscape.minima[0])).requires_grad_()
    (g,) = torch.autograd.grad(landscape.value(theta).sum(), theta)
    one = theta[2, 1].detach().requires_grad_()
    assert torch.equal(torch.autograd.grad(landscape.value(one), one)[0], g[2, 1])


def test_noise_is_added_to_the_gradient_and_not_to_the_hessian():
    noise, f = normal(2), LANDSCAPES["Beale"].value
    theta = normal(2, seed=1)
    g, noisy = (torch.func.grad(h)(theta) for h in (f, lambda theta: f(theta) + gradient_noise(theta, noise)))
    torch.testing.assert_close(noisy, g + noise, rtol=0, atol=1e-12)
    H, same = (torch.func.hessian(h)(theta) for h in (f, lambda theta: f(theta) + gradient_noise(theta, noise)))
    assert torch.equal(H, same)


def test_the_article_s_nesterov_is_heavy_ball():
    given = (lambda w: 2 * w, 1.0, 5, 0.1, 0.9)
    assert article.last(article.nesterov(*given)) == pytest.approx(-0.58042, abs=1e-12)
    assert article.last(article.momentum(*given)) == pytest.approx(-0.58042, abs=1e-12)
    assert article.last(article.look_ahead(*given)) == pytest.approx(-0.41572, abs=5e-6)


def test_the_article_s_adam_divides_by_zero():
    with pytest.raises(ZeroDivisionError):
        next(article.adam(lambda w: 2 * w, 1.0, 1, 0.1, 0.9, 0.999, 1e-7))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "AdaHessian"])
def test_a_cell_of_a_batch_is_a_run_of_its_own(name):
    start, rates, f = 0.3 * normal(4, 2) + 1, [0.001, 0.01], LANDSCAPES["saddle"].value

    def descend(start, rates):
        return methods.descend(METHODS[name], lambda theta, t: f(theta).sum(), start, rates, 20)

    torch.testing.assert_close(descend(start[2:3], rates[1:])[:, 0, 0], descend(start, rates)[:, 1, 2], rtol=0, atol=1e-12)


def test_a_diverged_cell_touches_no_other():
    start = torch.tensor([[1.0, 1.0], [1e200, -1e200]], dtype=torch.float64)
    for name, make in METHODS.items():
        path = methods.descend(make, lambda theta, t: LANDSCAPES["Beale"].value(theta).sum(), start, [1e-3], 5)
        assert path[:, 0, 0].isfinite().all(), name


def test_closed_forms_of_two_by_two_matrices():
    A, g = normal(50, 2, 2), normal(50, 2, seed=1)
    H = A + A.mT
    eigenvalues, q = torch.linalg.eigh(H)
    torch.testing.assert_close(methods.absolute(H), (q * eigenvalues.abs().unsqueeze(-2)) @ q.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(methods.inverse_product(H, g), torch.linalg.solve(H, g), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["Newton", "absolute-value Newton"])
def test_newton_solves_a_quadratic_in_one_step(name):
    path = methods.descend(METHODS[name], lambda theta, t: LANDSCAPES["rotated"].value(theta).sum(), normal(3, 2), [1.0], 1)
    assert path[-1].abs().max() < 1e-12


@pytest.mark.parametrize("name, direction", [("Newton", Plain()), ("absolute-value Newton", Absolute(floor=1e-12))])
def test_newton_is_the_librarys_cell_by_cell(name, direction):
    start, f = 0.3 * normal(4, 2) + 1, LANDSCAPES["Beale"].value
    paths = methods.descend(METHODS[name], lambda theta, t: f(theta).sum(), start, [0.1], 5)
    for cell in range(4):
        theta = start[cell].clone().requires_grad_()
        optimizer = Newton([theta], lr=0.1, direction=direction)
        for t in range(1, 6):
            optimizer.step(lambda theta=theta: f(theta))
            torch.testing.assert_close(paths[t, 0, cell], theta.detach(), rtol=1e-9, atol=0)  # H is well-conditioned here


def test_epochs_overshoot_and_escape_of_hand_made_paths():
    distance = np.array([[3, 3, 0], [0, 2, 1], [2, 1, 1], [0, 0, np.nan]], dtype=float)
    assert from_then_on(distance <= 1).tolist() == [3, 2, np.inf]
    assert courses.overshoot(distance[:, :2], 0.5).tolist() == [1.5, 0]
    assert first(distance[:, :2] == 2).tolist() == [2, 1]


def test_angles_and_jitter_of_hand_made_paths():
    theta = np.array([[[0, 0], [0, 0]], [[1, 0], [1, 0]], [[1, 1], [0, 0]], [[1, 2], [1, 0]]], dtype=float)
    np.testing.assert_allclose(courses.turning(theta, np.array([np.inf, np.inf])), [45, 180])
    np.testing.assert_allclose(courses.turning(theta, np.array([2, 2])), [90, 180])
    np.testing.assert_allclose(courses.jitter(theta, 2), [1, 1])


def test_small_swings_do_not_count():
    theta = np.array([[2.0, 0], [-1, 0], [0.001, 0], [-1, 0], [1, 0], [-1, 0]])[:, None]
    assert courses.crossings(theta, np.array([np.inf]), 0.01).tolist() == [3]
    assert courses.crossings(theta, np.array([3]), 0.01).tolist() == [1]


def test_the_best_rate_arrives_first():
    epochs = np.array([[np.inf, np.inf, np.inf], [9, 9, np.inf], [9, 9, 20.0], [7, np.inf, np.inf]])
    assert experiment.best(epochs) == 2
    assert experiment.best(np.full((2, 3), np.inf)) == 0


def test_smoke_run_measures_and_judges_everything():
    rows = pd.concat([run(EXPERIMENT, EXPERIMENT.setting(case, "smoke")) for case in EXPERIMENT.cases], ignore_index=True)
    summary = measures.summarise(EXPERIMENT, rows)
    judged = {claim["id"]: claim["verdict"] for claim in claims.judge_all([(EXPERIMENT, summary)])}
    assert list(judged) == [
        *("C1", "C1b", "C2", "C2b", "C3", "C3b", "C3c"),
        *("C4a", "C4b", "C4c", "C4d", "C4e", "C4f", "C4g", "C4h"),
        *("C5a", "C5b", "C5c", "C5d", "C9", "C9b", "C10", "C10b", "C10c", "C11", "E6a", "E6b", "E6c"),
    ]
    assert judged["E6a"] == "reproduced"
    assert summary.find("belief.error", "").value < 0.2


def test_batch_descent_on_data_is_gradient_descent_and_an_epoch_sees_every_example():
    batches = EXPERIMENT.part("batches")
    setting = EXPERIMENT.setting("data", "smoke", ["epochs=1"])
    params = batches.Batches(**setting.parameters)
    x, y = digits(params.examples, torch.Generator().manual_seed(7))
    x = torch.cat([x.flatten(1), torch.ones(len(x), 1, dtype=x.dtype)], 1)
    W = torch.zeros(x.shape[1], 10, dtype=x.dtype, requires_grad=True)
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(x @ W, y), W)
    expected = torch.nn.functional.cross_entropy(x @ (W - g), y).item()
    seeds, rates = range(7, 8), np.ones(1)
    (_, first), (seen, last) = batches.descend(params, params.examples, seeds, rates, 1)
    assert seen == params.examples and first[0, 0] == pytest.approx(np.log(10)) and last[0, 0] == pytest.approx(expected)
    *_, (seen, _) = batches.descend(params, 1, seeds, rates, 1)
    assert seen == params.examples


def test_ties_count_half_and_where_neither_arrives_nothing_is_compared():
    selections = EXPERIMENT.part("selections")
    arrived = {"a": [3, 5, 7, np.inf, np.inf, 4], "b": [4, 5, 6, np.inf, 9, 4 * (1 + 1e-12)]}
    cells = [(*(method, "saddle", "exact", start), value) for method in arrived for start, value in enumerate(arrived[method])]
    runs = pd.DataFrame(cells, columns=[*selections.CELL, "start", "arrived"]).set_index([*selections.CELL, "start"])
    found = selections.better(runs, "arrived", [("a", "b")], ["saddle"], "exact", -1)
    assert (found.value, found.n) == (0.4, 5)  # 1, 1/2, 0, nothing, 0, 1/2
    kinds = selections.order_of_arrival(runs.drop(5, level="start"), [("a", "b")], ["saddle"], "exact")
    assert {kind: value.value for kind, value in kinds.items()} == {"first": 0.2, "later": 0.4, "tie": 0.2, "neither": 0.2}


def test_at_equal_rates_only_those_count_at_which_both_are_measured():
    selections = EXPERIMENT.part("selections")
    crossings = {
        "a": {(0, 0.5): 2, (0, 1.0): 0, (0, 2.0): 3, (1, 0.5): 1},
        "b": {(0, 0.5): 1, (0, 1.0): 0, (1, 0.5): 4, (1, 1.0): 1},
    }
    cells = [("sweep", m, "saddle", "exact", *at, "crossings", n) for m, found in crossings.items() for at, n in found.items()]
    rows = pd.DataFrame(cells, columns=["case", *selections.CELL, "start", "lr", "metric", "value"])
    found = selections.better_at_equal_rates(rows, "crossings", [("a", "b")], "saddle")
    assert (found.value, found.n) == (0.375, 2)  # start 0: 1 and 1/2; start 1: 0


def test_a_lower_minimum_of_rastrigin_is_told_from_where_gradient_descent_ends():
    start = 4 * torch.rand(60, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 2
    theta = start.clone()
    for _ in range(4000):
        theta = theta - 1e-3 * (2 * theta + 20 * np.pi * torch.sin(2 * np.pi * theta))
    height = LANDSCAPES["Rastrigin"].value
    origin, shuffled = torch.zeros_like(theta), theta[torch.randperm(60, generator=torch.Generator().manual_seed(4))]
    elsewhere = (height(theta) > height(origin) + 0.5).numpy()  # than in the lowest basin
    assert 30 < elsewhere.sum() < 60
    for end, expected in (
        (theta, 0 * height(theta)),
        (origin, 1 + 0 * height(theta)),
        (shuffled, height(shuffled) < height(theta) - 0.5),
    ):
        found = basins.lower_minimum(start.numpy(), end.numpy()[None], 0.01)
        assert np.isnan(found[~elsewhere]).all() and (found[elsewhere] == expected.double().numpy()[elsewhere]).all()
    late = torch.stack([theta + 0.3, origin]).numpy()
    assert (basins.lower_minimum(start.numpy(), late, 0.01)[elsewhere] == 0).all()  # there at the last step alone
    assert (
        basins.lower_minimum(start.numpy(), (origin + 0.1).numpy()[None], 0.01)[elsewhere] == 0
    ).all()  # nowhere near a minimum
