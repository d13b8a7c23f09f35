r"""Kronecker factors of the Fisher or Gauss-Newton block of each Linear and Conv2d layer.

    block of [W b] ~ G (x) A,    A = E[sum_t a_t a_t^T],    G = (1/T) E[sum_t g_t g_t^T]

a_t (in + 1,) is the layer's input in homogeneous coordinates, with a 1 for the bias; g_t (out,) the derivative of one example's
loss by the layer's output; t runs over the T positions of a convolution, where a_t is a patch, or over a linear layer's further
dimensions; T = 1 for a plain linear layer. E is the mean over examples and over the targets, which may be

    empirical   those of the data: g is the usual derivative, and the matrix not the Fisher
    mc          drawn from the model, one for each example: unbiased for the true Fisher
    exact       all of them: G = (1/T) E[sum_t J_t^T S S^T J_t], with S S^T the Hessian of the loss by the output

For the losses below the Fisher is the Gauss-Newton matrix up to the scale in S (K outputs, targets y, outputs f):

    categorical   F.cross_entropy(f, y)    S S^T = diag(p) - p p^T, p = softmax(f)      S = diag(sqrt p) - p sqrt(p)^T
    squared       F.mse_loss(f, y)         S S^T = (2/K) I

With T = 1, G (x) A is the block itself for one example and, under the squared loss, for one linear layer and for each layer of
a deep linear net; elsewhere it takes A and G for independent. With the rows of [W b] one after the other it is
torch.kron(G, A).

Cost: a pass backward for 'mc', K for 'exact', none for 'empirical'. Memory: (in + 1)^2 + out^2 numbers a layer.
Source: Martens and Grosse (2015), sections 3 (factors, homogeneous coordinates) and 5 (targets drawn from the model); Grosse
and Martens (2016), section 3, for convolutions.
Deviations: further dimensions of a linear layer are treated as the positions of a convolution.
"""

import functools
import math
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import Conv2d, Linear, Module, functional

from secondlook.arguments import one_of
from secondlook.curvature.gauss_newton import drawn_labels

FISHERS = ("empirical", "mc", "exact")
LIKELIHOODS = ("categorical", "squared")

Layer = Linear | Conv2d

Factors = tuple[Tensor, Tensor]  # A (in [+ 1], in [+ 1]) and G (out, out)
Sums = tuple[Tensor, Tensor, int]  # n A and n G of n examples, and n


def layers_of(model: Module, subclasses: Iterable[type[Layer]] = (), skip: Iterable[Module] = ()) -> dict[str, Layer]:
    """The layers of `model` that have factors, by name: Linear, and Conv2d of one group with a number of zeros as padding.

    A subclass may compute anything, so that only those in `subclasses` count, which compute what torch's class does. A
    UserWarning names trained Linear and Conv2d layers that have none, but those in `skip`, which are left out.
    """
    kinds, skipped = {Linear, Conv2d, *subclasses}, set(skip)
    if others := [kind for kind in kinds if not issubclass(kind, Linear | Conv2d)]:
        raise ValueError(f"subclasses must be of Linear or Conv2d, got {others[0].__qualname__}")
    candidates = {name: m for name, m in model.named_modules() if isinstance(m, Linear | Conv2d) and m not in skipped}
    layers = {name: m for name, m in candidates.items() if type(m) in kinds and not (isinstance(m, Conv2d) and _special(m))}
    if left := [name for name, m in candidates.items() if name not in layers and m.weight.requires_grad]:
        warnings.warn(
            f"layers {left} have no Kronecker factors: they are of a subclass of Linear or Conv2d, in groups, or not padded"
            " by a number of zeros. Say subclasses=[...] of those that compute what torch's class does, or skip=[layer, ...]",
            stacklevel=3,
        )
    return layers


def _special(layer: Conv2d) -> bool:
    return layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str)


def input_factor(layer: Layer, a: Tensor) -> Tensor:
    """A of the inputs `a`: (N, ..., in) of a Linear, (N, in, H, W) of a Conv2d. Without a trainable bias the 1 is left out."""
    if isinstance(layer, Conv2d):
        patches = functional.unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # (N, in kh kw, T)
        a = patches.mT  # (N, T, in kh kw)
    n, a = len(a), a.reshape(-1, a.shape[-1])  # (N T, in)
    if trained_bias(layer) is not None:
        a = torch.cat([a, a.new_ones(len(a), 1)], dim=1)
    return a.T @ a / n


def output_factor(layer: Layer, g: Tensor) -> Tensor:
    """G of the derivatives `g` of a loss that is the mean over N examples: (N, ..., out) or (N, out, H, W)."""
    if isinstance(layer, Conv2d):
        g = g.flatten(2).mT  # (N, T, out)
    n, g = len(g), g.reshape(-1, g.shape[-1])  # (N T, out)
    return n**2 * g.T @ g / len(g)  # n g is the derivative of one example's loss


def trained_bias(layer: Layer) -> Tensor | None:
    """The bias of a layer, if it has one that is trained."""
    return layer.bias if layer.bias is not None and layer.bias.requires_grad else None


def factor_sizes(layer: Layer) -> tuple[int, int]:
    """The sides of A and G: in (times the pixels of the kernel), with the 1 of a trainable bias, and out."""
    return layer.weight[0].numel() + (trained_bias(layer) is not None), len(layer.weight)


def damping_ratio(A: Tensor, G: Tensor) -> float:
    """pi = sqrt( (tr A / dim A) / (tr G / dim G) ), Martens and Grosse (2015), section 6.3; 1 where a trace is zero."""
    a, g = A.diagonal().mean().item(), G.diagonal().mean().item()
    return math.sqrt(a / g) if a > 0 and g > 0 else 1.0


def damped_inverses(A: Tensor, G: Tensor, damping: float) -> Factors:
    """(A + pi sqrt(damping) I)^-1 and (G + sqrt(damping) / pi I)^-1, by Cholesky factors."""
    pi, root = damping_ratio(A, G), math.sqrt(damping)
    return _inverse(A, pi * root), _inverse(G, root / pi)


def _inverse(M: Tensor, shift: float) -> Tensor:
    L, info = torch.linalg.cholesky_ex(M + shift * torch.eye(len(M), dtype=M.dtype, device=M.device))
    if info.item():
        raise torch.linalg.LinAlgError(
            "a Kronecker factor is singular or not finite: raise damping, or lower lr if the loss diverges"
        )
    return torch.cholesky_inverse(L).mT  # symmetric; so that its rows are in order, as those of one that was received


class Statistics:
    """A and G of `layers`, gathered by hooks from each pass backward, or none while `gather` is false.

    Only forwards in training mode and with gradients enabled count. The gathering is over the examples of all passes since
    `clear`. The losses of the passes are shares of one loss, their sum, which is taken as a mean over all of these examples:
    micro-batches give what the whole batch would. Copies of a layer carry a dead hook.

    `batch_first` tells which dimension of a linear layer's input counts examples where there are more than two: the first, or
    else the second. ValueError where such an input comes and it is None.
    """

    def __init__(self, layers: Mapping[str, Layer], batch_first: bool | None = None):
        self.layers = dict(layers)
        self.batch_first = batch_first
        self.watch = True  # of forwards: whether a pass backward may be gathered from
        self.gather = True  # of passes backward
        self._drawn = False  # whether the passes are of targets from the model: each a mean, over whatever loss there is
        self._sums: dict[str, Sums] = {}
        self._passes: dict[str, int] = {}  # in which pass backward a layer was last seen
        self._handles = [layer.register_forward_hook(_Hook(self, name)) for name, layer in self.layers.items()]

    def remove(self) -> None:
        """Take the hooks off the layers."""
        for handle in self._handles:
            handle.remove()

    def clear(self) -> None:
        self._sums, self._passes = {}, {}

    def take(self) -> tuple[dict, dict]:
        """What was gathered since `clear`, which is done; for `put` to bring back."""
        taken = self._sums, self._passes
        self.clear()
        return taken

    def put(self, taken: tuple[dict, dict]) -> None:
        self._sums, self._passes = taken

    def sums(self) -> dict[str, Sums]:
        """What was gathered of each layer seen since `clear`."""
        return {name: self._sums[name] for name in self.layers if name in self._sums}

    def factors(self) -> dict[str, Factors]:
        """(A, G) of each layer seen since `clear`."""
        return {name: (A / n, G / n) for name, (A, G, n) in self.sums().items()}

    def gather_from(self, output: Tensor, fisher: str, likelihood: str, generator: torch.Generator | None) -> None:
        """The passes backward from `output` (N, ...) of a drawn target ('mc') or of all ('exact'); no `.grad` is touched."""
        if not (isinstance(output, Tensor) and output.requires_grad):
            raise RuntimeError("the output has no graph: compute it from the parameters, with gradients enabled")
        if likelihood == "categorical" and output.dim() != 2:
            raise ValueError(f"output must be (examples, classes) for categorical targets, got shape {tuple(output.shape)}")
        weights = [layer.weight for layer in self.layers.values() if layer.weight.requires_grad]
        output = self._examples_first(output)
        derivatives = _drawn(output, likelihood, generator) if fisher == "mc" else _all(output, likelihood)
        before, self.gather, self._drawn = self.gather, True, True
        try:
            for v in derivatives if weights else ():
                torch.autograd.grad(output, weights, v / len(output), retain_graph=True, allow_unused=True)
        finally:
            self.gather, self._drawn = before, False

    def _examples_first(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) if self.batch_first is False and x.dim() > 2 else x

    def forward(self, name: str, a: Tensor, output: Tensor) -> None:
        layer = self.layers[name]
        if self.watch and layer.training and output.requires_grad and layer.weight.requires_grad:
            if self.batch_first is None and a.dim() > 2 and not isinstance(layer, Conv2d):
                raise ValueError(
                    f"layer {name!r} has an input of shape {tuple(a.shape)}, whose first or second dimension may count the"
                    " examples: say batch_first=True or batch_first=False"
                )
            output.register_hook(functools.partial(self._backward, name, a.detach()))

    @torch.no_grad()
    def _backward(self, name: str, a: Tensor, g: Tensor) -> None:
        if not self.gather:
            return
        layer, this = self.layers[name], torch._C._current_graph_task_id()  # one number for each pass backward
        if self._passes.get(name) == this:
            raise RuntimeError(
                f"layer {name!r} is used twice in one pass: it has no Kronecker block; leave it to plain SGD with skip=[layer]"
            )
        self._passes[name] = this
        if a.dim() == (3 if isinstance(layer, Conv2d) else 1):
            a, g = a[None], g[None]  # a single example
        if not isinstance(layer, Conv2d):
            a, g = self._examples_first(a), self._examples_first(g)
        a, g = a.to(layer.weight.dtype), g.to(layer.weight.dtype)
        n, A, G = len(a), input_factor(layer, a), output_factor(layer, g)
        if name in self._sums and self._sums[name][0].shape == A.shape:
            A_sum, G_sum, count = self._sums[name]
            together = count + n
            before, now = (1.0, 1.0) if self._drawn else ((together / count) ** 2, (together / n) ** 2)  # G has n^2 in it
            self._sums[name] = A_sum + n * A, before * G_sum + now * n * G, together
        else:
            self._sums[name] = n * A, n * G, n


class _Hook:
    """Calls `Statistics.forward`. A copy of a model copies its hooks: such a copy does nothing."""

    def __init__(self, statistics: Statistics | None = None, name: str = ""):
        self._statistics = (lambda: None) if statistics is None else weakref.ref(statistics)
        self._name = name

    def __call__(self, layer: Layer, inputs: tuple, output: Tensor) -> None:
        statistics = self._statistics()
        if statistics is not None:
            statistics.forward(self._name, inputs[0], output)

    def __reduce__(self) -> tuple:
        return _Hook, ()


def _drawn(f: Tensor, likelihood: str, generator: torch.Generator | None) -> Iterator[Tensor]:
    """One v in the shape of f, E[v v^T] = S S^T in each example: the derivative of the loss for a target from the model."""
    f = f.detach()
    if likelihood == "categorical":
        p = functional.softmax(f, dim=1)
        y = drawn_labels(f, generator)[:, None]
        yield p.scatter_add(1, y, torch.full_like(p[:, :1], -1.0))  # p - one-hot(y)
    else:
        device = f.device if generator is None else generator.device
        z = torch.empty(f.shape, dtype=f.dtype, device=device).normal_(generator=generator).to(f.device)
        yield math.sqrt(2 / f[0].numel()) * z


def _all(f: Tensor, likelihood: str) -> Iterator[Tensor]:
    """The K columns of S, times sqrt(K), as passes are averaged."""
    f = f.detach()
    K = f[0].numel()
    if likelihood == "categorical":
        p = functional.softmax(f, dim=1)
        for k in range(K):
            e = functional.one_hot(torch.tensor(k, device=f.device), K).to(f.dtype)
            yield math.sqrt(K) * p[:, k, None].sqrt() * (e - p)  # column k of S: sqrt(p_k) (e_k - p)
    else:
        for k in range(K):
            v = f.new_zeros(len(f), K)
            v[:, k] = math.sqrt(2)  # sqrt(K) sqrt(2/K)
            yield v.view(f.shape)


def kronecker_factors(
    model: Module,
    x: Tensor,
    *,
    fisher: str = "exact",
    likelihood: str = "squared",
    generator: torch.Generator | None = None,
    batch_first: bool | None = None,
    subclasses: Iterable[type[Layer]] = (),
    skip: Iterable[Module] = (),
) -> dict[str, Factors]:
    """(A, G) of the layers of `model` at the inputs x (N, ...), by name; the model runs in the mode it is in.

    `fisher` is 'exact' or 'mc', `batch_first` as of `Statistics`, `subclasses` and `skip` as of `layers_of`. Parameters and
    gradients are left alone. A layer with a frozen weight is left out.

    >>> A, G = kronecker_factors(torch.nn.Linear(1, 2), torch.tensor([[1.0], [3.0]]))[""]
    >>> A  # the means of x^2, x and 1
    tensor([[5., 2.],
            [2., 1.]])
    >>> G.diagonal().round(decimals=4)  # 2 / K, the second derivative of the mean of K = 2 squares
    tensor([1., 1.])
    """
    one_of(FISHERS[1:]).check(fisher=fisher)
    one_of(LIKELIHOODS).check(likelihood=likelihood)
    statistics = Statistics(layers_of(model, subclasses, skip), batch_first)
    modes = [(layer, layer.training) for layer in statistics.layers.values()]
    try:
        for layer, _ in modes:
            layer.train()  # which changes nothing in these layers, and counts them
        with torch.enable_grad():
            statistics.gather_from(model(x), fisher, likelihood, generator)
    finally:
        statistics.remove()
        for layer, mode in modes:
            layer.train(mode)
    if not (found := statistics.factors()):
        raise ValueError("model has no Linear or Conv2d layer with a trainable weight")
    return found
