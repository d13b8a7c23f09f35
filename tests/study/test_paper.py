"""The paper is built from results alone: complete, self-contained, the same bytes each time, or one line that says why not."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from conftest import ROOT

from secondlook.errors import Mistake
from secondlook.reporting import paper, readme, style
from secondlook.study.experiment import Experiment
from secondlook.study.files import to_json
from secondlook.study.measures import Summary, to_plain
from secondlook.study.records import provenance
from secondlook.study.results import Results
from secondlook.study.statistics import Estimate

PAPER = """---
title: A paper
author: Its author
pages: 2
---

# Summary

![All.](figures/verdicts.pdf){#fig:verdicts}

![Tuned.](figures/tuned.pdf){#fig:tuned}

<< claim("A1") >> is << verdict("A1") >>, << many("not reproduced", "A1") >> of one, at << toy.loss.start | interval >>: << see("toy") >>
and @fig:verdicts. It is << side(toy.loss.start, "above", "below", "neither") >>.
"""

SUPPLEMENT = """---
title: A supplement
author: Its author
prefix: S
abstract: |
  Found: << tally("document") >> of << of_kind("document") >>; << tally("promise") >> of << of_kind("promise") >>. << claim("A1").why >>
---

# Verdicts

<% for c in claims %>
[<< c.id >>]{#claim:<< c.id >>} << c.statement >> << c.numbers >> << verdict(c.id) >>
<% endfor %>

<% for section in sections %>
<< section >>

<% endfor %>

# References {-}

::: {#refs}
:::

# Provenance {#sec:provenance .unnumbered}

<< table(stages) >>

: Stages. {#tbl:stages}

<< table(machines) >>

: Machines. {#tbl:machines}
"""

FIGURES = '''from secondlook.study.declare import figure


@figure()
def line(rows):
    """Shows: a line."""
'''
DECLARED = to_json(
    [
        {
            **{name: "x" for name in ("source", "statement", "stated", "bands")},
            **{"id": name, "kind": "document", "evidence": "original", "figure": "line"},
            "measured": [{"quantity": "loss", "unit": "bits", "measure": "loss.start"}],
            "checks": {
                "loss": {"measure": "loss.start", "between": [0.09, 0.11]},
                "off": {"measure": "loss.start", "outside": [0.09, 0.11]},
            },
            "verdicts": [
                {"verdict": "reproduced", "when": ["loss"], "why": "x"},
                {"verdict": "not reproduced", "any": ["off"], "why": "x"},
                {"verdict": "undecided", "why": "x"},
            ],
        }
        for name in ("A1", "F1")
    ]
)

TUNED = "- {experiment: toy, task: a toy, unit: bits, sign: -1, cost: loss.end, in: times, less: {SGD: loss.start}}\n"

SECTION = r"""# Toy {#sec:toy}

The loss is << loss.end | number(3) >> after << loss.start | interval >>, claim << claim("A1") >> is << verdict("A1") >> [@yao2021adahessian].
See @fig:toy, [@tbl:toy; @eq:toy], @sec:detail and @sec:provenance.

$$ \theta_{t+1} = \theta_t - H^{-1} g_t $$ {#eq:toy}

![A line.](figures/toy/line.pdf){#fig:toy}

<< table(tables.losses) >>

: Losses. {#tbl:toy}

## Detail {#sec:detail}

Done. All rows: << csv(tables.losses, "losses") >>.
"""

CLAIM = {
    "id": "A1",
    "experiment": "toy",
    "statement": "A loss of 0.1 * | [not a link] $x$ <b>",
    "source": "a document",
    "kind": "document",
    "evidence": "original",
    "stated": "0.1",
    "band": "",
    "bands": "before the runs",
    "measured": [
        {"quantity": "loss", "unit": "bits", "value": 0.125, "low": 0.12, "high": 0.13, "n": 20, "coverage": None},
        {"quantity": "a share", "unit": "%", "value": 3, "low": None, "high": None, "n": 1, "coverage": None},
    ],
    "question": "scale",
    "short": "a loss of 0.1",
    "checks": {
        "loss": {"measure": "loss.start", "value": 0.125, "low": 0.12, "high": 0.13, "between": [0.09, 0.11], "holds": False}
    },
    "figure": None,
    "command": "snakemake toy --cores 2",
    "needs": ["loss"],
    "verdict": "not reproduced",
    "why": "It is 0.125.",
}


@pytest.fixture(scope="module")
def drawing():
    """A figure as the bytes of its two files."""
    with TemporaryDirectory() as folder:
        paths = {ending: Path(folder) / f"line.{ending}" for ending in ("pdf", "svg")}
        style.apply()
        figure, ax = style.axes(height=1)
        ax.plot([0, 1])
        for path in paths.values():
            style.save(figure, path)
        style.plt.close(figure)
        return {ending: path.read_bytes() for ending, path in paths.items()}


@pytest.fixture
def project(tmp_path, drawing):
    """A project of one experiment with its results, and the real templates."""
    for name in ("templates", "filters", "references.bib", "questions.yaml"):
        (tmp_path / "report").mkdir(exist_ok=True)
        (tmp_path / "report" / name).symlink_to(ROOT / "report" / name)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    results = tmp_path / "results"
    losses = pd.DataFrame({"epoch": [0, 40], "loss": [0.125, 2.6e-7], "note": ["start", "*end*"]})
    summary = Summary({"loss": {"start": Estimate(0.125, 0.12, 0.13, 20), "end": Estimate(2.6e-7)}}, {"losses": losses})
    files = {
        "report/paper.md": PAPER,
        "report/supplement.md": SUPPLEMENT,
        "report/tuned.yaml": TUNED,
        "experiments/toy/config.yaml": "title: Toy\ncases: {only: {seeds: {first: 0, count: 20}}}\n",
        "experiments/toy/experiment.py": "",
        "experiments/toy/figures.py": FIGURES,
        "experiments/toy/measures.py": "",
        "experiments/toy/claims.yaml": DECLARED,
        "experiments/toy/section.md": SECTION,
        "results/claims.json": to_json([CLAIM]),
        "results/summary/toy.json": to_json(to_plain(summary)),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    experiment = Experiment(tmp_path, "toy")
    record = provenance(experiment, experiment.setting("only"), 1.25, commit="0123456789abcdef") | {"rows": 1640}
    (results / "raw" / "toy").mkdir(parents=True)
    (results / "raw" / "toy" / "only.json").write_text(to_json(record), encoding="utf-8")
    (results / "figures" / "toy").mkdir(parents=True)
    for ending, data in drawing.items():
        (results / "figures" / "toy" / f"line.{ending}").write_bytes(data)
    return tmp_path


def build(project):
    """The files of the paper and of its supplement: PDF, HTML and LaTeX of each."""
    return paper.build(Results(project))[:6]


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html[html.index("</style>") :]))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_supplement_is_complete(project):
    *_, pdf, html, tex = build(project)
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 10_000
    html, tex = html.read_text(encoding="utf-8"), tex.read_text(encoding="utf-8")
    text = plain(html)
    assert "The loss is 2.60×10−7 after 0.125 [0.120, 0.130], claim A1 is not reproduced [1]." in text
    assert "See Figure S1, Table S1 and Equation S1, Section S2.1 and Provenance." in text
    assert "Found: 1 not reproduced of 1; none of 0. It is 0.125." in text
    assert "A loss of 0.1 * | [not a link] $x$ &lt;b&gt; loss: 0.1250 [0.1200, 0.1300] bits, n = 20 a share: 3 %, n = 1" in text
    assert "Table S1. Losses." in text and "Figure S1. A line." in text
    assert "toy/only 0123456 M1 0 to 19" in text
    assert "Zhewei Yao" in text
    for made in (html, tex):
        assert not re.search(r"\?\?|@(fig|tbl|eq|sec):|<<|>>", made)
    assert r"Figure~\ref*{fig:toy:toy}" in tex and r"\begin{equation}\label{eq:toy:toy}" in tex
    assert r"\citep{yao2021adahessian}" in tex and r"\bibliography{references}" in tex


def test_the_paper_leads_to_its_supplement(project):
    _, html, tex, *_ = build(project)
    assert "A1 is not reproduced, one of one, at 0.125 [0.120, 0.130]: S2 and Figure 1. It is above." in plain(
        html.read_text(encoding="utf-8")
    )
    assert 'href="supplement.html#claim:A1"' in html.read_text(
        encoding="utf-8"
    ) and 'href="supplement.html#sec:toy"' in html.read_text(encoding="utf-8")
    assert r"\href{supplement.pdf}{A1}" in tex.read_text(encoding="utf-8")


def test_a_table_lies_beside_the_supplement(project):
    html = build(project)[4].read_text(encoding="utf-8")
    assert 'href="tables/toy-losses.csv"' in html
    assert (project / "results/report/tables/toy-losses.csv").read_text(
        encoding="utf-8"
    ) == "epoch,loss,note\n0,0.125,start\n40,2.6e-07,*end*\n"


def test_a_paper_has_no_more_pages_than_it_says(project):
    more = "`#pagebreak()`{=typst} A `#pagebreak()`{=typst} B"
    change(project / "report" / "paper.md", "and @fig:verdicts", f"and @fig:verdicts {more}")
    with pytest.raises(Mistake, match=r"the paper has \d pages, and may have 2: shorten"):
        build(project)
    assert not (project / "results" / "report").exists()


def test_the_html_pages_need_no_other_file_but_one_another(project):
    _, html, _, _, supplement, _ = build(project)
    labels = {page.name: set(re.findall(r'id="([^"]*)"', page.read_text(encoding="utf-8"))) for page in (html, supplement)}
    for page in (html, supplement):
        targets = re.findall(r'(?:src|href)="([^"]*)"', page.read_text(encoding="utf-8"))
        for document, place in (target.split("#") for target in targets if not target.startswith(("data:", "tables/"))):
            assert place in labels[document or page.name]


def test_same_results_give_the_same_bytes(project):
    first = [path.read_bytes() for path in build(project)]
    assert [path.read_bytes() for path in build(project)] == first


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="latexmk is not installed")
def test_latexmk_builds_the_folder(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere") / "latex"
    shutil.copytree(build(project)[2].parent, folder)
    done = subprocess.run(["latexmk", "-pdf", "-interaction=nonstopmode"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    for name in ("report", "supplement"):
        assert not re.search(r"undefined|multiply defined", (folder / f"{name}.log").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@fig:toy", "@fig:tory", r"unknown key 'fig:tory' in the references of .*section\.md: did you mean 'fig:toy'"),
        ("@yao2021adahessian", "@yao2012", r"unknown key 'yao2012' in the references of .*section\.md"),
        ("loss.end", "loss.middle", r"section\.md: .*no attribute 'middle'"),
        ("tables.losses", "tables.loss", r"section\.md: .*no attribute 'loss'"),
        ('verdict("A1")', 'verdict("A2")', r"unknown key 'A2' in the claims that .*section\.md names: known are A1"),
        ("{#sec:detail}", "{#sec:toy}", r"the label 'sec:toy' of .*section\.md is also in .*section\.md"),
        ("line.pdf", "curve.pdf", r"curve\.\w+ is missing: run 'python -m secondlook figure toy' first"),
        ("H^{-1} g_t", r"\nonsense{g_t", "pandoc cannot set the paper: .*WARNING"),
    ],
)
def test_what_a_section_must_not_say(project, old, new, message):
    change(project / "experiments" / "toy" / "section.md", old, new)
    with pytest.raises(Mistake, match=message):
        build(project)
    assert not (project / "results" / "report").exists()


@pytest.mark.parametrize(
    ("name", "verb"), [("claims.json", "claims"), ("summary/toy.json", "summarise toy"), ("raw/toy/only.json", "run toy")]
)
def test_what_is_missing_is_named(project, name, verb):
    shutil.copytree(project / "results", project / "results" / "smoke")
    (project / "results" / "smoke" / name).unlink()
    with pytest.raises(Mistake, match=rf"{name} is missing: run 'python -m secondlook {verb} --scale smoke' first"):
        paper.build(Results(project, "smoke"))


@pytest.mark.parametrize("name", ["claims.json", "summary/toy.json", "raw/toy/only.json"])
def test_what_is_damaged_is_named(project, name):
    (project / "results" / name).write_text("[1]", encoding="utf-8")
    with pytest.raises(Mistake, match=rf"{name} is damaged: make it again"):
        build(project)


def test_two_sections_may_use_the_same_labels(project):
    """As of an experiment that was copied: only the names of its section and of its claims must differ."""
    copy = project / "experiments" / "twin"
    shutil.copytree(project / "experiments" / "toy", copy)
    for name in ("raw", "figures"):
        shutil.copytree(project / "results" / name / "toy", project / "results" / name / "twin")
    shutil.copy(project / "results" / "summary" / "toy.json", project / "results" / "summary" / "twin.json")
    (project / "results" / "claims.json").write_text(
        to_json([CLAIM, CLAIM | {"id": "B1", "experiment": "twin"}]), encoding="utf-8"
    )
    with pytest.raises(Mistake, match=r"the label 'sec:toy' of .*twin/section\.md is also in .*toy/section\.md"):
        build(project)
    for old, new in {"sec:toy": "sec:twin", "sec:detail": "sec:more", "figures/toy": "figures/twin"}.items():
        change(copy / "section.md", old, new)
    text = plain(build(project)[4].read_text(encoding="utf-8"))
    assert "See Figure S1, Table S1 and Equation S1, Section S2.1 and Provenance." in text
    assert "See Figure S2, Table S2 and Equation S2, Section S3.1 and Provenance." in text


def test_an_experiment_without_verdicts_is_noticed(project):
    shutil.copytree(project / "experiments" / "toy", project / "experiments" / "toy_two")
    with pytest.raises(Mistake, match="claims.json is not of today's experiments"):
        build(project)


def test_a_fault_of_typst_is_one_line(project):
    change(project / "experiments" / "toy" / "section.md", "Done.", "`#nonsense`{=typst}")
    with pytest.raises(Mistake, match="typst cannot set the paper: unknown variable: nonsense"):
        build(project)


def test_changed_sources_are_flagged(project):
    (project / "experiments" / "toy" / "experiment.py").write_text("changed = True\n", encoding="utf-8")
    assert "toy/only†" in build(project)[4].read_text(encoding="utf-8")


def test_tables_wrap_their_longest_columns_only():
    frame = pd.DataFrame({"n": [1, 20], "share": [0.5, None], "note": ["a|b", "word " * 40]})
    header, rule, first, _ = paper.table(frame).splitlines()
    assert header.split() == ["|", "n", "|", "share", "|", "note", "|"]
    assert first == r"| 1 | 0.500 | a\|b |"
    assert re.fullmatch(r"\| -+: \| -+: \| :-+ \|", rule) and rule.count("-") == paper.LONGEST_LINE


def test_the_references_of_the_real_paper_resolve():
    sections = sorted(ROOT.glob("experiments/*/section.md"))
    for document in ([ROOT / "report" / "paper.md"], [ROOT / "report" / "supplement.md", *sections]):
        paper.check_references(
            {path: path.read_text(encoding="utf-8") for path in document}, ROOT / "report" / "references.bib"
        )


def test_what_the_real_paper_finds_comes_from_results():
    """Summary, findings and advice hold no decimal and no percentage that somebody typed."""
    text = (ROOT / "report" / "paper.md").read_text(encoding="utf-8")
    told = text[text.index("**Scope.**") : text.index("# Methods")]
    typed = re.sub(r"<<.*?>>|<%.*?%>|\$.*?\$|\[@.*?\]", "", told, flags=re.DOTALL)
    assert not re.findall(r"\d+\.\d+|\d+ ?%", typed)


README = """# Title

<!-- found:begin -->
old
<!-- found:end -->

The end.
"""


@pytest.fixture
def shown(project):
    """The same with a README.md, its texts, and its picture."""
    for name, text in {
        "README.md": README,
        "report/found.md": 'A loss of << toy.loss.start | interval >>: << claim("A1") >>.\n',
        "report/verdicts.md": "# Verdicts\n\n<< verdicts >>",
        "results/figures/verdicts.svg": "<svg/>",
    }.items():
        (project / name).write_text(text, encoding="utf-8")
    return project


def test_the_readme_is_renewed(shown):
    path = shown / "README.md"
    assert readme.update(Results(shown)) == f"{path}: 1 verdicts"
    text = path.read_text(encoding="utf-8")
    assert "A loss of 0.125 [0.120, 0.130]: [A1](VERDICTS.md#claim:A1).\n" in text and "old" not in text
    assert text.startswith("# Title") and text.endswith("The end.\n")
    assert '<a id="claim:A1"></a>A1 | A loss of 0.1' in (shown / "VERDICTS.md").read_text(encoding="utf-8")
    assert (shown / "report" / "readme" / "verdicts.svg").read_text(encoding="utf-8") == "<svg/>"
    readme.update(Results(shown))
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("README.md", "<!-- found:begin -->", "", r"README\.md lacks the line '<!-- found:begin -->'"),
        ("README.md", "<!-- found:end -->", "", r"README\.md lacks the line '<!-- found:end -->'"),
        ("report/found.md", "A1", "A2", r"unknown key 'A2' in the claims that .*found\.md names: known are A1"),
        ("report/found.md", "loss.start", "loss.middle", r"found\.md: .*no attribute 'middle'"),
    ],
)
def test_what_a_readme_must_hold(shown, name, old, new, message):
    change(shown / name, old, new)
    before = (shown / "README.md").read_text(encoding="utf-8")
    with pytest.raises(Mistake, match=message):
        readme.update(Results(shown))
    assert (shown / "README.md").read_text(encoding="utf-8") == before and not (shown / "VERDICTS.md").exists()


def test_a_readme_without_its_picture_is_not_renewed(shown):
    (shown / "results" / "figures" / "verdicts.svg").unlink()
    with pytest.raises(Mistake, match=r"verdicts\.svg is missing: run 'python -m secondlook report' first"):
        readme.update(Results(shown))


class Page(HTMLParser):
    """What the page to explore holds: each claim with its texts, its targets, and the figures that it carries."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.claims: dict[str, list[str]] = {}
        self.given: list[dict] = []
        self.targets: list[str] = []
        self.figures: dict[str, str] = {}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.targets += [found[name] for name in ("src", "href") if name in found]
        if tag == "details":
            self.given.append(found)
            self.claims[found["id"]] = []
        self.inside = found.get("id", "") if tag == "script" else self.inside

    def handle_data(self, text):
        if self.inside == "figures":
            self.figures = json.loads(text)
            self.inside = ""
        elif self.claims:
            self.claims[self.given[-1]["id"]] += [" ".join(text.split())]


def test_the_page_to_explore_holds_every_claim_with_its_evidence(project):
    claims = [
        CLAIM | {"figure": "toy/line"},
        CLAIM | {"id": "F1", "kind": "promise", "question": "", "source": "this study, </script>"},
    ]
    (project / "results" / "claims.json").write_text(to_json(claims), encoding="utf-8")
    build(project)
    page = Page((project / "results" / "report" / "index.html").read_text(encoding="utf-8"))
    assert set(page.targets) == {"report.html", "supplement.html"}  # it needs no other file, only leads to them
    assert [(found["id"], found["data-verdict"], found["data-kind"]) for found in page.given] == [
        ("A1", "not reproduced", "a document"),
        ("F1", "not reproduced", "this study"),
    ]
    told = " ".join(page.claims["A1"])
    for text in (
        CLAIM["statement"], CLAIM["why"], "0.1", "loss: 0.1250 [0.1200, 0.1300] bits, n = 20", "reproduced, if loss",
        "not reproduced, if one of off", "loss loss.start 0.125 [0.120, 0.130] between 0.09 and 0.11 no", "toy/only: commit 0123456",
        "snakemake toy --cores 2",
    ):  # fmt: skip
        assert text in re.sub(r" +", " ", told), text
    assert set(page.figures) == {"toy/line"} and page.figures["toy/line"].startswith("<?xml")
    assert "this study, </script>" in " ".join(page.claims["F1"])
