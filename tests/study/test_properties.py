"""Whatever the bytes, a file of the study is read as a valid object or refused in one line: never another exception."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import pytest
import yaml
from conftest import DEMO, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parameters import GOOD, Params

from secondlook.errors import LONGEST, Mistake
from secondlook.study import parameters as p
from secondlook.study.claims import VERDICTS, declared, judge, read_claims
from secondlook.study.experiment import COLUMNS, Experiment, Setting
from secondlook.study.files import parse_yaml, read_yaml, sha256
from secondlook.study.measures import Summary, read_summary
from secondlook.study.records import FIELDS, changed_sources, check_recorded, read_result
from secondlook.study.statistics import Estimate
from secondlook.training import Checkpoints

some = settings(max_examples=60)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400) | st.just("a\nb")
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)


def one_line(call, kind=object):
    """`call` gives a `kind` or raises Mistake."""
    try:
        assert isinstance(call(), kind)
    except Mistake as refusal:
        assert len(str(refusal).splitlines()) == 1 and len(str(refusal)) <= LONGEST + 4


def changed(good: dict, names=()) -> st.SearchStrategy[dict]:
    """`good` with some of its values, or of `names`, replaced by anything, and some left out."""
    replaced = st.dictionaries(st.sampled_from([*good, *names, "x"]), values, max_size=3)
    return st.builds(
        lambda new, gone: {k: v for k, v in {**good, **new}.items() if k not in gone},
        replaced,
        st.sets(st.sampled_from([*good]), max_size=1),
    )


@cache
def folder() -> Path:
    """A project whose only experiment is the demo."""
    root = Path(mkdtemp())
    (root / "experiments" / "demo").mkdir(parents=True)
    for path in DEMO.iterdir():
        if path.is_file():
            (root / "experiments" / "demo" / path.name).write_bytes(path.read_bytes())
    (root / "workflow").symlink_to(ROOT / "workflow")
    return root


def put(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


# Configuration ----------------------------------------------------------------------------------------------------------------


TAGS = (
    "!!bool",
    "!!int",
    "!!float",
    "!!timestamp",
    "!!binary",
    "!!set",
    "!!omap",
    "!!pairs",
    "!!null",
    "!!python/name:os.system",
)


@given(changed(GOOD))
def test_parameters(given_values):
    one_line(lambda: p.build(Params, given_values, "FILE"), Params)


@given(st.text(max_size=60) | st.builds("{} {}".format, st.sampled_from(TAGS), st.text(max_size=9)))
def test_yaml_text(text):
    one_line(lambda: parse_yaml(text, "FILE"))


@some
@given(st.binary(max_size=60) | st.builds(lambda v: yaml.safe_dump(v).encode(), values))
def test_yaml_bytes(data):
    one_line(lambda: read_yaml(put("any.yaml", data)))


@pytest.mark.parametrize(
    "text, message",
    [
        ("&a [*a]", "FILE line 1 is not valid YAML: a value that contains itself"),
        ("{" * 5000, "FILE is not valid YAML: "),
        ("2020-01-01", "FILE is not valid YAML: datetime.date(2020, 1, 1) is neither a text, a number, a list nor a table"),
        ("{1: 2}", "FILE is not valid YAML: the key 1 is no text"),
        ("!!bool maybe", "FILE is not valid YAML: 'maybe'"),
    ],
)
def test_yaml_that_no_parameter_is(text, message):
    with pytest.raises(Mistake) as refusal:
        parse_yaml(text, "FILE")
    assert str(refusal.value).startswith(message)


def test_yaml_with_aliases_is_read():
    assert parse_yaml("[&a [1, 2], *a, {x: *a}]", "FILE") == [[1, 2], [1, 2], {"x": [1, 2]}]


CONFIG = yaml.safe_load((DEMO / "config.yaml").read_text())


@some
@given(changed(CONFIG), changed(CONFIG["cases"]["decay"], ["needs"]), changed({"first": 0, "count": 3}), st.booleans())
def test_an_experiments_configuration(config, case, seeds, deep):
    if deep:
        config = {**config, "cases": {"decay": {**case, "seeds": seeds}}}
    put("experiments/demo/config.yaml", yaml.safe_dump(config).encode())
    experiment = Experiment(folder(), "demo")
    for scale in ("paper", "smoke"):
        one_line(lambda scale=scale: [experiment.setting(case, scale) for case in experiment.cases], list)
    one_line(lambda: experiment.setting("decay", changes=["steps=7"]), Setting)


# Records and tables -----------------------------------------------------------------------------------------------------------

TABLE = pd.DataFrame([["demo", "decay", 0, 1, "loss", 0.5]], columns=COLUMNS).to_csv(index=False).encode()
RECORD = {
    **dict.fromkeys(FIELDS, "a"),
    **{name: {} for name, kind in FIELDS.items() if kind is dict},
    **{"commit": "0" * 40, "dirty": False, "scale": "paper", "experiment": "demo", "case": "decay"},
}


def result(record, data: bytes) -> Path:
    """A table that its record, whatever it is, vouches for."""
    put("any.json", json.dumps({**record, "sha256": sha256(data)} if isinstance(record, dict) else record).encode())
    return put("any.csv", data)


@some
@given(changed(RECORD) | values)
def test_a_record(record):
    (folder() / "experiments/demo/config.yaml").write_bytes((DEMO / "config.yaml").read_bytes())
    experiment = Experiment(folder(), "demo")
    path = result(record, TABLE)
    one_line(lambda: read_result(path), tuple)
    try:
        made = read_result(path)[1]
    except Mistake:
        return
    one_line(lambda: changed_sources(experiment, made), list)
    one_line(lambda: check_recorded(path, made, experiment.setting("decay")))


def test_the_record_that_these_start_from_is_a_good_one():
    assert len(read_result(result(RECORD, TABLE))[0]) == 1


@some
@given(st.binary(max_size=80) | st.builds(lambda tail: TABLE + tail, st.binary(max_size=20)))
def test_a_table(data):
    one_line(lambda: read_result(result(RECORD, data)), tuple)


@some
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"{}", b"null"]))
def test_a_record_of_any_bytes(data):
    put("any.csv", TABLE)
    put("any.json", data)
    one_line(lambda: read_result(folder() / "any.csv"), tuple)


@some
@given(changed({"measures": {"a": {"value": 1.0}}, "tables": {"t": {"columns": ["x"], "rows": [[1]]}}, "missing": []}) | values)
def test_a_summary(plain):
    one_line(lambda: read_summary(put("any.json", json.dumps(plain).encode())), Summary)


@given(st.binary(max_size=80), st.booleans())
@settings(max_examples=30)
def test_a_checkpoint(data, vouched):
    """Whatever follows, with its digest or without, is no state: refused, or passed over with a warning."""
    put("checkpoint", sha256(data).encode() + b"\n" + data if vouched else data)
    with pytest.warns(UserWarning) if not vouched else pytest.raises(Mistake, match="is refused: it holds"):
        assert Checkpoints(folder()).load({}) is None


# Claims -----------------------------------------------------------------------------------------------------------------------

(CLAIM,) = yaml.safe_load((DEMO / "claims.yaml").read_text())
NUMBER = {"quantity": "share", "unit": "", "value": 0.5, "low": 0.1, "high": 0.9, "n": 3, "coverage": None}
JUDGED = {"id": "X1", "kind": "document", "evidence": "original", "source": "s", "statement": "s", "verdict": VERDICTS[0]}
JUDGED |= {"stated": "t", "band": "b", "why": "w", "measured": [NUMBER]}


@some
@given(changed(CLAIM, ["requires"]), changed({"measure": "factor", "between": [0, 1]}), changed(CLAIM["verdicts"][0]))
def test_a_declared_claim(claim, check, rule):
    claim = {**claim, "checks": {"rate": check}} if "checks" in claim else claim
    claim = {**claim, "verdicts": [rule, CLAIM["verdicts"][-1]]} if "verdicts" in claim else claim
    put("experiments/demo/claims.yaml", yaml.safe_dump([claim]).encode())
    (folder() / "experiments/demo/config.yaml").write_bytes((DEMO / "config.yaml").read_bytes())
    experiment = Experiment(folder(), "demo")
    summary = Summary({"factor": Estimate(0.64)}, {})
    one_line(lambda: [judge(each, experiment, summary) for each in declared(experiment)], list)


@some
@given(changed(JUDGED) | values)
def test_the_verdicts(claim):
    one_line(lambda: read_claims(put("any.json", json.dumps([claim]).encode())), list)
