"""A small project in a temporary folder, in which things go wrong: its files, its commands, and what is left of its results."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.files import sole_writer, to_json
from secondlook.study.sources import PACKAGE
from secondlook.study.tables import read_table

from . import victim

CONFIG = """\
title: What is harmed
cases:
  rows:
    seeds: {first: 0, count: 3}
    fixed: {steps: 200, lr: 0.1}
  training:
    fixed: {epochs: 3, lr: 0.1, optimisers: [SGD, Adam]}
  pixels:
    needs: {data: cifar10.npy}
  gpu:
    needs: {device: cuda}
    fixed: {steps: 1, lr: 0.1}
"""
SETTINGS = 'scale: paper\ndevice: cpu\ndata_root: ""\nrecorded: []\nrecompute: []\n'
CLAIMS = """\
- {id: X1, source: "", kind: promise, evidence: original, statement: s, stated: t, bands: b, figure: losses,
   measured: [{quantity: loss, unit: "", measure: loss}], checks: {a: {measure: loss, between: [0, 1]}},
   verdicts: [{verdict: reproduced, when: [a], why: w}, {verdict: undecided, why: w}]}
"""
MEASURES = """\
from secondlook.study.declare import measure
from secondlook.study.statistics import Estimate


@measure("rows")
def loss(rows):
    return Estimate(rows[rows.case == "rows"].value.min())
"""
FIGURES = """\
from secondlook.study.declare import figure


@figure("rows")
def losses(rows):
    "Shows: nothing, for nothing draws it."
"""
CASES = ("rows", "training", "pixels")
WORKFLOW = ("Snakefile", "workflow", "profiles", "report")
SECONDS = 3600  # after which a command is taken to hang, on a machine however slow and busy
PATIENCE = 600  # seconds after which a process is taken to stay whose parent was killed


ENVIRONMENT = {
    **{"PYTHONPATH": str(PACKAGE.parent.resolve()), "PYTHONDONTWRITEBYTECODE": "1"},  # the package that is running
    **{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "SECONDLOOK_DATA": ""},  # no GPU to be seen, no data elsewhere
}


@dataclass(frozen=True)
class Done:
    """A command that has ended: its status, negative for a signal, and what it wrote to standard error."""

    returncode: int
    stderr: str


class Commands:
    """`python -m secondlook`, in forks of one process (`commands.py`)."""

    def __enter__(self) -> "Commands":
        words = [sys.executable, str(Path(__file__).with_name("commands.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(words, **pipes, env=os.environ | ENVIRONMENT)
        return self

    def __exit__(self, *_) -> None:
        self.process.communicate()

    def call(self, folder: Path, words: tuple[str, ...], largest: int | None) -> Done:
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as stderr:
            order = {"words": words, "folder": str(folder), "stderr": stderr.name, "largest": largest}
            print(json.dumps(order), file=self.process.stdin, flush=True)
            return Done(int(self.process.stdout.readline()), stderr.read())


class Project:
    """The project in `folder`. A command is a list of words after `python -m`."""

    def __init__(self, folder: Path, commands: Commands):
        self.folder, self.commands = Path(folder), commands

    @classmethod
    def build(cls, folder: Path, root: Path, commands: Commands) -> "Project":
        """A new one, with the workflow of the project at `root`, and with the results of every case that can run here."""
        project = cls(folder, commands)
        project.folder.mkdir()
        for name in WORKFLOW:
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy
            copy(root / name, project / name)
        part = project / "experiments" / "victim"
        part.mkdir(parents=True)
        shutil.copy(victim.__file__, part / "experiment.py")
        texts = {"config.yaml": CONFIG, "claims.yaml": CLAIMS, "measures.py": MEASURES, "figures.py": FIGURES, "section.md": ""}
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")
        (project / "config").mkdir()
        (project / "config" / "config.yaml").write_text(SETTINGS, encoding="utf-8")
        (project / "data").mkdir()
        array = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), np.uint8)
        np.save(project / "data" / "cifar10.npy", array)
        digest = hashlib.sha256((project / "data" / "cifar10.npy").read_bytes()).hexdigest()
        (project / "data" / "cifar10.json").write_text(
            to_json({"origin": "drawn at random", "sha256": digest}), encoding="utf-8"
        )
        done = project.call(*run(*CASES))
        if done.returncode:
            raise Mistake(f"the project to be harmed cannot be built: {done.stderr}")
        return project

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Project(folder, self.commands)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def table(self, case: str) -> Path:
        return self / f"results/raw/victim/{case}.csv"

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self / name).read_text(encoding="utf-8")
        (self / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    def forget(self, *cases: str) -> None:
        """Remove results."""
        for case in cases:
            self.table(case).unlink()
            self.table(case).with_suffix(".json").unlink()

    def call(self, module: str, *words: str, largest: int | None = None) -> Done:
        """Run the command. `largest`: bytes to which a file of it may grow."""
        if module == "secondlook":
            return self.commands.call(self.folder, words, largest)
        process = self.start(module, *words)
        return Done(stderr=process.communicate(timeout=SECONDS)[1], returncode=process.returncode)

    def start(self, *words: str) -> subprocess.Popen:
        """The command as a process of its own, not waited for."""
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-m", *words], cwd=self.folder, env=os.environ | ENVIRONMENT, **pipes)

    def running(self, case: str) -> bool:
        """Whether some process is computing the case."""
        try:
            with sole_writer(self.table(case)):
                return False
        except Mistake:
            return True

    def ends(self, case: str) -> bool:
        """Whether nobody computes the case any more, or soon nobody will."""
        deadline = time.monotonic() + PATIENCE
        while self.running(case):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def missing_rows(self, before: "Project", case: str, spared: str) -> int:
        """How many rows of `case` that `before` has, of the optimisers whose name matches `spared`, are not here."""
        rows = [_rows(project.table(case), spared) for project in (before, self)]
        return len(rows[0] - rows[1])

    def unfinished(self) -> set[str]:
        """What a writer left half-written: temporary files, and tables that do not match their records."""
        files = [path for path in (self / "results").rglob("*") if path.is_file()]
        temporary = [path.name for path in files if path.name[0] == "." and path.suffix != ".lock"]
        return {*temporary, *(path.name for path in files if path.suffix == ".csv" and not whole(path))}


def whole(path: Path) -> bool:
    try:
        read_table(path)
    except Mistake:
        return False
    return True


def run(*cases: str) -> tuple[str, ...]:
    """The command that computes these cases."""
    return "secondlook", "run", "victim", *(word for case in cases for word in ("--case", case))


def _rows(path: Path, spared: str) -> set[str]:
    """The rows of a table as text; none where it is damaged or missing."""
    if not whole(path):
        return set()
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {json.dumps(row) for row in table[table.optimiser.str.match(spared)].to_dict("records")}
