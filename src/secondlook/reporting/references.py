"""The labels of a document, {#sec:one}, and the references to them, @sec:one: which there are, and whether each is known."""

import re
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.files import read
from secondlook.study.parameters import known_keys

LABEL = r"\{#([\w:-]+)"
OWN_LABEL = r"\{#((?:fig|tbl|eq):[\w:-]+)"  # in a section: of its experiment alone


def numbered(text: str) -> dict[str, int]:
    """The number of every section that has a label, as the documents number them."""
    headings = re.findall(r"^# (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    counted = [heading for heading in headings if not re.search(r"\{-\}|\.unnumbered", heading)]
    labels = [re.search(r"\{#sec:([\w-]+)", heading) for heading in counted]
    return {label[1]: number for number, label in enumerate(labels, 1) if label}


def own_labels(section: str, experiment: str) -> str:
    """`section` with the labels of its figures, tables and equations in the experiment's name, and the references to them:
    two experiments may each have a {#fig:losses}, which are fig:one:losses and fig:two:losses in the paper."""
    own = set(re.findall(OWN_LABEL, section))

    def named(found: re.Match) -> str:
        kind, _, name = found[2].partition(":")
        return f"{found[1]}{kind}:{experiment}:{name}" if found[2] in own else found[0]

    return re.sub(r"((?<![\w\\])@|\{#|\(#)([\w:-]*\w)", named, section)


def check_references(texts: dict[Path, str], bibliography: Path) -> None:
    """Every @name must be a label of its own text, one of the first text, which belong to no section alone, or a key of the
    bibliography. No text may give a label twice, nor two texts the same one of a section."""
    document = next(iter(texts))
    shared = dict.fromkeys(re.findall(LABEL, texts[document]), document)
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
