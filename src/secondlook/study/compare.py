"""Two builds of the study, compared byte for byte: tables, numbers, verdicts and figures.

A stage that is recorded, or needs a device or hours, may measure times, and gives other rows every time. Where it was computed,
and not imported from its record, its experiment's summary, figures and verdicts follow those times too: they are left out, and
the answer says so. Records and paper are no part of it, for they tell when and where a build was made.
"""

import itertools
import json
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.files import read, read_json
from secondlook.study.records import timed_stages

LONGEST = 200  # bytes of a line that are shown
COMPARED = ("raw/*/*.csv", "summary/*.json", "figures/*/*", "claims.json")


def compare(first: Path, second: Path) -> str:
    """How many files are the same. Raises Mistake with the first difference, in the order of COMPARED."""
    timed = _timed(first) | _timed(second)
    names = {name: None for folder in (first, second) for name in _files(folder, timed)}
    if not names:
        raise Mistake(f"{first} and {second} hold no results")
    for name in names:
        for folder in (first, second):
            if not (folder / name).is_file():
                raise Mistake(f"{folder / name} is missing")
        if (said := _difference(first / name, second / name, timed)) is not None:
            raise Mistake(f"{name} differs: {said}")
    left_out = f"; left out, for they measure times: {', '.join(sorted(timed))}" if timed else ""
    return f"the same: {len(names)} files{left_out}"


def _timed(folder: Path) -> set[str]:
    """The stages in `folder` that may measure times and were computed there."""
    stages = [path.relative_to(folder / "raw").with_suffix("").as_posix() for path in sorted(folder.glob("raw/*/*.json"))]
    known = timed_stages(_project(folder))
    return {stage for stage in stages if stage in known and not read_json(folder / "raw" / f"{stage}.json").get("recorded")}


def _project(folder: Path) -> Path:
    """The project whose results are in `folder`."""
    return next((path for path in folder.resolve().parents if (path / "config" / "config.yaml").is_file()), Path())


def _files(folder: Path, timed: set[str]) -> list[str]:
    """The files to compare, without those that follow from times; named relative to `folder`."""
    experiments = {stage.partition("/")[0] for stage in timed}
    out = {f"raw/{stage}.csv" for stage in timed} | {f"summary/{name}.json" for name in experiments}
    found = [path.relative_to(folder) for pattern in COMPARED for path in sorted(folder.glob(pattern)) if path.name[0] != "."]
    figures = [name for name in found if not (name.parts[0] == "figures" and name.parts[1] in experiments)]
    return [name.as_posix() for name in figures if name.as_posix() not in out]


def _difference(first: Path, second: Path, timed: set[str]) -> str | None:
    """Where two files part, or None."""
    a, b = (_untimed(path, timed) if path.name == "claims.json" else read(path) for path in (first, second))
    if a == b:
        return None
    pairs = itertools.zip_longest(a.split(b"\n"), b.split(b"\n"))
    at, (x, y) = next((at, pair) for at, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return f"line {at} is {(x or b'')[:LONGEST]!r} and {(y or b'')[:LONGEST]!r}"


def _untimed(path: Path, timed: set[str]) -> bytes:
    """The verdicts without those of experiments that measure times."""
    experiments = {stage.partition("/")[0] for stage in timed}
    try:
        kept = [claim for claim in read_json(path) if claim["experiment"] not in experiments]
    except (KeyError, TypeError) as error:
        raise Mistake(f"{path} is damaged: make it again with 'claims'") from error
    return json.dumps(kept, indent=1).encode()
