"""Two builds are the same, or the first difference is named; what follows from measured times is left out, and said."""

import json
import shutil
from pathlib import Path

import pytest

from secondlook.cli import main
from secondlook.errors import Mistake
from secondlook.study.compare import compare

FILES = {
    "raw/a/x.csv": "1\n2\n",
    "raw/a/x.json": '{"wall_s": 1}',
    "raw/b/times.csv": "0.3\n",
    "raw/b/times.json": '{"recorded": true}',
    "summary/a.json": "{}",
    "summary/b.json": "{}",
    "figures/a/f.pdf": "%PDF",
    "figures/b/g.svg": "<svg>",
    "claims.json": json.dumps([{"id": "A1", "experiment": "a"}, {"id": "B1", "experiment": "b"}]),
    "report/report.pdf": "when and where",
}


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
def builds(tmp_path) -> list[Path]:
    for name, text in FILES.items():
        put(tmp_path / "first" / "results", name, text)
    put(tmp_path / "first", "config/config.yaml", "recorded: [b/times]\n")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    return [tmp_path / build / "results" for build in ("first", "second")]


def test_records_and_paper_may_differ(builds, capsys):
    put(builds[1], "raw/a/x.json", '{"wall_s": 2}')
    put(builds[1], "report/report.pdf", "later")
    assert main(["compare", *map(str, builds)]) == 0
    assert capsys.readouterr().out == "the same: 7 files\n"


@pytest.mark.parametrize(
    "name, text, line",
    [
        ("raw/a/x.csv", "1\n3\n", "raw/a/x.csv differs: line 2 is b'2' and b'3'"),
        ("raw/a/x.csv", "1\n2\n4\n", "raw/a/x.csv differs: line 3 is b'' and b'4'"),
        ("raw/b/times.csv", "0.4\n", "raw/b/times.csv differs: line 1 is b'0.3' and b'0.4'"),
        ("figures/a/f.pdf", "%PDG", "figures/a/f.pdf differs: line 1 is b'%PDF' and b'%PDG'"),
        ("claims.json", "[]", "claims.json differs: line 1 is "),
        ("summary/c.json", "{}", "first/results/summary/c.json is missing"),
    ],
)
def test_the_first_difference_is_named(builds, capsys, name, text, line):
    put(builds[1], name, text)
    assert main(["compare", *map(str, builds)]) == 1
    assert line in capsys.readouterr().err


def test_what_follows_from_measured_times_is_left_out(builds):
    for folder, time in zip(builds, ("1", "2"), strict=True):
        for name in ("raw/b/times.csv", "summary/b.json", "figures/b/g.svg"):
            put(folder, name, time)
        put(folder, "raw/b/times.json", "{}")
    claims = json.loads(FILES["claims.json"])
    put(builds[1], "claims.json", json.dumps([claims[0], {**claims[1], "measured": 2}]))
    assert compare(*builds) == "the same: 4 files; left out, for they measure times: b/times"
    put(builds[1], "claims.json", json.dumps([{**claims[0], "measured": 2}, claims[1]]))
    with pytest.raises(Mistake, match="^claims.json differs: line .* is "):
        compare(*builds)


def test_there_must_be_results(tmp_path):
    put(tmp_path, "config/config.yaml", "recorded: []\n")
    with pytest.raises(Mistake, match="hold no results$"):
        compare(tmp_path / "a", tmp_path / "b")


def test_lines_that_end_otherwise_are_a_difference(builds):
    (builds[1] / "raw/a/x.csv").write_bytes(b"1\r\n2\n")
    with pytest.raises(Mistake, match="^raw/a/x.csv differs"):
        compare(*builds)


def test_a_stage_that_needs_a_device_may_measure_times(builds):
    config = "title: C\ncases:\n  gpu: {needs: {device: cuda}}\n  cpu: {}\n"
    for build in builds:
        put(build.parent, "experiments/c/config.yaml", config)
        put(build, "raw/c/gpu.json", "{}")
    put(builds[0], "raw/c/gpu.csv", "0.1\n")
    put(builds[1], "raw/c/gpu.csv", "0.2\n")
    assert compare(*builds) == "the same: 7 files; left out, for they measure times: c/gpu"
