"""What experiments declare by decorators is read without running them, and refused in one line where it makes no sense."""

import pytest

from secondlook.errors import Mistake
from secondlook.study.declared import Declared, declared
from secondlook.study.experiment import Experiment

FILE = """
raise RuntimeError("this file is not to be run")

def part(rows):
    "Of no concern."

@measure("a", "b")
def one(rows):
    "One."

@measure(cases={"small": "a", "large": ("a", "b")})
def two(rows, *cases):
    "Two."

@measure(cases=("a", "b"))
def three(rows, case): ...

@figure("a", each={"fast": "x"}, kind="animation")
def moves(rows, what): ...

@case(Params)
def a(p, seed): ...

@case(Params, "b", place=True)
@case(Others, "c", place=True)
def others(p, seed, place): ...
"""
FOUND = {
    "measure": {
        "one": Declared("one", "One.", requires=("a", "b")),
        "small": Declared("two", "Two.", ("a",), ("a",)),
        "large": Declared("two", "Two.", ("a", "b"), ("a", "b")),
        "a": Declared("three", "", ("a",), ("a",)),
        "b": Declared("three", "", ("b",), ("b",)),
    },
    "figure": {"fast": Declared("moves", "", ("x",), ("a",), "animation")},
    "case": {
        "a": Declared("a", ""),
        "b": Declared("others", "", place=True),
        "c": Declared("others", "", place=True),
    },
}


@pytest.mark.parametrize("decorator", FOUND)
def test_declarations_are_read_and_the_file_is_not_run(tmp_path, decorator):
    (tmp_path / "part.py").write_text(FILE)
    assert declared(tmp_path / "part.py", decorator) == FOUND[decorator]


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("figures", '@figure("decoy")\ndef f(rows): ...', "unknown case 'decoy' in 'f' of FILE: did you mean 'decay'?"),
        (
            "figures",
            '@figure(cases={"f": "x"})\ndef g(rows, case): ...',
            "unknown case 'x' in 'f' of FILE: known are decay, slow",
        ),
        (
            "figures",
            '@figure(kinds="animation")\ndef f(rows): ...',
            "unknown argument 'kinds' in @figure of 'f' in FILE: did you mean 'kind'?",
        ),
        (
            "figures",
            '@figure(kind="gif")\ndef f(rows): ...',
            "unknown kind 'gif' in @figure of 'f' in FILE: known are drawing, animation",
        ),
        (
            "measures",
            "@measure\ndef f(rows): ...",
            "@measure of 'f' in FILE must be called, with plain words: it is read without running the file",
        ),
        (
            "measures",
            "@measure(CASE)\ndef f(rows): ...",
            "@measure of 'f' in FILE must be called, with plain words: it is read without running the file",
        ),
        (
            "measures",
            "@measure()\ndef f(rows): ...\n@measure()\ndef f(rows): ...",
            "@measure of 'f' in FILE declares 'f' a second time",
        ),
        ("experiment", "@case(P)\ndef decay(p, seed): ...", "no function of FILE runs the case 'slow'"),
        ("experiment", '@case(P, "fast")\ndef f(p, seed): ...', "unknown case 'fast' in FILE: known are decay, slow"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path, part, text, message):
    folder = tmp_path / "experiments" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("title: t\ncases: {decay: {}, slow: {}}\n")
    (folder / f"{part}.py").write_text(text)
    experiment = Experiment(tmp_path, "one")
    with pytest.raises(Mistake) as refusal:
        getattr(experiment, {"experiment": "runs"}.get(part, part))
    assert str(refusal.value) == message.replace("FILE", str(folder / f"{part}.py"))
