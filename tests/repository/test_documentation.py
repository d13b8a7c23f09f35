"""What is documented runs: an example for every public name, README's Python, and the page on frameworks where torch is enough."""

import doctest
import importlib.util
import inspect
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.nn import functional

from secondlook import curvature, optim
from secondlook.training import Path

FRAMEWORKS = ROOT / "docs" / "frameworks.md"


def names():
    """Of every public object: 'module.name' and the object. A module's functions and classes stand for it."""
    for package in (curvature, optim):
        for name in package.__all__:
            thing = getattr(package, name)
            if inspect.ismodule(thing):
                own = [value for value in vars(thing).values() if getattr(value, "__module__", None) == thing.__name__]
                yield from ((f"{name}.{value.__name__}", value) for value in own if not value.__name__.startswith("_"))
            else:
                yield name, thing


PUBLIC = dict(names()) | {"Path": Path}
BEGINNING = {"torch": torch} | {name: getattr(p, name) for p in (curvature, optim) for name in p.__all__}
BEGINNING["Path"] = Path


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name, capsys):
    found = doctest.DocTestFinder(exclude_empty=True).find(PUBLIC[name], name, globs=dict(BEGINNING))
    examples = [example for example in found if example.examples]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner(verbose=False)
    for example in examples:
        runner.run(example)
    assert not runner.failures, capsys.readouterr().out


def blocks_of(path):
    """The Python of a page in its order: a title and the code. A title says in brackets which packages its code needs."""
    title = path.name
    for heading, code in re.findall(r"^#+ ([^\n]*)$|^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S):
        title = heading or title
        if code:
            yield title, code


def given():
    """What the examples of a page take as given."""
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].argmax(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    batches = list(zip(x.split(4), y.split(4), strict=True))
    return {"torch": torch, "model": model, "batches": batches, "x": x, "y": y, "criterion": functional.cross_entropy}


README = list(blocks_of(ROOT / "README.md"))


@pytest.mark.parametrize("code", [code for _, code in README], ids=range(len(README)))
def test_the_python_of_the_readme_runs(code):
    scope = given()
    before = [p.detach().clone() for p in scope["model"].parameters()]
    exec(compile(code, "README.md", "exec"), scope)
    if "optimizer" in scope:
        assert not any(torch.equal(p, q) for p, q in zip(scope["model"].parameters(), before, strict=True))
    else:
        assert [d.shape for d in scope["D"]] == [p.shape for p in scope["model"].parameters()]


PAGE = list(blocks_of(FRAMEWORKS))


@pytest.mark.parametrize(("title", "code"), PAGE, ids=[f"{i} {title}" for i, (title, _) in enumerate(PAGE)])
def test_the_examples_of_frameworks_train(title, code):
    """Every tensor that the optimiser was given has moved, to finite values."""
    for package in set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) - {"torch", "secondlook", "tempfile"}:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make test-frameworks")
    scope, starts = given(), []
    init = torch.optim.Optimizer.__init__

    def noting(self, params, defaults):
        init(self, params, defaults)
        starts.extend((p, p.detach().clone()) for group in self.param_groups for p in group["params"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Optimizer, "__init__", noting)
        exec(compile(code, title, "exec"), scope)
    assert starts and all(p.isfinite().all() and not torch.equal(p, start) for p, start in starts)


@pytest.mark.parametrize("package", ["optim", "curvature"])
def test_the_library_needs_torch_and_numpy_alone(package):
    """Every other package of the environment is out of reach; torch's own needs come with torch."""
    code = f"""
import importlib.abc, importlib.metadata, re, sys

def needs(name, seen):
    if name not in seen:
        seen.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            return seen
        for line in lines:
            if "extra ==" not in line:
                needs(re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-"), seen)
    return seen

wanted = needs("torch", set()) | {{"numpy"}}
owners = importlib.metadata.packages_distributions()
allowed = {{top for top, names in owners.items() if wanted & {{n.lower().replace("_", "-") for n in names}}}} | {{"secondlook"}}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in owners and top not in allowed:
            raise ImportError(name + " is out of reach", name=name)

sys.meta_path.insert(0, Blocker())
assert not {{"pandas", "yaml", "tqdm", "scipy", "matplotlib"}} & allowed
try:
    import pandas
except ImportError:
    import secondlook.{package}
else:
    sys.exit("pandas is in reach")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
