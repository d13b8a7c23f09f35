"""The experiment on several processes: what its measures and figures make of rows, and its smallest runs."""

import itertools

import pandas as pd
import pytest
import torch.distributed as dist
from conftest import ROOT

from experiments.data_parallel import experiment, figures, measures
from secondlook.study.claims import declared, judge
from secondlook.study.experiment import Experiment, run
from secondlook.study.measures import Summary, summarise

DATA_PARALLEL = Experiment(ROOT, "data_parallel")
CASES = DATA_PARALLEL.cases


def rows(ours=0.0, halved=0.5):
    """Two seeds of which the package's replicas end 1 and 3 apart; four draws; three rounds."""
    found = []
    for seed, step in itertools.product((0, 1), (1, 1000)):
        at = {"case": "replicas", "seed": seed, "step": step, "metric": "spread"}
        found += [{**at, "method": "AdaHessian", "value": ours * step}]
        found += [{**at, "method": "torch-optimizer", "value": (1 + 2 * seed) * step / 1000}]
    found += [
        {"case": "replicas", "seed": s, "step": 1, "method": "torch-optimizer", "metric": "refused", "value": 1} for s in (0, 1)
    ]
    for processes, probes, step in itertools.product((1, 2), ("independent", "equal"), range(4)):
        mean = halved if (processes, probes) == (2, "independent") else 1.0
        at = {"case": "variance", "seed": 0, "step": step, "processes": processes, "probes": probes}
        found.append({**at, "metric": "squared_error", "value": mean + 0.01 * (-1) ** step})
    for step, ratio in enumerate((1.1, 1.3, 1.2), 1):
        at = {"case": "overhead", "seed": 0, "step": step, "metric": "milliseconds"}
        found.append({**at, "method": "gradients", "value": 50.0 * step})
        found.append({**at, "method": "gradients and curvature", "value": 50.0 * step * ratio})
    return pd.DataFrame(found)


def test_measures_read_what_they_say():
    found = summarise(DATA_PARALLEL, rows()).measures
    assert found["drift"]["torch_optimizer"].value == 2 and found["drift"]["adahessian"].value == 0
    assert found["worst"].value == 0 and found["steps"].value == 1000 and found["refused"]["torch_optimizer"].value == 1
    assert found["variance"]["independent_2"].value == pytest.approx(0.5) and found["variance"][
        "equal_2"
    ].value == pytest.approx(1)
    assert found["overhead"].value == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (rows(), ["reproduced", "reproduced"]),
        (rows(halved=0.9), ["reproduced", "not reproduced"]),
        (rows(ours=1e-9), ["not reproduced", "reproduced"]),
    ],
    ids=["equal", "equal, no gain", "apart"],
)
def test_the_verdicts_follow_the_replicas_and_the_probes(found, verdicts):
    summary = summarise(DATA_PARALLEL, found)
    assert [judge(claim, DATA_PARALLEL, summary)["verdict"] for claim in declared(DATA_PARALLEL)] == verdicts


def test_the_tables_and_the_figure_show_every_method():
    tables = measures.differences(rows())
    assert tables["Method"].tolist() == ["AdaHessian", "torch-optimizer"]
    assert tables["under DDP"].tolist() == ["runs", "raises"] and tables["step 1000"].tolist() == ["0", "2.0"]
    left, right = figures.replicas(rows()).axes
    assert len(left.get_lines()) >= 4 and len(right.containers) == 2


@pytest.fixture
def in_this_process(monkeypatch):
    """The part of rank 0, in a group of its own."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(experiment, "on_ranks", lambda processes, function, *arguments: [function(*arguments)])
    yield
    dist.destroy_process_group()


def test_the_smoke_runs_give_what_is_measured(in_this_process):
    """Without the other packages; one process compared with itself, whose draws are those of one probe."""
    table = pd.concat(
        run(DATA_PARALLEL, DATA_PARALLEL.setting(case, "smoke", ["draws=50"] * (case == "variance"))) for case in CASES
    )
    found = summarise(DATA_PARALLEL, table).measures
    assert set(found["drift"]) == {"adahessian", "oasis", "sophia_h", "sophia_g"} and found["worst"].value == 0
    assert found["overhead"].n == 3 and found["overhead"].value > 0
    assert all(0.8 < error.value < 1.2 for error in found["variance"].values())  # 50 draws, each 1 +- 0.2


def test_without_the_record_nothing_was_run():
    summary = Summary({}, {}, ("replicas",))
    assert judge(declared(DATA_PARALLEL)[0], DATA_PARALLEL, summary)["verdict"] == "not run"
