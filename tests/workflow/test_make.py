"""`make` in places where people put things, and after a kill. Snakemake itself is stood in for: what is tried is what make does."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, Project, python

SNAKEMAKE = """#!/bin/sh
ls .snakemake/locks 2> /dev/null
mkdir -p results && echo '[]' > results/claims.json
"""


def placed(folder: Path) -> Project:
    """A project in `folder` whose environment is there already, and that is committed."""
    folder.mkdir(parents=True)
    project = Project(folder, [])
    project.write("config/config.yaml", "recorded: []\n")
    for name in ("Makefile", "README.md"):
        project.write(name, (ROOT / name).read_text(encoding="utf-8"))
    project.write(".gitignore", "/.venv/\n/.snakemake/\n/results/\n")
    project.write("requirements.lock", "")
    for name, text in {"snakemake": SNAKEMAKE, "python": f"#!/bin/sh\nexec '{python()}' \"$@\"\n"}.items():
        project.write(f".venv/bin/{name}", text).chmod(0o755)
    project.write(".venv/installed", "")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    return project


def make(project: Project, *words: str) -> subprocess.CompletedProcess:
    settings = {"PYTHONPATH": str(project.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["make", "-C", str(project.folder), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=os.environ | settings)


@pytest.mark.parametrize("name", ["a b", "it's (1) & ü"])
def test_a_build_is_reproduced_wherever_it_lies(tmp_path, name):
    done = make(placed(tmp_path / name), "reproduce")
    assert done.returncode == 0 and "the same: 1 files" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def killed(tmp_path) -> Project:
    """One that holds the lock of a Snakemake that is gone."""
    project = placed(tmp_path / "project")
    project.write(".snakemake/locks/0.input.lock", "results/claims.json\n")
    return project


def test_make_takes_away_the_lock_of_a_build_that_was_killed_and_says_so(killed):
    done = make(killed)
    assert done.returncode == 0 and "make: the last build here was killed." in done.stdout, done.stdout + done.stderr
    assert "0.input.lock" not in done.stdout
    assert "killed" not in make(killed).stdout


def test_make_leaves_the_lock_of_one_that_lives(killed):
    with open(killed.write(".snakemake/alive", ""), encoding="utf-8") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        done = make(killed)
    assert "0.input.lock" in done.stdout and "killed" not in done.stdout


def test_a_snakemake_that_was_killed_is_told_from_one_that_lives(project):
    """With Snakemake itself: it is known to live while it does, and what it leaves behind is in the way of no other."""
    project.replace("experiments/demo/config.yaml", "pause: 0.0", "pause: 60")
    stage, unlock = "results/raw/demo/slow.csv", [sys.executable, "workflow/unlock.py"]
    begun = project.folder / "results/raw/demo/.slow.csv.lock"
    running = subprocess.Popen(**project.command("snakemake", "--cores", "1", stage), stderr=subprocess.DEVNULL)
    try:
        while not begun.exists() and running.poll() is None:
            time.sleep(0.1)
        assert list(project.folder.glob(".snakemake/locks/*.lock"))
        assert subprocess.run(unlock, cwd=project.folder, capture_output=True, check=True).stdout == b""
    finally:
        running.kill()
        running.wait()
    assert b"was killed" in subprocess.run(unlock, cwd=project.folder, capture_output=True, check=True).stdout
    project.replace("experiments/demo/config.yaml", "pause: 60", "pause: 0.0")
    project.snakemake(stage)


def test_snakemake_needs_no_home(project):
    home = project.write("home", "a file, in which nothing can be made")
    command = project.command("snakemake", "--dry-run", "--cores", "1")
    environment = {name: value for name, value in command["env"].items() if not name.startswith("XDG_")}
    done = subprocess.run(**{**command, "env": environment | {"HOME": str(home)}}, capture_output=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
