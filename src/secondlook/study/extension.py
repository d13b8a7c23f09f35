"""A recorded stage grows: by seeds, or by entries of its lists and dictionaries, such as one more method.

    run EXPERIMENT --case CASE --set 'methods=[New]' --out new.csv      what is new, and nothing else
    record --extend new.csv                                             added to what is recorded

Both are parts of the stage as config.yaml now declares it: where their settings differ from its own, they have some entries of
a list or dictionary of which it has all. A part is the grid of its lists; together the grids fill that of the stage, and every
entry of a dictionary has all seeds. The record keeps that of every part under `made_of`, so that each has its own commit,
sources, machine and time.
"""

from itertools import product

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.experiment import Setting
from secondlook.study.records import parts_of, together

OF_PART = (  # of a record, what is its part's own
    "settings",
    "commit",
    "dirty",
    "sources",
    "data",
    "versions",
    "device",
    "processor",
    "system",
    "threads",
    "wall_s",
    "peak_memory_mib",
    "at_once",
    "captured",
    "fused",
    "diverged",
    "rows",
)

Made = tuple[pd.DataFrame, dict]  # a table and its record


def extended(setting: Setting, old: Made, new: Made) -> Made:
    """The rows and the record of the stage `setting`, from what is recorded and what is new.

    Raises Mistake where they are not parts of it, do not make up the whole of it, or have different values of the same number.
    """
    parts = [{name: part[name] for name in OF_PART if name in part} for _, record in (old, new) for part in parts_of(record)]
    _check_whole(setting, [part["settings"] for part in parts])
    rows = pd.concat([old[0], new[0]], ignore_index=True).drop_duplicates()
    if (twice := rows.duplicated([name for name in rows if name != "value"])).any():
        number = rows[twice].iloc[0]
        raise Mistake(f"{setting.name} cannot be extended: {number.metric} of seed {number.seed} is in two parts, and differs")
    whole = {"settings": setting.values, "settings_digest": setting.digest, "made_of": parts}
    return rows.sort_values("seed", kind="stable", ignore_index=True), new[1] | together(parts) | whole


def _check_whole(setting: Setting, parts: list[dict]) -> None:
    """Refuse parts that have what the stage has not, and parts that leave some of it out."""
    whole = setting.values
    for part in parts:
        alien = [key for key in part.keys() | whole.keys() if not _some(part.get(key), whole.get(key))]
        if alien:
            raise Mistake(f"{setting.name} cannot be extended: '{min(alien)}' of a part is not some of what is declared")
    grown = [key for key in whole if any(part[key] != whole[key] for part in parts)]
    lists = [key for key in grown if isinstance(whole[key], list)]
    wanted, there = set(_grid(whole, lists)), {cell for part in parts for cell in _grid(part, lists)}
    lacking = [dict(zip(lists, cell, strict=True)) for cell in sorted(wanted - there)]
    for key in (key for key in grown if key not in lists):
        pairs = product(whole[key], whole["seeds"])
        lacking += [{key: e, "seeds": s} for e, s in pairs if not any(e in part[key] and s in part["seeds"] for part in parts)]
    if lacking:
        named = ", ".join(f"{key} {entry}" for key, entry in lacking[0].items())
        raise Mistake(f"{setting.name} is not whole with this part: {named} is missing")


def _some(some: object, of: object) -> bool:
    """Whether `some` is the same as `of`, or has some of its entries."""
    if isinstance(some, dict) and isinstance(of, dict):
        return all(key in of and of[key] == value for key, value in some.items())
    return some == of or (isinstance(some, list) and isinstance(of, list) and all(entry in of for entry in some))


def _grid(settings: dict, lists: list[str]) -> list[tuple[str, ...]]:
    """The cells of the grid of these lists."""
    return list(product(*(map(str, settings[key]) for key in lists)))
