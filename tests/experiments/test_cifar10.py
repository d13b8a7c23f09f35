"""CIFAR-10: the paper's settings as declared, every method as it should be set up, and numbers that read what they say."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from experiments.cifar10 import experiment, measures, names, selections
from secondlook.errors import Mistake, OutOfTime
from secondlook.optim import AdaHessian
from secondlook.problems.cifar10 import METHODS
from secondlook.problems.images import ARRAY
from secondlook.problems.resnet import convnet
from secondlook.study.experiment import Experiment, run
from secondlook.study.needs import BUILT
from secondlook.study.parameters import build
from secondlook.study.place import Place
from secondlook.study.text import key
from secondlook.training import generator

CIFAR10 = Experiment(ROOT, "cifar10")
SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


def params(case: str, scale: str = "paper", changes=()) -> experiment.Params:
    return build(experiment.Params, CIFAR10.setting(case, scale, changes).parameters, "config.yaml")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Two seeds of every method and a sweep, at trial scale; they stand in for the residual networks' as well."""
    folder = tmp_path_factory.mktemp("work")
    made = ("small", "small_rates", "precision", "first_steps")
    tables = {case: run(CIFAR10, CIFAR10.setting(case, "smoke"), Place(folder / case)) for case in made}
    same = {"resnet20": "small", "resnet32": "small", "quick": "small", "rates": "small_rates", "quick_rates": "small_rates"}
    optimisers = tables["small"][~tables["small"].method.str.match("AdaHessian (?!coupled)", na=False)]
    stand_ins = {"small": optimisers, "small_rates": tables["small_rates"]}
    for case, method in {"quick_frequency": "AdaHessian every 5", "quick_absolute": "AdaHessian absolute"}.items():
        same[case], stand_ins[method] = method, tables["small"][tables["small"].method == method]
    same |= dict.fromkeys(("residual_rates", "small_fine_rates", "small_robustness"), "small_rates")
    same |= {"residual_pilot": "small", "residual": "whole", "residual_longer": "first order", "small_tuned": "whole"}
    stand_ins |= {"whole": tables["small"], "first order": optimisers[optimisers.method.isin(["SGD", "AdamW"])]}
    return pd.concat([*tables.values(), *(stand_ins[old].assign(case=new) for new, old in same.items())], ignore_index=True)


PAPER = {  # AdaHessian's paper, for CIFAR-10
    "SGD": (SGD, 0.1, {"momentum": 0.9, "weight_decay": 5e-4}),
    "Adam": (ADAM, 0.001, {"betas": (0.9, 0.999), "weight_decay": 5e-4}),
    "AdamW": (ADAMW, 0.01, {"betas": (0.9, 0.999), "weight_decay": 5e-2}),
    "AdaHessian": (AdaHessian, 0.15, {"betas": (0.9, 0.999), "eps": 1e-4, "weight_decay": 5e-4 / 0.15, "decoupled": True}),
    "AdaHessian coupled": (AdaHessian, 0.15, {"eps": 1e-4, "weight_decay": 5e-4, "decoupled": False}),
}


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("case", ["resnet20", "resnet32"])
def test_optimisers_are_the_papers(case, name):
    declared = params(case)
    rule, lr, options = PAPER[name]
    assert declared.learning_rates[name] == lr
    made = METHODS[name].optimizer(convnet(generator(0, "start"), 2), lr, declared)
    assert type(made) is rule
    group = made.param_groups[0]
    assert {key: group[key] for key in options} == {**options, "weight_decay": pytest.approx(options["weight_decay"])}
    assert group["lr"] == lr and group.get("every", 1) == 1 and group.get("averaging", "signed") == "signed"


def test_schedule_and_sizes_are_the_papers():
    for case, depth in (("resnet20", 20), ("resnet32", 32)):
        p, setting = params(case), CIFAR10.setting(case)
        assert (p.epochs, p.batch, p.width, p.network) == (160, 256, 16, f"ResNet-{depth}")
        assert (p.train, p.test, p.validation, p.images) == (50_000, 10_000, 0, "cifar10")
        assert setting.seeds == (100, 101, 102, 103, 104) and setting.needs["device"] == "cuda"
        factors = [experiment.Schedule(p.gentle, p.drops)(epoch) for epoch in range(160)]
        assert factors == pytest.approx([0.1] + [1] * 79 + [0.1] * 40 + [0.01] * 40)  # but for the gentle epoch
    small = params("small")
    factors = [experiment.Schedule(small.gentle, small.drops)(epoch) for epoch in range(10)]
    assert factors == pytest.approx([0.1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_as_much_work_is_three_times_the_epochs_of_the_same_schedule():
    short, long = params("residual"), params("residual_longer")
    assert (short.network, short.width, short.train, short.test, short.batch) == ("ResNet-8", 8, 50_000, 10_000, 128)
    assert (long.epochs, long.drops) == (3 * short.epochs, tuple(3 * drop for drop in short.drops))
    assert long.learning_rates == short.learning_rates == params("residual_pilot").learning_rates
    assert CIFAR10.setting("residual").seeds == CIFAR10.setting("residual_longer").seeds
    sweep = params("residual_rates")
    assert (3 * sweep.epochs, tuple(3 * drop for drop in sweep.drops)) == (short.epochs, short.drops)


@pytest.mark.parametrize(
    "sweep, case",
    [
        ("small_rates", "small"),
        ("rates", "resnet20"),
        ("residual_rates", "residual"),
        ("small_fine_rates", "small_tuned"),
        ("small_robustness", "small_tuned"),
    ],
)
def test_tuning_sees_no_image_and_no_seed_of_the_report(sweep, case):
    tuning, report = CIFAR10.setting(sweep), CIFAR10.setting(case)
    assert not set(tuning.seeds) & set(report.seeds)
    assert params(sweep).validation > 0 == params(case).validation


def test_validation_images_follow_the_training_images(tmp_path):
    p = params("small_rates", "smoke")
    every = experiment.generated(p.train + p.validation, p.test)
    found = experiment._images(p, Place(tmp_path))
    assert torch.equal(found.train, every.train[: p.train])
    assert torch.equal(found.test, every.train[p.train : p.train + p.validation])


def test_what_chooses_is_apart_from_what_it_chooses_for():
    for one, other in (
        ("residual_rates", "residual_pilot"),
        ("residual_pilot", "residual"),
        ("small_fine_rates", "small_robustness"),
    ):
        assert not set(CIFAR10.setting(one).seeds) & set(CIFAR10.setting(other).seeds)


@pytest.mark.parametrize(
    "case, sweep",
    [
        ("small", "small_rates"),
        ("small_robustness", "small_fine_rates"),
        ("small_tuned", "small_fine_rates"),
        ("residual_pilot", "residual_rates"),
        ("residual", "residual_rates"),
        ("residual_longer", "residual_rates"),
    ],
)
def test_rates_are_the_best_of_the_sweep(case, sweep):
    """As recorded: each method's rate is the best on validation, and none is at the edge of its range."""
    path = ROOT / "results" / "recorded" / "cifar10" / f"{sweep}.csv"
    if not path.exists():
        pytest.skip(f"{sweep} is not recorded")
    found = measures.rates(pd.read_csv(path), sweep)
    for name, lr in params(case).learning_rates.items():
        assert found[f"{key(name)}_lr"].value == pytest.approx(lr), name
        assert found[f"{key(name)}_inside"].value == 1, name


def test_every_method_trains_and_says_what_it_costs(rows):
    """Gradient equivalents of two epochs of two steps over SGD's: 1 + 2 / k for a Hessian every k steps."""
    last = selections.totals(rows, "gradient_equivalents", "small").loc[100]
    expected = {"SGD": 1, "Adam": 1, "AdamW": 1, "AdaHessian": 3, "AdaHessian coupled": 3, "AdaHessian absolute": 3}
    expected |= {"AdaHessian every 5": 1 + 2 / 4, "AdaHessian Gauss-Newton": 5 / 3, "AdaHessian 1/4 batch": 1 + 3 / 4}
    assert dict(last) == pytest.approx(expected)
    flags = rows[rows.metric == "diverged"]
    assert set(flags.method[flags.case == "small"]) == set(expected) and not flags.value.any()


def test_the_same_seed_starts_alike_whatever_the_method(rows):
    """The first epoch of methods that differ in nothing but what comes later: decay of either kind has done little yet."""
    first = selections.epochs(rows, "small", "train_loss")[1]
    assert first["AdaHessian"].to_numpy() == pytest.approx(first["AdaHessian coupled"].to_numpy(), rel=0.02)
    assert abs(first["SGD"].loc[1.0, 100] / first["SGD"].loc[1.0, 101] - 1) > 0.001


def test_the_quarter_is_the_first_quarter_of_the_batch():
    p = params("small")
    x, y = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    curvature = []
    for part in (1, 4):
        model = convnet(generator(0, "start"), 2).eval()
        optimizer = METHODS["AdaHessian"].optimizer(model, 0.15, p)
        if part == 4:
            METHODS["AdaHessian 1/4 batch"].make_step(optimizer, model, torch.nn.functional.cross_entropy)(x, y)
        else:
            METHODS["AdaHessian"].make_step(optimizer, model, torch.nn.functional.cross_entropy)(x[:2], y[:2])
        curvature.append([state["exp_hessian_diag_sq"] for state in optimizer.state.values()])
    for whole, quarter in zip(*curvature, strict=True):
        torch.testing.assert_close(quarter, whole)


def made_up(accuracies: dict[str, list[list[float]]], case="small") -> pd.DataFrame:
    """Rows of test accuracy: method to seeds by epochs; nan from where a run diverged."""
    lines = [
        (case, method, 1.0, 100 + seed, epoch, "test_accuracy", value)
        for method, runs in accuracies.items()
        for seed, run in enumerate(runs)
        for epoch, value in enumerate(run, 1)
    ]
    return pd.DataFrame(lines, columns=["case", "method", "factor", "seed", "step", "metric", "value"])


def test_a_diverged_run_counts_as_chance_and_the_best_epoch_is_apart_from_the_last():
    table = made_up({"Adam": [[0.5, 0.4], [0.3, np.nan]], "SGD": [[0.2, 0.3], [0.2, 0.3]]})
    assert selections.accuracies(table, "small").to_numpy().tolist() == [[40, 30], [10, 30]]
    assert selections.accuracies(table, "small", best=True).to_numpy().tolist() == [[50, 30], [30, 30]]
    assert list(selections.accuracies(table, "small")) == ["Adam", "SGD"]


def test_fewer_bits_are_told_apart_and_cost_little_accuracy(rows):
    table = measures.precision_table(rows)
    assert list(table.Method) == ["SGD"] * 4 + ["AdaHessian"] * 4
    assert list(table.Precision[:4]) == ["float32", "TF32", "bfloat16", "bfloat16, channels last"]
    losses = selections.epochs(rows, "precision", "train_loss").groupby("method").mean()
    assert losses.loc["SGD"].equals(losses.loc["SGD, TF32"])  # on a CPU, which has no such numbers
    assert 0 < (losses.loc["SGD"] - losses.loc["SGD, bfloat16"]).abs().max() < 0.1


@pytest.mark.parametrize(
    "gap, word",
    [
        ([2, 2.1, 1.9, 2], "better"),
        ([-2, -2.1, -1.9, -2], "worse"),
        ([0.05, -0.1, 0.1, -0.05], "equivalent"),
        ([3, -3, 1, -1], "undecided"),
    ],
)
def test_words_of_a_comparison(gap, word):
    base = np.array([50.0, 51, 49, 50])
    runs = {method: [[value / 100] for value in base] for method in names.OPTIMISERS}
    runs["AdaHessian"] = [[value / 100] for value in base + np.array(gap)]
    table = measures.comparisons(made_up(runs), "small").set_index("First minus second")
    assert table.Word["AdaHessian − AdamW"] == word
    assert measures.differences(made_up(runs), "small")["adamw"].value == pytest.approx(np.mean(gap))


def test_the_best_rate_and_the_drop_from_it():
    lines = []
    for method, values in {
        "SGD": [0.2, 0.4, 0.3],
        "Adam": [0.4, 0.3, np.nan],
        "AdamW": [0.3, 0.3, 0.6],
        "AdaHessian": [0.4, 0.5, 0.3],
    }.items():
        for factor, value in zip((0.1, 1.0, 10.0), values, strict=True):
            for seed in (0, 1):
                for metric, number in (("test_accuracy", value), ("lr", 0.5 * factor)):
                    lines.append(("rates", method, factor, seed, 1, metric, number))
    found = measures.rates(
        pd.DataFrame(lines, columns=["case", "method", "factor", "seed", "step", "metric", "value"]), "rates"
    )
    assert [found[f"{m}_lr"].value for m in ("sgd", "adam", "adamw")] == [0.5, 0.05, 5]
    assert [found[f"{m}_inside"].value for m in ("sgd", "adam", "adamw")] == [1, 0, 0]
    assert [found[f"{m}_drop"].value for m in ("sgd", "adam", "adahessian")] == pytest.approx([10, 5, 10])
    assert found["over_sgd"].value == pytest.approx(0)
    assert found["centred"].value == 0  # Adam's and AdamW's best rates lie at an end


def test_drops_are_over_the_same_multiples_of_the_best_rate():
    """Each method's accuracy falls by a point a step of half a decade, from a best of its own."""
    factors, best = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), {"SGD": 3, "Adam": 2, "AdamW": 3, "AdaHessian": 2}
    runs = [
        {"case": "rates", "method": method, "factor": factor, "seed": seed, "step": 1, "metric": metric, "value": value}
        for method, at in best.items()
        for place, factor in enumerate(factors)
        for seed in (0, 1)
        for metric, value in (("test_accuracy", 0.5 - 0.01 * abs(place - at)), ("lr", factor))
    ]
    found = measures.rates(pd.DataFrame(runs), "rates")
    assert found["centred"].value == 1
    assert [found[f"{key(m)}_drop"].value for m in best] == pytest.approx([(2 + 1 + 0 + 1 + 2) / 5] * 4)


def test_robustness_is_measured_around_the_rate_that_other_seeds_have_chosen():
    """Here the best factor is another: it does not become the centre, and whether it lies at an end is told."""
    runs = [
        {
            "case": "small_robustness",
            "method": method,
            "factor": factor,
            "seed": seed,
            "step": 1,
            "metric": "test_accuracy",
            "value": value,
        }
        for method, values in {
            "SGD": [0.1, 0.3, 0.5, 0.3, 0.1],
            "Adam": [0.5, 0.5, 0.5, 0.6, 0.5],
            "AdamW": [0.5, 0.5, 0.5, 0.5, np.nan],
            "AdaHessian": [0.3, 0.5, 0.6, 0.5, 0.1],
        }.items()
        for factor, value in zip((0.1, 0.316, 1.0, 3.16, 10.0), values, strict=True)
        for seed in (20, 21)
    ]
    found = measures.robustness(pd.DataFrame(runs))
    drops = [found[f"{key(m)}_drop"].value for m in ("SGD", "Adam", "AdamW", "AdaHessian")]
    assert drops == pytest.approx([50 - 26, 50 - 52, 50 - 42, 60 - 40])
    assert found["over_adamw"].value == pytest.approx(12)
    assert found["inside"].value == 0  # AdamW's first is the best, as good as others


def test_at_equal_work_the_others_have_more_epochs():
    few = made_up({"AdaHessian": [[0.4, 0.5], [0.4, 0.6]], "SGD": [[0.1, 0.2], [0.1, 0.2]]}, "residual")
    many = made_up({"SGD": [[0.5] * 6, [0.5] * 6], "AdamW": [[0.5] * 5 + [0.7], [0.5] * 5 + [0.8]]}, "residual_longer")
    rows = pd.concat([few, many])
    work = rows.assign(metric="gradient_equivalents", value=rows.step * np.where(rows.method == "AdaHessian", 3, 1))
    found = measures.equal_work(pd.concat([rows, work]))
    assert [found[name].value for name in ("sgd", "adamw")] == pytest.approx([5, -20])
    assert found["sgd_work"].value == found["adamw_work"].value == 1
    assert found["adamw_n"].value == 2 < found["sgd_n"].value


def test_first_steps_differ_by_nothing_but_the_start(rows, tmp_path):
    p = build(experiment.Begun, CIFAR10.setting("first_steps", "smoke").parameters, "config.yaml")
    for metric in ("loss", "size"):
        assert (selections.begun(rows, metric)[0].groupby("seed").nunique() == 1).all()  # before the first step
    for gentle, share in ((0, 1), (1, 0.1)):
        cell = {"seed": 0, "method": "AdaHessian", "gentle": gentle, "factor": 1.0, "precision": "float32"}
        run = experiment._made(replace(p, gentle=gentle), Place(tmp_path), cell)
        assert run.lr == pytest.approx(share * p.learning_rates["AdaHessian"])
        assert sum(float(w.detach().square().sum()) for w in run.model.parameters()) ** 0.5 == pytest.approx(
            selections.begun(rows, "size").loc[("AdaHessian", gentle, 0), 0], rel=1e-6
        )
    with pytest.raises(Mistake, match="'steps' must be at most 2, the batches of an epoch, got 3"):
        list(experiment._begun(replace(p, steps=3), Place(tmp_path), cell))


def test_first_steps_of_a_run_that_diverged_count_as_infinite():
    values = {("SGD", 0): [2, 9, 3], ("SGD", 1): [2, 1, 1.5], ("AdaHessian", 0): [2, 70], ("AdaHessian", 1): [2, 1.9, 1.8]}
    rows = pd.DataFrame(
        {
            "case": "first_steps",
            "method": method,
            "gentle": gentle,
            "seed": seed,
            "step": step,
            "metric": metric,
            "value": value + seed,
        }
        for (method, gentle), of_steps in values.items()
        for metric in ("loss", "size")
        for seed in (0, 1)
        for step, value in enumerate(of_steps)
    )
    found = measures.first_steps(rows)
    assert found["sgd_at_full_rate_first"].value == 2.5 and found["sgd_at_full_rate_second"].value == 9.5
    assert found["sgd_at_full_rate_peak"].value == 9.5 and found["sgd_at_full_rate_last"].value == 3.5
    assert (
        found["sgd_gentle_peak"].value == found["sgd_gentle_first_size"].value == 2.5
        and found["sgd_gentle_last_size"].value == 2
    )
    assert found["adahessian_at_full_rate_peak"].value == np.inf and found["adahessian_gentle_last"].value == pytest.approx(2.3)
    table = measures.first_steps_table(rows).set_index(["Method", "First epoch"])
    assert table["largest"]["SGD", "at full rate"] == "9.50 (9.00 to 10.0)"
    assert table["largest"]["AdaHessian", "at full rate"] == "∞ (∞ to ∞)"


def test_a_stopped_case_goes_on_with_the_networks_that_are_done(tmp_path):
    setting = CIFAR10.setting("variants", "smoke", seed=100)
    whole = run(CIFAR10, setting, Place(tmp_path / "whole"))
    work, looks = tmp_path / "part", []

    class Stopping(Place):
        def check_time(self):
            looks.append(1)
            if len(looks) == 3:
                raise OutOfTime("time is up")

    with pytest.raises(OutOfTime):
        run(CIFAR10, setting, Stopping(work))
    resumed = run(CIFAR10, setting, Place(work))
    same = whole.metric != "seconds"
    pd.testing.assert_frame_equal(resumed[same], whole[same])
    assert json.loads((work / "data.json").read_text())["generated"]["origin"] == "generated"


@pytest.mark.parametrize("name", [name for name in CIFAR10.figures if name not in ("frequency", "variants")])
def test_figures_draw(rows, name):
    figure = CIFAR10.made("figures", name, rows)
    assert figure.axes
    plt.close(figure)


def test_tables_and_numbers_are_there(rows):
    assert set(measures.data(rows).Images) == {"generated"}
    assert len(measures.methods(rows, "small")) == 9 and len(measures.paper_accuracy(rows)) == 10
    assert len(measures.by_rate(rows, "small_rates")) == 2
    assert measures.divergences(rows)["small_runs"].value == 18


def test_photographs_train_where_they_are(tmp_path):
    if not (ROOT / BUILT / ARRAY).is_file():
        pytest.skip("the array file of CIFAR-10 is not built")
    setting = CIFAR10.setting("resnet20", "smoke", ["images=cifar10", "methods=[AdaHessian]"], seed=100)
    place = Place(tmp_path, data=ROOT / BUILT)
    table = run(CIFAR10, setting, place)
    assert place.data_sets()["cifar10"]["sha256"] and np.isfinite(table.value).all()


def test_epochs_follow_from_the_pace_by_the_declared_rule():
    p = build(experiment.Paced, CIFAR10.setting("quick").parameters, "config.yaml")
    found = {seconds: p.at(seconds) for seconds in (0.1, 2.1, 2.11, 3.2, 3.21, np.inf)}
    assert [each.epochs for each in found.values()] == [30, 30, 20, 20, 12, 12]
    assert [found[seconds].drops for seconds in (2.1, 3.2, np.inf)] == [(15, 22), (10, 15), (6, 9)]
    assert {CIFAR10.setting(case).parameters["epochs"] for case in ("quick", "quick_frequency", "quick_absolute")} == {12}


def test_the_pace_is_measured_once_and_its_failure_means_the_fewest_epochs(tmp_path, monkeypatch):
    changes = ["methods=[SGD]", "within=[1e9]"]
    place = Place(tmp_path / "quick.work")
    table = run(CIFAR10, CIFAR10.setting("quick", "smoke", changes), place)
    paces = table[table.metric == names.PACE].value
    assert paces.nunique() == 1 and set(table.value[table.metric == "epochs"]) == {4}

    def failing(run):
        yield 1 / 0

    monkeypatch.setattr(experiment, "_epoch", failing)
    other = run(CIFAR10, CIFAR10.setting("quick_absolute", "smoke", changes), Place(tmp_path / "quick_absolute.work"))
    assert set(other.value[other.metric == names.PACE]) == set(paces)  # kept beside both
    slow = run(CIFAR10, CIFAR10.setting("quick", "smoke", [*changes, "batch=10"]), Place(tmp_path / "slow.work"))
    assert set(slow.value[slow.metric == "epochs"]) == {2}


def test_networks_side_by_side_have_no_times_and_what_asks_for_them_takes_work():
    rows = made_up({"SGD": [[0.5], [0.4]], "AdaHessian": [[0.5], [0.6]]})
    more = [rows.assign(metric=name, value=value) for name, value in {"lr": 0.1, "gradient_equivalents": 3.0}.items()]
    rows = pd.concat([rows, *more])
    assert len(selections.totals(rows, "seconds", "small")) == 0
    assert selections.effort(rows, "small")[1] == "work"
    partly = pd.concat([rows, more[0][more[0].method == "SGD"].assign(metric="seconds", value=1.0)])
    assert len(selections.totals(partly, "seconds", "small")) == 0  # some side by side, and some alone


def test_cases_of_different_lengths_are_no_comparison():
    rows = pd.concat(
        [made_up({"AdaHessian": [[0.5, 0.6]]}, "quick"), made_up({"AdaHessian every 5": [[0.5]]}, "quick_frequency")]
    )
    with pytest.raises(Mistake, match="quick and quick_frequency of cifar10 have different numbers of epochs"):
        selections.accuracies(rows, "quick", "quick_frequency")
