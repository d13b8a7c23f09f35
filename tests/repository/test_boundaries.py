"""Who may import whom, and who may reach into whom, found by reading the code."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

from secondlook.study.experiment import experiments
from secondlook.study.sources import PACKAGE, imported, outside_imports

EXPERIMENTS = experiments(ROOT)
PLOTTING = {"matplotlib", "seaborn", "PIL"}
RUNNING = {"torch", "numpy", "pandas", "yaml", "tqdm"}  # all that a bare machine needs to run an experiment
COMPILER = {"triton"}  # torch's own, where there is one
DATA_SETS = {"sklearn"}  # but for one that reads a data set of a package


def modules(*folders):
    return sorted(path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))


def names(parts):
    return pytest.mark.parametrize("path", parts, ids=lambda path: "-".join(path.parts[-2:]))


@names(modules("."))
def test_the_package_knows_no_workflow_engine(path):
    assert "snakemake" not in outside_imports(path, ROOT)
    assert "import snakemake" not in path.read_text(encoding="utf-8")


@names([*modules("reporting"), *(e.folder / f"{part}.py" for e in EXPERIMENTS for part in ("figures", "measures"))])
def test_figures_and_numbers_come_from_records_alone(path):
    assert "torch" not in outside_imports(path, ROOT)


@names([*modules("optim", "curvature", "problems", "training"), *(e.folder / "experiment.py" for e in EXPERIMENTS)])
def test_experiments_and_the_library_need_little_and_plot_nothing(path):
    assert outside_imports(path, ROOT) - set(sys.stdlib_module_names) <= RUNNING | COMPILER | DATA_SETS


@names(modules("optim", "curvature", "problems"))
def test_the_library_stands_without_the_study(path):
    assert not [file for file in imported(path, ROOT) if PACKAGE / "study" in file.parents]


@names([e.folder / "measures.py" for e in EXPERIMENTS])
def test_numbers_need_no_plotting(path):
    assert not outside_imports(path, ROOT) & PLOTTING


@names(sorted(path for e in EXPERIMENTS for path in e.folder.glob("*.py")))
def test_no_experiment_imports_another(path):
    others = ROOT / "experiments"
    assert not [file for file in imported(path, ROOT) if others in file.parents and file.parent != path.parent]


FOREIGN = {  # what torch and the standard library offer under no public name
    "torch._C", "torch._C._current_graph_task_id", "nn.modules.batchnorm._BatchNorm", "nn.modules.dropout._DropoutNd",
    "os._exit",
}  # fmt: skip


def reaches(source: str) -> list[str]:
    """Private attributes of anything but `self`, `cls` and `super()`, and private names of other modules."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            own = ast.unparse(node.value) in ("self", "cls", "super()")
            if not own and ast.unparse(node) not in FOREIGN and not ast.unparse(node).startswith("torch._foreach_"):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name.startswith("_")]
    return found


@names([*modules("."), *sorted(path for e in EXPERIMENTS for path in e.folder.rglob("*.py"))])
def test_no_private_attribute_is_reached_across_modules(path):
    assert not reaches(path.read_text(encoding="utf-8"))


def test_a_reach_is_seen():
    source = "from a import _b\nself._x\ntorch._foreach_add_(y)\noptimizer._state\nz.__dict__\nsuper()._check(1)"
    assert reaches(source) == ["_b", "optimizer._state"]


def test_drawing_never_imports_torch(project):
    project.secondlook("run", "demo")
    code = (
        "import sys; from secondlook.cli import main\n"
        "assert main(['summarise', 'demo']) == main(['figure', 'demo']) == main(['claims']) == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(**{**project.command(), "args": [sys.executable, "-c", code]}, capture_output=True)
    assert done.returncode == 0, done.stderr
