"""An experiment is a folder, and a folder is all of an experiment.

    config.yaml     title; the cases, each with its seeds and parameters by role; a smoke overlay
    experiment.py   functions that run the cases (`@case`): parameters and a seed in, tidy rows out; one that trains takes
                    its Place, too, and keeps finished cells there
    measures.py     functions for the numbers and tables that a claim or the text quotes (`@measure`): rows in, Estimate,
                    Estimates by name, or a table out
    figures.py      functions that draw (`@figure`): rows in, matplotlib Figure or Animation out
    claims.yaml     what is claimed, which measures decide, and how the verdict follows
    section.md      its section of the report

A case's parameters stand under the roles `fixed` (a stated caveat), `varies` (what a figure shows) and `tunes` (chosen
anew for every value of what varies); those under `shared` belong to every case. `needs` names what a case cannot
run without at paper scale: a device, a data set, hours of a core. At smoke scale every case runs anywhere.
"""

import hashlib
import importlib
import json
import keyword
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from secondlook.errors import Mistake
from secondlook.study.declared import ENDINGS, Declared, declared
from secondlook.study.files import parse_yaml, read_yaml
from secondlook.study.parameters import PositiveInt, Seed, build, checked, known_keys, mapping
from secondlook.study.place import Place
from secondlook.study.sources import sources

ROLES = ("fixed", "varies", "tunes")
NEEDS = {
    "device": ("cpu", "cuda").__contains__,
    "data": lambda name: isinstance(name, str),
    "hours": lambda count: type(count) in (int, float) and count > 0,
}
MOST_SEEDS = 100_000  # each of them is listed in the record
COLUMNS = ("experiment", "case", "seed", "step", "metric", "value")


@dataclass(frozen=True)
class Seeds:
    """Seeds first, first + 1, ..., `count` of them."""

    first: Seed
    count: PositiveInt

    def __post_init__(self) -> None:
        if self.count > MOST_SEEDS:
            raise Mistake(f"'count' of seeds must be at most {MOST_SEEDS}, got {self.count}")
        checked(Seed, self.first + self.count - 1, "the last of the seeds")


@dataclass(frozen=True)
class Setting:
    """One case of an experiment with every number resolved: what a stage runs, and what its record must match."""

    experiment: str
    case: str
    scale: str
    seeds: tuple[int, ...]
    parameters: dict
    needs: dict

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.case}"

    @property
    def values(self) -> dict:
        """What makes two runs the same run."""
        return {**self.parameters, "seeds": list(self.seeds)}

    @property
    def costly(self) -> str:
        """What of its needs keeps the stage from running by itself: a GPU, or hours; nothing, for most."""
        found = ["device cuda"] if self.needs.get("device") == "cuda" else []
        found += [f"{self.needs['hours']:g} hours of a core"] if "hours" in self.needs else []
        return " and ".join(found)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.name, self.values], sort_keys=True).encode()).hexdigest()


class Experiment:
    """The folder `root/experiments/name`. Reading it runs none of its code."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = Path(root), name
        self.folder = self.root / "experiments" / name
        if (self.folder / "config.yaml").is_file():
            check_name(name, str(self.folder))
        else:
            known_keys([name], [e.name for e in experiments(root)], str(self.folder.parent), "experiment")

    @cached_property
    def config(self) -> dict:
        where = str(self.folder / "config.yaml")
        config = dict(mapping(read_yaml(self.folder / "config.yaml"), "the whole file", where))
        known_keys(config, ("title", "shared", "cases", "smoke"), where)
        for name in ("shared", "smoke"):
            config[name] = mapping(config.get(name) or {}, name, where)
        known_keys(config["shared"], ROLES, f"'shared' of {where}")
        for case, given in mapping(config.get("cases"), "cases", where).items():
            check_name(case, f"a case in {where}")
            known_keys(mapping(given, case, where), (*ROLES, "seeds", "needs"), f"'{case}' of {where}")
            for name, need in mapping(given.get("needs") or {}, "needs", where).items():
                known_keys([name], NEEDS, f"'needs' of '{case}' of {where}")
                if not NEEDS[name](need):
                    raise Mistake(f"'needs.{name}' of '{case}' in {where} names no {name}: {need!r}")
        known_keys(config["smoke"], config["cases"], f"'smoke' of {where}")
        if not isinstance(config.get("title"), str):
            raise Mistake(f"'title' in {where} must be a text, got {config.get('title')!r}")
        return config

    @property
    def title(self) -> str:
        return self.config["title"]

    @property
    def cases(self) -> list[str]:
        return list(self.config["cases"])

    def setting(self, case: str, scale: str = "paper", changes: Iterable[str] = (), seed: int | None = None) -> Setting:
        """The parameters of `case`: shared ones, its own, the smoke overlay, then `changes` such as "lr=0.1"."""
        where = str(self.folder / "config.yaml")
        known_keys([case], self.cases, self.name, "case")
        own = self.config["cases"][case]
        values: dict[str, Any] = {}
        for block in (self.config["shared"], own):
            for role in ROLES:
                values |= mapping(block.get(role) or {}, role, where)
        values["seeds"] = own.get("seeds", {"first": 0, "count": 1})
        if scale == "smoke":
            overlay = mapping(self.config["smoke"].get(case) or {}, case, where)
            known_keys(overlay, values, f"'smoke' of '{case}' of {where}")
            values |= overlay
        for change in changes:
            key, equals, text = change.partition("=")
            if not equals:
                raise Mistake(f"--set takes key=value, got '{change}'")
            known_keys([key], values, where)
            values[key] = parse_yaml(text, f"--set {key}")
        seeds = build(Seeds, mapping(values.pop("seeds"), "seeds", where), f"'seeds' of '{case}' of {where}")
        chosen = range(seeds.first, seeds.first + seeds.count) if seed is None else [checked(Seed, seed, "--seed")]
        needs = dict(own.get("needs") or {}) if scale == "paper" else {}
        return Setting(self.name, case, scale, tuple(chosen), values, needs)

    def part(self, name: str) -> ModuleType:
        """Import one of the experiment's Python files."""
        if str(self.root.resolve()) not in sys.path:
            sys.path.insert(0, str(self.root.resolve()))
        return importlib.import_module(f"experiments.{self.name}.{name}")

    def sources(self, part: str) -> list[Path]:
        """The files on which the result of `part` depends: its own and what it imports."""
        return sources(self.folder / f"{part}.py", self.root)

    @cached_property
    def figures(self) -> dict[str, Declared]:
        """Name and declaration of each figure."""
        return self._declared("figures", "figure")

    @cached_property
    def measures(self) -> dict[str, Declared]:
        """Name and declaration of each measure."""
        return self._declared("measures", "measure")

    def _declared(self, part: str, decorator: str) -> dict[str, Declared]:
        """What `part` declares, in order, found without running it."""
        path = self.folder / f"{part}.py"
        found = declared(path, decorator)
        for name, declaration in found.items():
            known_keys(declaration.requires, self.cases, f"'{name}' of {path}", "case")
        return found

    def without(self, part: str, missing: Iterable[str]) -> list[str]:
        """The measures or figures (`part`) that can do without the cases `missing`."""
        return [name for name, found in getattr(self, part).items() if not set(missing) & set(found.requires)]

    def made(self, part: str, name: str, rows: pd.DataFrame) -> Any:
        """The measure or figure `name`, made of `rows`."""
        found = getattr(self, part)[name]
        return getattr(self.part(part), found.function)(rows, *found.arguments)

    def figure_files(self, name: str) -> list[str]:
        """The files of a figure, relative to the folder of figures."""
        return [f"{self.name}/{name}.{ending}" for ending in ENDINGS[self.figures[name].kind]]

    @cached_property
    def runs(self) -> dict[str, Declared]:
        """Case and declaration of the function that runs it."""
        path = self.folder / "experiment.py"
        found = declared(path, "case")
        known_keys(found, self.cases, str(path), "case")
        if lacking := [case for case in self.cases if case not in found]:
            raise Mistake(f"no function of {path} runs the case '{lacking[0]}'")
        return found

    def function(self, case: str) -> Any:
        """The function that runs `case`."""
        return getattr(self.part("experiment"), self.runs[case].function)

    def takes_place(self, case: str) -> bool:
        """Whether the function of `case` takes its Place."""
        return self.runs[case].place


def check_name(name: str, what: str) -> None:
    """Refuse what cannot be a name in Python, in a rule of the workflow, and in a path within a command."""
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise Mistake(f"{what} must have a name of letters, digits and _ that Python can import, not {name!r}")


def experiments(root: Path) -> list[Experiment]:
    """Every experiment of the project at `root`, by name."""
    folders = sorted(path.parent for path in Path(root).glob("experiments/*/config.yaml"))
    if not folders:
        raise Mistake(f"there are no experiments in {Path(root).resolve()}: run this from the project's folder")
    for folder in folders:
        check_name(folder.name, str(folder))
    return [Experiment(root, folder.name) for folder in folders]


Watch = Callable[[Sequence[int]], Iterable[int]]


def run(experiment: Experiment, setting: Setting, place: Place | None = None, watch: Watch = iter) -> pd.DataFrame:
    """The tidy rows of all seeds of one case, run at `place` if it takes one. `watch` wraps the seeds, to show progress.

    Columns: experiment, case, seed, the factors that the case declares, step, metric, value.
    """
    tables = []
    for seed in watch(setting.seeds):
        rows = rows_of(experiment, setting, seed, place)
        table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([row for row in rows if row is not None])
        tables.append(table.assign(experiment=setting.experiment, case=setting.case, seed=seed))
    table = pd.concat(tables, ignore_index=True)
    factors = [name for name in table if name not in COLUMNS]
    return table[["experiment", "case", "seed", *factors, "step", "metric", "value"]].astype({"value": float})


def rows_of(experiment: Experiment, setting: Setting, seed: int, place: Place | None) -> Iterable[dict] | pd.DataFrame:
    """What the function of the case gives for one seed."""
    where = [place] if experiment.takes_place(setting.case) else []
    return experiment.function(setting.case)(parameters(experiment, setting), seed, *where)


def parameters(experiment: Experiment, setting: Setting) -> Any:
    """The parameters of a stage as its function takes them. Raises Mistake where one is missing, unknown or of a wrong kind."""
    kind = experiment.function(setting.case).parameters[setting.case]
    return build(kind, setting.parameters, str(experiment.folder / "config.yaml"))
