"""The command line: every step of the study is one verb, and a rule of the workflow calls the same verb.

    run -> summarise -> figure, claims -> report

Each verb works where Snakemake is not installed, says what it wrote, and answers bad input with one line.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.experiment import SCALES, Experiment, experiments

ROOT = Path()  # the project is the folder that the command is given in


def results(scale: str) -> Path:
    """Where results of a scale are kept."""
    return ROOT / "results" if scale == "paper" else ROOT / "results" / scale


def say(text: str) -> None:
    print(text, flush=True)


def list_(_) -> None:
    """Say which experiments there are."""
    from secondlook.study.claims import declared

    for experiment in experiments(ROOT):
        say(f"{experiment.name}: {experiment.title}")
        say(f"  cases    {', '.join(experiment.cases)}")
        say(f"  figures  {', '.join(experiment.figures)}")
        say(f"  claims   {', '.join(claim['id'] for claim in declared(experiment))}")


def run(options) -> None:
    """Compute one case of an experiment, or all of them, and write their rows."""
    from secondlook.study import records
    from secondlook.study.experiment import run as run_setting
    from secondlook.study.files import sole_writer
    from secondlook.study.needs import check_needs, data_folder
    from secondlook.study.progress import watch

    experiment = Experiment(ROOT, options.experiment)
    own = bool(options.set) or options.seed is not None
    if options.out and not options.case:
        raise Mistake("--out names one file: say which --case goes there")
    settings = [
        experiment.setting(case, options.scale, options.set, options.seed)
        for case in ([options.case] if options.case else experiment.cases)
    ]
    for setting in settings:
        trial = ROOT / "results" / "trials" / setting.experiment / f"{setting.case}-{setting.digest[:8]}.csv"
        regular = results(options.scale) / "raw" / setting.experiment / f"{setting.case}.csv"
        out = options.out or (trial if own else regular)
        check_needs(setting, data_folder(options.data_root))
        if records.beside(out).exists():
            records.check_settings(out, records.read_json(records.beside(out)), setting)
        with sole_writer(out):
            if options.threads:
                import torch

                torch.set_num_threads(options.threads)
            start = time.perf_counter()
            table = run_setting(experiment, setting, lambda seeds, name=setting.name: watch(seeds, name))
            record = records.provenance(experiment, setting, time.perf_counter() - start, options.commit, options.dirty)
            records.write_table(out, table, record)
        say(f"{out}: {len(table)} rows of {setting.name}, {record['wall_s']:.1f} s")


def record(options) -> None:
    """Keep a result that was computed elsewhere, or takes long, in results/recorded/."""
    from secondlook.study import records

    for path in options.table:
        table, made = records.read_table(path)
        experiment = Experiment(ROOT, made["experiment"])
        setting = experiment.setting(made["case"])
        records.check_recorded(path, made, setting)
        out = ROOT / "results" / "recorded" / setting.experiment / f"{setting.case}.csv"
        records.write_table(out, table, made)
        say(f"{out}: {len(table)} rows of {setting.name}, made on {made['device']} at commit {made['commit'][:10]}")


def import_(options) -> None:
    """Take a recorded result as the result of a stage, having checked that it belongs to today's settings."""
    from secondlook.study import records

    experiment = Experiment(ROOT, options.experiment)
    setting = experiment.setting(options.case)
    path = ROOT / "results" / "recorded" / setting.experiment / f"{setting.case}.csv"
    if not path.exists():
        raise Mistake(f"{path} is missing: record it, or compute it here with --config recompute={setting.name}")
    table, made = records.read_table(path)
    records.check_recorded(path, made, setting)
    stale = records.changed_sources(experiment, made)
    if stale:
        print(f"warning: {path} was recorded with other code: {', '.join(stale)}", file=sys.stderr)
    out = options.out or results("paper") / "raw" / setting.experiment / f"{setting.case}.csv"
    records.write_table(out, table, {**made, "recorded": True, "stale_sources": stale})
    say(f"{out}: {len(table)} rows of {setting.name}, recorded on {made['processor']}")


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
    for name in options.name or experiment.figures:
        style.apply()
        drawing = getattr(module, name)(rows)
        for path in experiment.figure_files(name):
            style.save(drawing, (options.out or folder / "figures") / path)
        style.plt.close("all")
        say(f"{folder / 'figures' / experiment.name}: {name}")


def claims(options) -> None:
    """Compute the verdict on every claim, and print them."""
    from secondlook.study.claims import judge_all, measured_text
    from secondlook.study.files import read_json, to_json, write
    from secondlook.study.measures import read_summary

    folder = results(options.scale)
    if not options.show:
        summaries = [(found, read_summary(folder / "summary" / f"{found.name}.json")) for found in experiments(ROOT)]
        write(folder / "claims.json", to_json(judge_all(summaries)))
    for claim in read_json(folder / "claims.json"):
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
    made.add_argument("--case", help="one case; without it, all of them")
    made.add_argument("--seed", type=int, help="one seed in place of the declared ones")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a parameter; with this or --seed the result goes to results/trials/, apart from the study's own",
    )
    made.add_argument("--out", type=Path, metavar="FILE.csv", help="where the rows of --case go")
    made.add_argument("--threads", type=int, help="threads of torch")
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

    made = verb("doctor", doctor)
    made.add_argument("--data-root", help="folder of the data sets (default: SECONDLOOK_DATA, or data)")
    return top


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    try:
        options.function(options)
    except Mistake as mistake:
        print(f"secondlook: {mistake}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("secondlook: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
