"""The folder in which a stage keeps what is unfinished: whose it is, and what its parts cost.

    <work>/run.json      settings, sources and device of the run that began here
    <work>/parts.json    machine and cost of each part; of one that was killed, the machine alone
    <work>/data.json     the data sets that it read (secondlook.study.place)
    <work>/ends.txt      of runs that diverged, their sentence each (secondlook.study.stages)

All that is kept in it is of one run: the same settings, the same code, the same kind of device.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from secondlook.errors import Mistake
from secondlook.study.experiment import Experiment, Setting
from secondlook.study.files import read_json, to_json, write
from secondlook.study.place import Place
from secondlook.study.records import changed_sources, check_settings, cost, forget_peak
from secondlook.study.sources import digests

OWN = ("run.json", "parts.json", "data.json", "ends.txt")


@contextmanager
def part(place: Place, experiment: Experiment, setting: Setting) -> Iterator[list[dict]]:
    """Begin a stage in `place.work`, or go on with what is kept there; where it stops before the end, note what this part cost.
    Gives what the parts before it cost. Raises Mistake where what is kept is of another run."""
    path = place.work / OWN[0]
    if any(file.is_file() and file.name not in OWN for file in place.work.rglob("*")):
        _check(place, read_json(path), experiment, setting)
    else:
        shutil.rmtree(place.work, ignore_errors=True)
        sources = digests(experiment.sources("experiment"), experiment.root)
        run = {"settings": setting.values, "settings_digest": setting.digest, "sources": sources, "device": place.device}
        write(path, to_json(run))
    path = place.work / OWN[1]
    earlier = read_json(path) if path.exists() else []
    forget_peak()
    write(path, to_json([*earlier, cost(0.0, place.device)]))
    start = time.perf_counter()
    try:
        yield earlier
    except BaseException:
        write(path, to_json([*earlier, cost(time.perf_counter() - start, place.device)]))
        raise


def _check(place: Place, begun: dict, experiment: Experiment, setting: Setting) -> None:
    check_settings(place.work, begun, setting, "remove it, or put the settings back")
    if changed := changed_sources(experiment, begun):
        raise Mistake(f"{place.work} holds a run of other code: {', '.join(changed)}; remove it, or put the code back")
    if begun.get("device") != place.device:
        raise Mistake(f"{place.work} holds a run on device {begun.get('device')}: remove it, or go on there")


def end(place: Place) -> None:
    """The stage is done: what it kept is in its table."""
    shutil.rmtree(place.work)
