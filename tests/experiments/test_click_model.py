"""The click model: a teacher whose best prediction is known, gradients in two parts, and methods that start alike."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sections import section
from torch.nn import functional

from experiments.click_model import experiment, measures, selections, teacher
from experiments.click_model.methods import METHODS, Method, schedule
from experiments.click_model.model import ClickModel
from secondlook.curvature.hutchinson import ONE_PROBE
from secondlook.curvature.vectors import flat
from secondlook.errors import Mistake
from secondlook.optim.base import SEED
from secondlook.study import claims, comparison
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.place import Place
from secondlook.study.text import key

CLICKS = Experiment(ROOT, "click_model")
RECORDED = ROOT / "results" / "recorded" / "click_model" / "rates.csv"
KINDS = {"rates": experiment.Rates, "comparison": experiment.Comparison}
FIELDS, DENSE = (2, 3, 5), 2
CONSTANTS = SimpleNamespace(betas=(0.9, 0.999), epsilon=1e-4, adam_epsilon=1e-8, adagrad_epsilon=1e-10)


def steady(t: int) -> float:
    return 1.0


def params(case: str, scale: str = "paper", changes=()):
    return build(KINDS[case], CLICKS.setting(case, scale, changes).parameters, "config.yaml")


def drawn(count: int, seed: int = 0, spread: float = 1.5) -> teacher.Examples:
    return teacher.draw(count, FIELDS, 1.2, DENSE, 2, (0.5, 0.25, 0.25), spread, 0.25, np.random.default_rng(seed))


def doubled(batch: teacher.Examples) -> teacher.Examples:
    return teacher.Examples(batch.dense.double(), batch.category, batch.click.double(), batch.logit)


def model(dtype=torch.float64, seed: int = 0) -> ClickModel:
    return ClickModel(FIELDS, DENSE, 4, 6, torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("work")
    return pd.concat(
        [run(CLICKS, CLICKS.setting(case, "smoke"), Place(folder / case)) for case in CLICKS.cases], ignore_index=True
    )


def test_excess_is_the_divergence_of_two_coins():
    a, q = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    p, r = 1 / (1 + torch.exp(-a)), 1 / (1 + torch.exp(-q))
    divergence = p * torch.log(p / r) + (1 - p) * torch.log((1 - p) / (1 - r))
    assert teacher.excess(a, q) == pytest.approx(1000 * divergence.mean().item(), rel=1e-9)
    assert teacher.excess(a, a) == pytest.approx(0, abs=1e-9)
    entropy = -(p * torch.log(p) + (1 - p) * torch.log(1 - p))
    assert teacher.bayes_loss(a) == pytest.approx(1000 * entropy.mean().item(), rel=1e-9)


def test_nothing_is_right_more_often_than_the_teacher():
    a, q = torch.randn(2, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = torch.sigmoid(a)
    assert teacher.accuracy(a, a) == pytest.approx(100 * torch.maximum(p, 1 - p).mean().item(), rel=1e-12)
    assert teacher.accuracy(a, q) < teacher.accuracy(a, a)
    assert teacher.accuracy(a, -a) == pytest.approx(100 - teacher.accuracy(a, a), rel=1e-12)


@pytest.mark.parametrize("measure", ["log-loss", "accuracy", "clicks"])
def test_expected_scores_are_those_of_drawn_clicks(measure):
    """Over 200,000 clicks each mean lies within 4.5 standard errors of its expectation: false alarm 1 in 50,000 each."""
    found = drawn(200_000)
    a, y = found.logit, found.click.double()
    simulated, expected = {
        "log-loss": (functional.binary_cross_entropy_with_logits(a, y, reduction="none"), teacher.bayes_loss(a) / 1000),
        "accuracy": (((a > 0) == (y > 0)).double(), teacher.accuracy(a, a) / 100),
        "clicks": (y, 0.25),
    }[measure]
    error = simulated.std().item() / len(a) ** 0.5
    assert abs(simulated.mean().item() - expected) < 4.5 * error


def test_the_teacher_has_the_declared_spread_base_rate_and_categories():
    found = drawn(50_000, spread=2.0)
    assert torch.sigmoid(found.logit).mean().item() == pytest.approx(0.25, rel=1e-9)
    assert found.logit.std().item() == pytest.approx(2.0, rel=1e-4)
    for field, n in zip(found.category.T, FIELDS, strict=True):
        share = np.bincount(field, minlength=n) / len(field)
        zipf = np.arange(1, n + 1) ** -1.2 / (np.arange(1, n + 1) ** -1.2).sum()
        assert len(share) == n and np.abs(share - zipf).max() < 4.5 * 0.5 / len(field) ** 0.5  # false alarm below 1e-4


def test_pairs_are_the_sum_over_pairs():
    """The logit of a teacher with nothing but pairs follows the literal sum."""
    count, latent = 200, 3
    found = teacher.draw(count, FIELDS, 1.2, DENSE, latent, (0, 0, 1), 1.0, 0.5, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    d = rng.standard_normal((count, DENSE))
    weights = [np.arange(1, n + 1) ** -1.2 for n in FIELDS]
    x = [rng.choice(n, size=count, p=w / w.sum()) for n, w in zip(FIELDS, weights, strict=True)]
    for n in FIELDS:
        rng.standard_normal(n)
    _, B = (rng.standard_normal((DENSE, latent)) / np.sqrt(DENSE) for _ in range(2))
    rng.standard_normal(latent)
    u = [np.tanh(d @ B)] + [rng.standard_normal((n, latent))[c] for n, c in zip(FIELDS, x, strict=True)]
    pairs = sum((u[f] * u[h]).sum(1) for f in range(len(u)) for h in range(f + 1, len(u)))
    assert np.corrcoef(pairs, found.logit)[0, 1] == pytest.approx(1, abs=1e-12)


def test_shares_must_add_up():
    with pytest.raises(ValueError, match="shares"):
        teacher.draw(10, FIELDS, 1.0, DENSE, 2, (0.5, 0.5, 0.5), 1.0, 0.25, np.random.default_rng(0))


def test_logits_are_top_of_bottom_and_all_pairs():
    net, batch = model(), doubled(drawn(7))
    h = net.bottom(batch.dense)
    first = np.cumsum([0, *FIELDS[:-1]])
    v = [h] + [net.embedding.weight[batch.category[:, f] + first[f]] for f in range(len(FIELDS))]
    dots = [(v[f] * v[g]).sum(1) for f in range(4) for g in range(f + 1, 4)]
    expected = net.top(torch.cat([h, torch.stack(dots, 1)], 1))[:, 0]
    assert torch.allclose(net(batch.dense, batch.category), expected)


def test_a_gradient_in_two_parts_is_the_gradient():
    net, batch = model(), doubled(drawn(32))
    whole = copy.deepcopy(net)
    functional.binary_cross_entropy_with_logits(whole(batch.dense, batch.category), batch.click).backward()
    method = Method("AdaHessian + Adagrad", net, (0.0, 0.0), steady, CONSTANTS)
    method.step(batch)
    for (name, p), q in zip(net.named_parameters(), whole.parameters(), strict=True):
        assert p.grad.is_sparse == q.grad.is_sparse == (name == "embedding.weight")
        assert torch.allclose(p.grad.to_dense(), q.grad.to_dense(), rtol=1e-12, atol=1e-15), name


def test_curvature_is_that_of_the_networks_alone():
    """The first estimate is z * Hz with the block of H that belongs to the networks, the rows held fixed."""
    net, batch = model(), doubled(drawn(16))
    method = Method("AdaHessian + Adagrad", net, (0.0, 0.0), steady, CONSTANTS)
    z = flat(ONE_PROBE.probe(net.networks, torch.Generator().manual_seed(SEED)))
    loss = functional.binary_cross_entropy_with_logits(net(batch.dense, batch.category), batch.click)
    g = flat(torch.autograd.grad(loss, net.networks, create_graph=True))
    H = torch.stack([flat(torch.autograd.grad(g_i, net.networks, retain_graph=True)) for g_i in g])
    method.step(batch)
    v = flat([method.networks.state[p]["exp_hessian_diag_sq"] for p in net.networks])
    assert torch.allclose(v, (1 - CONSTANTS.betas[1]) * (z * (H @ z)) ** 2, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("name", METHODS)
def test_rows_that_nobody_looked_up_stay(name):
    net, batch = model(torch.float32), drawn(40)
    batch = batch[(batch.category < torch.tensor(FIELDS) - 1).all(1)]  # the last category of each field is left out
    before = {key: value.clone() for key, value in net.state_dict().items()}
    method = Method(name, net, (0.01, 0.01), steady, CONSTANTS)
    for _ in range(3):
        assert math.isfinite(method.step(batch)) and net.embedding.weight.grad.is_sparse
    last = torch.tensor(FIELDS).cumsum(0) - 1
    assert torch.equal(net.embedding.weight[last], before["embedding.weight"][last])
    assert all(not torch.equal(p, before[key]) for key, p in net.named_parameters())


@pytest.mark.parametrize("name", METHODS)
def test_both_rates_of_every_method_rise_and_fall_together(name):
    net, batch = model(torch.float32), drawn(8)
    method = Method(name, net, (0.3, 0.1), schedule(2, 6), CONSTANTS)
    seen = []
    for _ in range(6):
        method.step(batch)
        seen.append([o.param_groups[0]["lr"] for o in (method.networks, method.tables)])
    share = np.array([1 / 2, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])[:, None]
    assert np.allclose(seen, share * [0.3, 0.1])


def test_work_counts_the_pass_for_the_rows():
    costs = {name: Method(name, model(), (0.1, 0.1), steady, CONSTANTS).cost for name in METHODS}
    assert costs.pop("AdaHessian + Adagrad") == pytest.approx(1 + 2 + 1 / 3)
    assert set(costs.values()) == {1}


def test_trials_are_equal_and_on_seeds_of_their_own():
    grids = params("rates").rates
    assert list(grids) == list(METHODS) == list(params("comparison").methods)
    assert len({(len(grid["networks"]), len(grid["tables"])) for grid in grids.values()}) == 1
    assert not set(CLICKS.setting("rates").seeds) & set(CLICKS.setting("comparison").seeds)


def test_every_teacher_has_its_own_shares(monkeypatch):
    seen, found = [], drawn(10)
    monkeypatch.setattr(teacher, "draw", lambda *given: seen.append(given[5]) or found)
    for seed in (1, 1, 2):
        experiment.examples(params("rates", "smoke"), seed)
    assert seen[0].tolist() == seen[1].tolist() != seen[2].tolist()
    assert all(len(shares) == teacher.PARTS and min(shares) > 0 and sum(shares) == pytest.approx(1) for shares in seen)


def test_a_seed_is_a_teacher_and_nobody_is_judged_on_what_he_learnt():
    p = params("comparison", "smoke")
    (train, test), (again, _), (other, _) = (experiment.examples(p, seed) for seed in (1, 1, 2))
    assert len(train) == p.steps * p.batch and len(test) == p.test
    assert torch.equal(train.logit, again.logit) and not torch.equal(train.logit, other.logit)
    assert not set(train.logit.tolist()) & set(test.logit.tolist())


def test_all_methods_begin_with_the_same_network(rows):
    begin = rows[(rows.case == "comparison") & (rows.step == 0) & (rows.metric == "excess")]
    assert set(begin.method) == set(METHODS)
    assert (begin.groupby("seed").value.nunique() == 1).all() and begin.value.nunique() > 1


def test_no_prediction_beats_the_teacher(rows):
    found = rows[rows.case == "comparison"]
    best = found[found.metric == "Bayes accuracy"].set_index("seed").value
    right = found[found.metric == "accuracy"]
    assert (right.value <= right.seed.map(best) + 1e-4).all()
    assert (found[found.metric == "excess"].value > 0).all()


def test_a_run_that_diverges_ends_and_is_counted(tmp_path):
    cell = "methods={Adam + Adagrad: [1e30, 1e30]}"
    found = run(CLICKS, CLICKS.setting("comparison", "smoke", [cell], seed=0), Place(tmp_path))
    p = params("comparison", "smoke")
    excess = found[found.metric == "excess"].set_index("step").value
    ends = {metric: found[found.metric == metric].value.to_list() for metric in ("accuracy", "diverged")}
    assert len(excess) == p.looks + 1 and excess.notna().iloc[0] and excess.isna().iloc[-1]
    assert ends["diverged"] == [1] and np.isnan(ends["accuracy"]).tolist() == [False, True]


def test_two_runs_are_the_same_to_the_bit_but_for_the_clock(tmp_path):
    one, two = (run(CLICKS, CLICKS.setting("comparison", "smoke", seed=7), Place(tmp_path / name)) for name in "ab")
    still = one.metric != "seconds"
    pd.testing.assert_frame_equal(one[still], two[still], check_exact=True)


@pytest.mark.parametrize("change, named", [("looks=7", "looks"), ("warm_up=1001", "warm_up")])
def test_looks_and_warm_up_fit_the_steps(change, named):
    with pytest.raises(Mistake, match=named):
        params("comparison", changes=[change])


ORDER = ("Adagrad", "Adam + Adagrad", "AdaHessian + Adagrad")
SEEDS = range(100, 110)


def compared(final: dict[str, float], noise: dict[str, float]) -> pd.DataFrame:
    """Ten seeds, looks at 0, 500 and 1000 steps: accuracy at the end is `final` and a scatter of `noise`; excess is 10 at the
    start, and at the end 80 less accuracy, halfway on a straight line."""
    lines = []
    for i, seed in enumerate(SEEDS):
        lines.append((seed, None, 0, "Bayes accuracy", 80.0))
        for method in ORDER:
            end = final.get(method, 78) + noise.get(method, 0) * (-1) ** i * (1 + i // 2)
            cost = 10 / 3 if method == "AdaHessian + Adagrad" else 1
            values = [(step, "excess", 10 - share * (end - 70)) for step, share in ((0, 0), (500, 0.5), (1000, 1))]
            values += [(0, "accuracy", 70), (1000, "accuracy", end), (1000, "diverged", 0)]
            values += [(1000, "gradient_equivalents", 1000 * cost), (1000, "seconds", cost)]
            lines += [(seed, method, *value) for value in values]
    return pd.DataFrame(lines, columns=["seed", "method", "step", "metric", "value"]).assign(case="comparison")


@pytest.mark.parametrize(
    "gain, noise, word",
    [(0.1, 0.005, "better"), (-0.1, 0.005, "worse"), (0.0, 0.005, "equivalent"), (0.02, 0.05, "undecided")],
)
def test_words_of_a_comparison(gain, noise, word):
    rows = compared({"AdaHessian + Adagrad": 78 + gain}, {"AdaHessian + Adagrad": noise})
    table = measures.comparisons(rows)
    assert list(table["AdaHessian + Adagrad less"]) == 2 * list(selections.COMPARED.values())
    assert set(table.Word[:2]) == {word}
    assert set(table.Word[2:]) == {word.replace("equivalent", "undecided")}  # no margin is declared for excess


VERDICTS = {  # gain over Adagrad and over Adam + Adagrad in points, scatter of AdaHessian + Adagrad: verdicts of E7c, E7d and E7r
    "above both": (0.1, 0.1, 0.005, ["reproduced", "reproduced", "not run"]),
    "above Adagrad alone": (0.1, 0.0, 0.005, ["reproduced", "artefact", "not run"]),
    "the same": (0.0, 0.0, 0.005, ["undecided", "undecided", "not run"]),
    "too much scatter": (0.02, 0.02, 0.05, ["undecided", "undecided", "not run"]),
    "below": (-0.1, -0.1, 0.005, ["not reproduced", "not reproduced", "not run"]),
    "above Adam alone": (-0.1, 0.1, 0.005, ["not reproduced", "not reproduced", "not run"]),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_follow_the_declared_rules(name):
    over_adagrad, over_adam, noise, expected = VERDICTS[name]
    final = {"Adagrad": 78 - over_adagrad, "Adam + Adagrad": 78 - over_adam}
    rows = compared(final, {"AdaHessian + Adagrad": noise})
    needed = {
        name: CLICKS.made("measures", name, rows) for name in ("differences", "excess_differences", "n_needed", "seed_seconds")
    }
    summary = study.Summary(needed, {})
    assert [claims.judge(claim, CLICKS, summary)["verdict"] for claim in claims.declared(CLICKS)] == expected


def test_seeds_needed_come_from_the_spread_of_pairs():
    rows = compared({}, {"AdaHessian + Adagrad": 0.01})
    gap = 0.01 * np.array([(-1) ** i * (1 + i // 2) for i in range(10)])
    s = measures.spreads(rows)["adagrad"]
    assert s.value == pytest.approx(gap.std(ddof=1)) and s.low < s.value < s.high
    found, here = measures.n_needed(rows)["adagrad"], measures.power_here(rows)
    level = comparison.simultaneous(2)
    assert found.value == comparison.needed(0.03 / gap.std(ddof=1), level) and found.low < found.value < found.high
    assert here["adagrad"].value == pytest.approx(comparison.power(10, 0.03 / gap.std(ddof=1), level))
    assert here["adagrad"].low < here["adagrad"].value < here["adagrad"].high
    assert (here["enough"].value, here["enough"].n) == (0, 2)
    assert (
        measures.power_here(compared({}, {"Adam + Adagrad": 0.01}))["enough"].value == 1
    )  # without spread a difference is seen


def test_work_of_a_step_is_that_of_the_pass_over_its_steps():
    found = measures.cost(compared({}, {}))
    assert (found["adagrad"].value, found["adahessian_adagrad"].value) == pytest.approx((1, 10 / 3))
    assert measures.seed_seconds(compared({}, {})).value == pytest.approx(2 + 10 / 3)


def test_a_run_that_diverged_counts_with_its_start():
    rows = compared({}, {})
    ended = (rows.method == "Adam + Adagrad") & (rows.seed == 100) & (rows.step > 0)
    rows.loc[ended & rows.metric.isin(["accuracy", "excess"]), "value"] = math.nan
    rows.loc[ended & (rows.metric == "diverged"), "value"] = 1
    assert [selections.final(rows, metric)["Adam + Adagrad"][100] for metric in ("accuracy", "excess")] == [70, 10]
    assert [found.value for found in measures.runs(rows).values()] == [30, 1]


def test_the_best_trial_and_whether_it_is_inside():
    """Three rates by three; one run of the pair that would be best has diverged."""
    excess = {"Adam + Adagrad": [[9, 9, 9], [9, 3, 5], [9, 4, 9]], "Adagrad": [[9, 9, 9], [9, 9, 3], [9, 1, 9]]}
    lines = [
        ("rates", seed, method, 0.1 * 3**i, 3.0**j, 1000, "excess", value)
        for method, table in excess.items()
        for i, line in enumerate(table)
        for j, value in enumerate(line)
        for seed in (0, 1)
    ]
    rows = pd.DataFrame(lines, columns=["case", "seed", "method", "lr", "table_lr", "step", "metric", "value"])
    rows.loc[(rows.value == 1) & (rows.seed == 1), "value"] = math.nan
    found = measures.rates(rows)
    best = {
        name: [found[f"{name}_{what}"].value for what in ("networks", "tables", "best", "next", "inside")]
        for name in ("adam_adagrad", "adagrad")
    }
    assert best == {"adam_adagrad": pytest.approx([0.3, 3, 3, 4, 1]), "adagrad": pytest.approx([0.3, 9, 3, 9, 0])}
    assert (found["inside"].value, found["inside"].n) == (1, 2)


def test_rates_are_the_best_of_the_trials():
    """As recorded: each method's rates are those of the least mean excess, and lie inside their ranges."""
    found = measures.rates(pd.read_csv(RECORDED))
    for name, lr in params("comparison").methods.items():
        assert [found[f"{key(name)}_{part}"].value for part in ("networks", "tables")] == pytest.approx(list(lr)), name
        assert found[f"{key(name)}_inside"].value == 1, name


def test_every_number_of_section_and_claims_is_measured(rows):
    summary = study.from_plain(study.to_plain(study.summarise(CLICKS, rows)))
    assert [claim["id"] for claim in claims.judge_all([(CLICKS, summary)])] == ["E7c", "E7d", "E7r"]
    text = section(CLICKS, summary)
    assert all(f"{name}: {name}" in text for name in ("E7c", "E7d", "E7r"))
    assert summary.measures["rates"]["runs"].value == 2 * 4 * len(METHODS)


def test_figures_draw(rows):
    assert all(CLICKS.made("figures", name, rows).axes for name in CLICKS.figures)
