"""The command line as a stranger meets it: help for every verb, progress, and one line for every mistake."""

import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from secondlook.cli import parser
from secondlook.errors import Mistake
from secondlook.extras import BENEATH, EXTRAS
from secondlook.study.experiment import Experiment, experiments
from secondlook.study.progress import watch
from secondlook.terminal import PLAINLY

VERBS = [
    "list",
    "new",
    "run",
    "summarise",
    "figure",
    "claims",
    "report",
    "readme",
    "record",
    "lease",
    "import",
    "compare",
    "data",
    "doctor",
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args([verb, "--help"])
    assert stop.value.code == 0 and len(capsys.readouterr().out.splitlines()) > 4


@pytest.mark.parametrize(
    "words, line",
    [
        (["run", "dmo"], "unknown experiment 'dmo' in experiments: did you mean 'demo'?"),
        (["run", "demo", "--case", "deca"], "unknown case 'deca' in demo: did you mean 'decay'?"),
        (["run", "demo", "--case", "decay", "--set", "lrr=1"], "unknown key 'lrr' in experiments/demo/config.yaml: did you mean 'lr'?"),
        (["run", "demo", "--set", "steps=1.5"], "'steps' in experiments/demo/config.yaml must be a positive integer, got 1.5"),
        (["run", "demo", "--case", "decay", "--set", "lr=2"], "'lr' in experiments/demo/config.yaml must be a number from 0 to 1, got 2"),
        (["run", "demo", "--set", "lr"], "--set takes key=value, got 'lr'"),
        (["run", "demo", "--out", "x.csv"], "--out names one file: say which --case goes there"),
        (["run", "demo", "--case", "decay", "--out", "/proc/x.csv"], "cannot write /proc/x.csv: No such file or directory"),
        (["run", "demo", "--threads", "-1"], "--threads must be a positive integer, got -1"),
        (["run", "demo", "--at-once", "0"], "--at-once must be a positive integer, got 0"),
        (["run", "demo", "--max-minutes", "nan"], "--max-minutes must be a positive number, got nan"),
        (["run", "demo", "--max-minutes", "1e300"], "--max-minutes must be at most 3.4e+38 in size, got 1e+300"),
        (["run", "demo", "--seed", "-1"], "--seed must be an integer from 0 to 2147483647, got -1"),
        (["run", "demo", "--seed", "9" * 20], f"--seed must be an integer from 0 to 2147483647, got {'9' * 20}"),
        (["run", "demo", "--case", "slow", "--set", "pause=1e200"], "'pause' in experiments/demo/config.yaml must be at most 3.4e+38 in size, got 1e+200"),
        (["run", "demo", "--set", f"steps={2**64}"], f"'steps' in experiments/demo/config.yaml must be at most 9.22e+18 in size, got {2**64}"),
        (["figure", "demo", "loss"], "unknown figure 'loss' in demo: did you mean 'losses'?"),
        (["claims"], "cannot read results/summary/demo.json: No such file or directory"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(project, words, line):
    assert project.mistake(*words) == line
    assert not list(project.folder.glob("results/**/*.csv"))


@pytest.mark.parametrize(
    "text, line",
    [
        ("title: x\ncases: {a: {sedes: 3}}\n", "unknown key 'sedes' in 'a' of experiments/demo/config.yaml: did you mean 'seeds'?"),
        ("cases: [a\n", "experiments/demo/config.yaml line 2 is not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("cases: 3\n", "'cases' in experiments/demo/config.yaml must be a table of keys and values, got 3"),
        ("- 1\n", "'the whole file' in experiments/demo/config.yaml must be a table of keys and values, got [1]"),
        ("title: x\ncases: {decay: {seeds: {first: -1, count: 3}}}\n", "'first' in 'seeds' of 'decay' of experiments/demo/config.yaml must be an integer from 0 to 2147483647, got -1"),
        ("title: x\ncases: {decay: {seeds: {first: 2147483647, count: 2}}}\n", "the last of the seeds must be an integer from 0 to 2147483647, got 2147483648"),
        ("title: x\ncases: {de cay: {seeds: {first: 0, count: 2}}}\n", "a case in experiments/demo/config.yaml must have a name of letters, digits and _ that Python can import, not 'de cay'"),
        ("title: x\ncases: {decay: {fixed: {steps: 3}}, slow: {}}\n", "'lr' is missing in experiments/demo/config.yaml"),
        ("title: x\ncases: {decay: {needs: {data: nothing}}}\n", "data set data/nothing is missing: name its folder with --data-root or SECONDLOOK_DATA, or put it there"),
        ("title: x\ncases: {decay: {}}\nsmoke: {decya: {}}\n", "unknown key 'decya' in 'smoke' of experiments/demo/config.yaml: did you mean 'decay'?"),
    ],
)  # fmt: skip
def test_a_bad_experiment_is_one_line(project, text, line):
    project.write("experiments/demo/config.yaml", text)
    assert project.mistake("run", "demo", "--data-root", "data") == line


def test_a_value_that_only_the_run_can_judge_is_one_line_where_it_was_given(project):
    project.replace(
        "experiments/demo/experiment.py",
        "    for t in range",
        "    if steps % 2:\n        raise ValueError('steps must be even')\n    for t in range",
    )
    assert project.mistake("run", "demo", "--case", "decay", "--set", "steps=3") == "--set steps=3: steps must be even"


def test_a_stage_that_needs_a_gpu_never_runs_on_the_cpu(project):
    project.replace("experiments/demo/config.yaml", "    varies: {lr", "    needs: {device: cuda}\n    varies: {lr")
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so the stage may run")
    line = "needs device cuda, none is visible; use the recorded results, or --scale smoke --device cpu"
    assert project.mistake("run", "demo", "--case", "decay") == f"stage demo/decay {line}"
    assert project.mistake("run", "demo", "--case", "slow", "--device", "cuda") == f"stage demo/slow {line}"
    assert "demo/decay" in project.secondlook("run", "demo", "--case", "decay", "--scale", "smoke").stdout


def test_outside_a_project_the_line_says_where_to_go(tmp_path, monkeypatch, capsys):
    from secondlook.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 1
    assert capsys.readouterr().err.endswith("run this from the project's folder\n")


def test_list_and_doctor_describe_the_project(project):
    listed = project.secondlook("list").stdout
    assert "demo: Gradient descent on a parabola" in listed and "decay, slow" in listed and "X1" in listed
    examined = project.secondlook("doctor").stdout
    assert "stages       2: 2 computed; 2 can run here ('doctor --stages' lists them)" in examined and "torch " in examined
    assert "stage        demo/decay: can run here\n" in project.secondlook("doctor", "--stages").stdout


@pytest.mark.parametrize("name", ["my demo", "1st", "lambda", "modèle", "a-b"])
def test_a_folder_that_can_be_no_experiment_is_refused_at_once(project, name):
    project.write(f"experiments/{name}/config.yaml", "title: x\ncases: {decay: {}}\n")
    line = f"/experiments/{name} must have a name of letters, digits and _ that Python can import, not '{name}'"
    for find in (lambda: experiments(project.folder), lambda: Experiment(project.folder, name)):
        with pytest.raises(Mistake, match=re.escape(line)):
            find()


def secondlook(project, *commands: list[str], before: str = "", **settings: str) -> subprocess.CompletedProcess:
    """Commands one after the other in one process, which runs the code `before` first, with `settings` in its environment."""
    code = f"{before}\nfrom secondlook.cli import main\nimport sys\nsys.exit(max(main(words) for words in {commands}))"
    call = project.command()
    return subprocess.run(**{**call, "args": [sys.executable, "-c", code], "env": call["env"] | settings}, capture_output=True)


@pytest.mark.parametrize(
    "verb, absent, extra",
    [
        (["list"], "jinja2", "study"),
        (["run", "demo"], "yaml", "run"),
        (["summarise", "demo"], "scipy", "study"),
        (["figure", "demo"], "matplotlib", "report"),
        (["claims"], "pandas", "study"),
        (["report"], "typst", "report"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(project, verb, absent, extra):
    done = secondlook(project, verb, before=f"import sys; sys.modules[{absent!r}] = None")
    needs = f"secondlook: {verb[0]} needs {absent}, which is not installed: pip install 'secondlook[{extra}]'\n"
    assert (done.returncode, done.stderr) == (1, needs)


def test_an_experiment_that_needs_a_package_that_nobody_declared_says_so(project):
    project.replace("experiments/demo/experiment.py", "import numpy as np", "import numpy as np\nimport no_such_package.part")
    assert project.mistake("run", "demo") == "run needs the package no_such_package, which is not installed"


def test_a_new_experiment_runs_as_it_is(project):
    shutil.copytree(ROOT / "tests" / "demo", project.folder / "tests" / "demo")
    verbs = [["run", "mine"], ["summarise", "mine"], ["figure", "mine"]]
    verbs = [["new", "mine"], *([*words, "--scale", "smoke"] for words in verbs)]
    verbs += [[verb, "demo", "--scale", "smoke"] for verb in ("run", "summarise", "figure")]
    done = secondlook(project, *verbs, ["claims", "--scale", "smoke"], ["report", "--scale", "smoke"])
    assert done.returncode == 0, done.stderr
    judged = json.loads((project.folder / "results/smoke/claims.json").read_text(encoding="utf-8"))
    assert [(claim["id"], claim["experiment"], claim["verdict"]) for claim in judged] == [
        ("X1", "demo", "reproduced"),
        ("X2", "mine", "reproduced"),
    ]
    assert "experiments/mine/section.md" in done.stdout and "results/smoke/report/report.pdf" in done.stdout
    assert project.mistake("new", "mine") == "experiments/mine is there already"
    assert project.mistake("new", "my own").startswith("experiments/my own must have a name of letters")


def test_every_extra_of_the_command_line_is_one_of_the_package():
    """By the names of the packages where they differ from those of their modules."""
    names = {"yaml": "PyYAML", "PIL": "pillow", "sklearn": "scikit-learn", "pypandoc": "pypandoc-binary"}
    names |= {"backpack": "backpack-for-pytorch", "curvlinops": "curvlinops-for-pytorch"}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        packages = {re.split("[>=]", name)[0] for name in declared[extra] if not name.startswith("secondlook[")}
        assert packages == {
            names.get(module, module.replace("_", "-") if extra == "benchmark" else module) for module in modules
        }
    for extra, beneath in BENEATH.items():
        assert f"secondlook[{beneath[0]}]" in declared[extra]


STRANGE = {
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
}  # files and terminal are ASCII, if nobody says otherwise


def test_files_are_utf_8_and_output_is_plain_where_the_terminal_is(project):
    project.replace("experiments/demo/section.md", "The loss", "Naïvely − the loss")
    project.replace("experiments/demo/config.yaml", "on a parabola", "on a parabola, θ ↦ θ²")
    project.replace("experiments/demo/claims.yaml", "Each step", "Each step – ∞ of them, of 10⁻⁵ × θ –")
    project.replace("experiments/demo/experiment.py", "start", "start (θ₀)")
    verbs = [["run", "demo"], ["summarise", "demo"], ["figure", "demo"], ["claims"], ["report"], ["list"], ["claims", "--show"]]
    done = secondlook(project, *verbs, **STRANGE)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "parabola, ? ? ?^2\n" in done.stdout
    assert "Each step - inf of them, of 10^-5 x ? - multiplies" in done.stdout
    assert "Naïvely − the loss" in (project.folder / "results/report/supplement.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "encoding, shown",
    [("ascii", "8.2x10^-5 -> -inf, a ? b"), ("latin-1", "8.2×10^-5 -> -inf, a ? b"), ("utf-8", "8.2×10⁻⁵ -> −∞, a θ b")],
)
def test_a_character_that_the_terminal_lacks_has_a_like_one(encoding, shown):
    assert "8.2×10⁻⁵ -> −∞, a θ b".encode(encoding, PLAINLY).decode(encoding) == shown


def test_a_log_gets_a_line_now_and_then(capsys):
    """The clock is read before the first item, after each, and after a line; here three seconds pass between two readings."""
    readings = iter(range(0, 1000, 3))
    assert list(watch(range(5), "demo/slow", lambda: next(readings))) == list(range(5))
    assert capsys.readouterr().err == "demo/slow: 2 of 5\ndemo/slow: 4 of 5\n"
