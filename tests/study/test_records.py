"""A result is believed only with its record: who made it, how, and that nobody touched it."""

import json
import resource
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace

import pandas as pd
import pytest
from conftest import demo

from secondlook.errors import Mistake
from secondlook.study import files, memory, records, tables
from secondlook.study.experiment import Experiment, run

RAW = "results/raw/demo/decay.csv"


def test_a_run_writes_rows_and_their_record(project):
    project.secondlook("run", "demo", "--case", "decay")
    table, record = tables.read_table(project.folder / RAW)
    assert list(table.columns) == ["experiment", "case", "seed", "method", "step", "metric", "value"]
    assert len(table) == record["rows"] == 8 * 21
    assert record["settings"] == {"steps": 20, "lr": 0.1, "seeds": list(range(8))}
    assert "experiments/demo/experiment.py" in record["sources"] and "src/secondlook/study/parameters.py" in record["sources"]
    assert record["wall_s"] >= 0 and record["versions"]["python"] and record["processor"]


def test_two_runs_give_the_same_bytes(project):
    project.secondlook("run", "demo", "--case", "decay")
    first = (project.folder / RAW).read_bytes()
    project.secondlook("run", "demo", "--case", "decay")
    assert (project.folder / RAW).read_bytes() == first


def test_numbers_survive_the_file_to_the_last_bit(project, tmp_path):
    experiment = Experiment(project.folder, "demo")
    table = run(experiment, experiment.setting("decay"))
    tables.write_table(tmp_path / "x.csv", table, {})
    pd.testing.assert_series_equal(tables.read_table(tmp_path / "x.csv")[0].value, table.value, check_exact=True)


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda path: path.write_text(path.read_text(encoding="utf-8").replace("loss,1", "loss,2", 1), encoding="utf-8"),
            "does not match its record",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "does not match its record"),
        (lambda path: tables.beside(path).write_text('{"sha256": ', encoding="utf-8"), "is damaged: it is not valid JSON"),
        (lambda path: tables.beside(path).write_text("[]", encoding="utf-8"), "does not match its record"),
        (lambda path: tables.beside(path).unlink(), "cannot read .*decay.json: No such file"),
        (lambda path: path.unlink(), "cannot read .*decay.csv: No such file"),
    ],
)
def test_damage_is_noticed(project, damage, message):
    project.secondlook("run", "demo")
    damage(project.folder / RAW)
    with pytest.raises(Mistake, match=message):
        tables.read_table(project.folder / RAW)
    assert str(RAW).removesuffix(".csv") in project.mistake("summarise", "demo")


def test_another_runs_output_is_refused_by_name_of_what_differs(project):
    project.secondlook("run", "demo")
    project.replace("experiments/demo/config.yaml", "lr: 0.1", "lr: 0.2")
    line = f"{RAW} holds a run with other settings: lr; remove it"
    assert project.mistake("summarise", "demo") == f"{line}, and run the stage again"
    assert project.mistake("run", "demo", "--case", "decay") == f"{line} first, or give another --out"


def test_trials_stay_apart_from_the_study(project):
    done = project.secondlook("run", "demo", "--case", "decay", "--set", "lr=0.3", "--seed", "5")
    assert "results/trials/demo/decay-" in done.stdout and not (project.folder / RAW).exists()


def test_the_second_writer_stops_and_names_the_first(project):
    project.replace("experiments/demo/config.yaml", "pause: 0.0", "pause: 30")
    slow = subprocess.Popen(**project.command("secondlook", "run", "demo", "--case", "slow"), stdin=subprocess.DEVNULL)
    try:
        lock = project.folder / "results/raw/demo/.slow.csv.lock"
        wait = threading.Event()
        for _ in range(300):
            if lock.exists() and lock.read_text(encoding="utf-8"):
                break
            wait.wait(0.1)
        line = project.mistake("run", "demo", "--case", "slow")
        assert line.startswith(f"results/raw/demo/slow.csv is being written by process {slow.pid} on ")
    finally:
        slow.kill()
        slow.wait()
    project.replace("experiments/demo/config.yaml", "pause: 30", "pause: 0.0")
    project.secondlook("run", "demo", "--case", "slow")  # the lock went with the process


def _limited(path, size: int) -> subprocess.CompletedProcess:
    """Write 100 kB to `path` in a process that may not make files larger than `size`."""
    code = (
        f"import sys; from secondlook.study.files import write; from secondlook.errors import Mistake\n"
        f"try: write({str(path)!r}, 'x' * 100_000)\nexcept Mistake as mistake: sys.exit(str(mistake))"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    return subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True)


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old", encoding="utf-8")
    done = _limited(path, 10_000)
    assert done.returncode == 1 and done.stderr == f"cannot write {path}: File too large\n"
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line(tmp_path):
    """On a real full disk, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights that this user lacks; the file-size limit above is tested")
    try:
        (disk / "table.csv").write_text("old", encoding="utf-8")
        with pytest.raises(Mistake, match=r"cannot write .*table.csv: No space left on device"):
            files.write(disk / "table.csv", "x" * 100_000)
        assert (disk / "table.csv").read_text(encoding="utf-8") == "old" and len(list(disk.iterdir())) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def git(folder, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x", *words], check=True)


def _commit(folder) -> None:
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        git(folder, *words)


def made_at(folder) -> tuple:
    """The commit of a record that is made in `folder`, and whether its code differs from it."""
    experiment = Experiment(folder, "demo")
    made = records.provenance(experiment, experiment.setting("decay"), 1.0)
    return made["commit"], made["dirty"]


@pytest.mark.parametrize("ignored", ["inner/\n", ""], ids=["ignored", "not ignored"])
def test_a_copy_inside_another_repository_is_of_no_commit(tmp_path, ignored):
    (tmp_path / ".gitignore").write_text(ignored, encoding="utf-8")
    _commit(tmp_path)
    (tmp_path / "inner").mkdir()
    assert made_at(demo(tmp_path / "inner").folder) == (None, None)


def test_a_commit_is_of_the_project_that_it_holds(project, monkeypatch, tmp_path_factory):
    (project.folder / ".gitignore").write_text("results/\n__pycache__/\n", encoding="utf-8")
    _commit(project.folder)
    commit, dirty = made_at(project.folder)
    assert len(commit) == 40 and dirty is False
    other = tmp_path_factory.mktemp("other")
    (other / "file").touch()
    _commit(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as in a hook of the other one
    assert made_at(project.folder) == (commit, False)
    monkeypatch.delenv("GIT_DIR")
    project.write(".gitignore", "/experiments/\n")
    git(project.folder, "rm", "-rq", "--cached", "experiments")
    git(project.folder, "commit", "-qam", "the experiment is not held")
    assert made_at(project.folder)[1] is True


RECORDED = "results/recorded/demo/decay.csv"


@pytest.fixture
def recorded(project):
    """A project with a result of committed code on record."""
    (project.folder / ".gitignore").write_text("results/\n__pycache__/\n", encoding="utf-8")
    _commit(project.folder)
    project.secondlook("run", "demo", "--case", "decay")
    project.secondlook("record", RAW)
    (project.folder / RAW).unlink()
    tables.beside(project.folder / RAW).unlink()
    return project


def test_a_recorded_result_comes_back_with_its_origin(recorded):
    recorded.secondlook("import", "demo", "--case", "decay")
    _, record = tables.read_table(recorded.folder / RAW)
    assert record["recorded"] is True and len(record["commit"]) == 40


def test_line_ends_of_windows_make_no_other_table(recorded):
    """A checkout with core.autocrlf, where .gitattributes was lost, or an archive that was unpacked so."""
    for path in (recorded.folder / RECORDED, tables.beside(recorded.folder / RECORDED)):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert recorded.secondlook("import", "demo", "--case", "decay").stderr == ""
    table, made = tables.read_table(recorded.folder / RAW)
    assert len(table) == made["rows"] and b"\r" not in (recorded.folder / RAW).read_bytes()
    recorded.replace(RECORDED, "loss,1", "loss,2")
    assert "does not match its record" in recorded.mistake("import", "demo", "--case", "decay")


def test_other_code_warns_and_names_the_files(recorded):
    recorded.replace("experiments/demo/experiment.py", "Gradient descent", "Plain gradient descent")
    assert recorded.secondlook("import", "demo", "--case", "decay").stderr == ""  # a docstring
    recorded.replace("experiments/demo/experiment.py", "lr * 2 * theta", "2 * lr * theta")
    done = recorded.secondlook("import", "demo", "--case", "decay")
    assert "was recorded with other code: experiments/demo/experiment.py" in done.stderr


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda p: p.replace("experiments/demo/config.yaml", "lr: 0.1", "lr: 0.2"), "holds a run with other settings: lr"),
        (lambda p: p.replace(RECORDED, "loss,1", "loss,2"), "does not match its record"),
        (
            lambda p: (p.folder / RECORDED).unlink(),
            "is missing: record it, or compute it here with 'python -m secondlook run demo --case decay'",
        ),
    ],
)
def test_a_record_that_cannot_stand_is_refused(recorded, spoil, message):
    spoil(recorded)
    line = recorded.mistake("import", "demo", "--case", "decay")
    assert line.startswith(RECORDED) and message in line
    assert not (recorded.folder / RAW).exists()


@pytest.mark.parametrize(
    "needs, changes, message",
    [
        ({}, {"scale": "smoke"}, "is of scale smoke: only the scale paper is recorded"),
        ({"device": "cuda"}, {}, "was made on cpu: stage demo/decay needs device cuda"),
        ({"data": "dots"}, {}, "does not say which data it was made from: stage demo/decay needs dots"),
        ({"device": "cuda", "data": "dots"}, {"versions": {"cuda": "0.0"}, "data": {"dots": {}}}, None),
    ],
)
def test_what_a_stage_needs_its_record_shows(project, needs, changes, message):
    experiment = Experiment(project.folder, "demo")
    setting = replace(experiment.setting("decay"), needs=needs)
    made = records.provenance(experiment, setting, 1.0, commit="0123456789") | changes
    with pytest.raises(Mistake, match=message) if message else nullcontext():
        records.check_recorded(RAW, made, setting)


def test_the_parts_of_a_run_are_added_up(project):
    experiment = Experiment(project.folder, "demo")
    earlier = {"wall_s": 2.5, "peak_memory_mib": 10**6, "device": "another", "processor": "P"}
    made = records.provenance(experiment, experiment.setting("decay"), 1.0, earlier=[earlier, earlier])
    assert (made["parts"], made["wall_s"], made["peak_memory_mib"]) == (3, 6.0, 10**6)
    assert made["device"] == "another and cpu" and made["processor"].startswith("P and ") and "diverged" not in made
    ends = records.together([earlier | {"diverged": said} for said in (["seed 1"], [], ["seed 0", "seed 1"])])
    assert ends["diverged"] == ["seed 0", "seed 1"]


def test_the_peak_of_memory_is_a_process_own():
    """Not that of the process that started it, which holds 256 MiB: ru_maxrss begins with them."""
    code = "from secondlook.study.memory import peak_mib; print(peak_mib())"
    held = f"import subprocess, sys; held = b'x' * 2**28; {code}; sys.stdout.flush(); subprocess.run([sys.executable, '-c', {code!r}])"
    done = subprocess.run([sys.executable, "-c", held], capture_output=True, text=True, check=True)
    first, own = map(float, done.stdout.split())
    assert first > 256 and own > 0
    if memory.STATUS.exists() and "VmHWM" in memory.STATUS.read_text(encoding="utf-8"):
        assert own < 128


@pytest.mark.parametrize("options", [[], ["--commit", "0123456789", "--dirty"]])
def test_uncommitted_code_is_not_recorded(project, options):
    project.secondlook("run", "demo", "--case", "decay", *options)
    assert project.mistake("record", RAW) == f"{RAW} was made by code that no commit holds: commit first, then run it again"


def test_a_machine_without_history_is_told_the_commit(project):
    project.secondlook("run", "demo", "--case", "decay", "--commit", "0123456789")
    assert json.loads((project.folder / RAW).with_suffix(".json").read_text(encoding="utf-8"))["commit"] == "0123456789"
    project.secondlook("record", RAW)
