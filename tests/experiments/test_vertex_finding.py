"""The comparison of learning-rate rules: every rule set up as the document has it, fair trials, and numbers that read what they say."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sections import section

from experiments.vertex_finding import experiment, measures, names, selections
from experiments.vertex_finding.methods import RULES
from experiments.vertex_finding.models import PROBLEMS
from secondlook.study import claims
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.place import Place
from secondlook.study.text import key
from secondlook.training import generator
from secondlook.training.rules import EVE, AdaptiveRate, CarefulRate, Walk

VERTEX = Experiment(ROOT, "vertex_finding")
KINDS = {"rates": experiment.Rates, "rules": experiment.Rules, "paths": experiment.Paths, "steady": experiment.Steady}
KINDS |= {case: experiment.Decided for case in selections.DECIDED}


def params(case: str, scale: str = "paper", changes=()):
    return build(KINDS[case], VERTEX.setting(case, scale, changes).parameters, "config.yaml")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("work")
    return pd.concat(
        [run(VERTEX, VERTEX.setting(case, "smoke"), Place(folder / case)) for case in VERTEX.cases], ignore_index=True
    )


def test_rules_have_the_document_s_constants():
    p = params("rules")
    model = torch.nn.Linear(1, 1)
    made = {name: make(torch.optim.Adam(model.parameters()), model, p) for name, make in RULES.items()}
    kinds = {name: [type(rule) for rule in found] for name, found in made.items()}
    assert kinds == {
        "Adam": [],
        "adaptive": [AdaptiveRate],
        "careful": [CarefulRate],
        "careful, back": [CarefulRate],
        "EVE": [EVE],
        "EVE, walk": [EVE],
        "adaptive + careful": [AdaptiveRate, CarefulRate],
        "adaptive + EVE": [AdaptiveRate, EVE],
    }
    careful, back = made["careful"][0], made["careful, back"][0]
    assert made["adaptive"][0].c == 0.15 and (careful.rise, careful.factor) == (0.02, 0.8) == (back.rise, back.factor)
    assert careful.model is None and back.model is model
    assert made["EVE"][0].search.multiples == (0, 0.5, 1, 2, 4, 8) and made["EVE, walk"][0].search == Walk(0.1)
    assert p.small["AllCNN"] == 1.5e-5


def test_trials_are_equal_and_on_seeds_and_examples_of_their_own():
    assert set(names.TUNED) == {"Adam", *(rule for rule, _ in selections.DECLARED)}
    seeds = {case: set(VERTEX.setting(case).seeds) for case in VERTEX.cases}
    explored = seeds["rules"] | seeds["paths"] | seeds["steady"]
    assert not seeds["rates"] & explored and not (seeds["vertices"] | seeds["digits"]) & (seeds["rates"] | explored)
    p = params("rates")
    for name in PROBLEMS:
        problem = PROBLEMS[name](p, 0)
        parts = [problem.train, problem.held_out, problem.validation, problem.test]
        counts = p.toy_examples if name in ("AllCNN", "DDplus") else p.digit_examples
        assert [len(x) for x, _ in parts] == list(counts) and problem.batch * 20 == counts[0]
        examples = torch.cat([x.flatten(1) for x, _ in parts])
        assert len(examples.unique(dim=0)) == len(examples)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_seed_starts_alike(name):
    problem = PROBLEMS[name](params("rules", "smoke"), 0)
    one, same, other = (list(problem.network(generator(seed, "start")).parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("rule, own", [("EVE, walk", "EVE"), ("careful, back", "careful"), ("adaptive + EVE", "adaptive")])
def test_variants_take_the_rate_of_their_family(rule, own):
    assert names.family(rule) == own and names.family(own) == own


def test_rates_of_the_comparison_are_the_best_of_the_trials():
    """As recorded: the least validation loss, and none at the edge of its range."""
    found = measures.best_rates(pd.read_csv(ROOT / "results" / "recorded" / "vertex_finding" / "rates.csv"))
    for model, own in params("rules").tuned.items():
        for rule, lr in own.items():
            assert found[key(model, rule)].value == lr, (model, rule)
            assert found[f"{key(model, rule)}_inside"].value == 1, (model, rule)


def test_work_counts_held_out_losses(rows):
    """EVE: six losses an epoch of 3 steps on 2 of 6 toy events in batches of 3, or of 2 steps on 10 of 20 digits in tens."""
    spent = selections.by_epoch(rows, "work")
    for model, (steps, forward) in {"AllCNN": (2, 2 / 3 / 3), "MLP": (2, 1 / 3)}.items():
        for start in names.STARTS:
            assert spent.loc[model, "Adam", start][3].to_numpy() == pytest.approx(3 * steps)
            expected = [epoch * (steps + 6 * forward) for epoch in (1, 2, 3)]
            assert spent.loc[model, "EVE", start].to_numpy() == pytest.approx(np.tile(expected, (2, 1)), rel=1e-4)


def test_adam_alone_is_the_careful_rate_that_never_cuts(rows):
    losses, cuts = selections.test_losses(rows), selections.last(rows, "cuts")
    never = [run for run in losses.index if run[1:3] == ("careful", "small") and cuts[run] == 0]
    assert never
    for model, _, start, seed in never:
        assert losses.loc[model, "careful", start, seed].equals(losses.loc[model, "Adam", start, seed])


def made_up(losses: dict[tuple[str, str, str], list[list[float]]]) -> pd.DataFrame:
    """Rows of case rules: test losses by epoch, from 0; (network, rule, start) to seeds by epochs."""
    lines = [
        ("rules", *cell, seed, step, "test_loss", value)
        for cell, table in losses.items()
        for seed, values in enumerate(table)
        for step, value in enumerate(values)
    ]
    return pd.DataFrame(lines, columns=["case", "model", "rule", "start", "seed", "step", "metric", "value"])


def last_losses(losses: dict[tuple[str, str, str], list[float]], equal_work: dict | None = None) -> pd.DataFrame:
    """Rows of case digits: test losses by seed, and at equal work where they are others."""
    metrics = {"test loss": losses, "test loss, equal work": losses | (equal_work or {})}
    lines = [
        ("digits", *cell, seed, 30, metric, value)
        for metric, table in metrics.items()
        for cell, values in table.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(lines, columns=["case", "model", "rule", "start", "seed", "step", "metric", "value"])


NEAR = np.array([1, 1.01, 1 / 1.01])  # what runs that are alike differ by
OTHER = NEAR[[1, 0, 2]]


def test_comparisons_are_from_the_starts_that_they_name(monkeypatch):
    """EVE halves the loss from the small rate, at equal work it has three quarters; Adam's best rate has a quarter."""
    losses = {("MLP", "Adam", "small"): 4 * NEAR, ("MLP", "EVE", "small"): 2 * OTHER, ("MLP", "Adam", "tuned"): NEAR}
    table = last_losses(losses, {("MLP", "EVE", "small"): 3 * OTHER})
    monkeypatch.setattr(selections, "DECLARED", (("EVE", ("same_work", "control")),))
    found = measures.ratios(table)
    assert found["mlp_eve_same_work"].value == pytest.approx(0.75) and found["mlp_eve_control"].value == pytest.approx(2)
    assert (measures.counts(table)["eve_same_work_better"].value, measures.counts(table)["eve_control_worse"].value) == (1, 1)
    assert measures.least(table)["eve_over_constant"].value == pytest.approx(2)  # beside the constant rate, where it is better


def test_the_least_ratio_is_over_networks_and_the_condition_over_those_that_gain(monkeypatch):
    losses = {(model, "Adam", start): NEAR for model in ("MLP", "CNN") for start in ("small", "tuned")}
    losses |= {("MLP", "adaptive", "small"): OTHER / 2, ("CNN", "adaptive", "small"): 3 * OTHER}
    losses[("MLP", "Adam", "tuned")] = NEAR / 8
    monkeypatch.setattr(selections, "DECLARED", (("adaptive", ("same", "control")),))
    found = measures.least(last_losses(losses))
    assert found["adaptive_same"].value == pytest.approx(0.5) and found["adaptive_control"].value == pytest.approx(3)
    assert found["adaptive_over_constant"].value == pytest.approx(4)  # the perceptron alone
    assert found["adaptive_same"].low < 0.5 < found["adaptive_same"].high < 0.6


def test_a_diverged_run_counts_with_the_loss_before_training():
    table = made_up({("MLP", "Adam", "small"): [[3, 2, np.nan, np.nan], [4, 2, 1, 0.5]]})
    assert selections.test_losses(table).to_numpy().tolist() == [[3, 2, 3, 3], [4, 2, 1, 0.5]]


def courses(of_model: dict[str, list[list[float]]], metric: str = "cosine") -> pd.DataFrame:
    """Rows of an instrument on Adam, the same from both starts: network to seeds by epochs."""
    lines = [
        ("digits", model, "Adam", start, seed, step, metric, value)
        for start in names.STARTS
        for model, table in of_model.items()
        for seed, values in enumerate(table)
        for step, value in enumerate(values, 2)
    ]
    return pd.DataFrame(lines, columns=["case", "model", "rule", "start", "seed", "step", "metric", "value"])


def test_a_network_is_told_by_the_other_seeds():
    """Three seeds of two networks: all alike within a network, then one run of the second like the first. Of sizes only the
    course counts."""
    sizes = courses({"MLP": [[1, 2], [10, 20], [3, 6]], "CNN": [[2, 1], [20, 10], [6, 3]]}, "step size")
    apart = courses({"MLP": [[0.9, 0.9]] * 3, "CNN": [[0.1, 0.1]] * 3})
    found = measures.told_apart(pd.concat([apart, sizes]))
    assert {value.value for value in found.values()} == {1}
    mixed = courses({"MLP": [[0.9, 0.9]] * 3, "CNN": [[0.1, 0.1], [0.1, 0.1], [0.9, 0.9]]})
    found = measures.told_apart(pd.concat([mixed, sizes]))["cosine_small"]
    assert found.value == pytest.approx(5 / 6) and found.n == 3


def test_networks_differ_where_the_ratio_of_their_ratios_does(monkeypatch):
    """The rule halves the loss of one network and leaves that of the other as it is."""
    losses = {(model, "Adam", "small"): NEAR for model in ("MLP", "CNN")}
    losses |= {("MLP", "EVE", "small"): OTHER / 2, ("CNN", "EVE", "small"): OTHER}
    monkeypatch.setattr(selections, "DECLARED", (("EVE", ("same_work",)),))
    found = measures.interaction(last_losses(losses))
    assert found["eve_same_work_mlp_cnn"].value == pytest.approx(0.5)
    assert found["differ"].value == found["pairs"].value == 1 and found["all_equivalent"].value == 0


def test_rates_that_are_too_large_are_multiples_of_adam_s_best(rows):
    p = params("digits")
    assert p.rate("CNN", "careful", "tenfold") == pytest.approx(10 * p.tuned["CNN"]["Adam"])
    assert p.rate("CNN", "EVE", "tuned") == p.tuned["CNN"]["EVE"] and p.rate("CNN", "EVE", "small") == p.small["CNN"]


def test_decided_runs_are_those_of_case_rules(rows):
    """The same seed, network, rule and start: the same last loss; at equal work EVE's first epoch, 3 1/3 of 6 gradients."""
    losses, found = selections.test_losses(rows), selections.decided(rows, "test loss")
    within = selections.decided(rows, "test loss, equal work")
    assert found.loc[("AllCNN", "small", 0), "Adam"] == losses.loc[("AllCNN", "Adam", "small", 0)].iloc[-1]
    assert within.loc[("AllCNN", "small", 0), "EVE"] == losses.loc[("AllCNN", "EVE", "small", 0), 1]


def test_principal_axes_of_paths_from_one_start():
    """Two straight paths at a right angle in a plane: two axes hold everything, distances stay."""
    first, second = torch.zeros(4, 5), torch.zeros(4, 5)
    first[:, 1], second[:, 3] = torch.arange(1.0, 5), 2 * torch.arange(1.0, 5)
    (one, two), share = experiment.principal([first, second])
    assert share.sum().item() == pytest.approx(1) and torch.allclose(one[0], two[0], atol=1e-5)
    assert (one[-1] - one[0]).norm().item() == pytest.approx(4, rel=1e-5)
    assert (two[-1] - one[-1]).norm().item() == pytest.approx(80**0.5, rel=1e-5)


def test_two_runs_are_the_same_to_the_bit_but_for_the_clock(tmp_path):
    changes = ["models=[AllCNN]", "rules={small: [adaptive + EVE]}"]
    one, two = (run(VERTEX, VERTEX.setting("rules", "smoke", changes, seed=7), Place(tmp_path / name)) for name in "ab")
    still = one.metric != "seconds"
    pd.testing.assert_frame_equal(one[still], two[still], check_exact=True)


def test_every_number_of_section_and_claims_is_measured(rows):
    summary = study.summarise(VERTEX, rows)
    found = {claim["id"]: claim for claim in claims.judge_all([(VERTEX, summary)])}
    assert list(found) == ["D2", "D2b", "D3", "D4", "D4b", "D5", "D5b"]
    section(VERTEX, summary)


def test_figures_draw(rows):
    assert all(VERTEX.made("figures", name, rows).axes for name in VERTEX.figures)
