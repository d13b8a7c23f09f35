"""README.md: the verdict table and the figures that it shows, taken from results.

The table stands between the two markers below; a figure is shown as report/readme/EXPERIMENT-NAME.svg.
"""

import re

from secondlook.errors import Mistake
from secondlook.reporting.paper import needed
from secondlook.study.claims import markdown_table
from secondlook.study.files import read, read_json, write
from secondlook.study.results import Results

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


def update(results: Results) -> str:
    """Renew table and figures, and say what was written. Nothing is written where something is missing."""
    path = results.root / "README.md"
    before, begin, rest = read(path).decode().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Mistake(
            f"{path} lacks the line '{END if begin else BEGIN}': the verdict table belongs between '{BEGIN}' and '{END}'"
        )
    claims = read_json(needed(results.claims, "claims"))
    figures = {}
    for experiment, name in re.findall(r"report/readme/(\w+)-(\w+)\.svg", before + after):
        source = results.figures / experiment / f"{name}.svg"
        figures[results.root / "report" / "readme" / f"{experiment}-{name}.svg"] = read(
            needed(source, f"figure {experiment} {name}")
        )
    for figure, drawing in figures.items():
        write(figure, drawing)
    write(path, f"{before}{BEGIN}\n\n{markdown_table(claims)}\n{END}{after}")
    return f"{path}: {len(claims)} verdicts, {len(figures)} figures"
