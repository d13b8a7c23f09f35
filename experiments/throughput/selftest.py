"""May the study trust this machine? Half a minute at the beginning of a lease of a GPU, with the verdict in one file.

    python -m experiments.throughput.selftest --device cuda --out FILE.json

    batch norm, convolution   layers against torch's own on the CPU in float64: values, gradients, Hessian-vector products
    network                   the same of a whole residual network
    eager M, captured M       a method's steps run; captured, they are the eager ones, an epoch's last, smaller batch included
    times                     milliseconds of a captured step, by method and layout
    streams                   images a second of one, two, four and six networks side by side, each on a stream of its own
    profile                   kernels that a step launches, and the 25 that take longest

The parts run in a process of their own, the one after the other. A part that kills it, or that takes too long, has failed; the
rest go on in another process, as an error on a GPU spoils the one in which it happened. FILE is written after every part.

`ok`, and the exit status 0, mean that SGD and AdaHessian run and that all derivatives are right. `captured` are the methods
whose captured step is the eager one, `eager` all others. `fused` says whether batch norm may use its own kernels
(`BatchNorm2d.fused`), `best_streams` how many networks to train at a time. A part that is not for this device has `ok` null.

Hardware: one GPU; a CPU takes the parts that need none. Run time: estimated at 35 s on a GPU, not measured.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.cifar10 import METHODS
from secondlook.problems.resnet import resnet
from secondlook.study.parent import end_with
from secondlook.training import FLOAT32, Precision, generator
from secondlook.training.steps import WARM_UP

from .derivatives import NotHere, batch_norm, convolution, network, normal
from .methods import period, step_of

ON_THE_GPU = Precision(tf32=True, channels_last=True)  # as the study trains there
CONSTANTS = SimpleNamespace(momentum=0.9, betas=(0.9, 0.999), adam_epsilon=1e-8, epsilon=1e-4, weight_decay=5e-4)
RATES = {"SGD": 0.01, "Adam": 1e-4, "AdamW": 1e-3}  # a tenth of the paper's, as in a gentle epoch; AdaHessian's is
RATE = 0.015
SAME = {"float64": 1e-6, "TF32": 0.3}  # relative differences: in STEPS steps AdaHessian's grow 10,000 times in the parameters
STEPS = 12
SIZES = (1, 2, 4, 6)  # networks side by side
FIRST = ("SGD", "Adam", "AdamW", "AdaHessian", "AdaHessian coupled", "AdaHessian absolute", "AdaHessian every 5")  # a lease's
FIRST_PART, A_PART = 60, 25  # seconds that a part may take; a process starts in the first, and kernels are compiled
TICK = 0.05  # seconds between two looks at what a process says
GAIN = 1.05  # below it, more streams are not worth their memory
WORDS = {True: "right", False: "WRONG", None: "not here:"}
MODULE = "experiments.throughput.selftest"


@dataclass(frozen=True)
class Scale:
    depth: int
    width: int
    side: int
    batch: int
    rounds: int


SCALES = {"paper": Scale(20, 16, 32, 256, 20), "smoke": Scale(8, 2, 8, 8, 1)}


# Steps ------------------------------------------------------------------------------------------------------------------------


class Trained:
    """A network and the step of a method, from the same start always."""

    def __init__(
        self, method: str, mode: str, scale: Scale, device: str, precision: Precision, dtype: torch.dtype = torch.float32
    ):
        self.method, self.scale, self.device, self.precision, self.dtype = method, scale, device, precision, dtype
        self.model = resnet(scale.depth, generator(0, "start"), scale.width).to(device, dtype)
        optimizer = METHODS[method].optimizer(self.model, RATES.get(method, RATE), CONSTANTS)
        self.step = step_of(method, mode, optimizer, precision.model(self.model))

    def batch(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        side = self.scale.side
        x = normal(torch.Size((count, 3, side, side)), seed).to(self.device, self.dtype)
        return self.precision.batch(x), (torch.arange(count) % 10).to(self.device)

    def walk(self) -> tuple[Tensor, Tensor]:
        """Losses, and how far the parameters went; every sixth batch is a third of the others, as at an epoch's end."""
        start, losses = self.at(), []
        with self.precision.active():
            for t in range(max(STEPS, (WARM_UP + 2) * period(self.method))):
                x, y = self.batch(t, max(4, self.scale.batch // 3) if t % 6 == 5 else self.scale.batch)
                losses.append(self.step(x, y).detach().double().clone())  # a captured step overwrites its loss
        return torch.stack(losses).cpu(), self.at() - start

    def at(self) -> Tensor:
        return torch.cat([p.detach().double().flatten() for p in self.model.parameters()]).cpu()


def eager(method: str, scale: Scale, device: str) -> dict:
    losses, _ = Trained(method, "eager", small(scale), device, ON_THE_GPU).walk()
    if not losses.isfinite().all():
        raise ArithmeticError(f"losses {losses.tolist()}")
    return {"first": float(losses[0]), "last": float(losses[-1])}


def captured(method: str, scale: Scale, device: str) -> dict:
    if device == "cpu":
        raise NotHere
    found = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* cannot be captured")
        for name, dtype, precision in (("float64", torch.float64, FLOAT32), ("TF32", torch.float32, ON_THE_GPU)):
            walks = [Trained(method, mode, small(scale), device, precision, dtype).walk() for mode in ("eager", "captured")]
            (losses, way), (its_losses, its_way) = walks
            found[f"{name} losses"] = float(((its_losses - losses) / losses).abs().max())
            if dtype == torch.float64:  # in the other, rounding may have taken another way
                found[f"{name} parameters"] = float((its_way - way).norm() / way.norm())
            if not max(value for key, value in found.items() if key.startswith(name)) <= SAME[name]:
                raise ArithmeticError(f"captured and eager steps differ: {found}")
    return found


def small(scale: Scale) -> Scale:
    return replace(scale, depth=8, batch=min(scale.batch, 64))


# Times ------------------------------------------------------------------------------------------------------------------------


def times(scale: Scale, device: str) -> dict:
    if device == "cpu":
        raise NotHere
    found = {}
    for method in ("SGD", "AdaHessian"):
        for precision in (replace(ON_THE_GPU, channels_last=False), ON_THE_GPU):
            (seconds,) = turns([Trained(method, "captured", scale, device, precision)], [1], scale, precision)
            found[f"{method}, TF32{', channels last' * precision.channels_last}"] = 1e3 * seconds
    return found


def streams(scale: Scale, device: str) -> dict:
    """Images a second of all networks together."""
    if device == "cpu":
        raise NotHere
    trained = [Trained("AdaHessian", "captured", scale, device, ON_THE_GPU) for _ in range(max(SIZES))]
    taken = turns(trained, SIZES, scale, ON_THE_GPU)
    return {str(count): count * scale.batch / seconds for count, seconds in zip(SIZES, taken, strict=True)}


def turns(trained: list[Trained], counts: Sequence[int], scale: Scale, precision: Precision) -> list[float]:
    """Seconds in which each of the first so many networks, on a stream of its own, takes a captured step: means over rounds."""
    lanes = [torch.cuda.Stream() for _ in trained]
    batches = [one.batch(0, scale.batch) for one in trained]
    torch.cuda.synchronize()

    def go(count: int, rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            for one, lane, batch in list(zip(trained, lanes, batches, strict=True))[:count]:
                with torch.cuda.stream(lane):
                    one.step(*batch)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / rounds

    with precision.active():
        go(len(trained), WARM_UP + 2)
        return [go(count, scale.rounds) for count in counts]


def profile(scale: Scale, device: str) -> dict:
    """Kernels of an eager step, copies and fills among them: how many, and of AdaHessian the 25 that take longest."""
    if device == "cpu":
        raise NotHere
    found = {}
    for method in ("SGD", "AdaHessian"):
        one = Trained(method, "eager", scale, device, ON_THE_GPU)
        batch = one.batch(0, scale.batch)
        with ON_THE_GPU.active():
            for _ in range(2):
                one.step(*batch)
            torch.cuda.synchronize()
            activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            with torch.profiler.profile(activities=activities) as seen:
                one.step(*batch)
                torch.cuda.synchronize()
        kernels = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        kernels = [event for event in kernels if not event.name.startswith("Optimizer.")]  # spans, no kernels
        if not kernels:
            raise RuntimeError("the profiler saw no kernels")
        found[f"launches {method}"] = len(kernels)
    calls, spent = Counter(), Counter()
    for event in kernels:
        calls[event.name] += 1
        spent[event.name] += event.time_range.elapsed_us() / 1e3
    return found | {
        "kernels": [{"name": name[:200], "calls": calls[name], "milliseconds": ms} for name, ms in spent.most_common(25)]
    }


# All of it --------------------------------------------------------------------------------------------------------------------


def parts(scale: Scale, device: str) -> dict[str, Callable[[], dict]]:
    """By name, in the order in which they matter."""
    derived = {
        "fused batch norm": lambda: batch_norm(device, fused=True),
        "batch norm": lambda: batch_norm(device),
        "convolution": lambda: convolution(device),
        "network": lambda: network(device),
        "eager SGD": lambda: eager("SGD", scale, device),
        "eager AdaHessian": lambda: eager("AdaHessian", scale, device),
    }
    measured = {
        "times": lambda: times(scale, device),
        "streams": lambda: streams(scale, device),
        "profile": lambda: profile(scale, device),
    }
    captures = {f"captured {name}": partial(captured, name, scale, device) for name in METHODS}
    first = {name: captures.pop(name) for name in (f"captured {method}" for method in FIRST)}
    return derived | first | measured | captures


def run(names: list[str], scale: Scale, device: str) -> None:
    """Run these parts. A line of JSON says what there is, one that a part begins, and one what it found.

    Ends with an error where the device no longer answers.
    """
    triton = importlib.util.find_spec("triton") and importlib.import_module("triton").__version__
    facts = {"torch": torch.__version__, "triton": triton, "python": sys.version.split()[0]}
    facts["device"] = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"facts": facts}), flush=True)
    for name in names:
        print(json.dumps({"begun": name}), flush=True)
        begun, said = time.perf_counter(), {"part": name, "ok": True, "why": "", "numbers": {}}
        try:
            said["numbers"] = parts(scale, device)[name]()
        except NotHere:
            said |= {"ok": None, "why": "needs a GPU"}
        except Exception as error:  # whatever it is, it is this part's
            said |= {"ok": False, "why": f"{type(error).__name__}: {error}"[:500]}
        if name == "fused batch norm":
            BatchNorm2d.fused = said["ok"] is True
        print(json.dumps(said | {"seconds": time.perf_counter() - begun}), flush=True)
        if said["ok"] is False and device == "cuda":
            torch.cuda.synchronize()  # raises where the error has spoilt this process


def supervised(command: list[str], names: list[str], deadline: float) -> Iterator[dict]:
    """The lines of `run` for these parts, in one process after another that `command` starts, with --part NAME for each part.

    A part that ends its process or takes too long has failed, and so has one that is not reached before the deadline. A process
    that does not come to its first part is the last.
    """
    left = list(names)
    while left and time.monotonic() < deadline:
        began = len(left)
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen([*command, *(word for name in left for word in ("--part", name))], stdout=said)
            part, at, until = None, 0, time.monotonic() + FIRST_PART
            try:
                while True:
                    ended = child.poll() is not None
                    fresh = os.pread(said.fileno(), 1 << 24, at)
                    fresh = fresh[: fresh.rfind(b"\n") + 1]
                    at += len(fresh)
                    for line in map(json.loads, fresh.splitlines()):
                        if "begun" in line:
                            part, until = line["begun"], max(until, time.monotonic() + A_PART)
                        elif "part" in line:
                            left.remove(line["part"])
                            part, until = None, time.monotonic() + A_PART
                            yield line
                        else:
                            yield line
                    if ended or time.monotonic() > min(until, deadline):
                        break
                    time.sleep(TICK)
            finally:
                child.kill()
                child.wait()
        if part is not None:
            left.remove(part)
            why = f"its process ended with status {child.returncode}" if ended else "it took too long"
            yield {"part": part, "ok": False, "why": why, "numbers": {}, "seconds": None}
        if len(left) == began:
            break
    for name in left:
        yield {"part": name, "ok": False, "why": "it was not reached", "numbers": {}, "seconds": None}


def verdict(said: list[dict], seconds: float, finished: bool) -> dict:
    """What follows from the lines so far."""
    facts = next((line["facts"] for line in said if "facts" in line), {})
    found = {line["part"]: line for line in said if "part" in line}
    right = {name for name, line in found.items() if line["ok"]}
    numbers = {name: line["numbers"] for name, line in found.items()}
    together, took, profiled = (numbers.get(name) or {} for name in ("streams", "times", "profile"))
    best = max(together.values(), default=0)
    layouts = {name.partition(", ")[2]: value for name, value in took.items() if name.startswith("AdaHessian")}
    chosen = min(layouts, key=layouts.get, default=None)
    norm = {"fused batch norm", "batch norm"} & right
    return facts | {
        "finished": finished,
        "ok": bool(norm) and {"convolution", "network", "eager SGD", "eager AdaHessian"} <= right,
        "seconds": seconds,
        "captured": [name for name in METHODS if f"captured {name}" in right],
        "eager": [name for name in METHODS if f"captured {name}" not in right],
        "fused": "fused batch norm" in right,
        "precision": chosen,
        "streams": together,
        "best_streams": next((int(count) for count, value in together.items() if value * GAIN >= best), 1),
        "milliseconds": {method: took[f"{method}, {chosen}"] for method in ("SGD", "AdaHessian")} if took else {},
        "launches": {name.removeprefix("launches "): n for name, n in profiled.items() if name.startswith("launches ")},
        "kernels": profiled.get("kernels", []),
        "parts": list(found.values()),
    }


def main(words: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="selftest", description=__doc__.splitlines()[0])
    options.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options.add_argument("--out", type=Path, help="the file of the verdict")
    options.add_argument("--seconds", type=float, default=60, help="after which parts that are not done have failed")
    options.add_argument("--scale", choices=SCALES, default="paper", help="smoke: small networks")
    options.add_argument("--part", action="append", help="run this part, and as many more, in this process")
    given = options.parse_args(words)
    scale = SCALES[given.scale]
    if given.part:
        end_with(os.getppid())
        run(given.part, scale, given.device)
        return 0
    if not given.out:
        options.error("--out FILE.json is missing")
    start, said = time.monotonic(), []
    names = list(parts(scale, given.device))
    command = [sys.executable, "-m", MODULE, "--device", given.device, "--scale", given.scale]

    def write(finished: bool) -> dict:
        found = verdict(said, time.monotonic() - start, finished)
        fresh = given.out.with_name(f".{given.out.name}")
        fresh.write_text(json.dumps(found, indent=1))
        fresh.replace(given.out)
        return found

    for line in supervised(command, names, start + given.seconds):
        said.append(line)
        write(False)
        if "part" in line:
            print(f"{line['part']}: {WORDS[line['ok']]} {line['why']}".rstrip(), flush=True)
    return 0 if write(True)["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
