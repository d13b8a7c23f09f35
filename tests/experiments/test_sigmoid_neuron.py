"""The sigmoid neuron: its derivatives against autograd, its rules against torch and the library, its measures on hand-made curves."""

import numpy as np
import pytest
import torch
from conftest import ROOT

from secondlook.study import claims, measures
from secondlook.study.arrivals import first
from secondlook.study.experiment import Experiment, run

EXPERIMENT = Experiment(ROOT, "sigmoid_neuron")
rules, curves, experiment = (EXPERIMENT.part(name) for name in ("neuron", "curves", "experiment"))

BETAS = (0.9, 0.999)
ANCESTOR = rules.Neuron(np.array([0.5, 2.5]), np.array([0.2, 0.9]), "SSE/2")
NOISY = [rules.Neuron(np.array([-2.0, -0.3, 0.1, 1.7]), np.array([0.3, 0.1, 0.6, 0.8]), loss) for loss in rules.LOSSES]
NEURONS = pytest.mark.parametrize("neuron", NOISY, ids=list(rules.LOSSES))


def descend(d, rates, eps, start=(-2, -2)):
    return rules.descend(ANCESTOR, d, np.tile(start, (len(rates), 1)), rates, 200, BETAS, eps)


@NEURONS
def test_derivatives_are_those_of_autograd(neuron):
    theta = np.random.default_rng(0).uniform(-3, 3, (20, 2))
    for at, g, H in zip(theta, neuron.gradient(theta), neuron.hessian(theta), strict=True):
        w, b = torch.tensor(at)

        def loss(w, b):
            return experiment.autograd_loss(neuron, w, b)

        np.testing.assert_allclose(neuron.value(at), loss(w, b), rtol=0, atol=1e-12)
        np.testing.assert_allclose(g, torch.autograd.functional.jacobian(loss, (w, b)), rtol=0, atol=1e-12)
        np.testing.assert_allclose(H, torch.autograd.functional.hessian(loss, (w, b)), rtol=0, atol=1e-12)


@NEURONS
def test_adam_of_many_cells_is_torch_adam(neuron):
    starts, rates = np.array([[-2, -2], [2, -2], [0, 1], [1, 0]]), [0.01, 0.1, 0.5, 2.0]
    ours = rules.descend(neuron, rules.gradient, starts, rates, 100, BETAS, 1e-8)
    for i, (start, lr) in enumerate(zip(starts, rates, strict=True)):
        theirs = experiment.torch_path(neuron, lambda p, lr=lr: torch.optim.Adam(p, lr, BETAS, 1e-8), start.astype(float), 100)
        np.testing.assert_allclose(ours[:, i], theirs[:, 0], rtol=0, atol=1e-12)


@NEURONS
@pytest.mark.parametrize("k", [1.0, 0.5])
def test_adahessian_is_the_library_s(neuron, k):
    def library(parameters):
        return experiment.AdaHessian(parameters, 0.1, BETAS, 1e-4, hessian_power=k, diagonal=experiment.Exact())

    ours = rules.descend(neuron, rules.exact, [[-2, -2]], [0.1], 200, BETAS, 1e-4, k)
    np.testing.assert_allclose(ours, experiment.torch_path(neuron, library, (-2.0, -2.0), 200), rtol=0, atol=1e-12)


def test_a_probe_adds_the_off_diagonal_with_either_sign():
    H = np.broadcast_to([[2.0, 0.5], [0.5, 1.0]], (100, 2, 2))
    estimates = rules.hutchinson(np.random.default_rng(0))(np.zeros((100, 2)), H)
    assert {tuple(e) for e in estimates} == {(2.5, 1.5), (1.5, 0.5)}


def test_averaging_over_blocks_of_one_changes_nothing():
    H = np.array([[[2.0, 0.5], [0.5, 1.0]]])
    assert rules.averaged(1)(None, H).tolist() == [[2, 1]]
    assert rules.averaged(2)(None, H).tolist() == [[1.5, 1.5]]


def test_the_minimum_of_two_points_fits_both():
    w = (np.log(9) + np.log(4)) / 2  # logit(0.9) - logit(0.2) over the distance of the inputs
    np.testing.assert_allclose(rules.minimum(ANCESTOR, experiment.SEARCH), [w, np.log(9) - 2.5 * w], rtol=0, atol=1e-7)


@NEURONS
def test_the_minimum_is_stationary_and_convex(neuron):
    lowest = rules.minimum(neuron, experiment.SEARCH)
    assert np.abs(neuron.gradient(lowest)).max() < 1e-9
    assert np.linalg.eigvalsh(neuron.hessian(lowest)).min() > 0


def test_epochs_of_hand_made_curves():
    loss = np.array([[10, 10], [4, 1], [1, 4], [2, 6], [0, 8.0]])
    assert curves.arrived(loss, np.array([2, 9])).tolist() == [2, 1]
    assert curves.arrived(loss, np.array([1, 2])).tolist() == [4, np.inf]
    assert first(loss <= np.array([1, 2])).tolist() == [2, 1]
    assert first(loss <= np.array([-1, 10])).tolist() == [np.inf, 0]
    assert curves.stabilised(loss, 0.25).tolist() == [2, 4]
    assert np.isinf(curves.stabilised(np.array([[1.0], [np.nan]]), 0.01)).all()


def test_detour_of_hand_made_paths():
    straight, corner = [[0, 0], [1, 1], [3, 3]], [[0, 0], [3, 0], [3, 4]]
    np.testing.assert_allclose(curves.detour(np.stack([straight, corner], axis=1)), [1, 7 / 5])


def test_rates_that_give_the_epochs_of_the_article():
    setting = EXPERIMENT.setting("article").parameters
    rates = 0.0005 * np.arange(1, 401)
    for d, eps, stated, window, chosen in (
        (rules.gradient, 1e-8, 175, (0.021, 0.023), setting["adam_lr"]),
        (rules.exact, 1e-4, 150, (0.062, 0.066), setting["adahessian_lr"]),
    ):
        epochs = curves.stabilised(ANCESTOR.value(descend(d, rates, eps)), 0.01)
        inside = rates[np.abs(epochs - stated) <= 2]
        assert window[0] - 1e-9 <= inside.min() and inside.max() <= window[1] + 1e-9
        assert chosen == pytest.approx(np.median(inside), abs=0.0003)


def test_adam_is_faster_at_small_equal_rates_and_adahessian_at_larger_ones():
    rates = [0.02, 0.05, 0.1, 0.2, 0.4, 0.5]
    adam, ours = (ANCESTOR.value(descend(d, rates, eps)) for d, eps in ((rules.gradient, 1e-8), (rules.exact, 1e-4)))
    target = 0.1 * adam[0]
    assert (curves.arrived(adam, target) < curves.arrived(ours, target))[:4].all()
    assert (curves.arrived(adam, target / 10) < curves.arrived(ours, target / 10)).tolist() == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert (curves.arrived(adam, target / 10) > curves.arrived(ours, target / 10)).tolist() == [False] * 4 + [True] * 2


def test_smoke_run_measures_and_judges_everything():
    import pandas as pd

    rows = pd.concat([run(EXPERIMENT, EXPERIMENT.setting(case, "smoke")) for case in EXPERIMENT.cases], ignore_index=True)
    summary = measures.summarise(EXPERIMENT, rows)
    judged = claims.judge_all([(EXPERIMENT, summary)])
    assert [claim["id"] for claim in judged] == ["B1", "B2", "B3"]
    assert max(summary.find(f"equalities.{name}", "").value for name in ("adam", "adahessian")) < 1e-12
    assert summary.find("equalities.block_1", "").value <= 1e-14  # no difference
    rate = summary.find("newton.predicted", "").value
    assert summary.find("newton.rate", "").value == pytest.approx(rate, abs=0.02)
