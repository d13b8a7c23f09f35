"""What a result depends on: the code that it uses, and neither comments nor what stands beside that code."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, Project

from secondlook.study.experiment import experiments
from secondlook.study.sources import code, digests, imported, sources

FOLDERS = [experiment.folder for experiment in experiments(ROOT)]


@pytest.fixture
def one(tmp_path):
    """Writes files of an experiment called one, and gives the names of those on which its experiment.py depends."""
    folder = tmp_path / "experiments" / "one"
    folder.mkdir(parents=True)

    def depends(find=sources, **files: str) -> set[str]:
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return {path.name for path in find(folder / "experiment.py", tmp_path)} - {"experiment.py"}

    return depends


def test_an_import_is_followed_through_siblings(one):
    files = {"experiment": "def f():\n    from .part import x\n", "part": "from secondlook.study import files\n"}
    assert one(**files) == {"part.py", "files.py", "errors.py"}
    assert one(imported) == {"part.py", "__init__.py", "files.py", "errors.py"}  # what runs is more than what is used


@pytest.mark.parametrize(
    "line, there, absent",
    [
        ("from secondlook.optim import AdaBelief", {"adabelief.py"}, {"__init__.py", "kfac.py", "oasis.py"}),
        ("from secondlook.optim import AdaBelief as Belief", {"adabelief.py"}, {"__init__.py", "kfac.py"}),
        ("from secondlook.optim import KFAC, AdaBelief", {"adabelief.py", "kfac.py"}, {"__init__.py", "oasis.py"}),
        ("from secondlook.optim.adabelief import AdaBelief", {"adabelief.py"}, {"__init__.py", "kfac.py"}),
        ("import secondlook.optim.adabelief", {"adabelief.py"}, {"__init__.py", "kfac.py"}),
        ("from secondlook.optim import adabelief", {"adabelief.py"}, {"__init__.py", "kfac.py"}),
        ("from secondlook.curvature import dense", {"dense.py"}, {"__init__.py", "kronecker.py"}),
        ("from secondlook import optim", {"__init__.py", "adabelief.py", "kfac.py"}, set()),
        ("import secondlook.optim as o", {"__init__.py", "adabelief.py", "kfac.py"}, set()),
        ("from secondlook.optim import *", {"__init__.py", "adabelief.py", "kfac.py"}, set()),
        ("from secondlook.optim import no_such_name", {"__init__.py", "adabelief.py", "kfac.py"}, set()),
        ("from secondlook import __version__", {"__init__.py"}, {"kfac.py"}),
        ("import torch.optim", set(), {"__init__.py"}),
    ],
)
def test_a_name_is_followed_to_the_file_that_defines_it(one, line, there, absent):
    found = one(experiment=line)
    assert there <= found and not absent & found


@pytest.mark.parametrize(
    "init, found",
    [
        ('"""Two."""\n\nfrom .a import A\nfrom .b import B as C\n\n__all__ = ["A", "C"]\n', {"a.py"}),
        ("from .a import A\nfrom .b import *\n", {"__init__.py", "a.py", "b.py"}),
        ("from .a import A\nfrom .b import B\nlimit = B()\n", {"__init__.py", "a.py", "b.py"}),
        ("from . import a\nA = a.A\n", {"__init__.py", "a.py"}),
    ],
)
def test_an_init_that_does_more_than_re_export_counts_with_all_that_it_imports(one, tmp_path, init, found):
    for name, text in {"__init__": init, "a": "class A: pass", "b": "class B: pass"}.items():
        (tmp_path / "experiments" / "two").mkdir(exist_ok=True)
        (tmp_path / "experiments" / "two" / f"{name}.py").write_text(text)
    assert one(experiment="from experiments.two import A") == found


def stale(project: Project, before: dict[str, dict]) -> set[str]:
    """The experiments whose records would be stale by what changed since `before`, which is brought up to date."""
    script = (
        "import json\nfrom pathlib import Path\nfrom secondlook.study.experiment import experiments\n"
        "from secondlook.study.records import changed_sources\nfrom secondlook.study.sources import digests\n"
        f"then, root = {before!r}, Path()\n"
        "found = {e.name: (e.sources('experiment'), changed_sources(e, {'sources': then.get(e.name)})) for e in experiments(root)}\n"
        "print(json.dumps({name: (digests(files, root), stale) for name, (files, stale) in found.items()}))"
    )
    done = subprocess.run(**{**project.command(), "args": [sys.executable, "-c", script]}, capture_output=True, check=True)
    found = json.loads(done.stdout)
    before.update({name: digests for name, (digests, _) in found.items()})
    return {name for name, (_, changed) in found.items() if changed}


def test_a_new_optimiser_makes_no_record_stale_and_a_change_only_those_that_use_it(tmp_path):
    project, known = Project(tmp_path, FOLDERS), {}
    assert stale(project, known) == {folder.name for folder in FOLDERS}
    project.write(
        "src/secondlook/optim/dummy.py", "from secondlook.optim.base import SecondOrder\n\n\nclass Dummy(SecondOrder): ...\n"
    )
    init = "src/secondlook/optim/__init__.py"
    project.write(init, (tmp_path / init).read_text() + "\nfrom secondlook.optim.dummy import Dummy\n")
    assert stale(project, known) == set()
    project.write("src/secondlook/optim/kfac.py", (tmp_path / "src/secondlook/optim/kfac.py").read_text() + "\nmore = 1\n")
    assert stale(project, known) == {folder.name for folder in FOLDERS if uses_kfac(folder)}


def uses_kfac(folder) -> bool:
    """Whether an experiment imports K-FAC."""
    named = re.compile(r"^\s*(from|import) .*\b(KFAC|kfac)\b", re.MULTILINE)
    return any(named.search(path.read_text(encoding="utf-8")) for path in folder.glob("*.py"))


BEFORE = '''"""What it is for."""

import math  # for pi


class A:
    """A
    thing."""

    text = """# not a comment"""  # but this is

    def f(self):
        "Docstring."
        return "#"
'''
AFTER = '''import math
class A:
    text = """# not a comment"""
    def f(self):
        return "#"'''


def test_what_a_result_depends_on_is_code_and_no_comment():
    assert code(BEFORE) == AFTER and code(AFTER) == AFTER


def test_line_ends_are_no_code(tmp_path):
    for name, end in {"one.py": "\n", "two.py": "\r\n"}.items():
        (tmp_path / name).write_bytes(BEFORE.replace("\n", end).encode())
    assert len(set(digests([tmp_path / "one.py", tmp_path / "two.py"], tmp_path).values())) == 1
