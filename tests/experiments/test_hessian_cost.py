"""The experiment on the dense Hessian: its ways agree, and its fits and figures read what they say."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from experiments.hessian_cost import experiment, figures, measures, methods, selections
from secondlook.study.experiment import Experiment, run

HESSIAN_COST = Experiment(ROOT, "hessian_cost")


@pytest.mark.parametrize("way", methods.HESSIANS)
def test_every_way_gives_the_same_hessian(way):
    p = experiment.Problem.of(4, 6)
    params = [W.double() for W in p.params]
    p = experiment.Problem(p.network, params, p.x.double(), p.y)
    theta = torch.cat([W.reshape(-1) for W in params])
    slow = torch.autograd.functional.hessian(lambda t: p.loss([W.reshape(4, 5) for W in t.split(20)]), theta)
    torch.testing.assert_close(methods.HESSIANS[way](p.loss, params).detach(), slow, rtol=0, atol=1e-12)


def test_the_ways_are_those_that_are_reported():
    assert tuple(methods.HESSIANS) == selections.HESSIANS


@pytest.mark.parametrize("solver", [methods.inverse, methods.lu, methods.cholesky])
def test_solvers_solve(solver):
    generator = torch.Generator().manual_seed(0)
    A, g = (torch.randn(8, *shape, generator=generator, dtype=torch.float64) for shape in ((8,), ()))
    H = A @ A.T + torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(H @ solver(H, g), -g, rtol=0, atol=1e-10)


def test_conjugate_gradients_stop_at_their_tolerance_and_end_after_n():
    generator = torch.Generator().manual_seed(0)
    A, g = (torch.randn(8, *shape, generator=generator, dtype=torch.float64) for shape in ((8,), ()))
    H = A @ A.T + torch.eye(8, dtype=torch.float64)
    p, products = methods.conjugate_gradients(H.mv, g, 0.3)
    assert (H @ p + g).norm() <= 0.3 * g.norm() and 1 < products < 8
    p, products = methods.conjugate_gradients(H.mv, g, 1e-300)
    assert products == 8 and (H @ p + g).norm() <= 1e-9 * g.norm()


def test_the_product_without_a_matrix_is_that_of_the_matrix():
    s = experiment._system(4, 6, 0.1)
    v = torch.randn(s.n, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(s.product(v), s.H @ v, rtol=1e-5, atol=1e-6)
    assert torch.linalg.eigvalsh(s.H)[0] > 0


def powers(b, sizes=(90, 1000, 3000, 9000), bend=1.0):
    """Two rounds of values n^b; below 1,000 another law."""
    return pd.DataFrame({n: [float(n) ** b * (1.0 if n >= 1000 else bend)] * 2 for n in sizes})


def test_an_exponent_is_that_of_the_power_law_from_a_thousand_on():
    found = selections.exponent(powers(1.7, bend=100.0))
    assert found.value == pytest.approx(1.7) and found.ends == pytest.approx((1.7, 1.7), abs=1e-6)
    assert found.n == 3
    noisy = powers(2.0) * np.array([1, 1, 1.2, 1])
    low, high = selections.exponent(noisy).ends
    assert low < 2 < high and high - low > 0.1
    assert np.isnan(selections.exponent(powers(2.0) * 0).value)


@pytest.fixture(scope="module")
def rows():
    """The three cases at trial scale, the memory, which takes processes, made up."""
    tables = []
    for case in ("dense", "solve"):
        setting = HESSIAN_COST.setting(case, "smoke")
        tables.append(run(HESSIAN_COST, setting))
    peaks = [
        {"case": "memory", "seed": 0, "method": way, "n": n, "step": 0, "metric": "peak_mib", "value": 3e-6 * n**2}
        for way in selections.HESSIANS
        for n in (1026, 3168, 5940, 9918)
    ]
    return pd.concat([*tables, pd.DataFrame(peaks)], ignore_index=True)


def test_measures_are_there_for_every_way(rows):
    assert measures.over_ours(rows)["ours"].value == 1 and measures.solve_over_inverse(rows)["inverse"].value == 1
    assert all(found.value > 0 for found in measures.seconds(rows).values())
    assert measures.memory_exponent(rows)["ours"].value == pytest.approx(2)
    assert measures.matrices(rows)["ours"].value == pytest.approx(3e-6 * 2**20 / 4)
    assert all(error.value < 1e-3 for error in measures.residual(rows).values())
    assert list(measures.hessians(rows).Way) == list(selections.HESSIANS)
    assert list(measures.solvers(rows).Way) == list(selections.SOLVERS)


def test_figures_draw_every_way(rows):
    left, right = figures.hessian(rows).axes
    for ax, ways in (
        (left, selections.HESSIANS),
        (right, selections.HESSIANS),
        (figures.newton_step(rows).axes[0], selections.SOLVERS),
    ):
        assert [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()] == list(ways)


def test_memory_is_measured_in_a_process_of_its_own():
    ((n, peak),) = experiment._peaks([4], 2, "ours")
    assert n == 60 and 0 <= peak < 64
