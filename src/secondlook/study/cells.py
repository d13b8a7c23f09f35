"""Finished cells: a stage that takes long keeps the rows of each network that it trained, and goes on from there.

    rows = kept(place, {"seed": 100, "optimiser": "Adam"}, lambda folder: train(..., folder))

    <work>/<cell>.csv, .json    the rows of a finished cell and its record
    <work>/<cell>/              the folder of one that is not finished: its checkpoints

The folder `work` belongs to one stage with one set of settings and sources (secondlook.study.unfinished sees to that), so that
within it a cell is known by its key alone.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.place import Place
from secondlook.study.tables import read_table, write_table


def kept(place: Place, key: dict, compute: Callable) -> list[dict]:
    """The rows of the cell `key`: those kept in `place.work`, or else those of `compute(folder)`, which are then kept.

    `key` tells the cells of a stage apart: the seed and factors, as JSON holds them. `compute` yields rows or returns them; the
    folder that it gets is the cell's own and lasts until the cell is finished. Rows come back as the file holds them,
    so that an interrupted stage ends with the same bytes as one that was not. A cell that is damaged or not what its name says
    is computed again, and a line on standard error says so. Raises OutOfTime instead of beginning a cell after the deadline.
    """
    key = json.loads(json.dumps(key))
    path = place.work / f"{name(key)}.csv"
    if path.exists():
        try:
            table, record = read_table(path)
            if record.get("key") != key:
                raise Mistake(f"{path} holds another cell than its name says; it is made again")
            return table.to_dict("records")
        except Mistake as mistake:
            print(f"warning: {mistake}", file=sys.stderr)
    place.check_time()
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(path, pd.DataFrame(list(compute(folder))), {"key": key})
    shutil.rmtree(folder)
    return read_table(path)[0].to_dict("records")


def name(key: dict) -> str:
    """The name of the cell's files: a digest of its key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def finished(work: Path) -> int:
    """How many cells are kept in `work`."""
    return len(list(Path(work).glob("*.csv")))
