"""Where results are: the layout of results/, which nothing else spells out.

results/                            of scale paper; results/smoke/ holds the same of scale smoke
  raw/<experiment>/<case>.csv       the rows of a stage, computed here or imported; .json beside them is their record
  summary/<experiment>.json         the numbers that claims and text quote
  figures/<experiment>/<name>.*     figures
  claims.json                       verdicts
  figures/verdicts.*, tuned.*       what the paper draws itself: all verdicts, and tuned methods on every task
  report/                           the paper, report.*, and its supplement, supplement.*: .pdf, .html, latex/*.tex
  report/index.html                 a page to explore all claims
  report/tables/                    tables that they link to, as CSV
  readme.done                       README.md and VERDICTS.md show these verdicts
  logs/                             what each job of the workflow said
results/recorded/                   tracked: rows of stages that take long or need hardware, with their records
results/trials/                     runs with settings of one's own
"""

from dataclasses import dataclass
from pathlib import Path

SCALES = ("paper", "smoke")
DOCUMENTS = {"report": "paper.md", "supplement": "supplement.md"}  # name in results/report/, and text in report/

PICTURES = ("verdicts", "tuned")


@dataclass(frozen=True)
class Results:
    """The results of the project at `root`, of one scale. A stage is named <experiment>/<case>."""

    root: Path = Path()
    scale: str = "paper"

    @property
    def folder(self) -> Path:
        top = self.root / "results"
        return top if self.scale == "paper" else top / self.scale

    def raw(self, stage: str) -> Path:
        """The rows of a stage."""
        return self.folder / "raw" / f"{stage}.csv"

    @property
    def recorded_folder(self) -> Path:
        return self.root / "results" / "recorded"

    def recorded(self, stage: str) -> Path:
        """The recorded rows of a stage. They are of scale paper."""
        return self.recorded_folder / f"{stage}.csv"

    def trial(self, stage: str, digest: str) -> Path:
        """The rows of a stage with settings of one's own, which have this digest."""
        return self.root / "results" / "trials" / f"{stage}-{digest[:8]}.csv"

    def summary(self, experiment: str) -> Path:
        return self.folder / "summary" / f"{experiment}.json"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def claims(self) -> Path:
        return self.folder / "claims.json"

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def pictures(self) -> list[Path]:
        """What the paper draws itself, as PDF and SVG: all verdicts, and the comparisons of tuned methods."""
        return [self.figures / f"{name}.{ending}" for name in PICTURES for ending in ("pdf", "svg")]

    def document(self, name: str) -> list[Path]:
        """The three forms of a document: PDF, HTML page, LaTeX source."""
        return [self.report / f"{name}.pdf", self.report / f"{name}.html", self.report / "latex" / f"{name}.tex"]

    @property
    def paper(self) -> list[Path]:
        """The paper and its supplement, each in its three forms."""
        return [path for name in DOCUMENTS for path in self.document(name)]

    @property
    def page(self) -> Path:
        """The page to explore all claims."""
        return self.report / "index.html"

    @property
    def tables(self) -> Path:
        """The folder of tables that the documents link to."""
        return self.report / "tables"

    @property
    def readme(self) -> Path:
        """A file whose time tells when README.md and VERDICTS.md were last made to show these verdicts."""
        return self.folder / "readme.done"

    def log(self, job: str) -> Path:
        return self.folder / "logs" / f"{job}.log"
