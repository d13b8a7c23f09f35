"""README.md and VERDICTS.md: what is found, in three sentences and a picture, and the table of all verdicts, from results.

report/found.md is filled and stands between the two markers below; report/verdicts.md is filled and is VERDICTS.md. The picture
is shown as report/readme/verdicts.svg. All three are tracked, so that a number or a verdict that changes shows as a diff.
"""

from secondlook.errors import Mistake
from secondlook.reporting.paper import Claim, by_experiment, functions, judged, needed
from secondlook.study.claims import markdown_table
from secondlook.study.files import read, write
from secondlook.study.results import Results
from secondlook.study.text import fill

BEGIN, END = "<!-- found:begin -->", "<!-- found:end -->"


def update(results: Results) -> str:
    """Renew both, and say what was written. Nothing is written where something is missing."""
    path, source = results.root / "README.md", results.root / "report"
    before, begin, rest = read(path).decode().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Mistake(f"{path} lacks the line '{END if begin else BEGIN}': what is found belongs between '{BEGIN}' and '{END}'")
    claims, found, summaries = judged(results)
    (picture,) = (file for file in results.pictures if file.name == "verdicts.svg")
    drawing = read(needed(picture, "report"))
    linked = [Claim(claim, "VERDICTS.md") for claim in claims]
    seen = {**by_experiment(found, summaries, results.scale), "verdicts": markdown_table(claims)}
    texts = {}
    for name in ("found.md", "verdicts.md"):
        texts[name] = fill(read(source / name).decode(), {**seen, **functions(linked, source / name)}, str(source / name))
    write(source / "readme" / picture.name, drawing)
    write(results.root / "VERDICTS.md", texts["verdicts.md"])
    write(path, f"{before}{BEGIN}\n\n{texts['found.md'].strip()}\n\n{END}{after}")
    return f"{path}: {len(claims)} verdicts"
