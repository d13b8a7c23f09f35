"""Where a stage runs: what belongs to the machine and to this one run, and changes no setting of the study.

    def case(params: Params, seed: int, place: Place):
        images = cifar10(place.data)
        place.data_used("cifar10", images.origin, images.sha256)
        for name in params.optimisers:
            yield from kept(place, {"seed": seed, "optimiser": name}, lambda folder: _train(name, images, place, folder))

`kept` is secondlook.study.cells.kept. A training loop raises OutOfTime at `place.deadline`, having written its checkpoint.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from secondlook.errors import Mistake, OutOfTime
from secondlook.study.files import read_json, to_json, write


@dataclass(frozen=True)
class Place:
    """What a case that takes it as third argument may know of the machine.

    work        the stage's own folder for what is unfinished: cells, checkpoints, the data sets it read; gone when it is done
    device      'cpu' or 'cuda'
    data        the folder of the data sets
    deadline    value of time.monotonic() after which to stop by raising OutOfTime; None: never
    at_once     how many run side by side; where it is more than 1, a case yields None between two steps: a turn of the others
    captured    the methods whose steps may be captured on a GPU; None: all
    cells       where finished cells are, if not in files in `work` (secondlook.study.cells)
    """

    work: Path
    device: str = "cpu"
    data: Path = Path("data")
    deadline: float | None = None
    at_once: int = 1
    captured: tuple[str, ...] | None = None
    cells: object = None

    def may_capture(self, method: str) -> bool:
        return self.captured is None or method in self.captured

    def check_time(self) -> None:
        """Raise OutOfTime where the deadline has passed."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OutOfTime("time is up")

    @property
    def _data_file(self) -> Path:
        return self.work / "data.json"

    def data_used(self, name: str, origin: str, sha256: str) -> None:
        """Note for the record that the stage read the data set `name`: where it comes from ('original', 're-encoded JPEG')
        and the digest of what was read. Raises Mistake where an earlier part of the same run read another."""
        used = self.data_sets()
        found = {"origin": origin, "sha256": sha256}
        if used.setdefault(name, found) != found:
            before = used[name]["origin"]
            raise Mistake(f"{self.work} holds a run that began with other data: {name}, {before}; remove it, or put them back")
        write(self._data_file, to_json(used))

    def data_sets(self) -> dict[str, dict]:
        """Name, origin and sha256 of what `data_used` was told."""
        return read_json(self._data_file) if self._data_file.exists() else {}
