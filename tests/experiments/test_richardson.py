"""The Richardson experiment: its extrapolations, instances and methods against literal ones, and its measures on small runs."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from secondlook.reporting import style
from secondlook.reporting.paper import table
from secondlook.study import claims, measures
from secondlook.study.experiment import Experiment, run
from secondlook.study.text import fill

EXPERIMENT = Experiment(ROOT, "richardson")
extrapolation, logistic, frank_wolfe, lasso, ridge, chains, selections = (
    EXPERIMENT.part(name) for name in ("extrapolation", "logistic", "frank_wolfe", "lasso", "ridge", "chains", "selections")
)
POLYTOPES = ["simplex", "l1 ball"]
KINDS = [*POLYTOPES, "simplex, degenerate", "Euclidean ball"]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_an_error_a_over_k_is_removed_and_what_remains_is_known():
    k = np.arange(1, 65.0)
    path = np.concatenate([[[9, 9]], np.stack([3 + 2 / k, 3 + 2 / k + 5 / k**2], axis=1)])
    steps = extrapolation.even_steps(4, 64, 5)
    found = extrapolation.in_iterations(path, steps)
    assert found[:, 0] == pytest.approx(3)
    assert found[:, 1] == pytest.approx(3 - 10 / steps**2)  # 2 * 5 / k^2 - 5 / (k/2)^2


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_an_extrapolation_in_a_strength_is_exact_for_polynomials_of_its_order(order):
    s = 2.0 ** np.arange(-6, 1)
    polynomials = np.stack([sum(s**j for j in range(m + 1)) for m in (order, order + 1)], axis=1)
    found = extrapolation.in_strength(polynomials, order)
    assert found.shape == (len(s) - order, 2)
    assert found[:, 0] == pytest.approx(1)
    left = np.abs(found[:, 1] - 1)
    assert left[1:] / left[:-1] == pytest.approx(2 ** (order + 1))  # exactly the power order + 1


def test_even_steps_are_even_and_end_where_they_should():
    steps = extrapolation.even_steps(16, 4096, 40)
    assert (steps % 2 == 0).all() and (np.diff(steps) > 0).all() and (steps[0], steps[-1]) == (16, 4096)


def test_the_gap_of_logistic_regression_is_the_difference_of_losses():
    A = logistic.data(60, 4, 1.0, rng())
    best = logistic.minimum(A)
    theta = best + rng(1).standard_normal((5, 4))

    def f(x):
        return np.log1p(np.exp(-A @ x)).mean()

    assert logistic.gap(A, theta, best) == pytest.approx([f(x) - f(best) for x in theta], rel=1e-12)
    small = 1e-9 * rng(2).standard_normal(4)  # where that difference has no digits left, the quadratic model has them all
    assert logistic.gap(A, best[None] + small, best)[0] == pytest.approx(
        small @ logistic.hessian(A, best) @ small / 2, rel=1e-5
    )
    x = torch.tensor(theta[0], requires_grad=True)
    torch.nn.functional.softplus(-torch.from_numpy(A) @ x).mean().backward()
    assert logistic.gradient(A, theta[0]) == pytest.approx(x.grad.numpy())
    assert np.linalg.norm(logistic.gradient(A, best)) < 1e-14


def test_separable_classes_have_no_minimum():
    with pytest.raises(ValueError, match="A must hold classes that overlap"):
        logistic.minimum(np.array([[1.0, 0.2], [2.0, -0.1], [1.5, 0.3]]))


def test_the_extrapolated_mean_is_the_mean_of_the_second_half():
    A = logistic.data(40, 3, 1.0, rng())
    path = logistic.descend(A, 32, np.array([0.0, 0.1]), rng(1))
    lr = 4 * len(A) / np.linalg.eigvalsh(A.T @ A)[-1]
    assert path[1, :, 0] == pytest.approx(-lr * logistic.gradient(A, np.zeros(3)))
    found = extrapolation.in_iterations(logistic.averages(path), np.array([8, 32]))
    assert found == pytest.approx(np.stack([path[4:8].mean(0), path[16:32].mean(0)]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_minimum_of_an_instance_minimises(kind):
    problem = frank_wolfe.instance(kind, 12, 4, 0.1, rng())
    n = len(problem.best)
    points = {
        "simplex": np.eye(n),
        "l1 ball": np.concatenate([np.eye(n), -np.eye(n)]),
        "Euclidean ball": (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(rng(1).standard_normal((200, n))),
    }[problem.region]
    costs = (points - problem.best) @ problem.g
    assert costs.min() >= -1e-15
    if kind in POLYTOPES:  # zero on the face of the minimum alone, and the minimum is inside that face
        assert ((costs < 0.009) == (points @ problem.best > 0)).all() and (np.abs(costs[costs < 0.009]) < 1e-15).all()
        assert (problem.best != 0).sum() == 4
    assert problem.project(problem.best[None])[0] == pytest.approx(problem.best, abs=1e-15)
    for gradient in rng(2).standard_normal((20, n)):
        assert gradient @ problem.vertex(gradient) <= (points @ gradient).min() + 1e-12


@pytest.mark.parametrize("kind", ["simplex", "l1 ball", "Euclidean ball"])
def test_a_projection_is_the_nearest_point(kind):
    """It lies in C, and no point of C is on the far side: (x - p)^T (v - p) <= 0 for every v of C."""
    problem = frank_wolfe.instance(kind, 6, 3, 0.1, rng())
    x = np.concatenate([rng(1).standard_normal((30, 6)), 0.01 * rng(2).standard_normal((5, 6))])
    p = problem.project(x)
    for before, after in zip(x, p, strict=True):
        beyond = before - after
        assert beyond @ problem.vertex(-beyond) <= beyond @ after + 1e-12 if np.linalg.norm(beyond) > 0 else True
    if kind == "simplex":
        assert p.min() >= 0 and p.sum(1) == pytest.approx(1)
    else:
        order = 1 if kind == "l1 ball" else 2
        assert np.linalg.norm(p, axis=1, ord=order).max() <= 1 + 1e-12
        inside = np.linalg.norm(x, axis=1, ord=order) <= 1
        assert inside.any() and (p[inside] == x[inside]).all()


@pytest.mark.parametrize("rule, weights", [("1/k", lambda i, k: 1 / k), ("2/(k+1)", lambda i, k: 2 * i / (k * (k + 1)))])
def test_an_iterate_is_the_weighted_mean_of_its_vertices(rule, weights):
    problem = frank_wolfe.instance("l1 ball", 8, 3, 0.1, rng())
    path = frank_wolfe.walk(problem, rule, 20, rng(1))
    vertices = [problem.vertex(problem.g + problem.Q @ (x - problem.best)) for x in path[:-1]]
    for k in (1, 2, 7, 20):
        expected = sum(weights(i, k) * v for i, v in enumerate(vertices[:k], 1))
        assert path[k] == pytest.approx(expected)


def test_line_search_goes_as_far_as_pays():
    problem = frank_wolfe.instance("simplex", 8, 3, 0.1, rng())
    path = frank_wolfe.walk(problem, "line search", 10, rng(1))
    for x, after in zip(path, path[1:], strict=False):
        v = problem.vertex(problem.g + problem.Q @ (x - problem.best))
        tried = problem.gap(x + np.linspace(0, 1, 1001)[:, None] * (v - x))
        assert problem.gap(after[None])[0] <= tried.min() + 1e-15


SMOOTH = {
    "log cosh": lambda x, s: s * np.log(np.cosh(x / s)),
    "Huber": lambda x, s: np.where(np.abs(x) <= s, x**2 / (2 * s), np.abs(x) - s / 2),
}


@pytest.mark.parametrize("smoothing", SMOOTH)
def test_derivatives_of_the_smoothed_absolute_value(smoothing):
    x, s, h = np.linspace(-2, 2, 42), 0.5, 1e-5
    first, second = lasso.SMOOTHINGS[smoothing]
    value = SMOOTH[smoothing]
    assert first(x, s) == pytest.approx((value(x + h, s) - value(x - h, s)) / (2 * h), abs=1e-8)
    assert second(x, s) == pytest.approx((first(x + h, s) - first(x - h, s)) / (2 * h), abs=1e-5)
    assert ((np.abs(x) - s <= value(x, s)) & (value(x, s) <= np.abs(x))).all()


@pytest.mark.parametrize("smoothing", SMOOTH)
def test_the_smoothed_minimum_is_one_and_comes_to_the_lasso_s(smoothing):
    problem = lasso.instance(10, 4, 1.0, 0.1, rng())
    s = 2.0 ** np.arange(-12, 1)
    x = lasso.minima(problem, smoothing, s)
    assert np.abs(problem.gradient(x, smoothing, s[:, None])).max() < 1e-12
    gaps = problem.gap(x)
    assert (np.diff(gaps) > 0).all() and 0 <= gaps[0] < 0.1 * 4 * s[0] * 10  # w times s for each entry, at most
    path = lasso.accelerated(problem, smoothing, s[-3:], 4000)
    assert path[-1] == pytest.approx(x[-3:], abs=1e-6)


def test_the_gap_of_the_lasso_is_the_difference_of_its_values():
    problem = lasso.instance(10, 4, 1.0, 0.1, rng())

    def F(x):
        d = x - problem.best
        return d @ problem.Q @ d / 2 - 0.1 * problem.u @ d + 0.1 * np.abs(x).sum()

    x = problem.best + rng(1).standard_normal((6, 10))
    assert problem.gap(x) == pytest.approx([F(point) - F(problem.best) for point in x])
    assert problem.gap(problem.best) == 0
    assert problem.gap(lasso.proximal(problem, 3000)[-1]) < 1e-20


def test_ridge_solves_its_normal_equations_and_extrapolation_squares_the_filter():
    problem = ridge.instance(20, 6, 2.0, 1.0, rng())
    y = problem.A @ problem.truth + rng(1).standard_normal(20)
    s = 2.0 ** np.arange(-5, 1)
    found = ridge.solutions(problem.A, y, s)
    second = problem.A.T @ problem.A / 20
    expected = [np.linalg.solve(second + penalty * np.eye(6), problem.A.T @ y / 20) for penalty in s]
    assert found == pytest.approx(np.array(expected))
    w, V = np.linalg.eigh(second)
    truth = np.linalg.solve(second, problem.A.T @ y / 20)
    residual = (extrapolation.in_strength(found, 1) - truth) @ V
    filters = -2 * s[:-1, None] ** 2 / ((w + s[:-1, None]) * (w + 2 * s[:-1, None]))
    assert residual == pytest.approx(filters * (truth @ V))
    assert problem.risk(np.zeros((1, 6)))[0] == pytest.approx(1)


def test_the_mean_of_sgd_s_chains_is_that_of_a_literal_loop():
    A = logistic.data(15, 2, 0.0, rng())
    lrs, count, steps, burn_in, warm_up = (0.2, 0.5), 3, 9, 4, 2
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randint(15, (count,), generator=generator).numpy() for _ in range(steps)]
    best = logistic.minimum(A)
    expected = []
    for lr in lrs:
        theta, total, gradients = np.tile(best, (count, 1)), np.zeros(2), np.zeros(2)
        for t, i in enumerate(drawn):
            if t >= burn_in:
                total += theta.mean(0)
                gradients += (-A[i] * logistic.sigmoid(-A[i] @ best)[:, None]).mean(0)
            g = -A[i] * logistic.sigmoid(-(A[i] * theta).sum(1))[:, None]
            theta = theta - (lr if t >= warm_up else 0) * g
        removed = np.linalg.solve(logistic.hessian(A, best), gradients)
        expected.append((total + removed) / (steps - burn_in) - best)
    found = chains.mean_bias("SGD", A, lrs, count, steps, burn_in, warm_up, 7)
    assert found == pytest.approx(np.array(expected), abs=1e-12)


def test_slopes_are_those_of_powers_and_rounding_is_left_out():
    k = 2.0 ** np.arange(4, 12)
    values = pd.DataFrame([5 * k**-2, k**-1, np.where(k < 600, 1e-3 * k**-3, 1e-18)], columns=k)
    assert selections.slopes(values).tolist() == pytest.approx([-2, -1, -3])


@pytest.fixture(scope="module")
def rows():
    return pd.concat(run(EXPERIMENT, EXPERIMENT.setting(case, "smoke")) for case in EXPERIMENT.cases)


def test_a_run_is_repeated_to_the_last_bit(rows):
    for case in ("polytopes", "constant_rate"):
        again = run(EXPERIMENT, EXPERIMENT.setting(case, "smoke"))
        assert rows[rows.case == case].value.tolist() == again.value.tolist()


def test_measures_claims_text_and_figures_of_small_runs(rows):
    summary = measures.summarise(EXPERIMENT, rows)
    judged = {claim["id"]: claims.judge(claim, EXPERIMENT, summary) for claim in claims.declared(EXPERIMENT)}
    assert list(judged) == ["E10", "E10b", "E10c", "E10d"] and all(
        np.isfinite(number["value"]) for claim in judged.values() for number in claim["measured"]
    )
    assert (
        summary.measures["averaging_slope"]["decay_1_extrapolated"].value
        < summary.measures["averaging_slope"]["decay_1_exact"].value
    )
    for order in range(3):  # exact problems: their slopes are those of the theory at any scale
        assert summary.measures["ridge_slope"][f"order_{order}"].value == pytest.approx(order + 1, abs=0.05)
        assert summary.measures["strength_slope"][f"huber_order_{order}"].value == pytest.approx(order + 1, abs=0.1)
    values = {**summary.measures, "tables": summary.tables, "table": table, "verdict": lambda name: judged[name]["verdict"]}
    text = fill((EXPERIMENT.folder / "section.md").read_text(), values, "section.md")
    assert "<<" not in text and all(f"({name}:" in text for name in judged)
    style.apply()
    for name in EXPERIMENT.figures:
        figure = EXPERIMENT.made("figures", name, rows)
        assert all(axis.lines or axis.patches for axis in figure.axes)


def test_gains_and_losses_are_counted_by_seed(rows):
    altered = rows[rows.case.isin(["averaging", "polytopes", "smoothing", "penalties"])].copy()
    worse = (altered.case == "penalties") & (altered.metric == "risk")
    altered.loc[worse, "value"] = np.where(altered[worse].method == "order 1", 3.0, 2.0)  # half as much again, for every seed
    found = EXPERIMENT.part("measures").gains(altered)
    assert found["ridge_loss"].value == 1 and found["ridge_bad"].value == 0 and found["ridge_gain"].value == 0
    altered.loc[worse, "value"] = np.where(altered[worse].method == "order 1", 0.9, 2.0)
    found = EXPERIMENT.part("measures").gains(altered)
    assert found["ridge_strong"].value == found["ridge_gain"].value == 1 and found["ridge_loss"].value == 0
