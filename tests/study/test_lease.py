"""A lease from a copy of the tracked files, without history: what is killed, raises or runs out of time costs itself alone."""

import json
import shutil
import subprocess
import tarfile
import time

import pandas as pd
import pytest
import yaml
from conftest import HANG, IGNORED, ROOT, Project

from secondlook.errors import Mistake
from secondlook.study import leased
from secondlook.study.experiment import Experiment, run
from secondlook.study.lease import Terms, complete, plan
from secondlook.study.ledger import Cells, Ledger
from secondlook.study.place import Place
from secondlook.study.tables import read_table

COMMIT = "0123456789"
STEPS = [
    {"stage": "cifar10/quick_rates", "seeds": {"first": 0, "count": 1}, "seconds": 1, "at_once": 2},
    {"stage": "cifar10/quick_rates", "seeds": {"first": 1, "count": 1}, "seconds": 1},
]
CELLS = 2 * (1 + 2 * 2)  # of the stage: for each seed the images, two methods and two factors
ONCE = """

_step = Method.eager_step
_taken = []


def _harmful(self, optimizer, model, criterion):
    from pathlib import Path

    step = _step(self, optimizer, model, criterion)

    def third(x, y):
        _taken.append(x)
        if len(_taken) == 3 and not Path("harmed").exists():  # once on this machine
            Path("harmed").touch()
            HARM
        return step(x, y)

    return third if type(optimizer) is torch.optim.Adam else step


Method.eager_step = _harmful
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pd.DataFrame:
    """The rows of the stage where nothing disturbs it."""
    experiment = Experiment(ROOT, "cifar10")
    setting = experiment.setting("quick_rates", "smoke", ["methods=[SGD, Adam]"])
    return run(experiment, setting, Place(tmp_path_factory.mktemp("work")))


@pytest.fixture
def project(tmp_path) -> Project:
    """The tracked files without .git; two methods of a small stage that any machine computes, and a machine that was tested."""
    folder = tmp_path / "copy"
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    if not folder.exists():  # where there is no git
        shutil.copytree(ROOT, folder, ignore=lambda *a: {*IGNORED(*a), ".git", ".venv", "results", "data"} & {*a[1]})
    experiment = Experiment(ROOT, "cifar10")
    config = experiment.config
    small = experiment.setting("quick_rates", "smoke", ["methods=[SGD, Adam]"])
    config["cases"]["quick_rates"] = {"seeds": {"first": 0, "count": 2}, "fixed": small.parameters}
    made = Project.at(folder)
    made.write("experiments/cifar10/config.yaml", yaml.safe_dump(config, sort_keys=False))
    made.write("config/lease.yaml", yaml.safe_dump({"selftest": {"module": "none", "seconds": 1, "most": 1}, "steps": STEPS}))
    made.write("out/selftest.json", '{"finished": true, "ok": true, "captured": [], "best_streams": 2}')
    return made


def lease(project: Project, *words: str, status: int = 0) -> str:
    done = project.secondlook(
        "lease", "--budget", str(HANG), "--device", "cpu", "--out", "out", "--commit", COMMIT, *words, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def begun(project: Project) -> list[tuple]:
    """Call, seed and method of the cells that were begun, in their order."""
    found = [entry for entry in Ledger(project.folder / "out/lease.jsonl").entries if entry["kind"] == "begun"]
    return [(entry["call"], entry["key"]["seed"], entry["key"].get("method")) for entry in found]


def harm(project: Project, how: str) -> None:
    path = project.folder / "src/secondlook/problems/cifar10.py"
    path.write_text(path.read_text() + ONCE.replace("HARM", how))


def recorded(project: Project) -> tuple[pd.DataFrame, dict]:
    """What `record` makes of the archive."""
    said = project.secondlook("record", "out/lease.tar.gz").stdout
    assert "made on cpu at commit 0123456789" in said and "list cifar10/quick_rates under 'recorded'" in said
    return read_table(project.folder / "results/recorded/cifar10/quick_rates.csv")


def check(table: pd.DataFrame, whole: pd.DataFrame) -> None:
    """The rows are those of the stage where nothing disturbs it, but for times."""
    keys = ["seed", "method", "factor", "step", "metric"]
    pairs = [rows[rows.metric != "seconds"].set_index(keys).value for rows in (table, whole)]
    assert len(pairs[0]) > 50
    pd.testing.assert_series_equal(*pairs)


def test_a_lease_whose_worker_is_killed_goes_on_and_its_archive_is_recorded(project, whole):
    harm(project, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    said = lease(project)
    assert "the worker ended with status -9; another goes on" in said
    assert f"cifar10/quick_rates: {CELLS} cells finished, 0 failed" in said
    lines = [entry for entry in Ledger(project.folder / "out/lease.jsonl").entries if entry["kind"] in ("begun", "cell")]
    keys = [(entry["kind"], entry["key"]) for entry in lines]
    twice = [key for kind, key in keys if kind == "begun" and keys.count((kind, key)) == 2]
    assert 0 < len(twice) / 2 <= 2 and "Adam" in {key.get("method") for key in twice}  # those that ran side by side
    assert len(begun(project)) == CELLS + len(twice) / 2 and sum(kind == "cell" for kind, _ in keys) == CELLS
    table, record = recorded(project)
    assert record["commit"] == COMMIT and record["dirty"] is False and record["at_once"] in (1, 2)
    assert record["data"] == {"generated": {"origin": "generated", "sha256": ""}}
    assert not set(table.metric[table.seed == 0]) & {"seconds"} or record["at_once"] == 1
    check(table, whole)


def test_a_lease_that_is_killed_whole_goes_on_with_the_next_call(project, whole):
    harm(
        project,
        "import os, signal; os.kill(int(os.environ['SECONDLOOK_PARENT']), signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)",
    )
    lease(project, status=-9)
    first = Ledger(project.folder / "out/lease.jsonl")
    finished = sum(entry["kind"] == "cell" for entry in first.entries)
    assert 0 < finished < CELLS and not (project.folder / "out/lease.tar.gz").exists()
    lease(project)
    assert sum(call == 2 for call, *_ in begun(project)) == CELLS - finished
    check(recorded(project)[0], whole)


def test_a_method_that_raises_costs_itself_and_is_tried_again_by_the_next_call(project, whole):
    harm(project, 'raise RuntimeError("a kernel that there is not")')
    said = lease(project, status=1)
    assert "RuntimeError: a kernel that there is not" in said and "1 cells failed, which the same command tries again" in said
    assert f"cifar10/quick_rates: {CELLS - 1} cells finished, 1 failed" in said
    (failed,) = [entry for entry in Ledger(project.folder / "out/lease.jsonl").entries if entry["kind"] == "failed"]
    assert "Traceback" in failed["why"] and failed["key"]["method"] == "Adam"
    line = project.secondlook("record", "out/lease.tar.gz").stdout
    assert line == (
        "cifar10/quick_rates is not whole: 1 cells are missing, of seeds 0; RuntimeError: a kernel that there is not\n"
    )
    lease(project)
    assert [cell for cell in begun(project) if cell[0] == 2] == [(2, 0, "Adam")]
    check(recorded(project)[0], whole)


class Clock:
    """A clock that goes on by one second whenever it is looked at."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def terms(project: Project, call: int, deadline: float) -> Terms:
    folder = str(project.folder / "out")
    return Terms(folder, 100.0, "cpu", "paper", "data", COMMIT, False, call, deadline, captured=(), fused=False)


@pytest.mark.parametrize("looks", [15, 39])
def test_at_the_deadline_a_cell_is_kept_where_it_is_and_the_next_call_goes_on(project, whole, monkeypatch, looks):
    monkeypatch.chdir(project.folder)
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", Clock())
        assert leased.main(terms(project, 1, deadline=looks)) == 75
    ledger = Ledger(project.folder / "out/lease.jsonl")
    finished = sum(entry["kind"] == "cell" for entry in ledger.entries)
    assert finished < CELLS and not [entry for entry in ledger.entries if entry["kind"] == "failed"]
    assert finished == 0 or list(project.folder.glob("out/work/*/*/checkpoint"))  # in mid-cell
    said = []
    assert list(complete_of(project, said.append)) == []
    assert said == [f"cifar10/quick_rates is not whole: {CELLS - finished} cells are missing, of seeds {seeds(ledger)}"]
    assert leased.main(terms(project, 2, deadline=time.monotonic() + HANG)) == 0
    ((_, table, record),) = complete_of(project, said.append)
    assert record["parts"] >= 2
    check(table, whole)


def complete_of(project: Project, say):
    """What is whole in an archive of the ledger as it is."""
    path = project.folder / "lease.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(project.folder / "out/lease.jsonl", "lease.jsonl")
    return complete(project.folder, path, say)


def seeds(ledger: Ledger) -> str:
    """Those with a cell that is missing."""
    done = {seed: sum(e["kind"] == "cell" and e["key"]["seed"] == seed for e in ledger.entries) for seed in (0, 1)}
    return ", ".join(str(seed) for seed in (0, 1) if done[seed] < CELLS / 2)


def test_an_archive_alone_is_gone_on_with_and_other_settings_are_refused(project):
    lease(project)
    for path in (project.folder / "out").iterdir():
        if path.name not in ("lease.tar.gz", "selftest.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    lease(project)
    assert {call for call, *_ in begun(project)} == {1}
    project.replace("experiments/cifar10/config.yaml", "weight_decay: 0.0005", "weight_decay: 0.0006")
    assert "holds a run with other settings: weight_decay" in project.mistake("record", "out/lease.tar.gz")


def test_a_ledger_trusts_whole_lines_alone(tmp_path, capsys):
    ledger = Ledger(tmp_path / "lease.jsonl")
    for seed in range(3):
        ledger.append("cell", of="run", key={"seed": seed}, rows=[{"value": seed / 3}])
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(lines[0] + lines[1].replace(b"0.3333", b"0.4444") + lines[2][:-9])
    damaged = Ledger(ledger.path)
    assert len(damaged.cells) == 1
    damaged.append("cell", of="run", key={"seed": 3}, rows=[{"value": 1 / 7}])
    known = Cells(Ledger(ledger.path), "a/b", {"of": "run", "shared": "all"})
    assert known.find({"seed": 0}) == [{"value": 0.0}] and known.find({"seed": 3}) == [{"value": 1 / 7}]
    assert known.find({"seed": 1}) is None and known.find({"seed": 2}) is None
    assert "is damaged, and does not count" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, line",
    [
        (["--budget", "0"], "--budget must be a positive number, got 0.0"),
        (["--budget", "9"], "results of code that no commit holds are not recorded: commit first, and say --commit where git is not"),
        (["--budget", "9", "--commit", COMMIT, "--dirty"], "results of code that no commit holds are not recorded: commit first, and say --commit where git is not"),
    ],
)  # fmt: skip
def test_what_could_not_be_recorded_is_not_begun(project, words, line):
    assert project.mistake("lease", "--out", "box", *words) == line
    assert not (project.folder / "box/lease.jsonl").exists()


def test_a_self_test_of_another_device_is_made_anew(project):
    Ledger(project.folder / "out/lease.jsonl").append("call", call=1, budget=1, commit=COMMIT, device="cuda", scale="paper")
    assert "the self-test did not end" in lease(project)


def test_a_machine_that_the_self_test_does_not_trust_computes_nothing(project):
    part = {"part": "eager AdaHessian", "ok": False, "why": "tensor does not have a device"}
    project.write("out/selftest.json", json.dumps({"finished": True, "ok": False, "captured": [], "parts": [part]}))
    assert "to be trusted: eager AdaHessian: tensor does not have a device" in lease(project, status=1)
    assert begun(project) == [] and (project.folder / "out/lease.tar.gz").exists()


def test_the_plan_names_stages_and_seeds_that_there_are():
    _, steps = plan(ROOT)
    settings = {step.stage: step.setting(ROOT, "paper")[1] for step in steps}
    for stage, setting in settings.items():
        planned = [seed for step in steps if step.stage == stage for seed in step.chosen(setting)]
        assert sorted(planned) == sorted(setting.seeds), stage  # every one of them, and once
        assert setting.needs["device"] == "cuda"
    with pytest.raises(Mistake, match="names seeds that the stage does not have"):
        type(steps[0])("cifar10/quick_rates", 1.0, {"first": 0, "count": 3}).chosen(settings["cifar10/quick_rates"])
