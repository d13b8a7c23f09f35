"""The kernels of batch norm's second derivative: their numbers on a CPU, by Triton's interpreter, and what a step sends to a GPU.

Run as a program, with TRITON_INTERPRET=1 in the environment, this file computes; as a test it reads what that said.
"""

import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import HANG, ROOT
from test_resnet import Operations, product_of, seeded
from torch.nn.functional import cross_entropy

from secondlook.curvature.products import hvp
from secondlook.optim import AdaHessian
from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.resnet import resnet
from secondlook.training import Precision

SHAPES = {"one tile": (3, 5, 4, 6), "several tiles": (5, 16, 12, 20), "more channels than a tile's": (3, 70, 5, 5)}
TYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
CELLS = [*itertools.product(SHAPES, ["float64"], LAYOUTS), *itertools.product(["one tile"], ["float32", "bfloat16"], LAYOUTS)]
ALLOCATIONS = {"empty", "empty_like", "new_empty", "new_empty_strided", "promote_types"}  # no work for a device


def errors(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> dict[str, float]:
    """Of (by_gy, by_x, by_gamma), in units of their type's rounding times the size of what is added up; float64 is the truth."""
    from secondlook.problems.batch_norm_fused import second_derivative

    kind = torch.float64 if dtype == torch.float64 else torch.float32
    images = [scale * torch.randn(shape, generator=seeded(i), dtype=torch.float64) for i, scale in enumerate((1, 1, 2))]
    v, gy, x = (t.to(dtype).double() for t in images)
    x = (x + 3).to(dtype).double()
    gamma, v_gamma, v_beta = (torch.randn(shape[1], generator=seeded(i), dtype=kind).double() for i in (3, 4, 5))
    mean, r = x.mean((0, 2, 3)), (x.var((0, 2, 3), unbiased=False) + 1e-5).rsqrt()
    centred = (x - mean[:, None, None]) * r[:, None, None]
    n_P, n_S = (gy * centred).sum((0, 2, 3)), gy.sum((0, 2, 3))

    n = x.numel() / shape[1]
    V, Q, M, P, S = ((t.sum((0, 2, 3)) / n) for t in (v, v * centred, v * gy, gy * centred, gy))
    K, a = M - S * V - P * Q, gamma * r

    def wide(t: torch.Tensor) -> torch.Tensor:
        return t[:, None, None]

    w = wide(v_gamma - a * Q) * gy - wide(a * P) * v
    means = w.mean((0, 2, 3)), (w * centred).mean((0, 2, 3))
    true = (
        wide(a) * (v - wide(V) - wide(Q) * centred) + wide(v_gamma) * centred + wide(v_beta),
        wide(r) * (w - wide(means[0]) - wide(means[1]) * centred) - wide(a * r * K) * centred,
        n * r * K,
    )
    vectors = (t.to(kind) for t in (gamma, mean, r, n_P, n_S))
    given = [t.to(dtype).contiguous(memory_format=layout) for t in (gy, x)]
    found = second_derivative(v.to(dtype).contiguous(memory_format=layout), v_gamma.to(kind), v_beta.to(kind), *given, *vectors)
    assert all(t.is_contiguous(memory_format=layout) for t in found[:2])
    assert [t.dtype for t in found] == [dtype, dtype, kind]
    return {
        name: float((a.double() - b).norm() / b.norm()) / torch.finfo(a.dtype).eps
        for name, a, b in zip(("by gy", "by x", "by gamma"), found, true, strict=True)
    }


class Launched:
    """Stands for a kernel, and counts how often it is launched; computes nothing."""

    count = 0

    def __getitem__(self, grid):
        return self

    def __call__(self, *args, **kwargs):
        Launched.count += 1


def launches_of_a_step(depth: int) -> dict[str, int]:
    """Of AdaHessian, before its update and in it: operations that compute, and kernels of batch norm's second derivative.

    A backward pass of a convolution counts for as many as it has results. A view and an allocation are none.
    """
    from secondlook.problems import batch_norm_fused as fused

    for name in ("_sums", "_factors", "_images"):
        setattr(fused, name, Launched())
    model = resnet(depth, seeded(), width=2)
    x, y = torch.randn(2, 3, 32, 32, generator=seeded(1)), torch.arange(2)
    optimizer = AdaHessian(model.parameters())
    optimizer.backward(cross_entropy(model(x), y))  # the optimiser's state and tables are made
    optimizer.step()
    optimizer.zero_grad()
    Launched.count = 0
    with Operations() as before:
        optimizer.backward(cross_entropy(model(x), y))
    with Operations() as update:
        optimizer.step()
    own, its = (len([name for name in seen.names if name not in ALLOCATIONS]) for seen in (before, update))
    return {"operations": own, "kernels": Launched.count, "second results": before.second_results, "update": its}


def products(channels_last: bool) -> float:
    """How far apart a network's Hessian-vector products are with the kernels and without, and many at once and one by one."""
    model, x, y = resnet(8, seeded(), width=4).double(), torch.randn(2, 3, 8, 8, generator=seeded(1)).double(), torch.arange(2)
    found = []
    for BatchNorm2d.fused in (True, False):
        found.append(product_of(model, x, y, Precision(channels_last=channels_last)))
    BatchNorm2d.fused = True
    params = list(model.parameters())
    g = torch.autograd.grad(cross_entropy(model(x), y), params, create_graph=True)
    z = [torch.randn(p.shape, generator=seeded(4), dtype=torch.float64)[None] for p in params]
    found.append([h[0] for h in hvp(g, params, z, batched=True)])
    apart = [max(float((a - b).norm() / b.norm()) for a, b in zip(other, found[1], strict=True)) for other in found]
    return max(apart)


def computed() -> dict:
    from secondlook.problems import batch_norm_fused as fused

    fused.BLOCKS = 2  # so that a block has several tiles, of which images large enough for a GPU would have some
    return {
        "errors": {", ".join(cell): errors(SHAPES[cell[0]], TYPES[cell[1]], LAYOUTS[cell[2]]) for cell in CELLS},
        "products": [products(channels_last) for channels_last in (False, True)],
        "launches": launches_of_a_step(20),
    }


@pytest.fixture(scope="module")
def said() -> dict:
    pytest.importorskip("triton", reason="Triton, which torch brings where it is built for CUDA, is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("cell", [", ".join(cell) for cell in CELLS])
def test_the_kernels_are_the_equations(said, cell):
    """To rounding: an entry is a sum of four terms, and a factor a mean of n <= 1,200 numbers, in the norm within 8 roundings."""
    assert max(said["errors"][cell].values()) <= 8


def test_networks_have_the_same_products_with_the_kernels_and_many_at_once(said):
    assert max(said["products"]) < 1e-9


def test_a_step_is_at_most_700_launches(said):
    launches = said["launches"]
    assert launches["kernels"] == 3 * 19
    assert sum(launches.values()) <= 700, launches


@pytest.mark.parametrize("inner, wide", [(1, 16), (1024, 1)], ids=["channels last", "NCHW"])
@pytest.mark.parametrize("images", ["fp32", "bf16"])
def test_the_kernels_compile_for_an_h100(inner, wide, images, tmp_path, monkeypatch):
    """To machine code, which needs no GPU."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    from triton.backends.compiler import GPUTarget

    from secondlook.problems import batch_norm_fused as fused

    if type(fused._sums).__name__ != "JITFunction":
        pytest.skip("TRITON_INTERPRET is set")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    shape = {"ROWS": 2048 // wide, "CHANNELS": wide} | ({"inner": 1} if inner == 1 else {})  # ones are compiled in
    for kernel, constants in {
        fused._sums: {"TILES": 4} | shape,
        fused._factors: {"BLOCKS": 512, "CHANNELS": 8},
        fused._images: shape,
    }.items():
        numbers = dict.fromkeys(("rows", "channels", "inner", "blocks", "n"), "i32") | dict.fromkeys(constants, "constexpr")
        arrays = dict.fromkeys(("v", "gy", "x", "by_gy", "by_x"), f"*{images}")
        types = {name: (arrays | numbers).get(name, "*fp32") for name in kernel.arg_names}
        source = triton.compiler.ASTSource(kernel, types, constants)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_without_a_gpu_the_kernels_are_not_even_imported():
    code = (
        "import sys, torch; from secondlook.problems.batch_norm import BatchNorm2d\n"
        "x = torch.randn(4, 2, 3, 3, requires_grad=True); (g,) = torch.autograd.grad(BatchNorm2d(2)(x).sin().sum(), x, create_graph=True)\n"
        "g.sum().backward(); sys.exit('secondlook.problems.batch_norm_fused' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT).returncode == 0


def test_kernels_that_cannot_be_compiled_are_done_without(monkeypatch):
    """With a warning, once, and the same numbers."""

    class Broken:
        @staticmethod
        def second_derivative(*_):
            raise FileNotFoundError("no C compiler")

    model, x, y = resnet(8, seeded(), width=4).double(), torch.randn(4, 3, 8, 8, generator=seeded(1)).double(), torch.arange(4)
    expected = product_of(model, x, y, Precision())
    monkeypatch.setattr(BatchNorm2d, "fused", True)
    monkeypatch.setattr("secondlook.problems.batch_norm._kernels", lambda *_: Broken if BatchNorm2d.fused else None)
    with pytest.warns(UserWarning, match="cannot be had, and torch's are taken: no C compiler") as warned:
        found = product_of(model, x, y, Precision())
    assert len(warned) == 1 and not BatchNorm2d.fused
    assert all(map(torch.equal, found, expected))


if __name__ == "__main__":
    print(json.dumps(computed()))
