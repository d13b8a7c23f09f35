"""Stages from their settings to tables with their records: one that was stopped goes on, and one that is done stays."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from secondlook.errors import Diverged, OutOfTime
from secondlook.study import cells, records, tables, unfinished
from secondlook.study.experiment import Experiment, Setting, parameters, run
from secondlook.study.files import read, read_json, sole_writer
from secondlook.study.needs import BUILT, check_needs, data_of, device_of
from secondlook.study.place import Place
from secondlook.study.progress import watch


@dataclass(frozen=True)
class Terms:
    """On which terms stages are computed: what belongs to the machine and the moment, and is no setting of the study.

    device      'cpu' or 'cuda', for stages that run on either
    data        the folder of the data sets
    threads     of torch; None: as many as torch takes
    at_once     networks side by side, in turns and on a GPU each on a stream of its own
    minutes     after which to stop by raising OutOfTime, and leave what is done already; None: never
    commit      the commit of the code, where git cannot say; `dirty`: the code differs from it
    """

    device: str = "cpu"
    data: Path = BUILT
    threads: int | None = None
    at_once: int = 1
    minutes: float | None = None
    commit: str | None = None
    dirty: bool = False


def compute(experiment: Experiment, settings: list[Setting], out: Callable[[Setting], Path], terms: Terms) -> Iterator[str]:
    """Compute the stages of an experiment one after the other, each into the table `out(setting)`; give a line about each.

    Raises Mistake before anything is computed where a stage cannot run here or has bad parameters; OutOfTime, which says
    what is kept, once time is up.
    """
    for setting in settings:
        check_needs(setting, terms.data, terms.device)
        parameters(experiment, setting)
    _limit_threads(terms.threads)
    deadline = None if terms.minutes is None else time.monotonic() + 60 * terms.minutes
    for done, setting in enumerate(settings):
        try:
            yield _compute(experiment, setting, out(setting), deadline, terms)
        except OutOfTime as stop:
            raise OutOfTime(f"{stop}; {done} of {len(settings)} cases are done; the same command goes on from there") from None


def _compute(experiment: Experiment, setting: Setting, out: Path, deadline: float | None, terms: Terms) -> str:
    place = Place(out.with_suffix(".work"), device_of(setting, terms.device), data_of(setting, terms.data), deadline)
    if tables.beside(out).exists():
        remedy = "remove it first, or give another --out"
        records.check_settings(out, read_json(tables.beside(out)), setting, remedy)
    with sole_writer(out):
        if deadline is not None and out.exists() and not records.changed_sources(experiment, records.read_result(out)[1]):
            return f"{out}: is there already"
        keeps = experiment.takes_place(setting.case)
        start = time.perf_counter()
        try:
            place.check_time()
            ends = Ends(place.work / unfinished.OWN[-1] if keeps else None)
            part: AbstractContextManager[list[dict]] = unfinished.part(place, experiment, setting) if keeps else nullcontext([])
            with part as earlier, ends.noted():
                if keeps and terms.at_once > 1:
                    from secondlook.study.beside import run_side_by_side

                    ended = list(run_side_by_side(experiment, setting, place, setting.seeds, terms.at_once))
                    for error in (error for _, error in ended if error):
                        raise error
                table = run(experiment, setting, place, lambda seeds: watch(seeds, setting.name))
        except OutOfTime as stop:
            kept = f"; {cells.finished(place.work)} finished cells of {setting.name} are kept in {place.work}"
            raise OutOfTime(f"{stop}{kept if place.work.exists() else ''}") from None
        wall_s = time.perf_counter() - start
        data = place.data_sets()
        record = records.provenance(experiment, setting, wall_s, terms.commit, terms.dirty, data, earlier, place.device)
        record |= {"at_once": terms.at_once if keeps else 1, "diverged": ends.read()}
        tables.write_table(out, table, record)
        if keeps:
            unfinished.end(place)
    return f"{out}: {len(table)} rows of {setting.name}, {record['wall_s']:.1f} s"


class Ends:
    """How the runs of a stage ended that diverged, a sentence each: in `file`, which all parts of it share, or in memory."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.sentences: list[str] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Until the end of the block what is warned of is noted, too."""
        with warnings.catch_warnings():
            show = warnings.showwarning

            def shown(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if issubclass(category, Diverged):
                    self._keep(str(message))
                show(message, category, filename, lineno, file, line)

            warnings.simplefilter("always", Diverged)
            warnings.showwarning = shown
            yield

    def _keep(self, sentence: str) -> None:
        self.sentences.append(sentence)
        if self.file:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(f"{sentence}\n")

    def read(self) -> list[str]:
        """Each sentence once, in order."""
        kept = read(self.file).decode().splitlines() if self.file and self.file.exists() else self.sentences
        return sorted(set(kept))


def _limit_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
