"""What the repository says about itself is true: environment, formatting, README."""

import re
import subprocess
import sys
import tomllib

import pytest
import torch
import yaml
from conftest import ROOT

import secondlook
from secondlook.reporting import style
from secondlook.study.experiment import experiments

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_lock_pins_every_version_and_names_no_address():
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"[a-z0-9-]+==[^ ]+( ;|$)", line) for line in lines) and "://" not in LOCK


def test_torch_and_torchvision_are_the_pair_that_imports():
    assert "torch==2.15.0\ntorchvision==0.29.2\n" in LOCK


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["dependencies"][-1] == {"pip": ["--requirement requirements.lock", "--editable ."]}


def test_one_version_stands_in_the_package_and_the_citation_and_a_release_in_the_changelog():
    assert "version" in PYPROJECT["project"]["dynamic"] and "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "secondlook.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == secondlook.__version__
    headings = re.findall(
        r"^## \[(.+)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] == ("Unreleased", "")
    released = dict(headings[1:]).get(secondlook.__version__)
    assert str(citation.get("date-released")) == str(released)


def test_the_changelog_sorts_changes_by_their_kind():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == len(re.findall(r"^## \[", text, re.MULTILINE)) >= 1
    kinds = re.findall(r"^### (.*)$", text.partition("\n## ")[2].partition("\n## ")[0], re.MULTILINE)
    assert kinds == [kind for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security") if kind in kinds]


def test_a_checkout_has_the_bytes_of_the_repository_whatever_git_is_told(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x", "-c", "core.autocrlf=true"]
    files = {"code.py": b"a = 1\n", "results/recorded/x/y.csv": b"a\r\n1\n", "figure.gif": b"GIF\0\r\n\n"}
    for name, data in {**files, ".gitattributes": (ROOT / ".gitattributes").read_bytes()}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "x"],
        ["rm", "-rqf", *files],
        ["checkout", "-q", "HEAD", "--", "."],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


APART = {"benchmark", "docs", "frameworks"}  # a recorded stage's peers; what two targets of make install


def test_every_declared_dependency_is_in_the_lock():
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *(name for extra in extras if extra not in APART for name in extras[extra]),
    ]
    names = {re.split(r"[\[>=]", name)[0].lower() for name in wanted} - {"secondlook"}
    assert len(names) > 15
    assert [name for name in names if not re.search(rf"^{re.escape(name)}==", LOCK, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "words",
    [["ruff", "check"], ["ruff", "format", "--check"], ["snakefmt", "--check", "Snakefile", "workflow"]],
    ids=" ".join,
)
def test_formatting(words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_experiment_is_a_folder_with_all_its_parts():
    for experiment in experiments(ROOT):
        for name in ("config.yaml", "experiment.py", "measures.py", "figures.py", "claims.yaml", "section.md"):
            assert (experiment.folder / name).is_file(), f"{experiment.name} lacks {name}"
        shown = re.findall(
            rf"\(figures/{experiment.name}/(\w+)\.pdf\)", (experiment.folder / "section.md").read_text(encoding="utf-8")
        )
        assert set(shown) <= set(experiment.figures)


def test_every_number_of_a_config_has_its_reason_beside_it():
    for experiment in experiments(ROOT):
        for line in (experiment.folder / "config.yaml").read_text(encoding="utf-8").splitlines():
            if re.match(r"\s+\w+: [\[\d.-]", line) and "smoke" not in line:
                assert "#" in line or line in _smoke(experiment), f"{experiment.name}: {line.strip()}"


def _smoke(experiment) -> str:
    return (experiment.folder / "config.yaml").read_text(encoding="utf-8").partition("\nsmoke:")[2]


def test_the_scope_table_has_every_experiment_and_one_of_three_words_a_line():
    text = (ROOT / "report" / "supplement.md").read_text(encoding="utf-8")
    found = text[text.index("| Named in a document") : text.index("{#tbl:systems}")]
    lines = [line.split(" | ") for line in found.splitlines()[2:] if line.startswith("| ") and "**" not in line]
    words = {"run", "proxy", "quoted"}
    assert len(lines) > 30 and all(word in words or "unrecorded else" in word for _, word, *_ in lines)
    labels = {
        re.search(r"\{#sec:([\w-]+)", (e.folder / "section.md").read_text(encoding="utf-8"))[1] for e in experiments(ROOT)
    }
    assert labels == set(re.findall(r'see\("([\w-]+)"\)', found))


def test_figures_say_what_they_show_and_require():
    for experiment in experiments(ROOT):
        for name, figure in experiment.figures.items():
            assert "Shows:" in figure.text and figure.requires, f"{experiment.name}/{name}"


def test_one_colour_a_method():
    """No two methods have the same, but for a family of one method; and figures give methods no others."""
    of_one = {"GD": "SGD"} | {f"AdaHessian every {k}": "AdaHessian every k" for k in (2, 3, 4, 5, 10)}
    colours = [colour for method, colour in style.COLOUR.items() if method not in of_one]
    assert len(set(colours)) == len(colours)
    for experiment in experiments(ROOT):
        figures = (experiment.folder / "figures.py").read_text(encoding="utf-8")
        assert not re.search(r'"([\w ,+-]+)": style\.COLOUR\["(?!\1")', figures), experiment.name


def test_nothing_names_this_machine():
    """Paths of a home or working folder, and addresses in locks, do not belong in the repository."""
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".gif", ".png", ".svg"}:
            assert not re.search(r"(?<![\w.])/(home|root|Users)/\w", path.read_text(encoding="utf-8")), name


PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def regression() -> dict:
    """The names that the README's Python takes for granted: a small regression."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    return {"model": torch.nn.Linear(3, 1), "criterion": torch.nn.MSELoss(), "batches": [(x, y)] * 100, "x": x, "y": y}


@pytest.mark.parametrize("code", [code for code in PYTHON if "optimizer" in code])
def test_the_readmes_loops_train(code):
    names = regression()
    x, y, model, criterion = (names[name] for name in ("x", "y", "model", "criterion"))
    before = criterion(model(x), y).item()
    exec(code, names)
    assert criterion(model(x), y).item() < before / 10


def test_the_readmes_diagonal_is_that_of_the_hessian():
    (code,) = [code for code in PYTHON if "hessian_diagonal" in code]
    names = regression()
    exec(code, names)
    weight, bias = names["D"]
    torch.testing.assert_close(weight[0], 2 * names["x"].square().mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias, torch.tensor([2.0]), rtol=1e-5, atol=1e-5)


def test_no_file_is_longer_than_four_hundred_lines():
    files = [path for folder in ("src", "experiments") for path in (ROOT / folder).rglob("*.py")]
    long = {str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text().splitlines())) > 400}
    assert len(files) > 200 and not long
