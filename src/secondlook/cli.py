"""The command line: every step of the study is one verb, and a rule of the workflow calls the same verb.

    run -> summarise -> figure, claims -> report

Each verb works where Snakemake is not installed, says what it wrote, and answers bad input with one line.
"""

import argparse
import os
import sys
import time
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from secondlook.errors import Mistake, OutOfTime
from secondlook.study.experiment import SCALES, Experiment, experiments, parameters
from secondlook.study.parent import PARENT, end_with

OUT_OF_TIME = 75  # exit status: not done, try again (EX_TEMPFAIL of sysexits.h)
ROOT = Path()  # the project is the folder that the command is given in


def results(scale: str) -> Path:
    """Where results of a scale are kept."""
    return ROOT / "results" if scale == "paper" else ROOT / "results" / scale


def say(text: str) -> None:
    print(text, flush=True)


def list_(_) -> None:
    """Say which experiments there are."""
    from secondlook.study.claims import declared
    from secondlook.study.records import unrecorded

    for experiment in experiments(ROOT):
        say(f"{experiment.name}: {experiment.title}")
        say(f"  cases    {', '.join(experiment.cases)}")
        say(f"  figures  {', '.join(experiment.figures)}")
        say(f"  claims   {', '.join(claim['id'] for claim in declared(experiment))}")
        for case in experiment.cases:
            if unrecorded(ROOT, results("paper"), experiment.setting(case)):
                say(f"  {case} is unrecorded: it needs device cuda, and there is no result of it yet")


def run(options) -> None:
    """Compute cases of an experiment, or all of them, and write their rows. With --max-minutes, the same command goes on."""
    from secondlook.study.needs import check_needs, data_folder

    experiment = Experiment(ROOT, options.experiment)
    settings = [experiment.setting(case, options.scale, options.set, options.seed) for case in options.case or experiment.cases]
    if options.out and options.out.suffix == ".csv" and (len(settings) > 1 or not options.case):
        raise Mistake("--out names one file: say which --case goes there")
    if options.max_minutes is not None and not options.max_minutes > 0:
        raise Mistake(f"--max-minutes must be a positive number, got {options.max_minutes}")
    if options.workers < 1:
        raise Mistake(f"--workers must be a positive integer, got {options.workers}")
    for setting in settings:
        check_needs(setting, data_folder(options.data_root), options.device)
        parameters(experiment, setting)
    _limit_threads(options.threads)
    deadline = None if options.max_minutes is None else time.monotonic() + 60 * options.max_minutes
    for done, setting in enumerate(settings):
        try:
            _run_stage(experiment, setting, _destination(options, setting), deadline, options)
        except OutOfTime as stop:
            raise OutOfTime(f"{stop}; {done} of {len(settings)} cases are done; the same command goes on from there") from None


def _limit_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _begin_worker(threads: int | None, parent: int) -> None:
    _limit_threads(threads)
    end_with(parent)


def _destination(options, setting) -> Path:
    """Where the rows of a stage go."""
    from secondlook.study.records import raw_path

    if options.out:
        return options.out if options.out.suffix == ".csv" else options.out / setting.experiment / f"{setting.case}.csv"
    if options.set or options.seed is not None:
        return ROOT / "results" / "trials" / setting.experiment / f"{setting.case}-{setting.digest[:8]}.csv"
    return raw_path(results(options.scale), setting)


def _run_stage(experiment, setting, out: Path, deadline: float | None, options) -> None:
    """Compute one stage, or go on with it. Raises OutOfTime, saying what is kept."""
    from secondlook.study import cells, records, tables, unfinished
    from secondlook.study.experiment import run as run_setting
    from secondlook.study.experiment import run_seeds_together
    from secondlook.study.files import read_json, sole_writer
    from secondlook.study.needs import data_folder, data_of, device_of
    from secondlook.study.place import Place
    from secondlook.study.progress import watch

    device, folder = device_of(setting, options.device), data_of(setting, data_folder(options.data_root))
    place = Place(out.with_suffix(".work"), device, folder, deadline)
    if tables.beside(out).exists():
        records.check_settings(out, read_json(tables.beside(out)), setting)
    with sole_writer(out):
        if deadline is not None and out.exists() and not records.changed_sources(experiment, records.read_result(out)[1]):
            return say(f"{out}: is there already")
        keeps = experiment.takes_place(setting.case)
        start = time.perf_counter()
        try:
            place.check_time()
            with unfinished.part(place, experiment, setting) if keeps else nullcontext([]) as earlier:
                if keeps and options.workers > 1:
                    begin = partial(_begin_worker, options.threads, os.getpid())
                    run_seeds_together(experiment, setting, place, options.workers, begin)
                table = run_setting(experiment, setting, place, lambda seeds: watch(seeds, setting.name))
        except OutOfTime as stop:
            kept = f"; {cells.finished(place.work)} finished cells of {setting.name} are kept in {place.work}"
            raise OutOfTime(f"{stop}{kept if place.work.exists() else ''}") from None
        wall_s = time.perf_counter() - start
        data = place.data_sets()
        record = records.provenance(experiment, setting, wall_s, options.commit, options.dirty, data, earlier)
        record["workers"] = options.workers if keeps else 1
        tables.write_table(out, table, record)
        if keeps:
            unfinished.end(place)
    say(f"{out}: {len(table)} rows of {setting.name}, {record['wall_s']:.1f} s")


def record(options) -> None:
    """Keep a result that was computed elsewhere, or takes long, in results/recorded/."""
    from secondlook.study import records, tables

    for path in options.table:
        table, made = records.read_result(path)
        experiment = Experiment(ROOT, made["experiment"])
        setting = experiment.setting(made["case"])
        records.check_recorded(path, made, setting)
        out = records.recorded_path(ROOT, setting)
        tables.write_table(out, table, made)
        say(f"{out}: {len(table)} rows of {setting.name}, made on {made['device']} at commit {made['commit'][:10]}")
        if setting.name not in records.recorded_stages(ROOT):
            say(f"list {setting.name} under 'recorded' in config/config.yaml")


def import_(options) -> None:
    """Take a recorded result as the result of a stage, having checked that it belongs to today's settings."""
    from secondlook.study import records, tables

    experiment = Experiment(ROOT, options.experiment)
    setting = experiment.setting(options.case)
    path = records.recorded_path(ROOT, setting)
    if not path.exists():
        raise Mistake(f"{path} is missing: record it, or compute it here with --config recompute={setting.name}")
    table, made = records.read_result(path)
    records.check_recorded(path, made, setting)
    stale = records.changed_sources(experiment, made)
    if stale:
        print(f"warning: {path} was recorded with other code: {', '.join(stale)}", file=sys.stderr)
    out = options.out or records.raw_path(results("paper"), setting)
    tables.write_table(out, table, {**made, "recorded": True, "stale_sources": stale})
    machine = made["processor"] if made["device"] == "cpu" else made["device"]
    say(f"{out}: {len(table)} rows of {setting.name}, recorded on {machine}")


def summarise(options) -> None:
    """Compute the numbers that claims and text quote from an experiment's rows."""
    from secondlook.study import measures, records
    from secondlook.study.files import to_json, write

    folder = results(options.scale)
    experiment = Experiment(ROOT, options.experiment)
    summary = measures.summarise(experiment, records.read_experiment(folder, experiment, options.scale))
    out = folder / "summary" / f"{experiment.name}.json"
    write(out, to_json(measures.to_plain(summary)))
    say(f"{out}: {len(summary.measures)} measures, {len(summary.tables)} tables")


def figure(options) -> None:
    """Draw figures of an experiment."""
    from secondlook.reporting import style
    from secondlook.study import records
    from secondlook.study.parameters import known_keys

    folder = results(options.scale)
    experiment = Experiment(ROOT, options.experiment)
    known_keys(options.name, experiment.figures, experiment.name, "figure")
    rows = records.read_experiment(folder, experiment, options.scale)
    module = experiment.part("figures")
    missing = records.missing_cases(experiment, rows)
    drawable = experiment.without("figures", missing)
    if barred := [name for name in options.name if name not in drawable]:
        raise Mistake(f"figure {barred[0]} of {experiment.name} needs a case that is unrecorded: {', '.join(missing)}")
    for name in options.name or drawable:
        style.apply()
        drawing = getattr(module, name)(rows)
        for path in experiment.figure_files(name):
            style.save(drawing, (options.out or folder / "figures") / path)
        style.plt.close("all")
        say(f"{folder / 'figures' / experiment.name}: {name}")


def claims(options) -> None:
    """Compute the verdict on every claim, and print them."""
    from secondlook.study.claims import judge_all, measured_text, read_claims
    from secondlook.study.files import to_json, write
    from secondlook.study.measures import read_summary

    folder = results(options.scale)
    if not options.show:
        summaries = [(found, read_summary(folder / "summary" / f"{found.name}.json")) for found in experiments(ROOT)]
        write(folder / "claims.json", to_json(judge_all(summaries)))
    for claim in read_claims(folder / "claims.json"):
        say(f"{claim['id']:4}{claim['verdict']:20}{measured_text(claim):36}n = {claim['n']:<6}{claim['statement']}")


def report(options) -> None:
    """Build the paper: PDF, HTML and a LaTeX folder."""
    from secondlook.reporting.paper import build

    for path in build(ROOT, results(options.scale), options.scale):
        say(f"{path}")


def readme(_) -> None:
    """Put the verdict table and its figures into README.md."""
    from secondlook.reporting.readme import update

    say(update(ROOT, results("paper")))


def compare(options) -> None:
    """Say whether two results folders hold the same tables, numbers, verdicts and figures, byte for byte."""
    from secondlook.study.compare import compare as found

    say(found(*options.folder))


def data(options) -> None:
    """Build the array file of CIFAR-10 in data/, from an image folder or archive that is there, or from a download."""
    from secondlook.study.datasets import build_cifar10
    from secondlook.study.needs import BUILT, data_folder

    start = time.perf_counter()
    made = build_cifar10(data_folder(options.data_root), ROOT / BUILT)
    said = f"{made['images']} images ({made['origin']}) from {made['source']}, sha256 {made['sha256'][:16]}"
    say(f"{ROOT / BUILT}: {said}, {time.perf_counter() - start:.1f} s")


def doctor(options) -> None:
    """Say what is installed, which device and data there are, and which stages can run here."""
    from secondlook.study.doctor import examine

    for line in examine(ROOT, options.data_root):
        say(line)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="secondlook",
        description="A second look at second-order optimisation: run the experiments, judge the claims, build the paper.",
        epilog="Give every command in the project's folder. 'snakemake --cores 8' does all of it in the right order.",
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(name, function, **options):
        made = verbs.add_parser(name, help=function.__doc__, description=function.__doc__, **options)
        made.set_defaults(function=function)
        return made

    def experiment(made):
        made.add_argument("experiment", help="name of a folder in experiments/")

    def scale(made):
        made.add_argument("--scale", choices=SCALES, default="paper", help="paper: in results/; smoke: in results/smoke/")

    verb("list", list_)

    made = verb("run", run)
    experiment(made)
    scale(made)
    made.add_argument("--case", action="append", help="a case, and as many more as wanted; without it, all of them")
    made.add_argument("--seed", type=int, help="one seed in place of the declared ones")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a parameter; with this or --seed the result goes to results/trials/, apart from the study's own",
    )
    made.add_argument(
        "--out", type=Path, metavar="PATH", help="FILE.csv for one --case, or a folder: <experiment>/<case>.csv in it"
    )
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where cases run that can run on either")
    made.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help=f"stop in time with exit status {OUT_OF_TIME}; the same command goes on, and leaves the cases that are done",
    )
    made.add_argument("--threads", type=int, help="threads of torch")
    made.add_argument(
        "--workers", type=int, default=1, help="seeds at a time, each in a process: for a GPU that one does not fill"
    )
    made.add_argument("--data-root", help="folder of the data sets (default: SECONDLOOK_DATA, or data)")
    made.add_argument("--commit", help="the commit of this code, where git cannot say")
    made.add_argument("--dirty", action="store_true", help="with --commit: the code differs from it")

    made = verb("summarise", summarise)
    experiment(made)
    scale(made)

    made = verb("figure", figure)
    experiment(made)
    made.add_argument("name", nargs="*", help="figures; without it, all of them")
    scale(made)
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where the figures go (default: results/figures)")

    made = verb("claims", claims)
    scale(made)
    made.add_argument("--show", action="store_true", help="print the verdicts of results/claims.json, compute nothing")

    scale(verb("report", report))
    verb("readme", readme)

    made = verb("record", record)
    made.add_argument("table", nargs="+", type=Path, metavar="FILE.csv", help="tables that 'run' wrote, each with its .json")

    made = verb("import", import_)
    experiment(made)
    made.add_argument("--case", required=True, help="the recorded case")
    made.add_argument("--out", type=Path, metavar="FILE.csv", help="where the rows go")

    made = verb("compare", compare)
    made.add_argument("folder", nargs=2, type=Path, metavar="FOLDER", help="results/ or results/smoke/ of a project")

    made = verb("data", data)
    made.add_argument("--data-root", help="folder of the data sets (default: SECONDLOOK_DATA, or data)")

    made = verb("doctor", doctor)
    made.add_argument("--data-root", help="folder of the data sets (default: SECONDLOOK_DATA, or data)")
    return top


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    if parent := os.environ.get(PARENT):
        end_with(int(parent))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            options.function(options)
    except Mistake as mistake:
        print(f"secondlook: {mistake}", file=sys.stderr)
        return 1
    except OutOfTime as stop:
        print(f"secondlook: {stop}", file=sys.stderr)
        return OUT_OF_TIME
    except KeyboardInterrupt:
        print("secondlook: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # what no step foresaw: a disk that fails, a folder that may not be looked into
        print(f"secondlook: {error}", file=sys.stderr)
        return 1
    return 0
