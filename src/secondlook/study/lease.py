"""A lease: a GPU for some minutes, on a machine without network and history, where nothing can be edited in between.

    python -m secondlook lease --budget 560 --out FOLDER --commit COMMIT     compute what config/lease.yaml lists, in its order
    python -m secondlook record FOLDER/lease.tar.gz                          at home: keep the stages that are complete

    FOLDER/lease.jsonl      the ledger: every finished cell, at once (secondlook.study.ledger)
    FOLDER/selftest.json    which methods may be captured, and what the machine does
    FOLDER/said.txt         what the processes said
    FOLDER/lease.tar.gz     these three, made anew at the end of each call
    FOLDER/work/            what is unfinished

The supervisor computes nothing itself. It has a child test the machine while another decodes the images, and then a worker go
through the plan. A cell that fails costs itself: the worker notes what was raised and goes on, and where the device or the
process is lost with it, the supervisor starts another worker. At the deadline the worker keeps what it has. The same command
goes on from there, also from an archive alone, on another machine; finished cells are not computed again.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from secondlook.errors import Mistake, OutOfTime
from secondlook.study import records
from secondlook.study.experiment import Experiment, Seeds, Setting, run
from secondlook.study.files import read_json, read_yaml, sole_writer
from secondlook.study.ledger import Cells, Ledger
from secondlook.study.needs import data_path
from secondlook.study.parameters import PositiveInt, build, checked, known_keys, mapping
from secondlook.study.parent import PARENT
from secondlook.study.place import Place
from secondlook.study.sources import digests
from secondlook.terminal import OUT_OF_TIME

PLAN = Path("config") / "lease.yaml"
LEDGER, VERDICT, SAID, ARCHIVE = "lease.jsonl", "selftest.json", "said.txt", "lease.tar.gz"
LARGEST = 1 << 28  # bytes of a ledger in an archive
SPARE = 5.0  # seconds before the end of the budget at which the worker is to stop: for the archive
GRACE = 15.0  # seconds after its deadline at which a process is killed that did not stop by itself
LONGEST_STEP = 24 * 3600.0  # seconds: of a step without `most`
TICK = 0.1  # seconds between two looks at a child
FRUITLESS = 2  # workers in a row that end before they begin a cell: there is no third


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    stage: str
    seconds: float
    seeds: dict | None = None
    most: float = LONGEST_STEP
    least: float = 0.0
    at_once: int = 1

    def setting(self, root: Path, scale: str) -> tuple[Experiment, Setting]:
        experiment, _, case = self.stage.partition("/")
        found = Experiment(root, experiment)
        return found, found.setting(case, scale)

    def chosen(self, setting: Setting) -> list[int]:
        """The seeds of the stage that this step computes."""
        if self.seeds is None:
            return list(setting.seeds)
        seeds = build(Seeds, self.seeds, f"'{self.stage}' of {PLAN}")
        asked = range(seeds.first, seeds.first + seeds.count)
        if setting.scale == "paper" and not set(asked) <= set(setting.seeds):
            raise Mistake(f"'{self.stage}' of {PLAN} names seeds that the stage does not have")
        return [seed for seed in asked if seed in setting.seeds]


def plan(root: Path) -> tuple[dict, list[Step]]:
    """The self-test's seconds, and the steps. Raises Mistake where the plan is not one."""
    where = str(root / PLAN)
    given = mapping(read_yaml(root / PLAN), "the whole file", where)
    known_keys(given, ("selftest", "steps"), where)
    selftest = mapping(given.get("selftest"), "selftest", where)
    known_keys(selftest, ("module", "seconds", "most"), where)
    checked(PositiveInt, selftest.get("most"), f"'most' of the selftest in {where}")
    if not isinstance(selftest.get("module"), str):
        raise Mistake(f"'module' of the selftest in {where} must be the name of a module")
    steps = []
    for step in given.get("steps") or []:
        known_keys(mapping(step, "steps", where), Step.__dataclass_fields__, where)
        try:
            steps.append(Step(**step))
        except TypeError as error:
            raise Mistake(f"a step of {where} lacks its stage or seconds") from error
    for step in steps:
        step.chosen(step.setting(root, "paper")[1])
    return dict(selftest), steps


@dataclass(frozen=True)
class Terms:
    """What a call is given; the worker gets it as JSON."""

    folder: str
    budget: float
    device: str
    scale: str
    data: str
    commit: str | None
    dirty: bool
    call: int = 0
    deadline: float = 0.0  # of time.monotonic(), which all processes of a machine share
    captured: tuple[str, ...] | None = None  # methods whose captured step is the eager one; None: not asked
    fused: bool = True
    streams: bool = True

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()


@dataclass
class Child:
    """A process of a call; what it says goes to `said`."""

    process: subprocess.Popen
    most: float  # value of time.monotonic()

    @classmethod
    def start(cls, said: IO[bytes], most: float, *words: str) -> "Child":
        environment = {**os.environ, PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
        return cls(process, most)

    def ended(self) -> bool:
        """Whether it ended; it is killed, with what it started, where it is late."""
        if self.process.poll() is None and time.monotonic() > self.most:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return self.process.poll() is not None


def lease(root: Path, terms: Terms, say: Callable[[str], None]) -> None:
    """Go through the plan as far as the budget reaches, and make the archive, however it ends. Raises OutOfTime where something
    is left to go on with, and Mistake where cells failed or the self-test says that nothing here is to be trusted."""
    start = time.monotonic()
    folder = Path(terms.folder)
    selftest, steps = plan(root)
    if not steps:
        raise Mistake(f"{PLAN} has no steps: there is nothing to compute")
    if terms.scale == "paper":
        _check_commit(root, terms)
    with sole_writer(folder / LEDGER):
        _take_back(folder)
        ledger = Ledger(folder / LEDGER)
        calls = [entry for entry in ledger.entries if entry["kind"] == "call"]
        if calls and (calls[-1]["device"], calls[-1]["scale"]) != (terms.device, terms.scale):
            (folder / VERDICT).unlink(missing_ok=True)  # that call's self-test was of another device or scale
        call = 1 + len(calls)
        terms = Terms(**asdict(terms) | {"call": call, "deadline": start + terms.budget - SPARE})
        ledger.append("call", call=call, budget=terms.budget, commit=terms.commit, device=terms.device, scale=terms.scale)
        with open(folder / SAID, "a+b") as said:
            watch = _Watch(said, say)
            try:
                terms = _prepared(root, terms, selftest, steps, watch)
                _work(terms, ledger, watch)
            finally:
                watch.repeat()
                ledger.read()
                for line in _account(ledger, call):
                    say(line)
                _archive(folder)
                say(
                    f"{folder / ARCHIVE}: {(folder / ARCHIVE).stat().st_size / 2**20:.1f} MiB, {time.monotonic() - start:.0f} s"
                )


def _check_commit(root: Path, terms: Terms) -> None:
    """Refuse, before anything runs, what `record` would refuse afterwards."""
    experiment, _ = plan(root)[1][0].setting(root, terms.scale)
    sources = digests(experiment.sources("experiment"), root)
    known = records.commit_of(root, sources, terms.commit, terms.dirty)
    if not known["commit"] or known["dirty"]:
        raise Mistake("results of code that no commit holds are not recorded: commit first, and say --commit where git is not")


def _take_back(folder: Path) -> None:
    """Go on from an archive that lies in the folder without its ledger."""
    if not (folder / LEDGER).exists() and (folder / ARCHIVE).exists():
        (folder / LEDGER).write_bytes(_ledger_of(folder / ARCHIVE))


class _Watch:
    """Repeats what children say, and waits for them."""

    def __init__(self, said: IO[bytes], say: Callable[[str], None]):
        self.said, self.say, self.at = said, say, said.seek(0, os.SEEK_END)

    def start(self, most: float, *words: str) -> Child:
        return Child.start(self.said, most, *words)

    def wait(self, *children: Child) -> None:
        while not all([child.ended() for child in children]):
            self.repeat()
            time.sleep(TICK)
        self.repeat()

    def repeat(self) -> None:
        self.said.seek(self.at)
        fresh = self.said.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self.at += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self.say(line)


def _prepared(root: Path, terms: Terms, selftest: dict, steps: list[Step], watch: _Watch) -> Terms:
    """The terms with what the self-test found; beside it the images are decoded where a step needs them."""
    folder, children = Path(terms.folder), []
    late = min(time.monotonic() + selftest["most"], terms.deadline) + GRACE
    if any("data" in step.setting(root, terms.scale)[1].needs for step in steps) and not _is_there(terms.data):
        children.append(watch.start(terms.deadline, "secondlook", "data", "--data-root", terms.data))
    if not (verdict := _verdict(root, folder)):
        (folder / VERDICT).unlink(missing_ok=True)
        words = ["--device", terms.device, "--out", str(folder / VERDICT), "--seconds", str(selftest["most"])]
        children.append(watch.start(late, selftest["module"], *words, "--scale", terms.scale))
    watch.wait(*children)
    verdict = verdict or (read_json(folder / VERDICT) if (folder / VERDICT).exists() else {})
    if verdict.get("finished") and not verdict["ok"]:
        first, *others = [f"{part['part']}: {part['why']}" for part in verdict.get("parts", []) if part["ok"] is False]
        more = f" ({len(others)} more in {VERDICT})" if others else ""
        raise Mistake(f"the self-test says that nothing here is to be trusted: {first}{more}")
    if not verdict.get("finished"):
        watch.say("the self-test did not end: what it did not find the same captured as eagerly runs eagerly")
    found = {name: verdict[name] for name in ("captured", "fused") if name in verdict}
    return Terms(**asdict(terms) | {"captured": (), "fused": False} | found | {"streams": verdict.get("best_streams", 1) > 1})


def _is_there(data: str) -> bool:
    try:
        return bool(data_path("cifar10.npy", Path(data)))
    except Mistake:
        return False


def _verdict(root: Path, folder: Path) -> dict | None:
    """What the self-test found in an earlier call, with the code that there is now."""
    try:
        found = read_json(folder / VERDICT)
        sources = max(path.stat().st_mtime for name in ("src", "experiments") for path in (root / name).rglob("*.py"))
        return found if found["finished"] and (folder / VERDICT).stat().st_mtime > sources else None
    except (Mistake, OSError, KeyError, TypeError):
        return None


def _work(terms: Terms, ledger: Ledger, watch: _Watch) -> None:
    """One worker after another until the plan is done or time is up."""
    fruitless = 0
    while fruitless < FRUITLESS:
        if terms.left <= 0:
            raise OutOfTime("time is up")
        before = len(ledger.entries)
        worker = watch.start(terms.deadline + GRACE, "secondlook.study.leased", json.dumps(asdict(terms)))
        watch.wait(worker)
        ledger.read()
        status = worker.process.returncode
        if status == 0:
            failed = [entry for entry in ledger.of_call(terms.call) if entry["kind"] == "failed"]
            if failed:
                raise Mistake(f"{len(failed)} cells failed, which the same command tries again; {SAID} and {LEDGER} say why")
            return
        if status == OUT_OF_TIME:
            raise OutOfTime("time is up; the same command goes on from there")
        watch.say(f"the worker ended with status {status}; another goes on")
        fruitless = 0 if any(entry["kind"] == "begun" for entry in ledger.entries[before:]) else fruitless + 1
    raise Mistake(f"no worker gets as far as a cell: {SAID} says why")


def _account(ledger: Ledger, call: int) -> Iterator[str]:
    """What this call finished, and what failed in it."""
    counts = {kind: Counter(e["stage"] for e in ledger.of_call(call) if e["kind"] == kind) for kind in ("cell", "failed")}
    for stage in dict.fromkeys([*counts["cell"], *counts["failed"]]):
        yield f"{stage}: {counts['cell'][stage]} cells finished, {counts['failed'][stage]} failed"
    for entry in ledger.of_call(call):
        if entry["kind"] == "failed":
            yield f"failed: {entry['stage']} {entry['key'] or ''}: {entry['why'].strip().splitlines()[-1]}"


def _archive(folder: Path) -> None:
    """All that has to come back, as one file."""
    fresh = folder / f".{ARCHIVE}"
    with tarfile.open(fresh, "w:gz") as archive:
        for name in (LEDGER, VERDICT, SAID):
            if (folder / name).exists():
                archive.add(folder / name, name)
    fresh.replace(folder / ARCHIVE)


def _ledger_of(path: Path) -> bytes:
    """The ledger in an archive. Nothing else of it is read, and nothing is unpacked."""
    try:
        with tarfile.open(path) as archive:
            member = archive.getmember(LEDGER)
            if not member.isreg() or member.size > LARGEST:
                raise Mistake(f"{path} is refused: its {LEDGER} is no file, or larger than {LARGEST} bytes")
            file = archive.extractfile(member)
            return file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise Mistake(f"{path} is no archive of a lease: {error}") from error


def complete(root: Path, path: Path, say: Callable[[str], None]) -> Iterator[tuple[Setting, object, dict]]:
    """Setting, table and record of every stage that is whole in an archive; of the others it is said what they lack.

    The record is that of the machine which computed the cells. The table is put together by the stage's own code, which finds
    all its cells and computes none.
    """
    with TemporaryDirectory() as folder:
        (Path(folder) / LEDGER).write_bytes(_ledger_of(path))
        ledger = Ledger(Path(folder) / LEDGER)
        yield from _complete(root, path, ledger, Path(folder), say)


def _complete(
    root: Path, path: Path, ledger: Ledger, work: Path, say: Callable[[str], None]
) -> Iterator[tuple[Setting, object, dict]]:
    """`complete` of the ledger in the archive `path`; the stages' code may write into the folder `work`."""
    from secondlook.study.beside import missing_cells  # with torch, which the supervisor does without

    failed = {entry["stage"]: entry["why"] for entry in ledger.entries if entry["kind"] == "failed"}
    for stage, parts in _runs(ledger).items():
        experiment, case = stage.split("/")
        found = Experiment(root, experiment)
        setting = found.setting(case)
        made = records.together([part["record"] for part in parts])
        if made["scale"] != setting.scale:
            raise Mistake(f"{path} is of scale {made['scale']}: only the scale {setting.scale} is recorded")
        records.check_settings(Path(f"{path}: {stage}"), made, setting, "put the settings back")
        place = Place(work, parts[-1]["device"], cells=Cells(ledger, stage, parts[-1]["identities"]))
        if missing := missing_cells(found, setting, place, setting.seeds):
            seeds = sorted({seed for seed, _ in missing})
            why = f"; {failed[stage].strip().splitlines()[-1]}" if stage in failed else ""
            say(f"{stage} is not whole: {len(missing)} cells are missing, of seeds {', '.join(map(str, seeds))}{why}")
            continue
        yield setting, run(found, setting, place), made
    for stage in {step.stage for step in plan(root)[1]} - set(_runs(ledger)):
        say(f"{stage} was not begun")


def _runs(ledger: Ledger) -> dict[str, list[dict]]:
    """By stage, the parts of its newest run, each as it ended where it did."""
    found: dict[str, tuple[str, dict]] = {}
    for entry in ledger.entries:
        if entry["kind"] == "part":
            of = entry["identities"]["of"]
            run_of, parts = found.get(entry["stage"], (of, {}))
            parts = parts if run_of == of else {}
            parts[entry["part"]] = entry
            found[entry["stage"]] = of, parts
    return {stage: list(parts.values()) for stage, (_, parts) in found.items()}
