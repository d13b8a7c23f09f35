"""What the project takes on this machine today: seconds, seconds of processor, and memory. `make benchmark` runs it.

Each line is one command, run once; `imports` are its seconds of processor over those of importing torch and pandas, which is
measured first, so that a line can be set beside the same one of another machine. Nothing here passes or fails.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from conftest import ROOT

from secondlook.study.files import write

SNAKEMAKE = ("-m", "snakemake", "--cores", "2", "--quiet", "all")
COLUMNS = ("what", "seconds", "processor seconds", "imports", "largest process, MiB")


def measured(what: str, command: tuple[str, ...], folder: Path) -> dict[str, object]:
    """Run Python with `command` in `folder`, and say what it took."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{what}: {seconds:.1f} s", file=sys.stderr)
    return {"what": what, "seconds": seconds, "processor seconds": used, "largest process, MiB": after.ru_maxrss / 1024}


def restyle(project: Path) -> None:
    """A change that every figure shows."""
    style = project / "src/secondlook/reporting/style.py"
    style.write_text(style.read_text(encoding="utf-8").replace("#0072b2", "#0072b3"), encoding="utf-8")


def benchmark(project: Path) -> pd.DataFrame:
    """The lines, of a clone of the project in `project`; a largest process is the largest so far."""
    steps: list[tuple[str, tuple[str, ...], Callable[[Path], None] | None]] = [
        ("importing torch and pandas", ("-c", "import torch, pandas"), None),
        ("the study at smoke scale", (*SNAKEMAKE, "--config", "scale=smoke"), None),
        ("the study", SNAKEMAKE, None),
        ("the study again: nothing to be done", SNAKEMAKE, None),
        ("the study after a change of style", SNAKEMAKE, restyle),
        ("the tests", ("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"), None),
    ]
    lines = []
    for what, command, change in steps:
        if change:
            change(project)
        lines.append(measured(what, command, project))
    table = pd.DataFrame(lines)
    table["imports"] = table["processor seconds"] / table["processor seconds"].iloc[0]
    return table[list(COLUMNS)]


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        project = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(project)], check=True)
        table = benchmark(project)
    out = ROOT / "results" / "benchmarks" / "project.csv"
    write(out, table.round(1).to_csv(index=False))
    print(f"{table.round(1).to_string(index=False)}\n{out}")
