"""A new experiment that runs: a copy of the smallest complete one, under a name of its own, to be changed part by part."""

import re
from pathlib import Path

from secondlook.errors import Mistake
from secondlook.study.claims import declared
from secondlook.study.experiment import check_name, experiments
from secondlook.study.files import read, write_together

TEMPLATE = Path("tests/demo")
PARTS = ("config.yaml", "experiment.py", "measures.py", "figures.py", "claims.yaml", "section.md")


def scaffold(root: Path, name: str) -> list[Path]:
    """Write the folder experiments/`name` and return its files. Its claim gets an id that no other has."""
    folder = root / "experiments" / name
    check_name(name, str(folder))
    if folder.exists():
        raise Mistake(f"{folder} is there already")
    old = TEMPLATE.name
    known = {claim["id"] for experiment in experiments(root) for claim in declared(experiment)}
    number = next(n for n in range(1, len(known) + 2) if f"X{n}" not in known)
    texts = {part: read(root / TEMPLATE / part).decode() for part in PARTS}
    texts["claims.yaml"] = re.sub(r"\bX1\b", f"X{number}", texts["claims.yaml"])
    section = re.sub(r"\bX1\b", f"X{number}", texts["section.md"])
    texts["section.md"] = section.replace(f"#sec:{old}", f"#sec:{name}").replace(f"figures/{old}/", f"figures/{name}/")
    files = {folder / part: text for part, text in texts.items()}
    write_together(files)
    return list(files)
