"""Cells of a stage side by side: in one process, a turn of each after the other, whatever seeds and factors they are of."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from secondlook.study.cells import Files, Listing, Only
from secondlook.study.experiment import Experiment, Setting, rows_of
from secondlook.study.place import Place
from secondlook.training.turns import take_turns


def missing_cells(experiment: Experiment, setting: Setting, place: Place, seeds: Iterable[int]) -> list[tuple[int, dict]]:
    """Seed and key of the cells that a stage has yet to compute; those that wait for another are not among them."""
    found: list[tuple[int, dict]] = []
    listing = Listing(place.cells or Files(place.work))
    for seed in seeds:
        for _ in rows_of(experiment, setting, seed, replace(place, cells=listing)):
            pass
        found += [(seed, key) for key in listing.missing[len(found) :]]
    return found


def run_side_by_side(
    experiment: Experiment, setting: Setting, place: Place, seeds: Iterable[int], at_once: int
) -> Iterator[tuple[dict, Exception | None]]:
    """Compute the missing cells of these seeds in this process, `at_once` at a time; they are kept, and `run` finds them.
    Yields the key of each as it ends, with the exception that ended it or None; none is begun twice."""
    cells, tried = place.cells or Files(place.work), []
    while waiting := [(seed, key) for seed, key in missing_cells(experiment, setting, place, seeds) if key not in tried]:
        tried += [key for _, key in waiting]
        places = [replace(place, at_once=at_once, cells=Only(cells, key)) for _, key in waiting]
        tasks = (iter(rows_of(experiment, setting, seed, here)) for (seed, _), here in zip(waiting, places, strict=True))
        for number, error in take_turns(tasks, at_once, place.device):
            yield waiting[number][1], error
