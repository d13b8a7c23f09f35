"""Finished cells: a stage that takes long keeps the rows of each network that it trained, and goes on from there.

    yield from kept(place, {"seed": 100, "optimiser": "Adam"}, lambda folder: train(..., folder))

    <work>/<cell>.csv, .json    the rows of a finished cell and its record
    <work>/<cell>/              the folder of one that is not finished: its checkpoints

The folder `work` belongs to one stage with one set of settings and sources (secondlook.study.unfinished sees to that), so that
within it a cell is known by its key alone. A cell whose key has `shared` belongs to all cases of the experiment, and lies in
<work>/../shared.work. Where a place has `cells` of its own, they take the part of the files (secondlook.study.lease).
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.place import Place
from secondlook.study.tables import read_table, write_table

SHARED = "shared"


def kept(place: Place, key: dict, compute: Callable) -> Iterator[dict | None]:
    """The rows of the cell `key`: those that are kept, or else those of `compute(folder)`, which are then kept.

    `key` tells the cells of a stage apart: the seed and factors, as JSON holds them. `compute` yields rows or returns them; the
    folder that it gets is the cell's own and lasts until the cell is finished. Where it yields None, so does this: a turn for
    whatever runs beside it. Rows come back as they are kept, so that an interrupted stage ends with the same bytes as one that
    was not. A cell that is damaged or not what its name says is computed again, and a line on standard error says so. Raises
    OutOfTime instead of beginning a cell after the deadline.
    """
    key = json.loads(json.dumps(key))
    cells: Any = place.cells or Files(place.work)
    rows = cells.find(key)
    if rows is None:
        place.check_time()
        folder, made = cells.begin(key), []
        for row in compute(folder):
            if row is None:
                yield None
            else:
                made.append(row)
        cells.keep(key, made)
        rows = cells.find(key)
    yield from rows


class Files:
    """Each cell is a table with its record in the folder `work`."""

    def __init__(self, work: Path):
        self.work = work

    def find(self, key: dict) -> list[dict] | None:
        """The rows of a cell; None where there are none, or none that can be trusted."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            table, record = read_table(path)
            if record.get("key") != key:
                raise Mistake(f"{path} holds another cell than its name says; it is made again")
            return table.to_dict("records")
        except Mistake as mistake:
            print(f"warning: {mistake}", file=sys.stderr)
            return None

    def begin(self, key: dict) -> Path:
        """The folder in which the cell keeps what is unfinished."""
        folder = self._path(key).with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, key: dict, rows: list[dict]) -> None:
        """The cell is finished."""
        write_table(self._path(key), pd.DataFrame(rows), {"key": key})
        shutil.rmtree(self._path(key).with_suffix(""))

    def _path(self, key: dict) -> Path:
        return (self.work.parent / "shared.work" if SHARED in key else self.work) / f"{name(key)}.csv"


class Listing:
    """`cells` where nothing is to be computed: one that is missing has no rows, and is noted in `missing`."""

    def __init__(self, cells: Any) -> None:
        self.cells = cells
        self.missing: list[dict] = []

    def find(self, key: dict) -> list[dict]:
        rows = self.cells.find(key)
        if rows is None and key not in self.missing:
            self.missing.append(key)
        return rows or []


class Only:
    """`cells` where only the cell `key` is to be computed: others that are missing have no rows."""

    def __init__(self, cells: Any, key: dict) -> None:
        self.cells, self.key = cells, key
        self.begin, self.keep = cells.begin, cells.keep

    def find(self, key: dict) -> list[dict] | None:
        rows = self.cells.find(key)
        return [] if rows is None and key != self.key else rows


def name(key: dict) -> str:
    """The name of the cell's files: a digest of its key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def finished(work: Path) -> int:
    """How many cells are kept in `work`."""
    return len(list(Path(work).glob("*.csv")))
