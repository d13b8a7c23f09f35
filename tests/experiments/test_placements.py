"""Experiment placements: which rate is best, what time to the target is made of, and verdicts in every direction."""

import math

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from sections import section

from experiments.placements import experiment, measures, selections
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


def made(epochs: float, step: float, edge: bool = False) -> pd.DataFrame:
    """A study in which K-FAC needs `epochs` times SGD's and a step takes it `step` times as long, each with a scatter of 1 %."""
    flat = [0.97] * 4
    lines = tried({"SGD": [4, 3, 5, 6], "K-FAC": [1 if edge else 3, 3, 2, 3]}, {"SGD": flat, "K-FAC": flat})
    for i in range(20):
        wobble = 1 + 0.01 * (-1) ** i
        lines += arrivals("epochs", 200 + i, "SGD", 0.03, 3.0) + arrivals("epochs", 200 + i, "K-FAC", 0.1, 3 * epochs * wobble)
        for ranks in (1, 2):
            for method, ms in (("SGD", 1.0), ("K-FAC", step * wobble)):
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
    rows = pd.DataFrame(tried({"SGD": epochs, "K-FAC": epochs}, {"SGD": accuracy, "K-FAC": accuracy}))
    assert selections.best_rates(rows) == {"SGD": best, "K-FAC": best}


def test_one_miss_of_two_makes_a_rate_infinite():
    flat = {method: [0.9] * 4 for method in selections.METHODS}
    rows = pd.DataFrame(tried({method: [4, 2, 3, 5] for method in selections.METHODS}, flat))
    rows.loc[(rows.lr == 0.03) & (rows.seed == 1) & (rows.metric == "epochs"), "value"] = math.inf
    assert selections.best_rates(rows) == {"SGD": 0.1, "K-FAC": 0.1}


def test_a_pair_that_misses_on_both_sides_is_a_tie():
    rows = made(0.5, 2.0)
    missed = (rows.case == "epochs") & (rows.metric == "epochs") & (rows.seed.isin([200, 201]))
    rows.loc[missed & ((rows.seed == 200) | (rows.method == "K-FAC")), "value"] = math.inf
    found = selections.epoch_ratios(rows)
    assert (found[200], found[201]) == (1, math.inf)
    assert measures.reach(rows)["k_fac_missed"].value == 2 and measures.reach(rows)["sgd_missed"].value == 1


def test_time_is_epochs_times_steps_and_intervals_hold_together():
    rows = made(0.5, 1.2)
    found, level = measures.gain(rows), comparison.simultaneous(3)
    wobble = np.array([1 + 0.01 * (-1) ** i for i in range(20)])
    epochs, logs = median(0.5 * wobble, level), mean(np.log(1.2 * wobble), level)
    step = np.exp([logs.value, logs.low, logs.high])
    assert found["epochs"].value == pytest.approx(1 - epochs.value) and found["epochs"].low == pytest.approx(1 - epochs.high)
    for name in ("seconds_p1", "seconds_p2"):
        expected = [1 - epochs.value * step[0], 1 - epochs.high * step[2], 1 - epochs.low * step[1]]
        assert [found[name].value, *found[name].ends] == pytest.approx(expected) and found[name].n == 20


def test_rounds_needed_come_from_the_spread_of_steps():
    rows = made(0.5, 1.2)
    s = np.log(1.2 * np.array([1 + 0.01 * (-1) ** i for i in range(20)])).std(ddof=1)
    half = -math.log(1 - selections.PUBLISHED[0]) / 2
    assert measures.n_needed(rows)["p1"].value == comparison.needed(half / s, comparison.simultaneous(3))


VERDICTS = {  # epochs and steps of K-FAC over SGD's, whether K-FAC's best rate is at an end: verdicts of E8 and E8e
    "saves epochs and time": (0.5, 1.2, False, ["reproduced", "reproduced"]),
    "saves epochs, steps eat them": (0.5, 2.4, False, ["not reproduced", "reproduced"]),
    "saves less time than stated, perhaps none": (0.5, 2.0, False, ["not reproduced", "reproduced"]),
    "needs more epochs": (1.5, 1.2, False, ["not reproduced", "not reproduced"]),
    "best rate at an end": (0.5, 1.2, True, ["undecided", "undecided"]),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_follow_the_declared_rules(name):
    epochs, step, edge, expected = VERDICTS[name]
    rows = made(epochs, step, edge)
    needed = {name: PLACEMENTS.made("measures", name, rows) for name in ("gain", "tuned", "steps", "n_needed", "round_seconds")}
    declared = {claim["id"]: claim for claim in claims.declared(PLACEMENTS)}
    judged = [claims.judge(declared[name], PLACEMENTS, study.Summary(needed, {})) for name in ("E8", "E8e")]
    assert [claim["verdict"] for claim in judged] == expected


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
