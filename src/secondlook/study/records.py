"""A run's record: a tidy table and, beside it, the JSON that says who made it and how.

    results/raw/<experiment>/<case>.csv     the rows
    results/raw/<experiment>/<case>.json    settings, seeds, sha256 of the table, sources, commit, versions, machine, cost

A table is read through its record, so that a table edited by hand, or made with other settings, is noticed. A stage that needs
a GPU or hours may have no result yet, neither here nor in results/recorded/: it is unrecorded, and what follows does without
it.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.experiment import COLUMNS, Experiment, Setting
from secondlook.study.files import read_yaml
from secondlook.study.memory import peak_mib
from secondlook.study.results import Results
from secondlook.study.sources import digests
from secondlook.study.tables import read_table

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas")


FIELDS = {
    "experiment": str,
    "case": str,
    "scale": str,
    "settings": dict,
    "settings_digest": str,
    "commit": str | None,
    "dirty": bool | None,
    "sources": dict,
    "data": dict,
    "versions": dict,
    "device": str,
    "processor": str,
}


def read_result(path: Path) -> tuple[pd.DataFrame, dict]:
    """The rows of a stage and their record. Raises Mistake where they are damaged or lack what every result has."""
    table, record = read_table(path)
    lacking = [name for name, kind in FIELDS.items() if not isinstance(record.get(name, ...), kind)]
    if lacking or not set(COLUMNS) <= set(table):
        raise Mistake(f"{path} is no result of a stage: {', '.join(lacking) or 'its columns'} missing or of another kind")
    return table, record


def _git(root: Path, *words: str) -> str | None:
    """What git says in `root`. Variables that name another repository, as a hook of git has them, do not count."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=30, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit_of(root: Path, sources: Iterable[str], given: str | None, dirty: bool) -> dict:
    """The commit that the code stands at, and whether the code differs from it; as given where git is not at hand. Of a
    repository that holds none of the project's `sources` (the project was unpacked inside it), neither. A source that it does
    not hold beside others that it does, as an ignored one, makes them dirty."""
    if given:
        return {"commit": given, "dirty": dirty}
    ours = [name for name in sources if (root / name).is_file()]
    held = _git(root, "ls-files", "--", *ours)
    changes = _git(root, "status", "--porcelain", "--", "src", "experiments", "config")
    if not held or changes is None:
        return {"commit": None, "dirty": None}
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": bool(changes) or len(held.splitlines()) < len(ours)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _machine(device: str) -> dict:
    torch: Any = sys.modules.get("torch")
    gpu = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processor": _processor(),
        "system": platform.platform(),
        "threads": torch.get_num_threads() if torch else 1,
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}}
        | ({"cuda": torch.version.cuda} if gpu else {}),
        "peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_mib()),
    }


def forget_peak() -> None:
    """Count a GPU's memory anew, where one is in use: what an earlier stage of the process took is not the next one's."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def cost(wall_s: float, device: str = "cpu") -> dict:
    """What one process that computes a stage on `device`, or a part of it, costs and runs on."""
    return {"wall_s": round(wall_s, 3), **_machine(device)}


def together(parts: list[dict]) -> dict:
    """The parts of an interrupted run as one: times added, the most memory, every device and processor that had a share, and
    how each run ended that diverged."""

    def all_of(key: str) -> str:
        return " and ".join(dict.fromkeys(each[key] for each in parts))

    ends = [each["diverged"] for each in parts if "diverged" in each]
    return {
        **parts[-1],
        "parts": len(parts),
        "wall_s": round(sum(each["wall_s"] for each in parts), 3),
        "peak_memory_mib": max(each["peak_memory_mib"] for each in parts),
        "device": all_of("device"),
        "processor": all_of("processor"),
        **({"diverged": sorted(set().union(*ends))} if ends else {}),
    }


def provenance(
    experiment: Experiment,
    setting: Setting,
    wall_s: float,
    commit: str | None = None,
    dirty: bool = False,
    data: dict | None = None,
    earlier: Sequence[dict] = (),
    device: str = "cpu",
) -> dict:
    """Everything about a run but its rows. `commit` and `dirty` speak for a machine without the project's history; `data` is
    what Place.data_sets gives; `earlier` the parts of the same run that ran before; `device` where it ran."""
    sources = digests(experiment.sources("experiment"), experiment.root)
    return {
        "experiment": setting.experiment,
        "case": setting.case,
        "scale": setting.scale,
        "settings": setting.values,
        "settings_digest": setting.digest,
        **commit_of(experiment.root, sources, commit, dirty),
        "sources": sources,
        "data": data or {},
        **together([*earlier, cost(wall_s, device)]),
    }


def recorded_stages(root: Path) -> list[str]:
    """The stages whose results are read from results/recorded: 'recorded' in config/config.yaml."""
    path = Path(root) / "config" / "config.yaml"
    config = read_yaml(path)
    stages = config.get("recorded") if isinstance(config, dict) else None
    if not (isinstance(stages, list) and all(isinstance(stage, str) for stage in stages)):
        raise Mistake(f"'recorded' in {path} must be a list of stages")
    return stages


def timed_stages(root: Path) -> set[str]:
    """The stages whose rows may hold measured times, which no second run repeats: those that are recorded, or need a device or
    hours."""
    read = [Experiment(root, path.parent.name) for path in Path(root).glob("experiments/*/config.yaml")]
    needy = {f"{experiment.name}/{case}" for experiment in read for case in experiment.cases if experiment.setting(case).costly}
    return needy | set(recorded_stages(root))


def unrecorded(results: Results, setting: Setting) -> bool:
    """Whether a stage needs a GPU or hours and has no result yet: none computed here, none recorded."""
    known = (results.raw(setting.name), results.recorded(setting.name))
    return bool(setting.costly) and not any(path.exists() for path in known)


def check_settings(path: Path, record: dict, setting: Setting, remedy: str = "remove it, and run the stage again") -> None:
    """Refuse a record of a run with other settings, and name what differs and what to do: the `remedy`."""
    if record.get("settings_digest") == setting.digest:
        return
    old, new = record.get("settings"), setting.values
    old = old if isinstance(old, dict) else {}
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)) or ["experiment or case"]
    raise Mistake(f"{path} holds a run with other settings: {', '.join(differing)}; {remedy}")


def read_experiment(results: Results, experiment: Experiment) -> pd.DataFrame:
    """All rows of `experiment`, each case checked against its record and against today's settings; none of a case that is
    unrecorded."""
    tables = [pd.DataFrame(columns=COLUMNS)]
    for setting in (experiment.setting(case, results.scale) for case in experiment.cases):
        if not unrecorded(results, setting):
            path = results.raw(setting.name)
            table, record = read_result(path)
            check_settings(path, record, setting)
            tables.append(table)
    return pd.concat(tables[1:] or tables, ignore_index=True)


def missing_cases(experiment: Experiment, rows: pd.DataFrame) -> list[str]:
    """The cases of `experiment` of which `rows` holds nothing."""
    return [case for case in experiment.cases if case not in set(rows.case)]


def changed_sources(experiment: Experiment, record: dict) -> list[str]:
    """Names of the sources that are not what they were when `record`, or a part of it, was made. What it lists beyond today's
    no longer counts: a file that has stopped importing one has changed itself."""
    now = digests(experiment.sources("experiment"), experiment.root)
    then = [part["sources"] if isinstance(part.get("sources"), dict) else {} for part in parts_of(record)]
    return sorted(name for name in now if any(now[name] != sources.get(name) for sources in then))


def parts_of(record: dict) -> list[dict]:
    """The records of the parts of a stage that was extended (secondlook.study.extension); else the record itself."""
    return record.get("made_of", [record])


def check_recorded(path: Path, record: dict, setting: Setting) -> None:
    """Refuse a result that cannot stand as recorded evidence: other settings, unknown origin, or uncommitted code."""
    check_settings(path, record, setting)
    check_origin(path, record, setting)


def check_origin(path: Path, record: dict, setting: Setting) -> None:
    """Refuse a result of unknown origin, or of uncommitted code, as evidence for a stage or a part of it."""
    if record.get("scale") != setting.scale:
        raise Mistake(f"{path} is of scale {record.get('scale')}: only the scale {setting.scale} is recorded")
    if not record.get("commit") or record.get("dirty") is not False:
        raise Mistake(f"{path} was made by code that no commit holds: commit first, then run it again")
    if setting.needs.get("device") == "cuda" and "cuda" not in record.get("versions", {}):
        raise Mistake(f"{path} was made on {record.get('device')}: stage {setting.name} needs device cuda")
    if "data" in setting.needs and not record.get("data"):
        raise Mistake(f"{path} does not say which data it was made from: stage {setting.name} needs {setting.needs['data']}")
