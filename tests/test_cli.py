"""The command line as a stranger meets it: help for every verb, progress, and one line for every mistake."""

import pytest

from secondlook.cli import parser

VERBS = ["list", "run", "summarise", "figure", "claims", "report", "readme", "record", "import", "compare", "data", "doctor"]


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
        ("title: x\ncases: {decay: {seeds: {first: -1, count: 3}}}\n", "'first' in 'seeds' of 'decay' of experiments/demo/config.yaml must be an integer, zero or more, got -1"),
        ("title: x\ncases: {decay: {fixed: {steps: 3}}, slow: {}}\n", "'lr' is missing in experiments/demo/config.yaml"),
        ("title: x\ncases: {decay: {needs: {data: nothing}}}\n", "data set data/nothing is missing: point data_root (SECONDLOOK_DATA) at its folder, or put it there"),
        ("title: x\ncases: {decay: {}}\nsmoke: {decya: {}}\n", "unknown key 'decya' in 'smoke' of experiments/demo/config.yaml: did you mean 'decay'?"),
    ],
)  # fmt: skip
def test_a_bad_experiment_is_one_line(project, text, line):
    project.write("experiments/demo/config.yaml", text)
    assert project.mistake("run", "demo", "--data-root", "data") == line


def test_a_stage_that_needs_a_gpu_never_runs_on_the_cpu(project):
    project.replace("experiments/demo/config.yaml", "    varies: {lr", "    needs: {device: cuda}\n    varies: {lr")
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so the stage may run")
    line = "needs device cuda, none is visible; use the recorded results, or --config scale=smoke device=cpu"
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
    assert "stage        demo/decay: can run here" in examined and "torch " in examined


def test_a_log_gets_a_line_now_and_then(project):
    project.replace("experiments/demo/config.yaml", "pause: 0.0", "pause: 3")
    done = project.secondlook("run", "demo", "--case", "slow")
    assert "demo/slow: 2 of 3" in done.stderr
