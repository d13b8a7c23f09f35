"""The ensemble filters: updates against the Kalman filter's formulas, conditional means against closed forms, the integrator's
order, published errors, and measures and text of small runs."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sections import section
from torch.testing import assert_close

from secondlook.optim import AdaHessian
from secondlook.reporting import style
from secondlook.study import claims
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, run
from secondlook.study.place import Place

EXPERIMENT = Experiment(ROOT, "ensemble_filter")
analysis, cycling, networks, priors, systems, selections, measures = (
    EXPERIMENT.part(name) for name in ("analysis", "cycling", "networks", "priors", "systems", "selections", "measures")
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def ensemble(runs=2, members=30, d=4):
    """Members, linear predictions of three observed numbers, an observation."""
    A = normal(d, d, seed=1)
    X = normal(runs, members, d) @ A
    return X, X[..., :3], normal(runs, 3, seed=2)


def kalman(X, y, r, rho):
    """Mean, covariance of the Kalman filter for the ensemble's own moments, the first three components being observed."""
    n = X.shape[-1]
    P, mean, G = torch.cov(X.T), X.mean(0), torch.eye(n, dtype=X.dtype)[:3]
    R = torch.diag(r**2 / rho)
    K = P @ G.T @ torch.linalg.inv(G @ P @ G.T + R)
    return K, mean + K @ (y - G @ mean), (torch.eye(n, dtype=X.dtype) - K @ G) @ P


RHO = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("rho", [torch.ones(3, dtype=torch.float64), RHO])
def test_gain_and_square_root_filter_are_the_kalman_filter_s(rho):
    X, H, y = ensemble()
    K, after = analysis.gain(X, H, 0.7, rho), analysis.etkf(X, H, y, 0.7, rho)
    redrawn = analysis.redrawn(after, generator())
    for i in range(len(X)):
        gain, mean, covariance = kalman(X[i], y[i], 0.7, rho)
        assert_close(K[i].T, gain)
        for found in (after[i], redrawn[i]):
            assert_close(found.mean(0), mean)
            assert_close(torch.cov(found.T), covariance)
    assert (redrawn - after).abs().max() > 0.1


def test_perturbed_observations_give_the_kalman_filter_on_average():
    """x_i + K^T (y - y_i) has, over eps alone, the mean of the Kalman filter and the covariance (I - K G) P (I - K G)^T + K R K^T,
    which is its own: with eps as M centred columns of an orthogonal matrix, exactly."""
    X, H, y = ensemble(runs=1)
    r, rho, M = 0.7, torch.ones(3, dtype=torch.float64), X.shape[1]
    basis = torch.cat([torch.ones(1, M, 1, dtype=X.dtype), analysis.centred(X), normal(1, M, 3, seed=5)], -1)
    eps = torch.linalg.qr(basis)[0][..., -3:] * (M - 1) ** 0.5  # orthogonal to ones and to the anomalies, of unit covariance
    after = analysis.enkf(X, H + r * eps, y, analysis.gain(X, H, r, rho))
    _, mean, covariance = kalman(X[0], y[0], r, rho)
    assert_close(after[0].mean(0), mean)
    assert_close(torch.cov(after[0].T), covariance)


def test_the_conditional_mean_filter_with_a_linear_mean_is_the_ensemble_kalman_filter():
    X, H, y = ensemble()
    Y = H + normal(*H.shape, seed=3)
    K = analysis.gain(X, H, 1.0, torch.ones(3, dtype=torch.float64))
    assert_close(networks.conditional_mean(X, Y, y, lambda seen: seen @ K), analysis.enkf(X, Y, y, K))


def test_windows_on_a_ring_are_the_near_observations_and_updates_are_local():
    observed = torch.arange(0, 12, 2)
    windows = analysis.ring(12, observed, 5)
    for j in range(12):
        for place, weight in zip(observed[windows.index[j]].tolist(), windows.rho[j].tolist(), strict=True):
            distance = min(abs(j - place), 12 - abs(j - place))
            assert weight == pytest.approx(analysis.taper(torch.tensor(float(distance)).double(), 5).item())
        near = {k for k in observed.tolist() if min(abs(j - k), 12 - abs(j - k)) < 5}
        assert near <= set(observed[windows.index[j]].tolist())
    X = normal(2, 9, 12)
    assert_close(windows.whole(windows.states(X)), X)
    H, y = X[..., observed], normal(2, 6, seed=4)
    local = (windows.states(X), windows.members(H), windows.observed(y))
    whole = windows.whole(analysis.etkf(*local, 1.0, windows.rho))
    for j in (0, 7):
        index, rho = windows.index[j], windows.rho[j]
        alone = analysis.etkf(X[..., [j]], H[..., index], y[..., index], 1.0, rho)
        assert_close(whole[..., [j]], alone)


def test_the_taper_falls_from_one_to_zero_at_its_radius_and_is_smooth():
    distance = torch.linspace(0, 12, 1201, dtype=torch.float64)
    found = analysis.taper(distance, 10.0)
    assert found[0] == 1 and (found[distance >= 10] == 0).all() and (found.diff() <= 1e-15).all()
    assert found.diff().diff().abs().max() < 2e-4  # a second difference of h^2 |f''|, |f''| < 2: no kink at either joint
    assert found[500].item() == pytest.approx(1 - 5 / 3 + 5 / 8 + 1 / 2 - 1 / 4)  # half way: 5/24


@pytest.mark.parametrize("name", ["Lorenz-63", "Lorenz-96"])
def test_the_integrator_is_of_order_four(name):
    system = systems.SYSTEMS[name]
    x = 2 + normal(3, system.d)

    def at(steps):
        found = x
        for _ in range(steps):
            found = systems.step(system.f, found, 0.2 / steps)
        return found

    exact = at(640)
    errors = [(at(steps) - exact).norm().item() for steps in (20, 40, 80)]
    ratios = np.log2(np.array(errors[:-1]) / errors[1:])
    assert ratios == pytest.approx(4, abs=0.3)  # the next term of the error is smaller by dt: a tenth and less of it here


def test_the_dynamics_are_the_formulas():
    x, y, z = 1.5, -2.0, 20.0
    assert systems.lorenz63(torch.tensor([x, y, z])).tolist() == pytest.approx(
        [10 * (y - x), x * (28 - z) - y, x * y - 8 * z / 3]
    )
    u = normal(40)
    found = systems.lorenz96(u)
    for j in (0, 1, 20, 39):
        assert found[j].item() == pytest.approx((u[(j + 1) % 40] - u[j - 2]).item() * u[j - 1].item() - u[j].item() + 8)


def test_quadrature_gives_the_conditional_mean_and_variance_of_a_mixture():
    prior, tau, r = priors.SCALARS["two modes"], 0.5, 1.0
    y = prior.y[200:-200]
    gain = tau**2 / (tau**2 + r**2)
    weight = np.tanh(1.5 * y / (tau**2 + r**2))
    mean, variance = (part[200:-200] for part in prior.moments)
    assert mean == pytest.approx(gain * y + (1 - gain) * 1.5 * weight, abs=1e-9)
    assert variance == pytest.approx(gain * r**2 + ((1 - gain) * 1.5) ** 2 * (1 - weight**2), abs=1e-9)
    assert prior.law.sum() == pytest.approx(1) and prior.quantile(0.5) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("name", priors.SCALARS)
def test_draws_follow_the_density(name):
    """Mean and variance of 10,000 draws are within five standard errors of those of the density."""
    prior = priors.SCALARS[name]
    x = prior.draw(np.random.default_rng(0), (10_000,))
    weights = prior.density(prior.x) / prior.density(prior.x).sum()
    mean = weights @ prior.x
    moments = [weights @ (prior.x - mean) ** k for k in (2, 4)]
    assert abs(x.mean() - mean) < 5 * (moments[0] / 10_000) ** 0.5
    assert abs(x.var() - moments[0]) < 5 * ((moments[1] - moments[0] ** 2) / 10_000) ** 0.5


@pytest.mark.parametrize("kind", ["joint", "components"])
def test_the_conditional_mean_of_a_mixture_is_that_of_its_components(kind):
    prior, y = priors.Mixture(kind, 3), normal(5, 3)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    signs = signs[[0, -1]] if kind == "joint" else signs
    modes, total = signs.double() * prior.mode, prior.tau**2 + prior.r**2
    weights = torch.softmax(-(y[:, None] - modes).square().sum(-1) / (2 * total), 1)
    inside = modes + prior.tau**2 / total * (y[:, None] - modes)
    assert_close(prior.conditional_mean(y), (weights[..., None] * inside).sum(1))
    many = priors.by_likelihood(prior.draw((40_000,), generator()), y, prior.r)
    assert (many - prior.conditional_mean(y)).abs().max() < 0.1  # a weighted mean of thousands of members of spread 1.5


def toy():
    """Two ensembles' inputs and targets, and a network's first weights."""
    z, target = torch.randn(2, 12, 3, generator=generator(1)), torch.randn(2, 12, 2, generator=generator(2))
    return z, target, networks.start((2,), 3, 2, 4, generator())


@pytest.mark.parametrize("method", ["Adam", "L-BFGS"])
def test_every_ensemble_s_network_is_trained_as_if_it_were_alone(method):
    z, target, theta = toy()
    how = networks.Training(4, method, 0.05, 9, 1, True)
    before = networks.loss(theta, z, target)
    assert before.item() == pytest.approx(target.square().sum().item() / 12, rel=1e-6)  # V = c = 0
    together = networks.train([part.clone() for part in theta], [(z, target)], how, generator(3))
    assert networks.loss(together, z, target) < before
    for i in range(2):
        alone = networks.train([part[[i]].clone() for part in theta], [(z[[i]], target[[i]])], how, generator(3))
        for a, b in zip(alone, together, strict=True):
            assert_close(a[0], b[i], rtol=1e-3, atol=1e-4)  # single precision, a few steps


def test_a_step_of_adahessian_is_three_gradients():
    z, target, theta = toy()
    how = networks.Training(4, "AdaHessian", 0.05, 8, 1)
    found = networks.train([part.clone() for part in theta], [(z, target)], how, generator(3))
    expected = [part.clone().requires_grad_() for part in theta]
    optimizer = AdaHessian(expected, lr=0.05, generator=generator(3))
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.backward(networks.loss(expected, z, target))
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_network_finds_a_conditional_mean_that_bends_and_is_left_out_where_nothing_bends():
    prior = priors.Mixture("joint", 1)
    X = torch.cat([prior.draw((4, 400), generator()), normal(4, 400, 1, seed=7)], -1)  # a bent component, a straight one
    how = networks.Training(10, "Adam", 0.03, 100, 10)
    phi = networks.learn(X, X, 1.0, analysis.everything(2), how, generator(1))
    assert phi.used[:, 0].all() and (phi.held_out[:, 0] < 0.95).all()
    y = torch.stack([torch.linspace(-3, 3, 61, dtype=X.dtype), torch.zeros(61, dtype=X.dtype)], -1).expand(4, 61, 2)
    exact = prior.conditional_mean(y[0, :, :1])[:, 0]

    def error(values):
        return (values - values.mean(1, keepdim=True) - exact + exact.mean()).square().mean(1)

    assert (error(phi(y)[..., 0]) < 0.3 * error((y @ phi.K)[..., 0])).all()
    assert (phi.held_out[:, 1] > 0.97).all()  # nothing to gain: E|X - phi|^2 cannot fall


def test_of_two_networks_every_component_has_the_better_on_held_out_members():
    def learnt(value, held_out):
        held_out = torch.tensor([held_out])
        return networks.Learnt(torch.eye(3), lambda y: torch.full_like(y, value), held_out < 1, held_out)

    found = networks.better(learnt(1.0, [0.5, 0.9, 1.1]), learnt(2.0, [0.6, 0.8, 1.2]))
    assert found.held_out.tolist() == [pytest.approx([0.5, 0.8, 1.1])] and found.used.tolist() == [[True, True, False]]
    y = torch.zeros(1, 4, 3)
    assert (found.correction(y)[..., :2] == torch.tensor([1.0, 2.0])).all()
    assert (found(y + 1) == torch.tensor([2.0, 3.0, 1.0])).all()


@pytest.mark.parametrize(
    "name, method, members, inflation, published",
    [("Lorenz-63", "EnKF", 100, 1.01, 0.56), ("Lorenz-63", "ETKF", 10, 1.02, 0.60), ("Lorenz-63", "EnKF", 10, 1.04, 0.65)],
)
def test_the_baselines_reach_the_errors_that_dapper_publishes(name, method, members, inflation, published):
    """DAPPER's numbers, with two digits, are of one run of 1,000 cycles; ours of 20 runs of 100. The error of a cycle is about as
    large as it scatters, and is forgotten within a few: a mean of 1,000 scatters by about 5 %, so that 15 % is three times that."""
    system = systems.SYSTEMS[name]
    truth = system.truth(20, 110, generator(5))
    found = cycling.follow(system, truth, method, members, torch.full((20,), inflation).double(), 1.0, 10, generator(6))
    assert found.rmse.mean().item() == pytest.approx(published, rel=0.15)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    settings = [EXPERIMENT.setting(case, "smoke") for case in EXPERIMENT.cases]
    return pd.concat([run(EXPERIMENT, setting, Place(folder / setting.case)) for setting in settings], ignore_index=True)


def test_a_run_is_repeated_to_the_last_bit_but_for_its_seconds(rows, tmp_path):
    again = run(EXPERIMENT, EXPERIMENT.setting("tuning", "smoke"), Place(tmp_path))
    kept = again.metric != "seconds"
    assert rows[rows.case == "tuning"].value[kept.to_numpy()].tolist() == again.value[kept].tolist()


def test_measures_claims_text_and_figures_of_small_runs(rows):
    found = study.from_plain(study.to_plain(study.summarise(EXPERIMENT, rows)))
    judged = [claims.judge(claim, EXPERIMENT, found) for claim in claims.declared(EXPERIMENT)]
    assert [claim["id"] for claim in judged] == ["E11a", "E11b", "E11c", "E11d"]
    assert all(np.isfinite(number["value"]) for claim in judged for number in claim["measured"])
    text = section(EXPERIMENT, found)
    assert all(f"({claim['id']}: {claim['id']})" in text for claim in judged)
    style.apply()
    for name in EXPERIMENT.figures:
        assert all(axis.lines for axis in EXPERIMENT.made("figures", name, rows).axes)


def test_every_filter_is_tuned_over_the_same_trials_on_other_runs():
    tuning, tracking = (EXPERIMENT.setting(case) for case in ("tuning", "tracking"))
    assert not set(tuning.seeds) & set(tracking.seeds) and not {s + 1 for s in tuning.seeds} & set(tracking.seeds)
    assert set(tuning.parameters["trials"]) == set(tracking.parameters["tuned"])
    for where, best in tracking.parameters["tuned"].items():
        tried = tuning.parameters["trials"][where]
        assert set(best) == set(selections.FILTERS)
        assert all(inflation in tried["inflation"] and radius in tried["radius"] for inflation, radius in best.values())


def filtered(case, errors):
    """Rows of errors: {(system, members, method, radius, inflation): one value a run}."""
    names = ("system", "members", "method", "radius", "inflation")
    return pd.DataFrame(
        {"case": case, "metric": "rmse", **dict(zip(names, at, strict=True)), "run": run, "value": value, "step": 10}
        for at, values in errors.items()
        for run, value in enumerate(values)
    )


def test_the_best_trial_has_the_least_error_and_says_whether_it_lies_inside():
    errors = {("a", 50, "EnKF", 1.0, factor): [error, error] for factor, error in ((0.9, 3), (1.0, 1), (1.1, 2))}
    errors |= {("a", 50, "ETKF", radius, 1.0): [radius, 6 - radius / 2] for radius in (4.0, 8.0, 16.0)}
    found = selections.best(rows := filtered("tuning", errors))
    assert found.loc["a", 50, "EnKF"].tolist() == [1.0, 1.0, 1.0, None, True]
    assert found.loc["a", 50, "ETKF"].tolist() == [4.0, 1.0, 4.0, False, False]
    counts = {name: (count.value, count.n) for name, count in measures.inside(rows).items()}
    assert counts == {"inflation": (1, 2), "radius": (0, 1)}


def test_gains_are_fractions_of_the_rival_s_error_run_by_run():
    runs = [1.0, 2.0, 4.0]
    errors = {("a", 50, "EnKF", 1.0, 1.0): runs, ("a", 50, "ETKF", 1.0, 1.0): [0.75 * x for x in runs]}
    errors[("a", 50, "learnt", 1.0, 1.0)] = [0.5 * x for x in runs]
    rows = filtered("tracking", errors)
    (gain,), (over,) = (measures.gain(rows, rival).values() for rival in ("EnKF", "ETKF"))
    assert (gain.value, gain.low, gain.high, gain.n) == pytest.approx((0.5, 0.5, 0.5, 3))
    assert over.value == pytest.approx(1 / 3)


def test_the_largest_bias_has_its_sign_and_the_hull_holds_all_intervals():
    values = {"a": [0.0, 0.02], "b": [-0.5, -0.3]}
    rows = pd.DataFrame(
        {"case": "posterior", "metric": "bias", "prior": prior, "quantile": 0.5, "method": m, "seed": seed, "value": value}
        for prior, pair in values.items()
        for m in selections.METHODS
        for seed, value in enumerate(pair)
    )
    found = measures.bias(rows)
    assert found["enkf"].value == found["enkf_b"].value == pytest.approx(-0.4) and found["enkf_a"].value == pytest.approx(0.01)
    assert (found["enkf_all"].low, found["enkf_all"].high) == (found["enkf_b"].low, max(found[f"enkf_{p}"].high for p in "ab"))


def test_an_estimate_of_phi_is_set_beside_the_better_of_its_rivals():
    errors = {"linear": [0.4, 0.6], "likelihood": [0.9, 0.1 + 0.95], "chosen": [0.2, 0.3], "network": [1.0, 1.0]}
    rows = pd.DataFrame(
        {"case": "dimensions", "prior": "joint", "dimension": d, "members": 50, "method": m, "run": i, "value": v}
        for d in (1, 40)
        for m, pair in errors.items()
        for i, v in enumerate(pair)
    ).assign(metric="error")
    found = measures.error_ratio(rows)
    assert found["joint_least"].value == found["joint_most"].value == pytest.approx(0.5)
