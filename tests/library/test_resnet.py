"""The networks for images, and their layers, whose derivatives of second order were derived by hand."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from secondlook.curvature.products import hvp
from secondlook.optim import AdaHessian, compiled_step
from secondlook.problems.batch_norm import BatchNorm2d
from secondlook.problems.convolution import Conv2d
from secondlook.problems.rectifier import ReLU
from secondlook.problems.resnet import convnet, resnet
from secondlook.training import Precision

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(seed: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A narrow residual network in float64, six images, and their labels."""
    x = torch.randn(6, 3, 8, 8, generator=seeded(1), dtype=torch.float64)
    return resnet(8, seeded(seed), width=4).double(), x, torch.arange(6)


def with_torchs_layers(model: nn.Module) -> nn.Module:
    model = deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, BatchNorm2d | Conv2d | ReLU):
            layer.__class__ = type(layer).__base__
    return model


def norms() -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """This batch norm, torch's, and a batch, with nothing left at zero or one."""
    ours = BatchNorm2d(3).double()
    with torch.no_grad():
        ours.weight.copy_(torch.tensor([0.5, -1.5, 2.0]))
        ours.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
    x = 3 + 2 * torch.randn(4, 3, 5, 5, generator=seeded(), dtype=torch.float64)
    return ours, with_torchs_layers(ours), x.requires_grad_()


# Parameters -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth, count", [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_parameters_of_a_residual_network(depth, count):
    """0.27, 0.46, 0.66 and 0.85 million: Table 6 of He et al."""
    n = (depth - 2) // 6
    convolutions = 9 * (3 * 16 + 2 * n * (16**2 + 32**2 + 64**2) - 16 * 32 - 32 * 64)  # a stage's first has half the inputs
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    model = resnet(depth, seeded())
    assert sum(p.numel() for p in model.parameters()) == count == convolutions + norms + 650
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == depth


def test_parameters_of_the_small_network():
    assert sum(p.numel() for p in convnet(seeded()).parameters()) == 9 * (3 * 16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + 650


@pytest.mark.parametrize("depth", [2, 18, 21, -4])
def test_a_depth_that_is_no_residual_networks_is_refused(depth):
    with pytest.raises(ValueError, match=rf"depth must be 6n \+ 2 with n >= 1, got {depth}"):
        resnet(depth, seeded())


@pytest.mark.parametrize(
    "build", [lambda g: resnet(8, g, width=4, classes=7), lambda g: convnet(g, width=4, classes=7)], ids=["resnet", "convnet"]
)
def test_a_start_depends_on_its_generator_alone(build):
    state = torch.get_rng_state()
    first, same, other = build(seeded(5)), build(seeded(5)), build(seeded(6))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(first.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first(torch.ones(2, 3, 16, 16)).shape == (2, 7)


def test_weights_start_with_the_variance_of_he():
    """Variance 2 / inputs. The largest layer has 36,864 weights, so that a variance is off by 4 % for 1 seed in 10^6."""
    for layer in resnet(20, seeded()).modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() == 36_864:
            assert abs(layer.weight.var().item() * layer.weight[0].numel() / 2 - 1) < 0.04
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()
            assert (layer.running_mean == 0).all() and (layer.running_var == 1).all() and layer.num_batches_tracked == 0


def test_a_residual_network_is_the_literal_one():
    """Every layer written out, on the network's own weights; torch's batch norm; zero channels appended one by one."""
    model, x, _ = small()
    P = {name: p.detach() for name, p in model.named_parameters()}

    def normed(h, name):
        return functional.batch_norm(h, None, None, P[f"{name}.weight"], P[f"{name}.bias"], training=True)

    h = functional.relu(normed(functional.conv2d(x, P["0.weight"], padding=1), "1"))
    for block, stride in (("3", 1), ("4", 2), ("5", 2)):
        y = functional.relu(
            normed(functional.conv2d(h, P[f"{block}.conv1.weight"], stride=stride, padding=1), f"{block}.norm1")
        )
        y = normed(functional.conv2d(y, P[f"{block}.conv2.weight"], padding=1), f"{block}.norm2")
        short = torch.zeros_like(y)
        for i in range(h.shape[1]):
            short[:, i] = h[:, i, ::stride, ::stride]
        h = functional.relu(y + short)
    logits = h.mean((2, 3)) @ P["8.weight"].T + P["8.bias"]
    torch.testing.assert_close(model(x), logits, **CLOSE)


# Batch norm -------------------------------------------------------------------------------------------------------------------


def test_batch_norms_derivatives_pass_finite_differences():
    ours, _, x = norms()

    def call(x, gamma, beta):
        return torch.func.functional_call(ours, {"weight": gamma, "bias": beta}, (x[:2, :, :2, :3],))

    inputs = (x, ours.weight, ours.bias)
    assert gradcheck(call, inputs) and gradgradcheck(call, inputs)


def test_batch_norms_derivatives_are_torchs():
    """Values, gradients and Hessian-vector products of a loss in which every one of them matters."""

    def all_of(norm, x):
        inputs = (x, norm.weight, norm.bias)
        weights = torch.randn(x.shape, generator=seeded(2), dtype=x.dtype)
        y = norm(x)
        g = grad((y.sin() * weights).sum() + (y * x).pow(2).mean(), inputs, create_graph=True)
        z = [torch.randn(p.shape, generator=seeded(3), dtype=p.dtype) for p in inputs]
        return [y, *g, *hvp(g, inputs, z)]

    ours, torchs, x = norms()
    for found, expected in zip(all_of(ours, x), all_of(torchs, x), strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_running_means_and_evaluation_are_torchs():
    ours, torchs, x = norms()
    for scale in (1.0, 2.0, 0.5):
        assert torch.equal(ours(scale * x), torchs(scale * x))
    for name, value in torchs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert ours.num_batches_tracked == 3
    assert torch.equal(ours.eval()(x), torchs.eval()(x))


@pytest.mark.parametrize("shape, text", [((1, 3, 1, 1), "more than 1 value per channel"), ((3, 4), "4D")])
def test_what_has_no_variance_or_no_pixels_is_refused(shape, text):
    for norm in (BatchNorm2d(shape[1]), nn.BatchNorm2d(shape[1])):
        with pytest.raises(ValueError, match=text):
            norm(torch.ones(shape))


def test_half_precision_keeps_the_types_of_torch():
    ours, _, x = norms()
    ours, x = ours.float(), x.detach().bfloat16().requires_grad_()
    inputs = (x, ours.weight, ours.bias)
    g = grad(ours(x).float().sin().sum(), inputs, create_graph=True)
    assert [h.dtype for h in hvp(g, inputs, [torch.ones_like(p) for p in inputs])] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]


def test_a_compiled_step_trains_the_network():
    """Traced, not compiled: the layer steps aside for torch's own, so that a step is one graph."""
    _, x, y = small()
    model = convnet(seeded(), width=4).double()
    eager = deepcopy(model)
    optimizer = AdaHessian(eager.parameters())
    optimizer.backward(functional.cross_entropy(eager(x), y))
    optimizer.step()
    compiled_step(AdaHessian(model.parameters()), model, functional.cross_entropy, backend="eager")(x, y)
    for p, q in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-9)


# Convolution ------------------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "stride 2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "no padding, no bias": {"kernel_size": 3, "bias": False},
    "1 x 1, stride 2": {"kernel_size": 1, "stride": 2},
    "oblong": {"kernel_size": (3, 2), "stride": (1, 3), "padding": (0, 1), "bias": False},
}
each_convolution = pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)


def convolution(options: dict, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.Tensor]:
    ours = Conv2d(3, 4, **options).to(dtype)
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded(7)))
    return ours, torch.randn(2, 3, 7, 8, generator=seeded(8)).to(dtype).requires_grad_()


@each_convolution
def test_convolutions_derivatives_pass_finite_differences(options):
    ours, x = convolution(options)
    names = [name for name, _ in ours.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x,))

    inputs = (x[:1, :, :4, :5], *ours.parameters())
    assert gradcheck(call, inputs) and gradgradcheck(call, inputs)


@each_convolution
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [True, False], ids=["by images", "by parameters alone"])
def test_convolutions_derivatives_are_torchs(options, layout, images):
    """Values and gradients bit for bit; Hessian-vector products of a loss in which all matters to rounding."""
    ours, x = convolution(options)
    x = x.detach().contiguous(memory_format=layout).requires_grad_(images)

    def all_of(layer):
        inputs = [t for t in (x, *layer.to(memory_format=layout).parameters()) if t.requires_grad]
        y = layer(x)
        g = grad((y.sin() * y).sum() + sum((t**3).sum() for t in inputs), inputs, create_graph=True)
        z = [torch.randn(t.shape, generator=seeded(3), dtype=t.dtype) for t in inputs]
        return [y, *g], [*hvp(g, inputs, z, retain_graph=True), *hvp(g[:1], inputs, z[:1])]

    (first, second), (torchs_first, torchs_second) = all_of(ours), all_of(with_torchs_layers(ours))
    assert all(map(torch.equal, first, torchs_first))
    for found, expected in zip(second, torchs_second, strict=True):
        assert (found - expected).norm() <= 1e-14 * expected.norm()


def test_under_autocast_a_convolution_computes_in_bfloat16_and_keeps_its_parameters_types():
    """Every entry within (n + 2) 2^-8 of the sum of its n terms' sizes: rounding n sums and two results to 8 bits."""
    ours, x = convolution({"kernel_size": 3, "padding": 1, "bias": False}, torch.float32)
    with torch.no_grad():
        for t in (x, ours.weight):
            t.copy_(t.bfloat16())  # so that the casts of the forward pass change nothing
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
    assert y.dtype == torch.bfloat16
    gy = torch.randn(y.shape, generator=seeded(2)).bfloat16().requires_grad_()
    v, V = (torch.randn(t.shape, generator=seeded(5)).bfloat16().float() for t in (x, ours.weight))
    g = grad(y, (x, ours.weight), gy, create_graph=True)
    found = grad(g, (gy, x, ours.weight), (v, V))
    assert [t.dtype for t in (*g, *found)] == [torch.float32] * 2 + [torch.bfloat16] + [torch.float32] * 2

    def exact(x, W, gy, v, V):
        x, W, gy, v, V = (t.detach().double() for t in (x, W, gy, v, V))
        by_gy = torch.conv2d(v, W, padding=1) + torch.conv2d(x, V, padding=1)
        return by_gy, functional.conv_transpose2d(gy, V, padding=1), nn.grad.conv2d_weight(v, W.shape, gy, padding=1)

    true, sizes = exact(x, ours.weight, gy, v, V), exact(*(t.abs() for t in (x, ours.weight, gy, v, V)))
    for by, value, size, n in zip(found, true, sizes, (2 * 27, 36, 2 * 56), strict=True):
        assert ((by.double() - value).abs() <= (n + 2) * 2**-8 * size).all()
    assert ((true[0] - torch.conv2d(v.double(), ours.weight.double(), padding=1)).abs() > 56 * 2**-8 * sizes[0]).any()


@pytest.mark.parametrize(
    "options", [{"groups": 3}, {"dilation": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "circular"}]
)
def test_what_this_convolution_does_not_derive_is_torchs(options):
    ours = Conv2d(3, 6, 3, **options).double()
    x = torch.randn(2, 3, 7, 7, generator=seeded(), dtype=torch.float64)
    assert torch.equal(ours(x), with_torchs_layers(ours)(x))
    assert "_Forward" not in type(ours(x).grad_fn).__name__ and "_Forward" in type(Conv2d(3, 6, 3)(x.float()).grad_fn).__name__


@pytest.mark.parametrize("layer, by", [(Conv2d(2, 2, 3), "convolution"), (BatchNorm2d(2), "batch norm")])
def test_a_third_derivative_is_refused_not_wrong(layer, by):
    x = torch.randn(2, 2, 4, 4, generator=seeded(), requires_grad=True)
    (g,) = grad(layer(x).sin().sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match=f"this {by} has no derivatives of third order: take torch.nn.{type(layer).__name__}"
    ):
        grad(g.pow(2).sum(), x, create_graph=True)


def test_rectifiers_derivatives_are_torchs_to_any_order():
    x = torch.randn(5, 7, generator=seeded(), dtype=torch.float64)
    x[0] = 0

    def all_of(layer):
        t = x.clone().requires_grad_()
        found = [layer(t)]
        for _ in range(3):
            found += grad((found[-1] ** 2 * x).sum() + (t**4).sum(), t, create_graph=True)
        return found

    for found, expected in zip(all_of(ReLU()), all_of(nn.ReLU()), strict=True):
        assert torch.equal(found, expected)


# A network --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_networks_hessian_vector_products_are_those_with_torchs_layers(layout):
    model, x, y = small()

    def products(model):
        model = model.to(memory_format=layout)
        params = list(model.parameters())
        loss = functional.cross_entropy(model(x.contiguous(memory_format=layout)), y)
        g = grad(loss, params, create_graph=True)
        z = [torch.randn(2, *p.shape, generator=seeded(4), dtype=p.dtype) for p in params]
        return [*g, *hvp(g, params, [zi[0] for zi in z], retain_graph=True), *hvp(g, params, z, batched=True)]

    for found, expected in zip(products(model), products(with_torchs_layers(model)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("channels_last", [False, True])
def test_in_bfloat16_products_are_as_near_the_true_ones_as_with_torchs_layers(channels_last):
    """Errors of rounding, in the norm over all parameters: half as large again at most. Forward passes have the same bits."""
    model, x, y = small()
    true = torch.cat([h.flatten() for h in product_of(with_torchs_layers(model), x, y, Precision())])
    bf16 = Precision(bf16=True, channels_last=channels_last)
    ours, torchs = (
        torch.cat([h.flatten() for h in product_of(network.float(), x.float(), y, bf16)])
        for network in (deepcopy(model), with_torchs_layers(model))
    )
    assert (ours - true).norm() <= 1.5 * (torchs - true).norm() < 0.5 * true.norm()


def product_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor, precision: Precision) -> list[torch.Tensor]:
    """H z of the mean cross-entropy, with the same z always."""
    params, forward = list(model.parameters()), precision.model(model)
    g = grad(functional.cross_entropy(forward(precision.batch(x)), y), params, create_graph=True)
    return hvp(g, params, [torch.randn(p.shape, generator=seeded(4), dtype=torch.float64).to(p.dtype) for p in params])


class Operations(TorchDispatchMode):
    """Names of the operations that are no views, the sides of convolutions' kernels, and how many passes have a second result."""

    VIEWS = {
        "view",
        "t",
        "transpose",
        "expand",
        "slice",
        "select",
        "detach",
        "alias",
        "unsqueeze",
        "squeeze",
        "permute",
        "split",
    }
    VIEWS |= {"as_strided", "_unsafe_view", "split_with_sizes", "reshape", "unbind", "narrow", "diagonal", "_reshape_alias"}

    def __init__(self):
        super().__init__()
        self.names, self.sides, self.second_results = [], set(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        self.names += [name] * (name not in self.VIEWS)
        if name in ("convolution", "convolution_backward"):
            self.sides |= set(args[1 if name == "convolution" else 2].shape[2:])
            self.second_results += name == "convolution_backward" and sum(args[10]) - 1
        return function(*args, **(kwargs or {}))


def operations_of_a_step(model: nn.Module) -> Operations:
    """AdaHessian's before its update, on two images of 32 x 32."""
    x, y = torch.randn(2, 3, 32, 32, generator=seeded(1)), torch.arange(2)
    optimizer = AdaHessian(model.parameters())
    with Operations() as operations:
        optimizer.backward(functional.cross_entropy(model(x), y))
    return operations


def test_a_step_has_no_convolution_larger_than_the_networks():
    """With torch's own layers there are some as large as the images."""
    model = resnet(8, seeded(), width=4)
    assert operations_of_a_step(model).sides == {3}
    assert max(operations_of_a_step(with_torchs_layers(model)).sides) == 32


def test_a_step_is_fewer_operations_than_it_was():
    """1,825 for ResNet-20 when convolution and rectifier were torch's, and batch norm did not count its operations."""
    assert len(operations_of_a_step(resnet(20, seeded(), width=2)).names) <= 1400


# What a GPU is sent -----------------------------------------------------------------------------------------------------------

DRIVER = ("NVIDIA driver", "CUDA driver", "CUDA error", "no CUDA", "device-side", "No CUDA GPUs", "cudaGetDeviceCount")


class Replay(TorchDispatchMode):
    """Sends every `native_*` call once more, with its own CPU tensors, to the kernel that is registered for CUDA.

    A kernel that asks the driver for a device has taken its arguments; another error is one that a GPU would raise, too.
    """

    def __init__(self):
        super().__init__()
        self.calls, self.refused = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        if name.startswith("native_"):
            self.calls += 1
            said = "it returned without a device"
            try:
                function.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *args, **(kwargs or {}))
            except Exception as error:
                said = str(error).splitlines()[0]
            if not any(word in said for word in DRIVER):
                self.refused.append((name, said))
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch has no kernels for CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, its own tests say it")
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("order", [1, 2])
def test_kernels_for_cuda_take_what_a_step_sends_them(bf16, channels_last, order):
    precision, model = Precision(bf16=bf16, channels_last=channels_last), resnet(8, seeded(), width=4)
    forward = precision.model(model)
    x = precision.batch(torch.randn(4, 3, 32, 32, generator=seeded(1)))
    with Replay() as replay:
        loss = functional.cross_entropy(forward(x), torch.arange(4))
        AdaHessian(model.parameters()).backward(loss) if order == 2 else loss.backward()
    assert replay.calls >= 14 and not replay.refused


def test_a_kernel_for_cuda_that_refuses_is_seen():
    """A batch norm without a scale is what CUDA refuses where the CPU does not: the check can fail."""
    if torch.version.cuda is None or torch.cuda.is_available():
        pytest.skip("needs a build for CUDA on a machine without a GPU")
    x, (mean, r) = torch.ones(2, 3, 4, 4), torch.ones(2, 3)
    with Replay() as replay:
        torch.ops.aten.native_batch_norm_backward(x, x, None, None, None, mean, r, True, 0.0, [False, True, True])
    assert replay.refused == [("native_batch_norm_backward", "tensor does not have a device")]
