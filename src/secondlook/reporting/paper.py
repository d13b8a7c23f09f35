"""The paper and its supplement, filled with results, each as PDF, HTML and a source for LaTeX.

    paper.md              --fill--> Markdown --pandoc--> Typst --typst--> report.pdf      (supplement.pdf)
    supplement.md, section.md                --pandoc--> report.html                      (supplement.html)
                                             --pandoc--> latex/report.tex                 (latex/supplement.tex)

A section sees its own experiment's measures by name, `tables`, `has("case")`, and the functions below. The two documents see
every experiment's under its name, `newton_toy.gd_loss.e40`, and `claims`, `stages`, `unrecorded`, `machines`, `changed`,
`tally`, `of_kind`, `made_by`, `see`, `level` and `scale`; a section and the supplement have `csv`, and the supplement the
`sections`, too. Every reference is checked before anything is written. `pages: 14` in the first lines of a document is the most
that its PDF may have.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pypandoc
import typst

from secondlook.errors import Mistake
from secondlook.reporting import style
from secondlook.reporting.explore import explore
from secondlook.reporting.forest import forest
from secondlook.reporting.markdown import LONGEST_LINE, as_csv, table
from secondlook.reporting.overview import verdicts
from secondlook.reporting.references import check_references, numbered, own_labels
from secondlook.study.claims import VERDICTS, numbers, read_claims
from secondlook.study.experiment import Experiment, experiments
from secondlook.study.files import read, read_json, write
from secondlook.study.measures import Summary, read_summary
from secondlook.study.parameters import known_keys
from secondlook.study.records import changed_sources, parts_of, unrecorded
from secondlook.study.results import DOCUMENTS, Results
from secondlook.study.statistics import LEVEL, Estimate
from secondlook.study.tables import beside
from secondlook.study.text import fill, number

NOT_HERE = "no section in this edition"
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
FORMATS = {"typst": ".typ", "html5": ".html", "latex": ".tex"}


def build(results: Results) -> list[Path]:
    """Write the paper's own pictures, both documents and the page to explore, and return the documents' files and the page."""
    source = results.root / "report"
    claims, found, summaries = judged(results)
    draw(results, claims, found, summaries)
    origin = provenance(found, results)
    texts, tables = compose(results, claims, found, summaries, origin)
    made: dict[str, tuple[bytes | str, ...]] = {name: formats(text, source, results) for name, text in texts.items()}
    page = explore(results, claims, found, origin["stages"].to_dict("records"))
    for name, contents in made.items():
        for path, content in zip(results.document(name), contents, strict=True):
            write(path, content)
    folder = results.document("report")[2].parent
    write(folder / "references.bib", read(source / "references.bib"))
    write(folder / "latexmkrc", "$pdf_mode = 1;\n@default_files = ('report.tex', 'supplement.tex');\n")
    for drawn in sorted(set().union(*map(figures, texts.values()))):
        if drawn.endswith(".pdf"):
            write(folder / drawn, read(results.folder / drawn))
    results.tables.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        write(results.tables / name, frame.to_csv(index=False, lineterminator="\n"))
    write(results.page, page)
    return [*results.paper, results.page]


def draw(results: Results, claims: list[dict], found: list[Experiment], summaries: dict[str, Summary]) -> None:
    """Draw what no experiment can: the picture of all verdicts, and that of tuned methods on every task."""
    source = results.root / "report"
    declared = {experiment.name: experiment.measures for experiment in found}

    def find(name: str, measure: str) -> Estimate:
        waits = measure.partition(".")[0] in declared[name].keys() - summaries[name].measures.keys()
        return WAITING if waits else summaries[name].find(measure, str(source / "tuned.yaml"))

    style.apply()
    with intact(source / "tuned.yaml"):
        drawn = {"tuned": forest(source / "tuned.yaml", find)}
    with intact(results.claims):
        drawn["verdicts"] = verdicts(claims, source / "questions.yaml")
    for file in results.pictures:
        style.save(drawn[file.stem], file)
    style.plt.close("all")


def figures(text: str) -> set[str]:
    """The files of figures that a text shows, relative to the folder of results."""
    return set(re.findall(r"\]\((figures/[^)]+)\)", text))


def formats(text: str, source: Path, results: Results) -> tuple[bytes, str, str]:
    """A document as PDF, HTML and LaTeX. Raises Mistake where it has more `pages` than it says."""
    for path in map(results.folder.joinpath, figures(text)):
        for ending in (".pdf", ".svg") if path.suffix == ".pdf" else (path.suffix,):
            needed(path.with_suffix(ending), f"figure {path.parent.name}", results.scale)
    made = {to: convert(text, to, source, results.folder) for to in FORMATS}
    try:
        code: Any = made["typst"].encode()
        pdf = typst.compile(code, root=str(results.folder), ignore_system_fonts=True)
    except typst.TypstError as error:
        raise Mistake(f"typst cannot set the paper: {error.message.splitlines()[0]}") from error
    limit, found = re.match(r"---\n(?:.*\n)*?pages: (\d+)\n", text), len(re.findall(rb"/Type\s*/Page\b", pdf))
    if limit and found > int(limit[1]):
        raise Mistake(f"the paper has {found} pages, and may have {limit[1]}: shorten its text in {source}")
    return pdf, made["html5"], made["latex"]


def needed(path: Path, verb: str, scale: str = "paper") -> Path:
    """`path`, which the given verb of the command line makes."""
    if not path.is_file():
        option = "" if scale == "paper" else f" --scale {scale}"
        raise Mistake(f"{path} is missing: run 'python -m secondlook {verb}{option}' first")
    return path


def convert(text: str, to: str, source: Path, figures: Path) -> str:
    """Markdown in one of the three formats, by the templates and filters in `source`; names of images begin at `figures`. A
    warning of pandoc, such as a missing image or citation, is an error."""
    templates, filters = source / "templates", source / "filters"
    options = [
        f"--template={templates / 'paper'}{FORMATS[to]}",
        f"--lua-filter={filters / 'marks.lua'}",
        f"--lua-filter={filters / 'references.lua'}",
        f"--columns={LONGEST_LINE}",
        "--wrap=preserve",
        "--number-sections",
        "--fail-if-warnings",
    ]
    if to == "latex":
        options += ["--natbib"]
    else:
        options += ["--citeproc", f"--bibliography={source / 'references.bib'}", f"--csl={templates / 'numeric.csl'}"]
    if to == "html5":
        options += ["--mathml", "--embed-resources", f"--resource-path={figures}"]
    try:
        return pypandoc.convert_text(text, to, "markdown", options)
    except (RuntimeError, OSError) as error:
        reason = str(error).partition("conversion: ")[2] or str(error)
        raise Mistake(f"pandoc cannot set the paper: {' '.join(reason.strip().splitlines()[:2])}") from error


def compose(
    results: Results, judgements: list[dict], found: list[Experiment], summaries: dict[str, Summary], origin: dict
) -> tuple[dict[str, str], dict[str, pd.DataFrame]]:
    """Both documents as Markdown, and the tables that lie beside them as CSV; `origin` is the provenance of the rows."""
    root, scale = results.root, results.scale
    claims, apart = ([Claim(claim, where) for claim in judgements] for where in ("", "supplement"))
    sections: dict[Path, str] = {}
    tables: dict[str, pd.DataFrame] = {}
    for experiment in found:
        path, summary = experiment.folder / "section.md", summaries[experiment.name]
        seen = {**summary.measures, "tables": summary.tables, "has": present(experiment, summary.missing, path)}
        seen["csv"] = lambda frame, title, of=experiment.name: as_csv(tables, frame, f"{of}-{title}.csv")
        sections[path] = fill(read(path).decode(), {**seen, **functions(claims, path)}, str(path)).strip()
    common: dict[str, object] = {
        **by_experiment(found, summaries, results.scale),
        "tally": lambda *kinds: tally([claim for claim in claims if claim["kind"] in kinds]),
        "of_kind": lambda *kinds: sum(claim["kind"] in kinds for claim in claims),
        "made_by": lambda letter: sum(claim["id"].startswith(letter) and claim["kind"] != "promise" for claim in claims),
        "level": LEVEL,
        "scale": scale,
        **origin,
    }

    def document(name: str, claims: list[Claim], parts: dict[Path, str], **more: object) -> str:
        path = root / "report" / DOCUMENTS[name]
        text = read(path).decode()
        check_references({path: text, **parts}, root / "report" / "references.bib")
        filled = fill(text, {**common, "claims": claims, **more, **functions(claims, path)}, str(path))
        return re.sub(r"(?<=, )n = (?=\d)", "n\u00a0=\u00a0", re.sub(r"(?<=\d) %", "\u202f%", filled))

    own = [own_labels(section, path.parent.name) for path, section in sections.items()]
    labels = re.findall(r"\{#sec:([\w-]+)", "".join(own))
    more = {
        "sections": own,
        "see": lambda name: f"@sec:{name}" if name in labels else NOT_HERE,
        "csv": lambda frame, title: as_csv(tables, frame, f"{title}.csv"),
    }
    supplement = document("supplement", claims, sections, **more)
    number = numbered(supplement)

    def see(name: str) -> str:
        known_keys([name], number, f"the sections that {DOCUMENTS['report']} names")
        return f"[S{number[name]}](supplement#sec:{name})"

    report = document("report", apart, {}, see=see)
    return {"report": report, "supplement": supplement}, tables


def judged(results: Results) -> tuple[list[dict], list[Experiment], dict[str, Summary]]:
    """The claims of claims.json; the experiments in the order of their claims, as the sections stand; their summaries."""
    path = needed(results.claims, "claims", results.scale)
    claims = read_claims(path)
    with intact(path):
        order = list(dict.fromkeys(claim["experiment"] for claim in claims))
    found = {experiment.name: experiment for experiment in experiments(results.root)}
    if found.keys() != set(order):
        raise Mistake(f"{path} is not of today's experiments: run 'python -m secondlook claims' again")
    summaries = {name: read_summary(needed(results.summary(name), f"summarise {name}", results.scale)) for name in order}
    return claims, [found[name] for name in order], summaries


def by_experiment(found: list[Experiment], summaries: dict[str, Summary], scale: str) -> dict[str, dict]:
    """What a text sees of every experiment under its name. A measure whose case waits for its run is n/a, and so is, in a trial
    at another scale than the paper's, a number of a measure that the trial is too small to have."""
    kind = dict if scale == "paper" else Trial

    def seen(measure: Estimate | dict[str, Estimate]) -> Estimate | dict[str, Estimate]:
        return measure if isinstance(measure, Estimate) else kind(measure)

    return {
        experiment.name: {
            **dict.fromkeys(experiment.measures, WAITING),
            **{name: seen(measure) for name, measure in summaries[experiment.name].measures.items()},
            "tables": summaries[experiment.name].tables,
            "has": present(experiment, summaries[experiment.name].missing, experiment.folder),
        }
        for experiment in found
    }


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Whatever is found wrong with the contents of `path` is one line."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{path} is damaged: make it again") from error


class Waiting(Estimate):
    """A measure whose case waits for its run, and every part of it: in a text, n/a."""

    def __getattr__(self, name: str) -> "Waiting":
        if name.startswith("_"):
            raise AttributeError(name)
        return self


WAITING = Waiting(math.nan)


class Trial(dict):
    """The numbers of a measure at a small scale: those that it lacks are n/a."""

    def __missing__(self, name: str) -> Waiting:
        return WAITING


class Claim(dict):
    """A claim of claims.json with its texts as Markdown. In a text `claim("A1")` is a link to its row, `.why` its reason. The
    row stands in the document called `where`, or else in the same."""

    def __init__(self, claim: dict, where: str = "") -> None:
        self.where = where
        texts = {key: claim[key] for key in ("statement", "stated", "band", "bands", "why", "source")}
        texts |= {"numbers": numbers(claim)}
        escaped = {key: re.sub(r"([\\`*_{}\[\]<>$|@#^~])", r"\\\1", text) for key, text in texts.items()}
        super().__init__(claim, **{key: text.replace(r"\<br\>", "<br>") for key, text in escaped.items()})

    def __str__(self) -> str:
        return f"[{self['id']}]({self.where}#claim:{self['id']})"


def functions(claims: list[Claim], path: Path) -> dict[str, Callable]:
    """What the text at `path` may call."""
    named = {claim["id"]: claim for claim in claims}

    def claim(name: str) -> Claim:
        known_keys([name], named, f"the claims that {path} names")
        return named[name]

    def many(word: str, *names: str) -> str:
        """How many of these claims have this verdict, in words."""
        return WORDS[sum(claim(name)["verdict"] == word for name in names)]

    return {
        "claim": claim,
        "verdict": lambda name: f"[{claim(name)['verdict']}]{{.verdict}}",
        "many": many,
        "side": side,
        "saved": saved,
        "table": table,
    }


def saved(found: Estimate) -> Estimate:
    """A difference with the other sign: what is saved, where less is better."""
    low, high = found.ends
    return Estimate(-found.value, -high, -low, found.n)


def side(found: Estimate, above: str, below: str, neither: str) -> str:
    """The words for where an interval lies: above zero, below it, or on neither side."""
    low, high = found.ends
    return above if low > 0 else below if high < 0 else neither


def present(experiment: Experiment, missing: tuple[str, ...], path: Path) -> Callable:
    """`has("case")` of the section at `path`: whether there are results of the case, or it is unrecorded."""

    def has(case: str) -> bool:
        known_keys([case], experiment.cases, str(path), "case")
        return case not in missing

    return has


def tally(claims: Sequence[dict]) -> str:
    """How often each verdict was given: 3 reproduced, 1 partly and 2 artefact."""
    counts = Counter(claim["verdict"] for claim in claims)
    parts = [f"{counts[verdict]} [{verdict}]{{.verdict}}" for verdict in VERDICTS if counts[verdict]] or ["none"]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def provenance(found: list[Experiment], results: Results) -> dict:
    """Who made the rows: a table of stages, a table of the machines that they name, and what code has changed since; and the
    stages that have no rows."""
    stages, left_out = [], []
    machines: dict[tuple[str, ...], str] = {}
    changed: dict[str, list[str]] = {}
    for experiment, case in [(each, case) for each in found for case in each.cases]:
        name = f"{experiment.name}/{case}"
        if unrecorded(results, experiment.setting(case, results.scale)):
            left_out.append(f"`{name}`")
            continue
        path = needed(beside(results.raw(name)), f"run {experiment.name}", results.scale)
        record = read_json(path)
        with intact(path):
            versions = ", ".join(f"{package} {text}" for package, text in record["versions"].items() if text)
            machine = (record["device"], record["processor"], str(record["threads"]), versions)
            seeds = record["settings"]["seeds"]
            data = [of["origin"] for of in record.get("data", {}).values()]
            if stale := changed_sources(experiment, record):
                changed.setdefault(", ".join(stale), []).append(name)
            row = {
                "Stage": name + "†" * bool(stale),
                "Commit": " and ".join(dict.fromkeys(_commit(part) for part in parts_of(record))),
                "Machine": machines.setdefault(machine, f"M{len(machines) + 1}"),
                "Seeds": f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}",
                "Time": f"{number(record['wall_s'], 2)} s",
                "Memory": f"{record['peak_memory_mib']:,} MiB",
                "Origin": "; ".join(["recorded" if record.get("recorded") else "computed", *data]),
            }
        stages.append(row)
    columns = ("Device", "Processor", "Threads", "Versions")
    listed = [{"": name, **dict(zip(columns, machine, strict=True))} for machine, name in machines.items()]
    since = [{"Stages": ", ".join(names), "Changed since": files} for files, names in changed.items()]
    return {
        "stages": pd.DataFrame(stages),
        "unrecorded": left_out,
        "machines": pd.DataFrame(listed),
        "changed": pd.DataFrame(since),
    }


def _commit(record: dict) -> str:
    """The commit of a run, with a plus where its code differed."""
    return (record["commit"] or "unknown")[:7] + "+" * bool(record["dirty"])
