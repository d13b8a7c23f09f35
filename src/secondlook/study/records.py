"""A run's record: a tidy table and, beside it, the JSON that says who made it and how.

    results/raw/<experiment>/<case>.csv     the rows
    results/raw/<experiment>/<case>.json    settings, seeds, sha256 of the table, sources, commit, versions, machine, cost

A table is read through its record, so that a table edited by hand, or made with other settings, is noticed.
"""

import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.experiment import Experiment, Setting
from secondlook.study.files import read, read_json, sha256, to_json, write
from secondlook.study.sources import digests

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas")


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit(root: Path, given: str | None, dirty: bool) -> dict:
    """The commit that the code stands at, and whether the code differs from it; as given where git is not at hand."""
    if given:
        return {"commit": given, "dirty": dirty}
    changes = _git(root, "status", "--porcelain", "--", "src", "experiments", "config")
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _machine() -> dict:
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_initialized()
    return {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processor": _processor(),
        "system": platform.platform(),
        "threads": torch.get_num_threads() if torch else 1,
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}}
        | ({"cuda": torch.version.cuda} if gpu else {}),
        "peak_memory_mib": round(
            torch.cuda.max_memory_allocated() / 2**20 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        ),
    }


def provenance(experiment: Experiment, setting: Setting, wall_s: float, commit: str | None = None, dirty: bool = False) -> dict:
    """Everything about a run but its rows. `commit` and `dirty` speak for a machine without the project's history."""
    return {
        "experiment": setting.experiment,
        "case": setting.case,
        "scale": setting.scale,
        "settings": setting.values,
        "settings_digest": setting.digest,
        **_commit(experiment.root, commit, dirty),
        "sources": digests(experiment.sources("experiment"), experiment.root),
        "wall_s": round(wall_s, 3),
        **_machine(),
    }


def write_table(path: Path, table: pd.DataFrame, record: dict) -> None:
    """Write the record, then the table: a table that is there has a record that describes it."""
    data = table.to_csv(index=False).encode()
    write(beside(path), to_json({**record, "rows": len(table), "sha256": sha256(data)}))
    write(path, data)


def read_table(path: Path) -> tuple[pd.DataFrame, dict]:
    """The table and its record. Raises Mistake where one is missing, damaged, or does not belong to the other."""
    path = Path(path)
    record, data = read_json(beside(path)), read(path)
    if not isinstance(record, dict) or record.get("sha256") != sha256(data):
        raise Mistake(f"{path} does not match its record: it was edited or is incomplete; remove it, and it is made again")
    return pd.read_csv(BytesIO(data)), record


def beside(path: Path) -> Path:
    return Path(path).with_suffix(".json")


def check_settings(path: Path, record: dict, setting: Setting) -> None:
    """Refuse a record of a run with other settings, and name what differs."""
    if record.get("settings_digest") == setting.digest:
        return
    old, new = record.get("settings") or {}, setting.values
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)) or ["experiment or case"]
    raise Mistake(f"{path} holds a run with other settings: {', '.join(differing)}; remove it, or run it again")


def read_experiment(folder: Path, experiment: Experiment, scale: str) -> pd.DataFrame:
    """All rows of `experiment` from `folder`/raw, each case checked against its record and against today's settings."""
    tables = []
    for case in experiment.cases:
        path = Path(folder) / "raw" / experiment.name / f"{case}.csv"
        table, record = read_table(path)
        check_settings(path, record, experiment.setting(case, scale))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def changed_sources(experiment: Experiment, record: dict) -> list[str]:
    """Names of the sources that are not what they were when `record` was made."""
    now = digests(experiment.sources("experiment"), experiment.root)
    then = record.get("sources") or {}
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def check_recorded(path: Path, record: dict, setting: Setting) -> None:
    """Refuse a result that cannot stand as recorded evidence: other settings, unknown origin, or uncommitted code."""
    check_settings(path, record, setting)
    if not record.get("commit") or record.get("dirty") is not False:
        raise Mistake(f"{path} was made by code that no commit holds: commit first, then run it again")
