"""Experiment placements: which rate is best, what time to the target is made of, and verdicts in every direction."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sections import section
from torch import nn
from torch.nn import functional

from experiments.placements import experiment, measures, selections
from experiments.placements.methods import FACTORS_EVERY, METHODS
from secondlook.optim.kfac import KFAC
from secondlook.study import claims, comparison
from secondlook.study import measures as study
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.statistics import mean, median

PLACEMENTS = Experiment(ROOT, "placements")
RECORDED = ROOT / "results" / "recorded" / "placements" / "rates.csv"
RATES = (0.01, 0.03, 0.1, 0.3)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.concat([run(PLACEMENTS, PLACEMENTS.setting(case, "smoke")) for case in PLACEMENTS.cases], ignore_index=True)


def arrivals(case: str, seed: int, method: str, lr: float, epochs: float, accuracy: float = 0.97) -> list[dict]:
    at = {"case": case, "seed": seed, "method": method, "lr": lr, "target": 0.95, "step": 190}
    return [{**at, "metric": name, "value": value} for name, value in (("epochs", epochs), ("accuracy", accuracy))]


def tried(epochs: dict[str, list[float]], accuracy: dict[str, list[float]]) -> list[dict]:
    """Case rates with two seeds, half an epoch below and above what `epochs` says of each of RATES."""
    return [
        row
        for method, line in epochs.items()
        for lr, value, last in zip(RATES, line, accuracy[method], strict=True)
        for seed, off in ((0, -0.5), (1, 0.5))
        for row in arrivals("rates", seed, method, lr, value + off, last)
    ]


def made(*ratios: tuple[float, float], edge: tuple[str, ...] = ()) -> pd.DataFrame:
    """A study in which each variant of K-FAC needs so many times SGD's epochs, and a step takes it so many times as long, each
    with a scatter of 1 %; the best rate of those on the `edge` is the first of the list."""
    variants = dict(zip(FACTORS_EVERY, ratios, strict=True))
    best = {"SGD": 0.03} | dict.fromkeys(variants, 0.1) | dict.fromkeys(edge, RATES[0])
    courses = {method: [2 if lr == best[method] else 3 for lr in RATES] for method in METHODS}
    lines = tried(courses, {method: [0.97] * 4 for method in METHODS})
    for i in range(20):
        wobble = 1 + 0.01 * (-1) ** i
        lines += arrivals("epochs", 200 + i, "SGD", best["SGD"], 3.0)
        times = {"SGD": 1.0}
        for method, (epochs, step) in variants.items():
            lines += arrivals("epochs", 200 + i, method, best[method], 3 * epochs * wobble)
            times[method] = step * wobble
        for ranks in (1, 2):
            for method, ms in times.items():
                at = {"case": "training", "seed": i, "method": method, "lr": 0.1, "ranks": ranks, "metric": "seconds"}
                lines += [{**at, "step": s, "value": ms * s / 1e3} for s in (3, 190)]
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    "epochs, accuracy, best",
    [
        ([4, 2, 3, 5], [0.9, 0.9, 0.99, 0.9], 0.03),
        ([4, 2, 2, 2], [0.99, 0.9, 0.96, 0.95], 0.1),
        ([4, math.inf, 3, 5], [0.9, 0.99, 0.9, 0.9], 0.1),
        ([math.inf] * 4, [0.5, 0.6, 0.4, 0.1], 0.03),
    ],
    ids=["least epochs", "of equal ones the last accuracy", "a miss is infinite", "all miss"],
)
def test_the_best_rate(epochs, accuracy, best):
    rows = pd.DataFrame(tried(dict.fromkeys(METHODS, epochs), dict.fromkeys(METHODS, accuracy)))
    assert selections.best_rates(rows) == dict.fromkeys(METHODS, best)


def test_one_miss_of_two_makes_a_rate_infinite():
    rows = pd.DataFrame(tried({method: [4, 2, 3, 5] for method in METHODS}, {method: [0.9] * 4 for method in METHODS}))
    rows.loc[(rows.lr == 0.03) & (rows.seed == 1) & (rows.metric == "epochs"), "value"] = math.inf
    assert selections.best_rates(rows) == dict.fromkeys(METHODS, 0.1)


def test_a_pair_that_misses_on_both_sides_is_a_tie():
    rows = made((0.5, 2.0), (0.8, 1.1))
    missed = (rows.case == "epochs") & (rows.metric == "epochs") & (rows.seed.isin([200, 201]))
    both = (rows.seed == 200) & (rows.method == "SGD") | (rows.method == "K-FAC")
    rows.loc[missed & both, "value"] = math.inf
    found = selections.epoch_ratios(rows)
    assert found["K-FAC"][[200, 201]].tolist() == [1, math.inf]
    assert found["K-FAC every 10"][[200, 201]].tolist() == [0, pytest.approx(0.8 * 0.99)]
    assert measures.reach(rows)["k_fac_missed"].value == 2 and measures.reach(rows)["sgd_missed"].value == 1


def test_time_is_epochs_times_steps_and_intervals_hold_together():
    ratios = {"": (0.5, 1.2), "every_10_": (0.8, 1.1)}
    found, level = measures.gain(made(*ratios.values())), comparison.simultaneous(6)
    wobble = np.array([1 + 0.01 * (-1) ** i for i in range(20)])
    for prefix, (epoch, step) in ratios.items():
        epochs, logs = median(epoch * wobble, level), mean(np.log(step * wobble), level)
        times = np.exp([logs.value, logs.low, logs.high])
        share = found[f"{prefix}epochs"]
        assert [share.value, *share.ends] == pytest.approx([1 - epochs.value, 1 - epochs.high, 1 - epochs.low])
        for name in (f"{prefix}seconds_p1", f"{prefix}seconds_p2"):
            expected = [1 - epochs.value * times[0], 1 - epochs.high * times[2], 1 - epochs.low * times[1]]
            assert [found[name].value, *found[name].ends] == pytest.approx(expected) and found[name].n == 20


def test_so_many_times_as_many_would_tell_the_times_apart():
    """A time of 0.95 of SGD's whose interval reaches from 0.95 / k to 0.95 k is told from it by (log k / log 0.95)^2 times as many."""
    rows = made((0.5, 1.2), (0.9, 0.95 / 0.9))
    timed = (rows.case == "training") & (rows.method == "K-FAC every 10")
    rows.loc[timed, "value"] *= np.where(rows[timed].seed % 2, 0.8, 1.25)
    found = measures.gain(rows)["every_10_seconds_p1"]
    k = math.sqrt((1 - found.low) / (1 - found.high))
    assert measures.as_many(rows).value == pytest.approx((math.log(k) / math.log(1 - found.value)) ** 2) and k > 1.1


EVERY, TENTH = FACTORS_EVERY
VERDICTS = {  # by variant epochs and steps over SGD's; whose best rate is at an end: verdicts of E8 and E8e
    "both save epochs and time": ((0.5, 1.2), (0.6, 1.1), (), ["reproduced", "reproduced"]),
    "the steps of one eat its epochs, the other saves": ((0.5, 2.4), (0.6, 1.1), (), ["reproduced", "reproduced"]),
    "the other way round": ((0.5, 1.2), (1.5, 1.1), (), ["reproduced", "reproduced"]),
    "both save epochs, steps eat them": ((0.5, 2.4), (0.9, 1.3), (), ["not reproduced", "reproduced"]),
    "less time than stated, perhaps none": ((0.5, 2.0), (0.8, 1.25), (), ["not reproduced", "reproduced"]),
    "one may save what is stated, or nothing": ((0.5, 2.4), "wide", (), ["undecided", "reproduced"]),
    "both need more epochs": ((1.5, 1.2), (1.5, 1.2), (), ["not reproduced", "not reproduced"]),
    "the one that saves has its best rate at an end": ((0.5, 2.4), (0.6, 1.1), (TENTH,), ["undecided", "reproduced"]),
    "the one that does not save has it there": ((0.5, 2.4), (0.6, 1.1), (EVERY,), ["reproduced", "undecided"]),
    "neither saves, one has it there": ((0.5, 2.4), (0.9, 1.3), (TENTH,), ["undecided", "reproduced"]),
    "SGD has it there": ((0.5, 1.2), (0.6, 1.1), ("SGD",), ["undecided", "undecided"]),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_follow_the_declared_rules(name):
    every, tenth, edge, expected = VERDICTS[name]
    rows = made(every, (0.8, 1.25) if tenth == "wide" else tenth, edge=edge)
    if tenth == "wide":
        steps = (rows.case == "training") & (rows.method == TENTH)
        rows.loc[steps, "value"] *= np.where(rows[steps].seed % 2, 0.5, 2)
    names = ("saved", "gain", "tuned", "steps", "reach", "as_many", "round_seconds")
    needed = {name: PLACEMENTS.made("measures", name, rows) for name in names}
    declared = {claim["id"]: claim for claim in claims.declared(PLACEMENTS)}
    judged = [claims.judge(declared[name], PLACEMENTS, study.Summary(needed, {})) for name in ("E8", "E8e")]
    assert [claim["verdict"] for claim in judged] == expected


@pytest.mark.parametrize("lacking, expected", [("rates", "not run"), ("epochs", "not run"), ("training", "reproduced")])
def test_a_case_that_is_not_recorded_leaves_its_claims_not_run(rows, lacking, expected):
    """E8 needs all three; E8e does without the time of a step."""
    known = pd.concat([rows[rows.case == "steps"], made((0.5, 1.2), (0.6, 1.1))])
    summary = study.summarise(PLACEMENTS, known[known.case != lacking])
    judged = {claim["id"]: claim["verdict"] for claim in claims.judge_all([(PLACEMENTS, summary)])}
    assert summary.missing == (lacking,) and (judged["E8"], judged["E8e"]) == ("not run", expected)


@pytest.mark.parametrize("name", selections.NETWORKS)
def test_scaling_efficiency_is_time_on_one_device_over_time_on_many(name):
    sgd, kfac = selections.efficiency(name)
    alone, together = selections.on_paper(name, 1, 1), selections.on_paper(name, 1, 2)
    both = selections.on_paper(name, 2, 2)
    assert len(sgd) == len(kfac) == len(selections.divisors(selections.DEVICES)) and sgd[0] == kfac[0] == 1
    assert sgd[1] == pytest.approx(alone[0] / together[0]) and kfac[1] == pytest.approx(alone[1] / min(together[1], both[1]))
    assert (np.diff(sgd) < 0).all()


def test_an_arrival_is_the_first_step_at_the_target():
    p = build(experiment.Epochs, PLACEMENTS.setting("epochs", "smoke").parameters, "config.yaml")
    course = [accuracy for _, accuracy, _ in experiment._trained(p, "SGD", 0.03, 0, "test", 1)]
    best = build(experiment.Epochs, {**PLACEMENTS.setting("epochs", "smoke").parameters, "target": max(course)}, "config.yaml")
    found = {row["metric"]: row["value"] for row in experiment._arrival(best, "SGD", 0.03, 0, "test")}
    assert found == {"epochs": (1 + int(np.argmax(course))) * p.epochs / len(course), "accuracy": course[-1]}
    never = build(experiment.Epochs, {**PLACEMENTS.setting("epochs", "smoke").parameters, "target": 1.0}, "config.yaml")
    assert next(experiment._arrival(never, "SGD", 0.03, 0, "test"))["value"] == math.inf


def test_a_variant_estimates_its_factors_as_often_as_its_name_says(monkeypatch):
    p = build(experiment.Epochs, PLACEMENTS.setting("epochs", "smoke").parameters, "config.yaml")
    made_of = []
    monkeypatch.setattr(experiment, "KFAC", lambda *args, **options: made_of.append(KFAC(*args, **options)) or made_of[-1])
    for variant, every in FACTORS_EVERY.items():
        *_, (steps, _, _) = experiment._trained(p, variant, 0.01, 0, "test", 1)
        estimates = {state["estimates"] for state in made_of[-1].state.values() if "estimates" in state}
        assert estimates == {math.ceil(steps / every)}
    with pytest.raises(KeyError):
        next(experiment._trained(p, "K-FAC every 3", 0.01, 0, "test", 1))


def test_rates_are_the_best_of_the_trials():
    """As recorded: each method's rate is the one that the rule chooses, and lies inside the list."""
    rows = pd.read_csv(RECORDED)
    used = build(experiment.Epochs, PLACEMENTS.setting("epochs").parameters, "config.yaml").tuned
    tried = sorted(build(experiment.Rates, PLACEMENTS.setting("rates").parameters, "config.yaml").rates)
    assert selections.best_rates(rows) == used and all(tried[0] < lr < tried[-1] for lr in used.values())


def test_every_number_of_section_and_claims_is_measured(rows):
    summary = study.from_plain(study.to_plain(study.summarise(PLACEMENTS, rows)))
    assert [claim["id"] for claim in claims.judge_all([(PLACEMENTS, summary)])] == ["E8", "E8b", "E8c", "E8d", "E8e"]
    text = section(PLACEMENTS, summary)
    assert all(f"{name}: {name}" in text for name in ("E8", "E8b", "E8c", "E8d", "E8e"))


def test_figures_draw(rows):
    assert all(PLACEMENTS.made("figures", name, rows).axes for name in PLACEMENTS.figures)


def test_kfac_preconditions_every_layer_that_is_counted():
    p = build(experiment.Steps, PLACEMENTS.setting("steps", "smoke").parameters, "config.yaml")
    model = experiment._network(p)
    counted = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    optimizer = experiment._kfac(p, model, p.lr, None, 1, 1)
    functional.cross_entropy(model(torch.ones(2, 3, p.side, p.side)), torch.arange(2)).backward()
    optimizer.step()
    assert len(counted) > 5 and list(optimizer.factors) == counted
