"""Tables in Markdown, and links to tables that lie beside the documents."""

import re

import pandas as pd

from secondlook.study.text import number

LONGEST_LINE = 110  # characters of a table's row; a longer row makes the table as wide as the text, and its cells wrap
NUMERIC = re.compile(r"[-−+\d.,;×⁻⁰¹²³⁴⁵⁶⁷⁸⁹ %∞\[\]]+|–|n/a")


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


def as_csv(files: dict[str, pd.DataFrame], frame: pd.DataFrame, name: str) -> str:
    """A link to the table as a file beside the documents, which `files` gets."""
    files[name] = frame
    return f"[{name}](tables/{name})"
