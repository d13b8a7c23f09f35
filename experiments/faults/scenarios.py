"""What goes wrong, one function a fault. Each is given a project that has its results; what it does before `yield` is the harm,
what it does after it puts the harm right. Then the command is given again, if a result is missing.

    said      a pattern for the last line of standard error, as `normal` gives it; "" where nothing is said
    words     the command that meets the fault
    exit      its exit status
    spared    a pattern for the optimisers whose rows the fault must leave alone; all, but where a run is to diverge
    largest   bytes to which a file of the command may grow: more than a record has, less than the table
"""

import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from secondlook.study.files import sha256, sole_writer
from secondlook.study.tables import beside, read_table, write_table

from .archives import ARCHIVES, REFUSED
from .project import CASES, SECONDS, Project, run

ROWS, TRAINING, PIXELS = run("rows"), run("training"), run("pixels")
DATA = ("secondlook", "data", "--data-root", "given")
BUILD = ("snakemake", "--cores", "1", "results/raw/victim/rows.csv")
CONFIG, CLAIMS = "experiments/victim/config.yaml", "experiments/victim/claims.yaml"
ARRAY, RECORD = "data/cifar10.npy", "data/cifar10.json"
KILLED = 128 + signal.SIGKILL  # as a shell gives it


@dataclass(frozen=True)
class Fault:
    harm: Callable[[Project], Iterator]
    said: str
    words: tuple[str, ...] = ROWS
    exit: int = 1
    spared: str = ""
    largest: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it: the last line said; exit status; lines said; tracebacks; files left half-written; stages that are still
    computed by nobody's leave; and rows that were there before and are not after all has been put right."""

    said: str
    exit: int
    lines: int
    tracebacks: int
    unfinished: int
    running: int
    lost: int


FAULTS: dict[str, dict[str, Fault]] = {"commands": {}, "workflow": {}}


def fault(name: str, said: str, *words: str, case: str = "commands", **more):
    """Put a function into the table."""

    def put(harm):
        FAULTS[case][name] = Fault(harm, said, **({"words": words} if words else {}), **more)
        return harm

    return put


def play(fault: Fault, whole: Project, folder: Path) -> Outcome:
    """Let it happen to a copy of the project `whole`."""
    project = whole.copy(folder)
    with contextmanager(fault.harm)(project):
        before = project.unfinished()
        done = project.call(*fault.words, **({"largest": fault.largest} if fault.largest else {}))
        unfinished = len(project.unfinished() - before)
    running = sum(not project.ends(case) for case in CASES)
    if any(project.missing_rows(whole, case, fault.spared) for case in CASES):
        project.call(*fault.words)
    lines = normal(done.stderr)
    return Outcome(
        said=lines[-1] if lines else "",
        exit=done.returncode if done.returncode >= 0 else 128 - done.returncode,
        lines=len(lines),
        tracebacks=done.stderr.count("Traceback"),
        unfinished=unfinished,
        running=running,
        lost=sum(project.missing_rows(whole, case, fault.spared) for case in CASES),
    )


def as_stated(fault: Fault, outcome: Outcome) -> bool:
    """Whether the program said what the table has, in one line, and ended with its exit status."""
    return re.fullmatch(fault.said, outcome.said) is not None and outcome.lines <= 1 and outcome.exit == fault.exit


def normal(text: str) -> list[str]:
    """The lines that the project says for itself, without what differs between two machines or runs."""
    lines = [line for line in text.splitlines() if re.match("secondlook: |warning: |Error: ", line)]
    lines = [re.sub(r"process \d+ on \S+ \(.*\)", "process N on HOST (COMMAND)", line) for line in lines]
    return [re.sub(r"\b([0-9a-f]{8})[0-9a-f]{8,}\b", r"\1...", line).removeprefix("secondlook: ") for line in lines]


@contextmanager
def changed(path: Path) -> Iterator[bytes]:
    """Gives what `path` holds; afterwards it holds that again."""
    before = path.read_bytes()
    yield before
    path.write_bytes(before)


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def harmed(path: str, harm: Callable[[bytes], bytes], project: Project) -> Iterator[None]:
    """A fault in the contents of a file."""
    with changed(project / path) as before:
        (project / path).write_bytes(harm(before))
        yield


# Data -------------------------------------------------------------------------------------------------------------------------


@fault("data set missing", r"data set data/cifar10.npy is missing: run 'snakemake data', or put it there", *PIXELS)
def _(project):
    with changed(project / ARRAY):
        (project / ARRAY).unlink()
        yield


CORRUPT = r"data/cifar10.npy is corrupt or truncated: sha256 \w+... \(\d+ bytes\), expected \w+..."
fault("data set truncated", CORRUPT, *PIXELS)(partial(harmed, ARRAY, lambda data: data[:-1]))
fault("one bit of the data set altered", CORRUPT, *PIXELS)(partial(harmed, ARRAY, flipped))
fault("record of the data set cut", r"data/cifar10.json is damaged: run 'snakemake data'", *PIXELS)(
    partial(harmed, RECORD, lambda data: data[:9])
)


def _given(project: Project, name: str, write: Callable[[Path], None]) -> Iterator[None]:
    """A folder of data sets that holds the archive `name` and nothing else."""
    (project / "given").mkdir()
    write(project / "given" / name)
    yield
    shutil.rmtree(project / "given")


for _name, (_ending, _write, _said) in ARCHIVES.items():
    fault(_name, re.escape(REFUSED.format(_ending)) + _said, *DATA)(partial(_given, name=f"cifar10{_ending}", write=_write))

# Configuration and device -----------------------------------------------------------------------------------------------------


def _replaced(path: str, old: str, new: str, project: Project) -> Iterator[None]:
    return harmed(path, lambda data: data.replace(old.encode(), new.encode(), 1), project)


def _unharmed(project: Project) -> Iterator[None]:
    """The fault is in the command."""
    yield


fault(
    "GPU asked for, none there",
    r"stage victim/gpu needs device cuda, none is visible; use the recorded results, or --scale smoke --device cpu",
    *run("gpu"),
)(_unharmed)


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{x}: &{x} [{', '.join([f'*{chr(ord(x) - 1)}'] * 9)}]\n" for x in "bcdefgh"
)
TEXTS = {
    "unknown key": (
        lambda data: data.replace(b"lr:", b"lrr:", 1), rf"unknown key 'lrr' in {CONFIG}: did you mean 'lr'\?",
    ),
    "value of the wrong type": (
        lambda data: data.replace(b"200", b"1.5"), rf"'steps' in {CONFIG} must be a positive integer, got 1.5",
    ),
    "configuration that is no UTF-8": (lambda data: b"title: \xff\n", rf"{CONFIG} is not UTF-8 text: byte 7"),
    "configuration of 2 MiB": (
        lambda data: b"#" * (2 << 20), rf"{CONFIG} is too large for a configuration: 2097152 bytes, at most 1048576",
    ),
    "configuration that is a bomb (aliases)": (
        lambda data: BOMB.encode(),
        rf"{CONFIG} is too large for a configuration: its aliases stand for more than 1048576 values",
    ),
}  # fmt: skip
for _name, (_harm, _said) in TEXTS.items():
    fault(_name, _said)(partial(harmed, CONFIG, _harm))


fault("claim that misspells a key", rf"unknown key 'figur' in {CLAIMS}: did you mean 'figure'\?", "secondlook", "list")(
    partial(_replaced, CLAIMS, "figure", "figur")
)

# Results ----------------------------------------------------------------------------------------------------------------------

SUMMARISE = ("secondlook", "summarise", "victim")
EDITED = (
    r"results/raw/victim/rows.csv does not match its record: it was edited or is incomplete; remove it, and it is made again"
)


def _result(harm: Callable[[bytes], bytes], project: Project) -> Iterator[None]:
    """A harmed table is found when it is read; it is removed, as the line says, and made again."""
    project.table("rows").write_bytes(harm(project.table("rows").read_bytes()))
    yield
    project.forget("rows")
    project.call(*ROWS)


fault("result edited by hand", EDITED, *SUMMARISE)(partial(_result, lambda data: data.replace(b"loss", b"loss ", 1)))
fault("result cut short", EDITED, *SUMMARISE)(partial(_result, lambda data: data[: len(data) // 2]))


@fault("result without its record", r"cannot read results/raw/victim/rows.json: No such file or directory", *SUMMARISE)
def _(project):
    with changed(beside(project.table("rows"))):
        beside(project.table("rows")).unlink()
        yield


OTHER = r"results/raw/victim/rows.csv holds a run with other settings: lr; remove it first, or give another --out"
fault("result of other settings", OTHER)(partial(_replaced, CONFIG, "lr: 0.1", "lr: 0.2"))


@fault(
    "record made by other code",
    r"warning: results/recorded/victim/rows.csv was recorded with other code: experiments/victim/experiment.py",
    *("secondlook", "import", "victim", "--case", "rows"),
    exit=0,
)
def _(project):
    table, made = read_table(project.table("rows"))
    write_table(project / "results/recorded/victim/rows.csv", table, made | {"commit": "0" * 40, "dirty": False})
    with changed(project / "experiments/victim/experiment.py") as before:
        (project / "experiments/victim/experiment.py").write_bytes(before.replace(b"(1, 2)", b"(1, 3)"))
        yield


# Interrupted runs -------------------------------------------------------------------------------------------------------------


def _begun_anew(cases: tuple[str, ...], harm: str, project: Project) -> Iterator[None]:
    """The cases are computed from the start, and the file `harm` is there."""
    project.forget(*cases)
    (project / "harm").write_text(harm, encoding="utf-8")
    yield
    (project / "harm").unlink()


fault("job killed (-9) between two seeds", "", exit=KILLED)(partial(_begun_anew, ("rows",), "kill rows"))
fault("job killed (-9) in a training step", "", *TRAINING, exit=KILLED)(partial(_begun_anew, ("training",), "kill training"))
DIVERGED = r"warning: non-finite loss nan at step 6 \(Adam, lr 0\.1, seed 0\)"
fault("loss becomes nan at a step", DIVERGED, *TRAINING, exit=0, spared="(?!Adam)")(
    partial(_begun_anew, ("training",), "nan training")
)


def _checkpoint(harm: Callable[[Path], None], project: Project) -> Iterator[None]:
    """The run was killed in a training step, and then its newest checkpoint is harmed."""
    project.forget("training")
    (project / "harm").write_text("kill training", encoding="utf-8")
    project.call(*TRAINING)
    (project / "harm").unlink()
    (path,) = project.table("training").with_suffix(".work").glob("*/checkpoint")
    harm(path)
    yield
    if path.exists():
        path.unlink()


fault(
    "newest checkpoint damaged",
    r"warning: \S+/checkpoint is corrupt or truncated: going on from the checkpoint before it, or from the start",
    *TRAINING,
    exit=0,
)(partial(_checkpoint, lambda path: path.write_bytes(flipped(path.read_bytes()))))


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return Path.touch, (Path("results/.sprung"),)


def _trap(path: Path) -> None:
    """A checkpoint whose digest is right and whose contents are code."""
    file = io.BytesIO()
    torch.save({"settings": {}, "model": Trap()}, file, pickle_module=pickle)
    path.write_bytes(sha256(file.getvalue()).encode() + b"\n" + file.getvalue())


fault(
    "checkpoint that would run code",
    r"\S+/checkpoint is refused: it holds more than tensors and plain values, or no state; remove it",
    *TRAINING,
)(partial(_checkpoint, _trap))


# Disk and neighbours ----------------------------------------------------------------------------------------------------------


fault("disk full (a limit on file sizes)", r"cannot write results/raw/victim/rows.csv: File too large", largest=10_000)(
    _unharmed
)


@fault("results folder that cannot be written", r"cannot write results/raw/victim/rows.csv: Not a directory")
def _(project):
    os.rename(project / "results", project / "kept")
    (project / "results").write_text("", encoding="utf-8")
    yield
    (project / "results").unlink()
    os.rename(project / "kept", project / "results")


@fault("two writers of a result", r"results/raw/victim/rows.csv is being written by process N on HOST \(COMMAND\)")
def _(project):
    with sole_writer(project.table("rows")):
        yield


# The workflow -----------------------------------------------------------------------------------------------------------------

workflow = partial(fault, case="workflow")


workflow("job of a workflow killed (-9)", "", *BUILD)(partial(_begun_anew, ("rows",), "kill rows"))


def _occupied(end: Callable[[subprocess.Popen], None], project: Project) -> Iterator[None]:
    """Another workflow is computing the rows, slowly, or was ended by `end` while it did; its lock is there."""
    project.forget("rows")
    lock = project.table("rows").with_name(".rows.csv.lock")
    lock.unlink()  # and then only looked at: if it were taken here, the workflow's job would find it taken
    with changed(project / "experiments/victim/experiment.py") as before:
        slow = before.replace(b"theta -= p.lr", b"__import__('time').sleep(0.1); theta -= p.lr")
        (project / "experiments/victim/experiment.py").write_bytes(slow)
        first = project.start(*BUILD)
        deadline = time.monotonic() + SECONDS
        while not (lock.exists() and lock.read_text(encoding="utf-8")) and time.monotonic() < deadline:
            time.sleep(0.05)
        end(first)
        yield
        first.kill()
        first.wait()
    project.call("snakemake", "--unlock")


LOCKED = r"Error: Directory cannot be locked\. .*"
workflow("two workflows at once", LOCKED, *BUILD)(partial(_occupied, lambda first: None))
workflow("workflow killed (-9)", LOCKED, *BUILD)(partial(_occupied, subprocess.Popen.kill))
workflow(
    "unknown key on the command line of a workflow",
    r"unknown key 'scal' in config/config.yaml or --config: did you mean 'scale'\?",
    *(*BUILD, "--config", "scal=smoke"),
)(_unharmed)
