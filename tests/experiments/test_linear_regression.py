"""The experiment on a straight line: its data, its closed forms, and that its instruments and optimisers do what the text says."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sections import section
from torch.nn import functional

from secondlook.optim import KFAC, Newton
from secondlook.study import claims, measures
from secondlook.study.experiment import Experiment, run
from secondlook.training import path

EXPERIMENT = Experiment(ROOT, "linear_regression")
data, experiment = (EXPERIMENT.part(name) for name in ("data", "experiment"))


@pytest.fixture(scope="module")
def rows():
    return pd.concat([run(EXPERIMENT, EXPERIMENT.setting(case, "smoke")) for case in EXPERIMENT.cases])


def test_m_and_b_of_the_document_are_numbers_1_and_10502_of_its_stream():
    """0.54881 and 0.54971 to five digits: by chance, once in 10^10 pairs of places."""
    stream = np.random.RandomState(data.STREAM).rand(10_502)
    assert stream[[0, -1]].round(5).tolist() == [0.54881, 0.54971]
    x, y = data.points(10_500, 1e-12)
    assert np.array_equal(x, stream[1:-1])
    assert np.allclose(y, stream[0] * x + stream[-1])


@pytest.mark.parametrize("reading", data.READINGS)
def test_readings_draw_the_same_numbers_in_other_orders(reading):
    x, y = data.points(1000, 0.25, reading)
    u = np.random.RandomState(data.STREAM)
    u.rand(1002)
    u = u.uniform(-0.25, 0.25, 2000)
    dm, db = data.READINGS[reading](u)
    assert sorted([*dm, *db]) == sorted(u)
    assert np.allclose(y - data.points(1000, 1e-12)[1], dm * x + db)


def test_the_line_s_closed_form_is_its_mean_squared_error():
    x, y = data.points(300, 0.25)
    line = data.Line.through(x, y)
    theta = np.random.default_rng(0).normal(size=(5, 2))
    direct = np.mean((theta[:, :1] * x + theta[:, 1:] - y) ** 2, axis=1)
    assert line.floor + line.excess(theta) == pytest.approx(direct)
    assert line.excess(line.minimum) == 0


def test_newton_takes_the_line_to_its_minimum_in_one_step_and_k_fac_s_factors_are_its_hessian():
    x, y = data.points(300, 0.25)
    known = data.Line.through(x, y)
    line = experiment.model((0.0, 0.4)).double()
    X, Y = (torch.tensor(values)[:, None] for values in (x, y))
    kfac = experiment.OPTIMISERS["K-FAC"](line, 1.0)
    assert isinstance(kfac, KFAC)
    kfac.curvature(line(X))
    functional.mse_loss(line(X), Y).backward()
    kfac.step()
    ((A, G),) = kfac.factors.values()
    assert torch.allclose(torch.kron(G, A), torch.tensor(known.H))
    line = experiment.model((0.0, 0.4)).double()
    experiment.step_of(Newton(line.parameters()), line)(X, Y)
    assert experiment.theta(line) == pytest.approx(known.minimum)


def test_aim_by_hand():
    line = experiment.model((0.0, 0.0)).double()
    pieces = path.Path(line.parameters())
    for m, b in [(3.0, 0.0), (3.0, 4.0)]:
        with torch.no_grad():
            line.weight.fill_(m)
            line.bias.fill_(b)
        pieces.record()
    assert experiment.aim(pieces, np.array([3.0, 4])) == pytest.approx((3 / 5 + 1) / 2)


def test_demo_agrees_with_a_loop_written_out():
    setting = EXPERIMENT.setting("demo", "smoke")
    p = experiment.Shared(**setting.parameters | {"start": (0.0, 0.4)})
    found = run(EXPERIMENT, setting).query("seed == 1")
    x, y = (torch.tensor(values[: p.train], dtype=torch.float32) for values in p.points)
    m, b = torch.tensor(0.0, requires_grad=True), torch.tensor(0.4, requires_grad=True)
    optimizer, points = torch.optim.Adam([m, b], p.lr), [(0.0, 0.4)]
    order = experiment.generator(1, "order")
    for _ in range(p.epochs):
        for i in torch.randperm(p.train, generator=order).split(p.batch_size):
            optimizer.zero_grad()
            ((m * x[i] + b - y[i]) ** 2).mean().backward()
            optimizer.step()
            points.append((m.item(), b.item()))
    points = np.array(points)
    ends = points[:: p.train // p.batch_size]
    value = {(metric, step): value for metric, step, value in found[["metric", "step", "value"]].itertuples(index=False)}
    singular = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    assert value["m", p.epochs] == pytest.approx(points[-1, 0], abs=1e-5)
    assert value["displacement", p.epochs] == pytest.approx(np.linalg.norm(ends[-1] - ends[0]), abs=1e-5)
    assert value["travelled", p.epochs] == pytest.approx(np.linalg.norm(np.diff(ends, axis=0), axis=1).sum(), abs=1e-5)
    assert value["first axis", p.epochs] == pytest.approx(singular[0] / singular.sum(), abs=1e-4)


def test_noise_is_drawn_anew_on_the_same_line_at_the_same_places():
    p = experiment.Shared(**EXPERIMENT.setting("redrawn", "smoke").parameters | {"start": (0.0, 0.4)})
    one, other = (experiment.Redrawn(**vars(p), noise=seed).points for seed in (0, 1))
    assert np.array_equal(one[0], p.points[0]) and np.array_equal(one[0], other[0])
    assert 0 < np.abs(one[1] - other[1]).max() < 4 * p.spread and 0 < np.abs(one[1] - p.points[1]).max() < 4 * p.spread


def test_two_runs_are_the_same_to_the_bit(rows):
    again = run(EXPERIMENT, EXPERIMENT.setting("path", "smoke"))
    first = rows[rows.case == "path"][again.columns].reset_index(drop=True)
    assert first.equals(again)


def test_stated_numbers_are_compared_with_single_runs():
    """Distances .56, .57, .58 have the mean .57 and the spread .01; the share's mean, .8912, prints as .891."""
    values = {"displacement": [0.56, 0.57, 0.58], "first axis": [0.8902, 0.8912, 0.8922]}
    cases = {"displacement": "demo", "first axis": "redrawn"}
    lines = [(cases[metric], metric, seed, 5, x) for metric, runs in values.items() for seed, x in enumerate(runs)]
    found = EXPERIMENT.part("measures").from_stated(pd.DataFrame(lines, columns=["case", "metric", "seed", "step", "value"]))
    assert found["distance"].value == pytest.approx((0.57 - 0.56155) / 0.01, abs=0.0051) and found[
        "share"
    ].value == pytest.approx(0)


def test_every_number_of_the_section_and_the_claim_is_measured(rows):
    summary = measures.summarise(EXPERIMENT, rows)
    assert [claim["id"] for claim in claims.judge_all([(EXPERIMENT, summary)])] == ["D1", "D1b"]
    section(EXPERIMENT, summary)


def test_figures_show_what_they_say(rows):
    figures = EXPERIMENT.part("figures")
    assert [len(getattr(figures, name)(rows).axes) for name in ("training", "angles", "steadiness", "rules")] == [4, 5, 4, 2]
    animation = figures.descent(rows)
    animation.draw(animation.frames - 1)
    assert "step" in animation.figure.axes[0].get_title("left")
