"""The ledger of a lease: one file that only grows, with a line for all that happened, written at once.

    <sha256> {"kind": "cell", "of": ..., "key": {...}, "rows": [...]}

    call      a command was given                    begun     a cell was begun
    part      a stage went on: its record so far     cell      a cell is finished: its rows
    over      a step of the plan is not gone on with failed    a cell was not finished: what was raised

`of` names what a cell's rows depend on: the stage's settings, the sources and the device; cells of another `of` are of another
run. A line that is cut short or was altered does not count, and a line on standard error says so.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.cells import SHARED, name
from secondlook.study.experiment import Experiment, Setting
from secondlook.study.files import sha256
from secondlook.study.sources import digests

MOST_BEGUN = 2  # times that a cell is begun in one call: what ended the process it ran in may not have been its own fault


class Ledger:
    """The lines of the file `path`, as far as they were read, and what is appended to them."""

    def __init__(self, path: Path):
        self.path, self._read = Path(path), 0
        self.entries: list[dict] = []
        self.cells: dict[tuple[str, str], list[dict]] = {}  # rows by (of, name of the cell)
        self.read()

    def read(self) -> None:
        """Take in what others have appended."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    self._take(line.rstrip())

    def _take(self, line: bytes) -> None:
        digest, _, text = line.partition(b" ")
        if not line:
            return
        if digest.decode(errors="replace") != sha256(text):
            print(f"warning: a line of {self.path} is damaged, and does not count", file=sys.stderr)
            return
        entry = json.loads(text)
        if entry["kind"] == "cell":
            self.cells[entry["of"], name(entry["key"])] = entry.pop("rows")
        self.entries.append(entry)

    def append(self, kind: str, **values: object) -> None:
        """Write a line, all of it, onto the disk."""
        text = json.dumps({"kind": kind, **values}, default=lambda number: number.item()).encode()
        line = sha256(text).encode() + b" " + text + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if end := file.seek(0, os.SEEK_END):
                    file.seek(end - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # what was cut short stays a line of its own
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Mistake(f"cannot write {self.path}: {error.strerror}") from error
        self.read()

    def of_call(self, call: int | None) -> list[dict]:
        """What happened in a call."""
        return [entry for entry in self.entries if entry.get("call") == call]


def identities(experiment: Experiment, setting: Setting, device: str) -> dict[str, str]:
    """The `of` of a stage's cells, and that of cells that its experiment's cases share."""
    sources = digests(experiment.sources("experiment"), experiment.root)
    found = {"of": [setting.digest, sources, device], SHARED: [experiment.name, sources, device]}
    return {kind: hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16] for kind, what in found.items()}


class Cells:
    """The cells of one stage in the ledger, as a Place takes them; nothing is begun without a `call`."""

    def __init__(
        self, ledger: Ledger, stage: str, identities: dict[str, str], work: Path | None = None, call: int | None = None
    ):
        self.ledger, self.stage, self.identities, self.work, self.call = ledger, stage, identities, work, call
        self.hidden: list[dict] = []  # keys of cells that are not to be computed now

    def find(self, key: dict) -> list[dict] | None:
        rows = self.ledger.cells.get((self._of(key), name(key)))
        return [] if rows is None and key in self.hidden else rows

    def begin(self, key: dict) -> Path:
        assert self.work is not None  # as of every Cells with a call
        self.ledger.append("begun", call=self.call, stage=self.stage, of=self._of(key), key=key)
        folder = self.work / self._of(key) / name(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, key: dict, rows: list[dict]) -> None:
        assert self.work is not None
        self.ledger.append("cell", call=self.call, stage=self.stage, of=self._of(key), key=key, rows=rows)
        shutil.rmtree(self.work / self._of(key) / name(key))

    def fail(self, key: dict, why: str) -> None:
        """Note what kept a cell from being computed."""
        self.ledger.append("failed", call=self.call, stage=self.stage, of=self._of(key), key=key, why=why)

    @property
    def given_up(self) -> list[dict]:
        """Keys of the cells that are not tried again in this call: they failed, or their process ended twice."""
        failed = [entry["key"] for entry in self._own("failed")]
        return failed + [key for key in self.unfinished if self._times(key) >= MOST_BEGUN]

    @property
    def unfinished(self) -> list[dict]:
        """Keys of the cells that were begun in this call and neither finished nor failed."""
        failed = [entry["key"] for entry in self._own("failed")]
        begun = [entry["key"] for entry in self._own("begun")]
        return [
            key
            for i, key in enumerate(begun)
            if key not in begun[:i] and key not in failed and (self._of(key), name(key)) not in self.ledger.cells
        ]

    def _times(self, key: dict) -> int:
        return sum(entry["key"] == key for entry in self._own("begun"))

    def _own(self, kind: str) -> list[dict]:
        own = self.identities.values()
        return [entry for entry in self.ledger.of_call(self.call) if entry["kind"] == kind and entry["of"] in own]

    def _of(self, key: dict) -> str:
        return self.identities[SHARED if SHARED in key else "of"]
