"""The paper: report/paper.md and the experiments' sections, filled with results, as PDF, HTML and a folder for LaTeX.

    paper.md, section.md --fill--> one Markdown text --pandoc--> Typst --typst--> report.pdf
                                                     --pandoc--> report.html
                                                     --pandoc--> latex/report.tex

A section sees its own experiment's measures by name, `tables`, `has("case")`, and the functions below; paper.md sees `claims`,
`sections`, `stages`, `unrecorded`, `machines`, `changed`, `tally`, `of_kind`, `judged`, `see`, `level` and `scale`. Every
reference is checked before anything is written.
"""

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
from secondlook.study.claims import VERDICTS, numbers
from secondlook.study.experiment import Experiment, experiments
from secondlook.study.files import read, read_json, write
from secondlook.study.measures import read_summary
from secondlook.study.parameters import known_keys
from secondlook.study.records import changed_sources, parts_of, unrecorded
from secondlook.study.results import Results
from secondlook.study.statistics import LEVEL
from secondlook.study.tables import beside
from secondlook.study.text import fill, number

NOT_HERE = "no section in this edition"
LONGEST_LINE = 110  # characters of a table's row; a longer row makes the table as wide as the text, and its cells wrap
NUMERIC = re.compile(r"[-−+\d.,;×⁻⁰¹²³⁴⁵⁶⁷⁸⁹ %∞\[\]]+|–|n/a")
LABEL = r"\{#([\w:-]+)"
OWN_LABEL = r"\{#((?:fig|tbl|eq):[\w:-]+)"  # in a section: of its experiment alone
FORMATS = {"typst": ".typ", "html5": ".html", "latex": ".tex"}


def build(results: Results) -> list[Path]:
    """Write the paper and return its files: the PDF, the HTML page and the LaTeX source."""
    source = results.root / "report"
    text, bibliography = compose(results), read(source / "references.bib")
    figures = {name: results.folder / name for name in dict.fromkeys(re.findall(r"\]\((figures/[^)]+)\)", text))}
    for path in figures.values():
        for ending in (".pdf", ".svg") if path.suffix == ".pdf" else (path.suffix,):
            needed(path.with_suffix(ending), f"figure {path.parent.name}", results.scale)
    made = {to: convert(text, to, source, results.folder) for to in FORMATS}
    try:
        code: Any = made["typst"].encode()
        pdf = typst.compile(code, root=str(results.folder), ignore_system_fonts=True)
    except typst.TypstError as error:
        raise Mistake(f"typst cannot set the paper: {error.message.splitlines()[0]}") from error
    report, page, source = results.paper
    write(source, made["latex"])
    write(source.with_name("references.bib"), bibliography)
    write(source.with_name("latexmkrc"), "$pdf_mode = 1;\n@default_files = ('report.tex');\n")
    for name, path in figures.items():
        if path.suffix == ".pdf":
            write(source.parent / name, read(path))
    write(page, made["html5"])
    write(report, pdf)
    return results.paper


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


def compose(results: Results) -> str:
    """The whole paper as Markdown: its sections in the order of their claims."""
    root, scale = results.root, results.scale
    path = needed(results.claims, "claims", scale)
    with intact(path):
        claims = [Claim(claim) for claim in read_json(path)]
    found = {experiment.name: experiment for experiment in experiments(root)}
    order = list(dict.fromkeys(claim["experiment"] for claim in claims))
    if found.keys() != set(order):
        raise Mistake(f"{path} is not of today's experiments: run 'python -m secondlook claims' again")
    sections = {}
    for name in order:
        path = found[name].folder / "section.md"
        summary = read_summary(needed(results.summary(name), f"summarise {name}", scale))
        has = present(found[name], summary.missing, path)
        values: dict[str, object] = {**summary.measures, "tables": summary.tables, "has": has, **functions(claims, path)}
        sections[path] = fill(read(path).decode(), values, str(path)).strip()
    own = {path: own_labels(section, path.parent.name) for path, section in sections.items()}
    path = root / "report" / "paper.md"
    text = read(path).decode()
    check_references({path: text, **sections}, root / "report" / "references.bib")
    values = {
        "claims": claims,
        "sections": list(own.values()),
        "tally": lambda *kinds: tally([claim for claim in claims if claim["kind"] in kinds]),
        "of_kind": lambda *kinds: sum(claim["kind"] in kinds for claim in claims),
        "judged": lambda letter: sum(claim["id"].startswith(letter) for claim in claims),
        "see": lambda name: f"@sec:{name}" if f"{{#sec:{name}}}" in "".join(sections.values()) else NOT_HERE,
        "level": LEVEL,
        "scale": scale,
        **provenance([found[name] for name in order], results),
        **functions(claims, path),
    }
    return re.sub(r"(?<=\d) %", "\u202f%", fill(text, values, str(path)))


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Whatever is found wrong with the contents of `path` is one line."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{path} is damaged: make it again") from error


class Claim(dict):
    """A claim of claims.json with its texts as Markdown. In a text `claim("A1")` is a link to its row, `.why` its reason."""

    def __init__(self, claim: dict) -> None:
        texts = {key: claim[key] for key in ("statement", "stated", "band", "bands", "why", "source")}
        texts |= {"numbers": numbers(claim)}
        escaped = {key: re.sub(r"([\\`*_{}\[\]<>$|@#^~])", r"\\\1", text) for key, text in texts.items()}
        super().__init__(claim, **{key: text.replace(r"\<br\>", "<br>") for key, text in escaped.items()})

    def __str__(self) -> str:
        return f"[{self['id']}](#claim:{self['id']})"


def functions(claims: list[Claim], path: Path) -> dict[str, Callable]:
    """What the text at `path` may call."""
    named = {claim["id"]: claim for claim in claims}

    def claim(name: str) -> Claim:
        known_keys([name], named, f"the claims that {path} names")
        return named[name]

    return {"claim": claim, "verdict": lambda name: f"[{claim(name)['verdict']}]{{.verdict}}", "table": table}


def present(experiment: Experiment, missing: tuple[str, ...], path: Path) -> Callable:
    """`has("case")` of the section at `path`: whether there are results of the case, or it is unrecorded."""

    def has(case: str) -> bool:
        known_keys([case], experiment.cases, str(path), "case")
        return case not in missing

    return has


def table(frame: pd.DataFrame) -> str:
    """A table in Markdown. Cells may hold Markdown; columns of numbers stand at the right. Where a row is too long, headers
    wrap first, then the longest cells."""
    header = [str(name) for name in frame.columns]
    rows = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) + 3 for column in columns]
    if sum(widths) > LONGEST_LINE:
        widths = [max(map(len, [*name.split(), *cells])) + 3 for name, *cells in columns]
        header[-1] = header[-1].ljust(LONGEST_LINE)
    widest = max(widths, default=0)
    while sum(min(width, widest) for width in widths) > LONGEST_LINE:
        widest -= 1
    rules = []
    for (_, *cells), width in zip(columns, widths, strict=True):
        rule = "-" * min(width, widest)
        rules.append(f"{rule}:" if all(map(NUMERIC.fullmatch, cells)) else f":{rule}")
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *rows))


def cell(value: object) -> str:
    """A value as a table shows it: a missing one as a dash, a fraction with three digits."""
    if not isinstance(value, str) and pd.isna(value):
        return "–"
    text = number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def tally(claims: Sequence[dict]) -> str:
    """How often each verdict was given: 3 reproduced, 1 partly and 2 artefact."""
    counts = Counter(claim["verdict"] for claim in claims)
    parts = [f"{counts[verdict]} [{verdict}]{{.verdict}}" for verdict in VERDICTS if counts[verdict]] or ["none"]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def own_labels(section: str, experiment: str) -> str:
    """`section` with the labels of its figures, tables and equations in the experiment's name, and the references to them:
    two experiments may each have a {#fig:losses}, which are fig:one:losses and fig:two:losses in the paper."""
    own = set(re.findall(OWN_LABEL, section))

    def named(found: re.Match) -> str:
        kind, _, name = found[2].partition(":")
        return f"{found[1]}{kind}:{experiment}:{name}" if found[2] in own else found[0]

    return re.sub(r"((?<![\w\\])@|\{#|\(#)([\w:-]*\w)", named, section)


def check_references(texts: dict[Path, str], bibliography: Path) -> None:
    """Every @name must be a label of its own text, one that belongs to no section alone, or a key of the bibliography. No text
    may give a label twice, nor two texts the same one of a section."""
    shared = {name: path for path, text in texts.items() if path.name == "paper.md" for name in re.findall(LABEL, text)}
    own: dict[Path, set[str]] = {}
    for path, text in texts.items():
        own[path] = set()
        for name in re.findall(LABEL, text):
            if name in own[path] or (name.startswith("sec:") and shared.setdefault(name, path) != path):
                raise Mistake(f"the label '{name}' of {path} is also in {path if name in own[path] else shared[name]}")
            own[path].add(name)
    known = [*shared, *re.findall(r"^@\w+\{([^,\s]+),", read(bibliography).decode(), re.MULTILINE)]
    for path, text in texts.items():
        names = re.findall(r"(?<![\w\\])@([\w:-]*\w)", text)
        known_keys(names, [*own[path], *known], f"the references of {path}")


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
            if stale := changed_sources(experiment, record):
                changed.setdefault(", ".join(f"`{file}`" for file in stale), []).append(name)
            row = {
                "Stage": name + "†" * bool(stale),
                "Commit": " and ".join(dict.fromkeys(_commit(part) for part in parts_of(record))),
                "Machine": machines.setdefault(machine, f"M{len(machines) + 1}"),
                "Seeds": f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}",
                "Time": f"{number(record['wall_s'], 2)} s",
                "Memory": f"{record['peak_memory_mib']:,} MiB",
                "Origin": "recorded" if record.get("recorded") else "computed",
                "Data": "; ".join(of["origin"] for of in record.get("data", {}).values()) or None,
            }
        stages.append(row)
    columns = ("Device", "Processor", "Threads", "Versions")
    listed = [{"": name, **dict(zip(columns, machine, strict=True))} for machine, name in machines.items()]
    since = [{"Stages": ", ".join(names), "Changed since": files} for files, names in changed.items()]
    return {
        "stages": pd.DataFrame(stages).dropna(axis="columns", how="all"),
        "unrecorded": left_out,
        "machines": pd.DataFrame(listed),
        "changed": pd.DataFrame(since),
    }


def _commit(record: dict) -> str:
    """The commit of a run, with a plus where its code differed."""
    return (record["commit"] or "unknown")[:7] + "+" * bool(record["dirty"])
