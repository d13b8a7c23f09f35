"""The worker of a lease: it goes through the plan, step by step and cell by cell, in one process that may be lost.

Exit status: 0 where nothing is left that may be gone on with, 75 where time was up, 70 where the device was lost with a cell.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secondlook.errors import Mistake, OutOfTime
from secondlook.study import records
from secondlook.study.beside import missing_cells, run_side_by_side
from secondlook.study.experiment import Experiment, Setting, parameters
from secondlook.study.lease import GRACE, LEDGER, Step, Terms, plan
from secondlook.study.ledger import Cells, Ledger, identities
from secondlook.study.needs import check_needs, data_of, device_of
from secondlook.study.parent import PARENT, end_with
from secondlook.study.place import Place
from secondlook.study.stages import Ends
from secondlook.terminal import OUT_OF_TIME

LOST = 70


def main(terms: Terms) -> int:
    """Go through the plan on these terms, and return the exit status."""
    root = Path()
    ledger = Ledger(Path(terms.folder) / LEDGER)
    _prepare(terms)
    late = False
    for number, step in enumerate(plan(root)[1]):
        over = any(entry["kind"] == "over" and entry["step"] == number for entry in ledger.of_call(terms.call))
        if over or terms.left < step.least:
            late = True
            print(f"{step.stage}: left for later" + ("" if over else f", as it takes {step.least:g} s to begin it"))
            continue
        try:
            if _take(step, root, terms, ledger):
                ledger.append("over", call=terms.call, step=number)
                late = True
        except Mistake as mistake:
            print(f"{step.stage}: {mistake}")
            ledger.append("failed", call=terms.call, stage=step.stage, of="", key=None, why=str(mistake))
            ledger.append("over", call=terms.call, step=number)
        if terms.left <= 0:
            return OUT_OF_TIME
    return OUT_OF_TIME if late else 0


def _prepare(terms: Terms) -> None:
    import torch

    from secondlook.problems.batch_norm import BatchNorm2d

    if terms.device == "cuda":
        torch.zeros(1, device="cuda")  # so that records name the device from the first
    else:
        torch.set_num_threads(1)
    if not terms.fused:
        BatchNorm2d.fused = False


def _take(step: Step, root: Path, terms: Terms, ledger: Ledger) -> bool:
    """Compute what is missing of a step; whether it ran out of time."""
    experiment, setting = step.setting(root, terms.scale)
    device, folder = device_of(setting, terms.device), Path(terms.folder) / "work"
    check_needs(setting, Path(terms.data), terms.device)
    parameters(experiment, setting)
    seeds = step.chosen(setting)
    cells = Cells(ledger, step.stage, identities(experiment, setting, device), folder, terms.call)
    deadline = min(terms.deadline, time.monotonic() + step.most)
    work = folder / step.stage / cells.identities["of"]
    place = Place(work, device, data_of(setting, Path(terms.data)), deadline, captured=terms.captured, cells=cells)

    alone = cells.unfinished  # an earlier worker was lost with these: each is tried once more, and nothing beside it
    cells.hidden = cells.given_up
    if not (missing := missing_cells(experiment, setting, place, seeds)):
        return False
    print(f"{step.stage}: {len(missing)} cells to compute, seeds {', '.join(map(str, seeds))}")
    start, late, failed = time.monotonic(), False, 0
    at_once = step.at_once if terms.streams else 1
    ends = Ends(work / "ends.txt")
    work.mkdir(parents=True, exist_ok=True)
    part = _part(ledger, terms, experiment, setting, place, at_once, ends)
    with part, ends.noted(), _killed_when_late(deadline + GRACE, cells):
        for count, hidden in ((at_once, alone), (1, [])):
            cells.hidden = cells.given_up + hidden
            for key, error in run_side_by_side(experiment, setting, place, seeds, count):
                late = late or isinstance(error, OutOfTime)
                if error and not isinstance(error, OutOfTime):
                    failed += 1
                    cells.fail(key, "".join(traceback.format_exception(error)))
                    if not _works(device):
                        print(f"{step.stage}: the device is lost with {key}")
                        sys.stdout.flush()
                        os._exit(LOST)
    cells.hidden = []
    left = len(missing_cells(experiment, setting, place, seeds))
    print(f"{step.stage}: {left} cells left, {failed} failed, {time.monotonic() - start:.1f} s (estimated: {step.seconds:g} s)")
    return late


@contextmanager
def _part(
    ledger: Ledger, terms: Terms, experiment: Experiment, setting: Setting, place: Place, at_once: int, ends: Ends
) -> Iterator[None]:
    """Note what this part of the stage runs on and, at its end, what it cost; where it is lost, the first is there."""
    number = 1 + sum(entry["kind"] == "part" for entry in ledger.entries)
    records.forget_peak()
    start = time.perf_counter()

    def note(wall_s: float) -> None:
        made = records.provenance(
            experiment, setting, wall_s, terms.commit, terms.dirty, place.data_sets(), device=place.device
        )
        made |= {"at_once": at_once, "captured": place.captured, "fused": terms.fused, "diverged": ends.read()}
        cells: Any = place.cells
        values = {"identities": cells.identities, "device": place.device, "record": made}
        ledger.append("part", call=terms.call, stage=setting.name, part=number, **values)

    note(0.0)
    try:
        yield
    finally:
        note(time.perf_counter() - start)


@contextmanager
def _killed_when_late(late: float, cells: Cells) -> Iterator[None]:
    """End this process where it does not end itself, as when a device hangs; the cells that it was at have failed."""

    def end() -> None:
        for key in cells.unfinished:
            cells.fail(key, "it did not stop at its deadline, and was killed")
        os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(late - time.monotonic(), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _works(device: str) -> bool:
    """Whether the device still does what it is told."""
    if device != "cuda":
        return True
    import torch

    try:
        torch.cuda.synchronize()
        return bool(torch.ones(1, device=device).item())
    except Exception:  # whatever the driver says
        return False


if __name__ == "__main__":
    end_with(int(os.environ[PARENT]))
    given = Terms(**json.loads(sys.argv[1]))
    status = main(given)
    if given.device == "cuda":
        sys.stdout.flush()
        os._exit(status)  # all is on the disk, and the interpreter's own end, with many graphs, once took longer than GRACE
    sys.exit(status)
