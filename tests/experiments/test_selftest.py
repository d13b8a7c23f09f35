"""The self-test of a lease: what it can see, what its verdict says, and that no part takes the others with it."""

import json
import math
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from conftest import HANG, ROOT, python

from experiments.throughput import selftest
from experiments.throughput.selftest import SCALES, captured, convolution, parts, supervised, turns, verdict
from secondlook.problems import convolution as its_convolution
from secondlook.problems.cifar10 import METHODS

torch.set_num_threads(1)
SMOKE = SCALES["smoke"]
GPU = "cpu:0"  # where the parts that need a GPU take a CPU for one


@pytest.fixture
def gpu(monkeypatch):
    """What the parts ask of torch.cuda beside a model's device. Steps are then eager: `step_of` looks at the model."""
    for name, stand_in in {
        "Stream": lambda: None,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> dict:
    """The verdict on this machine's CPU, by the command that a lease gives."""
    out = tmp_path_factory.mktemp("selftest") / "verdict.json"
    words = ["--device", "cpu", "--scale", "smoke", "--seconds", str(HANG), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [python(), "-m", selftest.MODULE, *words]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(out.read_bytes())


def test_a_cpu_passes_what_needs_no_gpu(done):
    assert done["finished"] and done["ok"] and done["device"] == "cpu" and done["torch"] == torch.__version__
    found = {part["part"]: part["ok"] for part in done["parts"]}
    here = {"batch norm", "convolution", "network", "eager SGD", "eager AdaHessian"}
    assert {name for name, ok in found.items() if ok} == here
    assert found.keys() == parts(SMOKE, "cpu").keys()
    assert {part["why"] for part in done["parts"] if part["part"] not in here} == {"needs a GPU"}


def test_nothing_is_captured_or_fused_that_was_not_tried(done):
    assert done["captured"] == [] and done["eager"] == list(METHODS) and done["fused"] is False
    assert done["best_streams"] == 1
    assert [done[name] for name in ("streams", "milliseconds", "launches", "kernels", "precision")] == [{}, {}, {}, [], None]


# What it can see


def test_a_wrong_second_derivative_is_seen(monkeypatch):
    """By the parameters of a convolution, 3 % too large: in float64 and in float32, but not where rounding hides it."""
    true = its_convolution._derivatives

    def wrong(gy, x, W, wanted, *how):
        by_x, by_W, by_b = true(gy, x, W, wanted, *how)
        return by_x, by_W if wanted != (False, True, False) else by_W * 1.03, by_b

    assert max(convolution("cpu").values()) <= 1
    monkeypatch.setattr(its_convolution, "_derivatives", wrong)
    with pytest.raises(ArithmeticError, match="float64.*float32, channels last") as raised:
        convolution("cpu")
    assert "TF32, channels" not in str(raised.value) and "bfloat16" not in str(raised.value)


@pytest.mark.parametrize("method", ["SGD", "AdaHessian every 5"])
def test_a_captured_step_that_is_not_the_eager_one_is_seen(method, gpu, monkeypatch):
    found = captured(method, SMOKE, GPU)
    assert set(found.values()) == {0.0} and len(found) == 3
    true = selftest.step_of

    def late(name, mode, optimizer, model):
        """Captured, it goes on with the first batch of every size."""
        step, first = true(name, mode, optimizer, model), {}
        return (lambda x, y: step(*first.setdefault(len(x), (x, y)))) if mode == "captured" else step

    monkeypatch.setattr(selftest, "step_of", late)
    with pytest.raises(ArithmeticError, match="captured and eager steps differ"):
        captured(method, SMOKE, GPU)


def test_a_capture_that_warns_has_failed(gpu, monkeypatch):
    def warns(name, mode, optimizer, model):
        import warnings

        warnings.warn("a step of SGD cannot be captured and stays eager", stacklevel=1)

    monkeypatch.setattr(selftest, "step_of", warns)
    with pytest.raises(UserWarning, match="cannot be captured"):
        captured("SGD", SMOKE, GPU)


def test_a_walk_ends_with_a_batch_that_is_smaller_and_goes_through_every_kind_of_step():
    one = selftest.Trained("AdaHessian every 5", "eager", SMOKE, "cpu", selftest.ON_THE_GPU)
    sizes, true = [], one.step
    one.step = lambda x, y: (sizes.append(len(x)), true(x, y))[1]
    losses, way = one.walk()
    assert sizes == ([8] * 5 + [4]) * 4 + [8] and losses.isfinite().all() and way.norm() > 0
    due = [size for t, size in enumerate(sizes) if t % 5 == 0]
    assert due.count(8) > 3  # three eager ones, then a replay


def test_times_streams_and_kernels_are_measured(gpu, monkeypatch):
    measured = parts(SMOKE, GPU)
    assert list(measured["streams"]()) == ["1", "2", "4", "6"]
    assert list(measured["times"]()) == [
        f"{m}, TF32{layout}" for m in ("SGD", "AdaHessian") for layout in ("", ", channels last")
    ]
    with pytest.raises(RuntimeError, match="the profiler saw no kernels"):
        measured["profile"]()
    monkeypatch.setattr(torch.autograd, "DeviceType", SimpleNamespace(CUDA=torch.autograd.DeviceType.CPU))
    found = measured["profile"]()
    assert found["launches AdaHessian"] > 2 * found["launches SGD"] > 0 and len(found["kernels"]) == 25
    assert found["kernels"][0]["milliseconds"] >= found["kernels"][-1]["milliseconds"]


def test_networks_take_turns(gpu):
    order = []
    trained = [SimpleNamespace(step=lambda x, i=i: order.append(i), batch=lambda *_: (0,)) for i in range(3)]
    assert len(turns(trained, [1, 3], SMOKE, selftest.ON_THE_GPU)) == 2
    assert order == [0, 1, 2] * (selftest.WARM_UP + 2) + [0] + [0, 1, 2]


# What its verdict says


def line(part: str, ok: bool | None = True, numbers: dict | None = None) -> dict:
    return {"part": part, "ok": ok, "why": "", "numbers": numbers or {}, "seconds": 1.0}


def lines(**changes) -> list[dict]:
    """Of a GPU on which all is well, but for `changes`: part (with _ for a blank) = ok."""
    numbers = {
        "times": {
            "SGD, TF32": 3.0,
            "SGD, TF32, channels last": 2.0,
            "AdaHessian, TF32": 9.0,
            "AdaHessian, TF32, channels last": 6.0,
        },
        "streams": {"1": 100.0, "2": 150.0, "4": 199.0, "6": 200.0},
        "profile": {
            "launches SGD": 200,
            "launches AdaHessian": 690,
            "kernels": [{"name": "k", "calls": 2, "milliseconds": 1.0}],
        },
    }
    said = [line(part, changes.get(part.replace(" ", "_"), True), numbers.get(part)) for part in parts(SMOKE, "cuda")]
    return [{"facts": {"device": "H100"}}, *(one | {"numbers": one["numbers"] if one["ok"] else {}} for one in said)]


def test_the_verdict_on_a_gpu_where_all_is_well():
    found = verdict(lines(), 37.0, True)
    assert found["ok"] and found["finished"] and found["device"] == "H100" and found["fused"]
    assert found["captured"] == list(METHODS) and found["eager"] == []
    assert found["best_streams"] == 4 and found["precision"] == "TF32, channels last"
    assert found["milliseconds"] == {"SGD": 2.0, "AdaHessian": 6.0} and found["launches"] == {"SGD": 200, "AdaHessian": 690}
    assert found["kernels"] == [{"name": "k", "calls": 2, "milliseconds": 1.0}]


@pytest.mark.parametrize(
    "part, ok", {"fused_batch_norm": True, "batch_norm": True, "convolution": False, "network": False, "eager_SGD": False,
                 "eager_AdaHessian": False, "captured_AdaHessian": True, "streams": True, "times": True, "profile": True}.items()
)  # fmt: skip
def test_a_part_that_fails_costs_what_it_stands_for(part, ok):
    found = verdict(lines(**{part: False}), 37.0, True)
    assert found["ok"] is ok
    assert found["fused"] is (part != "fused_batch_norm")
    assert found["eager"] == (["AdaHessian"] if part == "captured_AdaHessian" else [])
    assert found["best_streams"] == (1 if part == "streams" else 4)


def test_neither_batch_norm_right_is_none_at_all():
    assert not verdict(lines(fused_batch_norm=False, batch_norm=False), 1.0, True)["ok"]


# No part takes the others with it

CHILD = """
import json, os, signal, sys, time
for name in [word for word in sys.argv[1:] if word != "--part"]:
    print(json.dumps({"begun": name}), flush=True)
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        time.sleep(1000)
    print(json.dumps({"part": name, "ok": name != "fails", "why": "", "numbers": {}, "seconds": 0}), flush=True)
    if name == "fails":
        sys.exit(1)
"""


def said(code: str, names: list[str]) -> dict[str, bool]:
    found = list(supervised([sys.executable, "-c", code], names, time.monotonic() + HANG))
    assert [one["part"] for one in found] == names
    return {one["part"]: one["ok"] for one in found}


def test_a_part_that_dies_hangs_or_fails_costs_itself_alone(monkeypatch):
    monkeypatch.setattr(selftest, "A_PART", 10)
    names = ["first", "dies", "second", "fails", "third", "hangs", "last"]
    assert said(CHILD, names) == {name: name not in ("dies", "hangs", "fails") for name in names}


def test_a_process_that_never_begins_is_not_started_for_ever():
    assert said("raise SystemExit('no torch')", ["one", "two"]) == {"one": False, "two": False}


def test_what_is_not_reached_in_time_has_failed():
    found = list(supervised([sys.executable, "-c", CHILD], ["one", "two"], time.monotonic()))
    assert [(one["part"], one["ok"], one["why"]) for one in found] == [
        ("one", False, "it was not reached"),
        ("two", False, "it was not reached"),
    ]
    assert not verdict(found, 0.0, True)["ok"] and math.isclose(verdict(found, 2.5, True)["seconds"], 2.5)
