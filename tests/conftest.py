"""A small project to run things in: this one's workflow around the experiment in tests/demo."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

import forks
import pytest
from hypothesis import HealthCheck, settings

# Shared machines are slow at times; examples are derandomised, so that every run tests the same ones.
settings.register_profile("study", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("study")

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "tests" / "demo"
HANG = 3600  # seconds after which a command is taken to hang, on a machine however slow and busy
python = cache(forks.python)  # a process of a worker, begun when it is first needed
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


class Project:
    """A folder with the code and workflow of this project, and the given experiments."""

    def __init__(self, folder: Path, experiments: Iterable[Path]):
        self.folder = folder
        for name in ("Snakefile", "workflow", "profiles", "report", "src", "config"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=IGNORED)
            else:
                shutil.copy(source, folder / name)
        for experiment in experiments:
            shutil.copytree(experiment, folder / "experiments" / experiment.name, ignore=IGNORED)

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """The project that is already in `folder`."""
        project = cls.__new__(cls)
        project.folder = folder
        return project

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def command(self, *words: str) -> dict:
        """Arguments of subprocess.run or Popen for a command in this folder, with this Python and the folder's own package."""
        settings = {"PYTHONPATH": str(self.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **settings}
        return {"args": [sys.executable, "-m", *words], "cwd": self.folder, "env": environment, "text": True}

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess:
        """The same in a fork of a process that has imported torch and its like (forks.py), to its end."""
        command = {**self.command(), "args": [python(), "-m", *words]}
        done = subprocess.run(**command, capture_output=True, timeout=HANG)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def secondlook(self, *words: str, **options) -> subprocess.CompletedProcess:
        return self.call("secondlook", *words, **options)

    def snakemake(self, *words: str, **options) -> subprocess.CompletedProcess:
        return self.call("snakemake", "--cores", "2", *words, **options)

    def mistake(self, *words: str) -> str:
        """The one line with which a command refuses."""
        done = self.secondlook(*words, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("secondlook: "), done.stderr
        return done.stderr.removeprefix("secondlook: ").strip()


SLOW_CASE = """  slow:
    seeds: {first: 0, count: 3}
    fixed: {pause: 0.0}  # seconds that each seed waits
"""
SLOW = """

@dataclass(frozen=True)
class Slow:
    steps: PositiveInt
    pause: NonNegative


@case(Slow)
def slow(p: Slow, seed: int):
    time.sleep(p.pause)
    return _descend(p.steps, 0.25, seed)
"""


PAPER = """---
title: A paper
author: Its author
pages: 2
---

# Verdicts

![All of them.](figures/verdicts.pdf){#fig:verdicts}

![The tuned.](figures/tuned.pdf){#fig:tuned}

Claim << claim("X1") >> is << verdict("X1") >>: << demo.factor | number >> (<< see("demo") >>).
"""
TUNED = "- {experiment: demo, task: parabola, unit: '', sign: 1, cost: factor, in: times, less: {SGD: factor}}\n"


def demo(folder: Path) -> Project:
    """A project whose only experiment is the demo, with a second case that takes time; none of its stages is recorded."""
    project = Project(folder, [DEMO])
    project.replace("experiments/demo/config.yaml", "smoke:\n", f"{SLOW_CASE}smoke:\n  slow: {{steps: 2}}\n")
    project.replace("experiments/demo/experiment.py", "from dataclasses", "import time\nfrom dataclasses")
    project.replace("experiments/demo/experiment.py", "import Fraction,", "import Fraction, NonNegative,")
    project.write(
        "experiments/demo/experiment.py", (folder / "experiments/demo/experiment.py").read_text(encoding="utf-8") + SLOW
    )
    project.write("report/paper.md", PAPER)
    project.write("report/tuned.yaml", TUNED)
    project.write("report/found.md", 'claim X1: << claim("X1").verdict >>\n')
    project.write("config/config.yaml", 'scale: paper\ndevice: cpu\ndata_root: ""\nrecorded: []\nrecompute: []\n')
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return demo(tmp_path)


# Files that take longest, longest first. `--dist loadfile` gives a file to one worker, so that what its tests share is made
# once; a worker that began one of these at the end would end alone.
LONG = [
    "study",
    "workflow",
    "faults",
    "distributed",
    "kfac_parallel",
    "cluster",
    "hessian_diagonal",
    "click_model",
    "language_model",
]


def pytest_configure(config):
    """What torch compiles goes into a folder of this run: its usual one may hold code for instructions that are off here."""
    if not hasattr(config, "workerinput"):  # workers inherit the variable
        folder = tempfile.mkdtemp(prefix="secondlook_")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


def pytest_collection_modifyitems(items):
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
