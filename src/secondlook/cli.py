"""The command line: every step of the study is one verb, and a rule of the workflow calls the same verb.

    run -> summarise -> figure, claims -> report

Each verb works where Snakemake is not installed, says what it wrote, and answers bad input with one line.
"""

import argparse
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from secondlook import extras
from secondlook.errors import Diverged, Mistake, OutOfTime
from secondlook.study.parent import PARENT, end_with
from secondlook.study.results import SCALES, Results
from secondlook.terminal import OUT_OF_TIME, PLAINLY, say

ROOT = Path()  # the project is the folder that the command is given in


def list_(_: argparse.Namespace) -> None:
    """Say which experiments there are."""
    from secondlook.study.claims import declared
    from secondlook.study.experiment import experiments
    from secondlook.study.records import unrecorded

    for experiment in experiments(ROOT):
        say(f"{experiment.name}: {experiment.title}")
        say(f"  cases    {', '.join(experiment.cases)}")
        say(f"  figures  {', '.join(experiment.figures)}")
        say(f"  claims   {', '.join(claim['id'] for claim in declared(experiment))}")
        for case in experiment.cases:
            setting = experiment.setting(case)
            if unrecorded(Results(ROOT), setting):
                say(f"  {case} is unrecorded: it needs {setting.costly}, and there is no result of it yet")


def new(options: argparse.Namespace) -> None:
    """Begin an experiment: a folder with all its parts, which runs as it is."""
    from secondlook.study.scaffold import scaffold

    for path in scaffold(ROOT, options.name):
        say(f"{path}")
    say(f"try it: python -m secondlook run {options.name}; CONTRIBUTING.md lists what to change, and where else it is named")


def run(options: argparse.Namespace) -> None:
    """Compute cases of an experiment, or all of them, and write their rows. With --max-minutes, the same command goes on."""
    from secondlook.study.experiment import Experiment, Setting
    from secondlook.study.needs import data_folder
    from secondlook.study.parameters import Positive, PositiveInt, checked
    from secondlook.study.stages import Terms, compute

    experiment = Experiment(ROOT, options.experiment)
    settings = [experiment.setting(case, options.scale, options.set, options.seed) for case in options.case or experiment.cases]
    if options.out and options.out.suffix == ".csv" and (len(settings) > 1 or not options.case):
        raise Mistake("--out names one file: say which --case goes there")
    for name, kind in {"--max-minutes": Positive, "--threads": PositiveInt, "--at-once": PositiveInt}.items():
        if (value := getattr(options, name[2:].replace("-", "_"))) is not None:
            checked(kind, value, name)

    def out(setting: Setting) -> Path:
        if options.out:
            return options.out if options.out.suffix == ".csv" else options.out / f"{setting.name}.csv"
        mine = options.set or options.seed is not None
        return Results(ROOT).trial(setting.name, setting.digest) if mine else Results(ROOT, options.scale).raw(setting.name)

    terms = Terms(
        device=options.device,
        data=data_folder(options.data_root),
        threads=options.threads,
        at_once=options.at_once,
        minutes=options.max_minutes,
        commit=options.commit,
        dirty=options.dirty,
    )
    try:
        for line in compute(experiment, settings, out, terms):
            say(line)
    except ValueError as error:
        if options.set:  # a value that only the run itself can judge
            raise Mistake(f"--set {' '.join(options.set)}: {error}") from error
        raise


def record(options: argparse.Namespace) -> None:
    """Keep a result that was computed elsewhere, or takes long, in results/recorded/."""
    from secondlook.study import records, tables
    from secondlook.study.extension import extended

    for path, setting, table, made in _results(options.table):
        out = Results(ROOT).recorded(setting.name)
        if options.extend:
            records.check_origin(path, made, setting)
            table, made = extended(setting, records.read_result(out), (table, made))
        records.check_recorded(path, made, setting)
        tables.write_table(out, table, made)
        say(f"{out}: {len(table)} rows of {setting.name}, made on {made['device']} at commit {made['commit'][:10]}")
        if setting.name not in records.recorded_stages(ROOT):
            say(f"list {setting.name} under 'recorded' in config/config.yaml")


def _results(paths: list[Path]) -> Iterator[tuple]:
    """Path, setting, table and record of each table, and of each whole stage in an archive of a lease."""
    from secondlook.study import lease, records
    from secondlook.study.experiment import Experiment

    for path in paths:
        if path.suffix != ".csv":
            yield from ((path, *found) for found in lease.complete(ROOT, path, say))
            continue
        table, made = records.read_result(path)
        yield path, Experiment(ROOT, made["experiment"]).setting(made["case"]), table, made


def lease(options: argparse.Namespace) -> None:
    """Compute what config/lease.yaml lists, in its order, within a budget of seconds; the same command goes on."""
    from secondlook.study.lease import Terms
    from secondlook.study.lease import lease as through
    from secondlook.study.needs import data_folder
    from secondlook.study.parameters import Positive, checked

    checked(Positive, options.budget, "--budget")
    terms = Terms(
        folder=str(options.out),
        budget=options.budget,
        device=options.device,
        scale=options.scale,
        data=str(data_folder(options.data_root)),
        commit=options.commit,
        dirty=options.dirty,
    )
    through(ROOT, terms, say)


def import_(options: argparse.Namespace) -> None:
    """Take recorded results as the results of stages, having checked that they belong to today's settings."""
    from secondlook.study import records, tables
    from secondlook.study.experiment import Experiment

    experiment = Experiment(ROOT, options.experiment)
    results = Results(ROOT)
    for setting in [experiment.setting(case) for case in options.case]:
        path = results.recorded(setting.name)
        if not path.exists():
            here = f"'python -m secondlook run {experiment.name} --case {setting.case}'"
            raise Mistake(f"{path} is missing: record it, or compute it here with {here}")
        table, made = records.read_result(path)
        records.check_recorded(path, made, setting)
        stale = records.changed_sources(experiment, made)
        if stale:
            print(f"warning: {path} was recorded with other code: {', '.join(stale)}", file=sys.stderr)
        out = results.raw(setting.name)
        tables.write_table(out, table, {**made, "recorded": True})
        machine = made["processor"] if made["device"] == "cpu" else made["device"]
        say(f"{out}: {len(table)} rows of {setting.name}, recorded on {machine}")


def summarise(options: argparse.Namespace) -> None:
    """Compute the numbers that claims and text quote from an experiment's rows."""
    from secondlook.study import measures, records
    from secondlook.study.experiment import Experiment
    from secondlook.study.files import to_json, write

    results = Results(ROOT, options.scale)
    experiment = Experiment(ROOT, options.experiment)
    summary = measures.summarise(experiment, records.read_experiment(results, experiment))
    out = results.summary(experiment.name)
    write(out, to_json(measures.to_plain(summary)))
    say(f"{out}: {len(summary.measures)} measures, {len(summary.tables)} tables")


def figure(options: argparse.Namespace) -> None:
    """Draw figures of an experiment."""
    from secondlook.reporting import style
    from secondlook.study import records
    from secondlook.study.experiment import Experiment
    from secondlook.study.parameters import known_keys

    results = Results(ROOT, options.scale)
    experiment = Experiment(ROOT, options.experiment)
    known_keys(options.name, experiment.figures, experiment.name, "figure")
    rows = records.read_experiment(results, experiment)
    missing = records.missing_cases(experiment, rows)
    drawable = experiment.without("figures", missing)
    if barred := [name for name in options.name if name not in drawable]:
        raise Mistake(f"figure {barred[0]} of {experiment.name} needs a case that is unrecorded: {', '.join(missing)}")
    for name in options.name or drawable:
        style.apply()
        drawing = experiment.made("figures", name, rows)
        for path in experiment.figure_files(name):
            style.save(drawing, (options.out or results.figures) / path)
        style.plt.close("all")
        say(f"{(options.out or results.figures) / experiment.name}: {name}")


def claims(options: argparse.Namespace) -> None:
    """Compute the verdict on every claim, and print them."""
    from secondlook.study.claims import judge_all, read_claims, shown
    from secondlook.study.experiment import experiments
    from secondlook.study.files import to_json, write
    from secondlook.study.measures import read_summary

    results = Results(ROOT, options.scale)
    if not options.show:
        summaries = [(found, read_summary(results.summary(found.name))) for found in experiments(ROOT)]
        write(results.claims, to_json(judge_all(summaries)))
    for claim in read_claims(results.claims):
        say(shown(claim))


def report(options: argparse.Namespace) -> None:
    """Build the paper and its supplement: PDF, HTML and a LaTeX folder."""
    from secondlook.reporting.paper import build

    for path in build(Results(ROOT, options.scale)):
        say(f"{path}")


def readme(_: argparse.Namespace) -> None:
    """Put what is found into README.md, and the table of verdicts into VERDICTS.md."""
    from secondlook.reporting.readme import update

    say(update(Results(ROOT)))


def compare(options: argparse.Namespace) -> None:
    """Say whether two results folders hold the same tables, numbers, verdicts and figures, byte for byte."""
    from secondlook.study.compare import compare as found

    say(found(*options.folder))


def data(options: argparse.Namespace) -> None:
    """Build the array file of CIFAR-10 in data/, from an image folder or archive that is there, or from a download."""
    from secondlook.study.datasets import build_cifar10
    from secondlook.study.needs import BUILT, data_folder

    start = time.perf_counter()
    made = build_cifar10(data_folder(options.data_root), ROOT / BUILT)
    said = f"{made['images']} images ({made['origin']}) from {made['source']}, sha256 {made['sha256'][:16]}"
    say(f"{ROOT / BUILT}: {said}, {time.perf_counter() - start:.1f} s")


def doctor(options: argparse.Namespace) -> None:
    """Say what is installed, which device and data there are, and which stages can run here."""
    from secondlook.study.doctor import examine

    for line in examine(ROOT, options.data_root, options.stages):
        say(line)


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    top = argparse.ArgumentParser(
        prog="secondlook",
        description="A second look at second-order optimisation: run the experiments, judge the claims, build the paper.",
        epilog="Give every command in the project's folder. 'snakemake --cores 8' does all of it in the right order.",
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, function: Callable[[argparse.Namespace], None], extra: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=function.__doc__, description=function.__doc__)
        made.set_defaults(function=function, verb=name, extra=extra)
        return made

    def experiment(made: argparse.ArgumentParser) -> None:
        made.add_argument("experiment", help="name of a folder in experiments/")

    def scale(made: argparse.ArgumentParser) -> None:
        made.add_argument("--scale", choices=SCALES, default="paper", help="paper: in results/; smoke: in results/smoke/")

    def data_root(made: argparse.ArgumentParser) -> None:
        made.add_argument("--data-root", help="folder of the data sets (default: SECONDLOOK_DATA, or data)")

    def commit(made: argparse.ArgumentParser) -> None:
        made.add_argument("--commit", help="the commit of this code, where git cannot say")
        made.add_argument("--dirty", action="store_true", help="with --commit: the code differs from it")

    verb("list", list_, "study")

    made = verb("new", new, "study")
    made.add_argument("name", help="of the folder in experiments/: letters, digits and _")

    made = verb("run", run, "run")
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
    made.add_argument("--threads", type=int, default=1, help="threads of torch; 1, as in the workflow")
    made.add_argument(
        "--at-once", type=int, default=1, help="networks at a time, each on a stream: for a GPU that one does not fill"
    )
    data_root(made)
    commit(made)

    made = verb("summarise", summarise, "study")
    experiment(made)
    scale(made)

    made = verb("figure", figure, "report")
    experiment(made)
    made.add_argument("name", nargs="*", help="figures; without it, all of them")
    scale(made)
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where the figures go (default: results/figures)")

    made = verb("claims", claims, "study")
    scale(made)
    made.add_argument("--show", action="store_true", help="print the verdicts of results/claims.json, compute nothing")

    scale(verb("report", report, "report"))
    verb("readme", readme, "report")

    made = verb("record", record, "run")
    made.add_argument("table", nargs="+", type=Path, metavar="FILE", help="tables that 'run' wrote, or archives of a lease")
    made.add_argument(
        "--extend", action="store_true", help="add them, as new seeds or entries, to what is recorded of their stage"
    )

    made = verb("lease", lease, "run")
    made.add_argument("--budget", type=float, required=True, metavar="S", help="seconds in all, until the archive is written")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="ledger and archive; the same when it goes on")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="where cases run that can run on either")
    scale(made)
    data_root(made)
    commit(made)

    made = verb("import", import_, "run")
    experiment(made)
    made.add_argument("--case", action="append", required=True, help="a recorded case, and as many more as wanted")

    made = verb("compare", compare, "run")
    made.add_argument("folder", nargs=2, type=Path, metavar="FOLDER", help="results/ or results/smoke/ of a project")

    made = verb("data", data, "data")
    data_root(made)

    made = verb("doctor", doctor, "run")
    made.add_argument("--stages", action="store_true", help="a line for each stage, and not a summary")
    data_root(made)
    return top


def main(words: list[str] | None = None) -> int:
    """Run a command, by default the one that the process was given, and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have put something else there
            stream.reconfigure(errors=PLAINLY)
    options = parser().parse_args(words)
    if parent := os.environ.get(PARENT):
        end_with(int(parent))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", Diverged)
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
    except ModuleNotFoundError as error:
        print(f"secondlook: {extras.missing(error.name or '?', options.verb, options.extra)}", file=sys.stderr)
        return 1
    except MemoryError:
        print(f"secondlook: {options.verb} needs more memory than there is", file=sys.stderr)
        return 1
    except OSError as error:  # what no step foresaw: a disk that fails, a folder that may not be looked into
        print(f"secondlook: {error}", file=sys.stderr)
        return 1
    return 0
