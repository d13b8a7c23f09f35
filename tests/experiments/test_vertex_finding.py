"""The comparison of learning-rate rules: every rule set up as the document has it, fair trials, and numbers that read what they say."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from experiments.vertex_finding import experiment, measures, names, selections
from experiments.vertex_finding.methods import RULES
from experiments.vertex_finding.models import PROBLEMS
from secondlook.study import claims
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.place import Place
from secondlook.study.text import fill, key
from secondlook.training import generator
from secondlook.training.rules import EVE, AdaptiveRate, CarefulRate, Walk

VERTEX = Experiment(ROOT, "vertex_finding")
KINDS = {"rates": experiment.Rates, "rules": experiment.Rules, "paths": experiment.Paths, "steady": experiment.Steady}


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
    assert set(names.TUNED) == {"Adam", *selections.DECLARED}
    seeds = {case: set(VERTEX.setting(case).seeds) for case in VERTEX.cases}
    assert not seeds["rates"] & (seeds["rules"] | seeds["paths"] | seeds["steady"])
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


def made_up(losses: dict[tuple[str, str, str], list[list[float]]], work: dict | None = None) -> pd.DataFrame:
    """Rows of test losses: (network, rule, start) to seeds by epochs from 0; and of work, from epoch 1."""
    lines = []
    for metric, runs, first in (("test_loss", losses, 0), ("work", work or {}, 1)):
        for cell, table in runs.items():
            for seed, values in enumerate(table):
                lines += [("rules", *cell, seed, step, metric, value) for step, value in enumerate(values, first)]
    return pd.DataFrame(lines, columns=["case", "model", "rule", "start", "seed", "step", "metric", "value"])


def test_a_ratio_at_equal_work_is_that_of_the_last_epoch_within_adams_budget():
    adam, ours = [[8, 4, 2, 1]] * 2, [[8, 2, 1, 0.5]] * 2
    cells = {("MLP", "Adam", "tuned"): adam, ("MLP", "EVE", "tuned"): ours}
    work = {("MLP", "Adam", "tuned"): [[np.nan, np.nan, 30]] * 2, ("MLP", "EVE", "tuned"): [[14, 28, 42]] * 2}
    table = made_up(cells, work)
    for name, ratio in (("tuned", 0.5), ("tuned_work", 1.0)):
        ours, adams = measures.Losses(table).compared("MLP", "EVE", name)
        assert np.exp(ours - adams).to_numpy() == pytest.approx(ratio)


def test_a_diverged_run_counts_with_the_loss_before_training():
    table = made_up({("MLP", "Adam", "small"): [[3, 2, np.nan, np.nan], [4, 2, 1, 0.5]]})
    assert selections.test_losses(table).to_numpy().tolist() == [[3, 2, 3, 3], [4, 2, 1, 0.5]]


def rated(growths: dict[str, list[list[float]]]) -> pd.DataFrame:
    """Rows of the adaptive rate from the small start, which grows by these factors from epoch 2 on: network to seeds by epochs."""
    lines = []
    for model, table in growths.items():
        for seed, factors in enumerate(table):
            rates = np.cumprod([1, 1, *factors])
            lines += [("rules", model, "adaptive", "small", seed, step, "lr", lr) for step, lr in enumerate(rates, 1)]
    return pd.DataFrame(lines, columns=["case", "model", "rule", "start", "seed", "step", "metric", "value"])


def test_the_growth_of_the_adaptive_rate_is_its_cosines():
    table = rated({"MLP": [[1.15, 1.0, 0.85]]})
    assert selections.turns(table).to_numpy() == pytest.approx(np.array([[0.15, 0, -0.15]]))
    stopped = table[table.step < 4]
    assert selections.turns(pd.concat([stopped, table.assign(seed=1)])).loc["MLP", "small", 0].tolist() == [
        pytest.approx(0.15),
        0,
        0,
    ]


def test_a_network_is_told_by_the_other_seeds():
    """Two networks of two seeds: all alike within a network, then one run of the second like the first."""
    apart = rated({"MLP": [[1.1, 1.1]] * 3, "CNN": [[0.9, 0.9]] * 3})
    assert measures.told_apart(apart)["small"].value == 1
    mixed = rated({"MLP": [[1.1, 1.1]] * 3, "CNN": [[0.9, 0.9], [0.9, 0.9], [1.1, 1.1]]})
    found = measures.told_apart(mixed)["small"]
    assert found.value == pytest.approx(5 / 6) and found.n == 3


def test_networks_differ_where_the_ratio_of_their_ratios_does(monkeypatch):
    """The rule halves the loss of one network and leaves that of the other as it is."""
    adam, ours = [1, 1.01, 1 / 1.01], [1.01, 1, 1 / 1.01]
    losses = {("MLP", "Adam", "small"): [[8, x] for x in adam], ("CNN", "Adam", "small"): [[8, x] for x in adam]}
    losses |= {("MLP", "EVE", "small"): [[8, x / 2] for x in ours], ("CNN", "EVE", "small"): [[8, x] for x in adam]}
    work = {cell: [[1]] * 3 for cell in losses}
    monkeypatch.setattr(measures, "DECLARED", {"EVE": ("same",)})
    found = measures.interaction(made_up(losses, work))
    assert found["eve_same_mlp_cnn"].value == pytest.approx(0.5)
    assert found["differ"].value == found["pairs"].value == 1 and found["all_equivalent"].value == 0


def test_the_careful_rate_is_compared_at_the_largest_rate_of_the_trials():
    lines = [
        ("rates", "MLP", rule, lr, seed, "validation loss", loss * factor)
        for rule, lr, loss in [
            ("Adam", 0.01, 1),
            ("Adam", 0.1, 8),
            ("careful", 0.01, 1),
            ("careful", 0.1, 2),
        ]
        for seed, factor in enumerate([1, 1.01, 1 / 1.01] if rule == "Adam" else [1.01, 1, 1 / 1.01])
    ]
    table = pd.DataFrame(lines, columns=["case", "model", "rule", "lr", "seed", "metric", "value"])
    found = measures.too_large(table)
    assert found["mlp"].value == found["pooled"].value == pytest.approx(0.25) and found["mlp_rate"].value == pytest.approx(10)
    assert (found["better"].value, found["not_better"].value) == (1, 0)


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
    names = {**summary.measures, "tables": summary.tables, "table": lambda table: str(len(table)), "verdict": lambda name: name}
    text = fill((VERTEX.folder / "section.md").read_text(), names, "section.md")
    assert "<<" not in text and not re.search(r"(?<!\w)(nan|n/a)(?!\w)", text)


def test_figures_draw(rows):
    assert all(VERTEX.made("figures", name, rows).axes for name in VERTEX.figures)
