"""Throughput: closed forms of the floor against torch's counter and what hooks see, walks that are compared, loops that train."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch import nn

from experiments.throughput import experiment, measures, methods, names, selections
from secondlook.errors import Mistake
from secondlook.problems.cifar10 import METHODS
from secondlook.problems.images import MEAN, STD, normalise
from secondlook.study.experiment import Experiment, run
from secondlook.study.parameters import build
from secondlook.study.place import Place

THROUGHPUT = Experiment(ROOT, "throughput")
KINDS = {"equality": experiment.Equality, "floor": experiment.Floor, "epochs": experiment.Epochs}


def params(case: str, *changes: str, scale: str = "paper"):
    return build(KINDS[case], THROUGHPUT.setting(case, scale, changes).parameters, "config.yaml")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Trial scale; the smaller network's steps stand in for the larger's, and processes at once are made up."""
    folder = tmp_path_factory.mktemp("work")
    cases = {"resnet20": [], "floor": [], "epochs": []}
    tables = [
        run(THROUGHPUT, THROUGHPUT.setting(case, "smoke", changes), Place(folder / case)) for case, changes in cases.items()
    ]
    lines = [
        ("concurrent", method, count, step, 100.0 * (step + count) / weight, "images a second")
        for method, weight in {"SGD": 1, "AdaHessian": 3}.items()
        for count in (1, 2, 4)
        for step in (1, 2, 3)
    ]
    made_up = pd.DataFrame(lines, columns=["case", "method", "processes", "step", "value", "metric"])
    same = [tables[0].assign(case=case) for case in ("resnet32", "resnet20_all", "resnet32_all")]
    return pd.concat([*tables, *same, made_up], ignore_index=True)


def test_it_times_what_cifar10_trains():
    """Network, batch and constants are those of the paper-scale cells."""
    trained = Experiment(ROOT, "cifar10").setting("resnet20").parameters
    for case in THROUGHPUT.cases:
        setting = THROUGHPUT.setting(case)
        assert setting.needs == {"device": "cuda"}
        shared = setting.parameters.keys() & trained.keys() - {"images", "network", "methods", "precisions", "learning_rates"}
        assert len(shared) == 7
        assert {name: setting.parameters[name] for name in shared} == {name: trained[name] for name in shared}
    rates = params("equality").learning_rates
    assert rates == pytest.approx({name: trained["learning_rates"][name] / 10 for name in rates})


def products_of_a_forward_pass(n: int, width: int = 16) -> int:
    """Multiplications of ResNet-(6n + 2) on one image, by hand: 9 c_in c_out for every pixel of an output, and the linear layer."""
    stages = [(width, width, 32), (width, 2 * width, 16), (2 * width, 4 * width, 8)]  # channels before and after, pixels a side
    blocks = sum(9 * (before + (2 * n - 1) * after) * after * side**2 for before, after, side in stages)
    return 9 * 3 * width * 32**2 + blocks + 4 * width * 10


def test_operations_are_the_closed_form():
    """A gradient is three products a layer, but two where the images come in; with the Hessian's it is nine, but four there: no
    derivative by the images."""
    p, forward, stem = params("floor", "batch=1", "network=ResNet-8"), products_of_a_forward_pass(1), 9 * 3 * 16 * 32**2
    assert experiment.operations(p, "SGD", "cpu") == 2 * (3 * forward - stem)
    assert experiment.operations(p, "AdaHessian", "cpu") == 2 * (9 * forward - 5 * stem)


def test_bytes_are_the_closed_form():
    """ResNet-20 on 32 x 32: 188,416 outputs of convolutions and 10 logits to an image, 269,722 parameters."""
    p = params("floor")
    A, n, x = 256 * (7 * 16 * 32**2 + 6 * 32 * 16**2 + 6 * 64 * 8**2 + 10), 269_722, 256 * 3 * 32**2
    assert experiment.bytes_moved(p, "SGD", "float32") == 4 * (4 * A + 6 * n + x)
    assert experiment.bytes_moved(p, "AdaHessian", "TF32") == 4 * (8 * A + 12 * n + x)
    assert experiment.bytes_moved(p, "AdaHessian", "bfloat16") == 2 * 8 * A + 4 * (12 * n + x)


def test_no_step_saves_less_than_the_floor_counts():
    """What autograd keeps for the backward pass, of the images and the outputs of convolutions, is at least one A."""
    p = params("floor", "batch=2")
    model, (x, y) = p.start("cpu"), p.noise(2, "cpu")
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nn.functional.cross_entropy(model(normalise(x)), y)
    assert sum(kept.values()) >= 2 * (7 * 16 * 32**2 + 6 * 32 * 16**2 + 6 * 64 * 8**2)


@pytest.mark.parametrize("name", ["AdamW", "AdaHessian every 4", "AdaHessian Gauss-Newton"])
def test_walks_are_the_same_and_a_fault_is_seen(name, monkeypatch):
    p = params("equality", scale="smoke")
    assert [row["value"] for row in experiment._compared(p, name, "float64", "cpu")] == [0, 0, 0, 0]
    true = experiment.step_of

    def late(name, mode, optimizer, model):
        """As the true one; captured, it forgets to copy a new batch, and goes on with the first."""
        step, first = true(name, mode, optimizer, model), []

        def again(x, y):
            first.append((x, y))
            return step(*first[0])

        return again if mode == selections.CAPTURED else step

    monkeypatch.setattr(experiment, "step_of", late)
    found = [row["value"] for row in experiment._compared(p, name, "float64", "cpu")]
    assert found[:2] == [0, 0] and min(found[2:]) > 1e-4


def test_pictures_are_what_the_device_makes_of_them():
    """Not cropped and not mirrored, a picture is the normalised image; at random, a window of it in black."""
    images, labels = params("epochs", "images=20").noise(20, "cpu")
    pictures = methods.Pictures(images, labels)
    pixels = [pictures[i][0] for i in range(20)]
    black = (-torch.tensor(MEAN) / torch.tensor(STD))[:, None, None]
    whole = normalise(images)
    for picture, image in zip(pixels, whole, strict=True):
        framed = black.expand(3, 40, 40).clone()
        framed[:, 4:36, 4:36] = image
        windows = framed.unfold(1, 32, 1).unfold(2, 32, 1)  # (3, 9, 9, 32, 32)
        off = [(windows - turned[:, None, None]).abs().amax((0, 3, 4)).min() for turned in (picture, picture.flip(2))]
        assert min(off) < 1e-5
    assert len({float(picture[0, 0, 0]) for picture in pixels}) > 1


@pytest.mark.filterwarnings("ignore:Using backward")
def test_the_usual_loop_trains_and_asks_packages_for_a_graph(monkeypatch):
    asked = []

    class Package(torch.optim.Adam):
        def step(self):
            asked.append(all(p.grad.grad_fn is not None for p in self.param_groups[0]["params"]))
            super().step()

    monkeypatch.setitem(sys.modules, "torch_optimizer", SimpleNamespace(Adahessian=Package))
    p = params("epochs", scale="smoke")
    model = experiment.with_layers_of_torch(p.start("cpu"), *experiment.DERIVED)
    before = [q.detach().clone() for q in model.parameters()]
    optimizer = methods.usual_optimizer("torch-optimizer", 0.01, 0.9, model)
    epochs = methods.usual_epochs(optimizer, model, methods.Pictures(*p.noise(40, "cpu")), 10, 0, "cpu")
    assert next(epochs) > 0 and asked == [True] * (methods.FIRST + 4)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert {type(layer) for layer in model.modules()} & {nn.BatchNorm2d}


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(Mistake, match="throughput needs the package pytorch_optimizer: install the extra 'benchmark'"):
        methods.usual_optimizer("pytorch-optimizer", 0.01, 0.9, nn.Linear(1, 1))


def test_a_step_is_warm_when_both_its_graphs_are_there():
    """Three eager steps of a kind come before it is captured; a Hessian every 4 steps makes the last kind wait longest."""
    for name in METHODS:
        due = [t for t in range(methods.warm_up(name)) if t % methods.period(name) == 0]
        assert len(due) > methods.WARM_UP and methods.warm_up(name) % methods.period(name) == 0


def test_the_floor_is_the_larger_of_two_times():
    lines = [
        ("milliseconds", "SGD", "float32", 4.0),
        ("operations", "SGD", None, 2e9),
        ("operations a second", None, "float32", 1e12),
        ("bytes", "SGD", "float32", 1e9),
        ("bytes a second", None, None, 1e12),
    ]
    rows = pd.DataFrame(lines, columns=["metric", "method", "precision", "value"]).assign(case="floor", seed=0)
    found = selections.floors(rows).iloc[0]
    assert dict(found) == pytest.approx({"step": 4, "operations": 2, "bytes": 1, "floor": 2, "share": 0.5})
    assert dict(selections.ceilings(rows)) == {"float32": 1e12, "bytes": 1e12}


def test_ratios_are_within_a_round_a_mode_and_a_precision():
    lines = [
        (seed, method, mode, precision, value * (seed + 1))
        for seed in (0, 1)
        for method, mode, precision, value in [
            ("SGD", "eager", "float32", 4.0),
            ("SGD", "captured", "float32", 2.0),
            ("SGD", "captured", "TF32", 1.0),
            ("AdaHessian", "eager", "float32", 16.0),
            ("AdaHessian", "captured", "float32", 5.0),
            ("AdaHessian", "captured", "TF32", 3.0),
        ]
    ]
    rows = pd.DataFrame(lines, columns=["seed", "method", "mode", "precision", "value"])
    rows = rows.assign(case="resnet20", metric="milliseconds")
    found = {name: value.value for name, value in measures.steps(rows, "resnet20").items() if name.startswith("ada")}
    assert found == {"adahessian_eager_float32": 4, "adahessian_captured_float32": 2.5, "adahessian_captured_tf32": 3}
    assert measures.eager_over_captured(rows[rows.precision == "float32"], "resnet20")["sgd_float32"].value == 2


def test_epochs_are_compared_with_the_fastest_package():
    lines = [
        (0, names.ON_DEVICE, "AdaHessian", "TF32", 60.0),
        (0, names.USUAL_LOOP, "SGD", "as torch does", 20.0),
        (0, names.USUAL_LOOP, "torch-optimizer", "as torch does", 10.0),
        (0, names.USUAL_LOOP, "pytorch-optimizer", "as torch does", 12.0),
    ]
    rows = pd.DataFrame(lines, columns=["seed", "loop", "method", "precision", "value"]).assign(case="epochs")
    assert measures.epochs(rows)["over_packages_tf32"].value == 5


def test_the_number_of_processes_that_is_fastest(rows):
    found = measures.concurrent(rows)
    assert found["sgd_best"].value == 4 and found["sgd_gain"].value == pytest.approx(600 / 300)
    assert found["adahessian_2"].value == pytest.approx(400 / 3)


@pytest.mark.parametrize("name", THROUGHPUT.figures)
def test_figures_draw(rows, name):
    assert THROUGHPUT.made("figures", name, rows).axes


def test_tables_and_numbers_are_there(rows):
    assert (
        len(measures.steps_table(rows, "resnet20")) == 4
        and len(measures.floor_table(rows)) == 10
        and len(measures.epochs_table(rows)) == 5
    )
    shares = measures.floor(rows)
    assert len(shares) == 10 and all(math.isfinite(share.value) for share in shares.values())
    assert np.isfinite(rows.value).all()
