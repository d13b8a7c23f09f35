r"""K-FAC: natural gradient with a Kronecker-factored curvature for each layer (Martens and Grosse, arXiv 1503.05671).

For each Linear and Conv2d layer with weight and bias W = [W b] (out, in + 1), t = 1, 2, ...:

    A_j = c A_{j-1} + (1 - c) A,  G_j = c G_{j-1} + (1 - c) G       c = min(1 - 1/j, factor_decay), j-th estimate     section 5
    pi  = sqrt( (tr A / dim A) / (tr G / dim G) )                                                                    section 6.3
    V   = (G + sqrt(damping) / pi I)^-1  dL/dW  (A + pi sqrt(damping) I)^-1
    nu  = min(1, sqrt( kl_clip / (lr^2 sum over layers of |<V, dL/dW>|) ))
    m_t = momentum m_{t-1} + nu V
    W_t = W_{t-1} - lr ( m_t + weight_decay W_{t-1} )

A and G, of `curvature.kronecker`, are estimated every `factors_every` steps and inverted every `inverses_every` steps, the
first step included. With `decoupled=False` the decay is an L2 penalty: dL/dW gains weight_decay W, and the last term goes.
All other parameters, and those of the layers in `skip`, take plain SGD with the same lr, momentum and decay: V = dL/dW, nu = 1.

Cost:    one gradient. Where the factors are due, 'mc' costs one more pass backward and 'exact' one for each output. Factors
         take N T (in^2 + out^2) operations a layer, inverses in^3 + out^3, V in out (in + out).
Memory:  n for m; for a layer 2 (in + 1)^2 + 2 out^2 for the factors and their inverses; the inputs of all layers in between.

Deviations from the paper
    targets     The paper draws them from the model ('mc'). The default is 'empirical', the data's own: the usual loop works
                unchanged and at no extra pass, and it is what most public K-FAC does; but it is not the Fisher, and near a good
                fit its G is too small.
    step        lr, momentum and kl-clip (as in public distributed K-FAC, such as KAISA) in place of the paper's rescaling by
                the exact Fisher with adaptive damping. Off-diagonal blocks are zero: the paper's block-diagonal version.
"""

import math
from collections.abc import Callable, Iterable
from typing import NoReturn, SupportsIndex

import torch
from torch import Tensor
from torch.nn import Module

from secondlook.arguments import BETA, COUNT, FLAG, NOT_NEGATIVE, POSITIVE, Must, one_of
from secondlook.curvature.gauss_newton import ONE_PASS_BACKWARD
from secondlook.curvature.kronecker import (
    FISHERS,
    LIKELIHOODS,
    Factors,
    Layer,
    Statistics,
    damped_inverses,
    factor_sizes,
    layers_of,
    trained_bias,
)
from secondlook.curvature.objective import Cost
from secondlook.optim.base import Checked, no_gradient_scaler, refuse_sparse_and_complex
from secondlook.optim.placement import Exchange, Placement

SEED = 150305671  # of the drawn targets, where no generator is given: the paper's number
FACTORS, INVERSES = ("A", "G", "estimates"), ("A_inverse", "G_inverse")  # state of a layer's weight
POSITIVE_OR_INFINITE = Must("a number above zero; math.inf for no clip", lambda x: 0 < x <= math.inf)


class KFAC(Checked):
    """K-FAC. With the targets of the data ('empirical'), use it as any optimiser. With targets from the model:

        optimizer = KFAC(model, fisher="mc", likelihood="categorical")
        output = model(x)
        optimizer.zero_grad()
        optimizer.curvature(output)
        cross_entropy(output, y).backward()
        optimizer.step()

    Arguments:
        model           its Linear and Conv2d layers (one group, zero padding as numbers) are preconditioned
        lr ... clip     as in the update rule; `kl_clip=math.inf` does not clip
        fisher          'empirical', 'mc' (one target drawn for each example) or 'exact' (the expectation over all targets)
        likelihood      what the output stands for: 'categorical' (mean cross-entropy of logits) or 'squared' (mean square)
        batch_first     whether the first dimension of a linear layer's input counts the examples, or else the second, where it
                        has more than two; needed there, as positions and examples weigh differently in A and G
        subclasses      of Linear and Conv2d, that compute what those do: their layers are preconditioned too. Layers of any
                        other subclass, and convolutions of another kind, take plain SGD; a warning names those not in `skip`
        skip            layers to leave to plain SGD; needed for one used twice in a forward, which is refused otherwise
        generator       source of the targets, by default one on the model's device, seeded with SEED; never the global state
        placement       of a data-parallel run, see below; without one nothing is averaged between processes

    The loss must be a mean over the examples of a step: where k passes backward come before a step, that of each divided by
    k, as in (loss / k).backward(), which gives what the whole batch would. Forwards in eval() mode or without gradients leave
    the factors alone. With 'empirical' any pass backward counts, and a loss that is scaled by c has c^2 G.
    Parameters that are frozen or have no gradient rest; the factors follow a bias that is frozen or released.

    Data-parallel, with the factors and the work spread over the ranks as `optim.placement` says:

        parallel = DistributedDataParallel(model)
        optimizer = KFAC(model, placement=Placement(share=0.5))    # and the loop as above, with `parallel(x)`

    DistributedDataParallel averages the gradients; K-FAC averages the factors, once for each estimate, over the examples of
    all ranks. Parameters and momenta are equal on all ranks to the last bit. Every rank draws targets of its own ('mc').

    factors         by layer, the running (A, G): `torch.kron(G, A)` is the layer's curvature, rows of [W b] in turn.
                    Data-parallel, those of the layers that this rank owns
    exchange        data-parallel: who owns what, and the bytes sent so far
    hooks           sit on the layers until `remove_hooks()`. A copy of the model has dead ones; the optimiser itself is not
                    copied or pickled: build one on the copy, and load the state_dict

    State of a parameter: `momentum_buffer`; of a layer's weight also `A`, `G`, `A_inverse`, `G_inverse`, `estimates`. With the
    number of steps and the generator's state, which are in the state_dict too, a run resumes bit for bit. Data-parallel,
    `state_dict` is a collective call that gathers all of it on every rank, so that a run resumes on any number of them.

    >>> model, x, y = torch.nn.Linear(2, 3), torch.ones(4, 2), torch.arange(4) % 3
    >>> optimizer = KFAC(model, lr=0.1)
    >>> torch.nn.functional.cross_entropy(model(x), y).backward()
    >>> optimizer.step()
    >>> [(A.shape, G.shape) for A, G in optimizer.factors.values()]
    [(torch.Size([3, 3]), torch.Size([3, 3]))]
    """

    OPTIONS = {
        "lr": NOT_NEGATIVE,
        "momentum": BETA,
        "damping": POSITIVE,
        "factor_decay": BETA,
        "kl_clip": POSITIVE_OR_INFINITE,
        "weight_decay": NOT_NEGATIVE,
        "decoupled": FLAG,
        "factors_every": COUNT,
        "inverses_every": COUNT,
    }
    HOOKED = True
    _step_supports_amp_scaling = property(no_gradient_scaler)

    def __init__(
        self,
        model: Module,
        lr: float = 0.1,
        momentum: float = 0.9,
        damping: float = 0.003,
        factor_decay: float = 0.95,
        kl_clip: float = 0.001,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = True,
        factors_every: int = 1,
        inverses_every: int = 10,
        fisher: str = "empirical",
        likelihood: str = "categorical",
        batch_first: bool | None = None,
        subclasses: Iterable[type[Layer]] = (),
        skip: Iterable[Module] = (),
        generator: torch.Generator | None = None,
        placement: Placement | None = None,
    ):
        one_of(FISHERS).check(fisher=fisher)
        one_of(LIKELIHOODS).check(likelihood=likelihood)
        FLAG.or_none().check(batch_first=batch_first)
        defaults = dict(lr=lr, momentum=momentum, damping=damping, factor_decay=factor_decay, kl_clip=kl_clip)
        defaults |= dict(weight_decay=weight_decay, decoupled=decoupled)
        defaults |= dict(factors_every=factors_every, inverses_every=inverses_every)
        super().__init__(model.parameters(), defaults)
        layers = layers_of(model, subclasses, skip)
        _refuse_types_and_ties(model, layers)
        device = next(model.parameters()).device
        self.generator = torch.Generator(device).manual_seed(SEED) if generator is None else generator
        self.fisher, self.likelihood = fisher, likelihood
        self.steps = 0
        self.exchange = Exchange(placement, layers.values())
        self._statistics = Statistics(layers, batch_first)
        self._statistics.gather = fisher == "empirical"

    def add_param_group(self, param_group: dict) -> None:
        if self.param_groups:
            raise ValueError("params must be those of the model: K-FAC takes no further groups")
        super().add_param_group(param_group)

    @property
    def factors(self) -> dict[Layer, Factors]:
        """The running (A, G) of each layer that has had an estimate."""
        states = {layer: self.state.get(layer.weight, {}) for layer in self._statistics.layers.values()}
        return {layer: (state["A"], state["G"]) for layer, state in states.items() if "A" in state}

    def remove_hooks(self) -> None:
        """Take the hooks off the model; the optimiser is of no use afterwards."""
        self._statistics.remove()

    def curvature(self, output: Tensor) -> None:
        """Estimate the factors, where they are due, from the model's `output` on a batch; its graph is kept for the loss."""
        if self.fisher == "empirical":
            raise RuntimeError("fisher is 'empirical': its factors come from loss.backward() alone")
        if self._due("factors_every"):
            self._statistics.gather_from(output, self.fisher, self.likelihood, self.exchange.generator(self.generator))

    def differentiate(self, loss: Tensor, outputs: Tensor) -> None:
        if self.fisher != "empirical":
            self.curvature(outputs)
        loss.backward()

    @property
    def price(self) -> Cost:
        if self.fisher == "exact":
            raise ValueError("the cost of K-FAC with fisher='exact' depends on how many outputs the model has")
        return Cost() if self.fisher == "empirical" else ONE_PASS_BACKWARD

    def _due(self, name: str) -> bool:
        return self.steps % self.param_groups[0][name] == 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override] # torch has numbers
        """Update the parameters. A `closure` returns the loss, and may have differentiated it."""
        loss = None if closure is None else self._loss_of(closure)
        (group,) = self.param_groups
        active = [p for p in group["params"] if p.requires_grad and p.grad is not None]
        refuse_sparse_and_complex(self, [p.grad for p in active])
        penalty = 0.0 if group["decoupled"] else group["weight_decay"]
        gradients = {p: p.grad.add(p, alpha=penalty) for p in active}
        layers = [m for m in self._statistics.layers.values() if m.weight in gradients]
        self._estimate(group, layers)
        self._move(group, gradients | self._precondition(group, layers, gradients))
        self.steps += 1
        self._statistics.watch = self._due("factors_every")
        self._statistics.clear()
        return loss if loss is None else loss.detach()

    def _loss_of(self, closure: Callable[[], Tensor | None]) -> Tensor | None:
        waiting = self._statistics.take()
        loss = super()._loss_of(closure)
        if loss is None and not self._statistics.sums():
            self._statistics.put(waiting)
        return loss

    def _estimate(self, group: dict, layers: list[Layer]) -> None:
        """Running means of the factors, and their inverses, where they are due."""
        if self._due("factors_every"):
            sums = {self._statistics.layers[name]: found for name, found in self._statistics.sums().items()}
            if layers and not sums:
                call = "loss.backward()" if self.fisher == "empirical" else "optimizer.curvature(output)"
                raise RuntimeError(
                    f"no factors for this step: run the forward in training mode and call {call} before it; a model that was"
                    " compiled and has run before K-FAC was built does not call its hooks: torch.compiler.reset() first"
                )
            for layer, fresh in self.exchange.factors(layers, sums).items():
                self._average(group, self.state[layer.weight], *fresh)
        due = [layer for layer in layers if self._due("inverses_every") or self._outdated(layer)]
        own = {layer: self._inverted(layer, group["damping"]) for layer in due if self.exchange.owns(layer)}
        for layer, inverses in self.exchange.inverses(due, own).items():
            self.state[layer.weight].update(zip(INVERSES, inverses, strict=True))

    def _outdated(self, layer: Layer) -> bool:
        """Whether this rank should have inverses of the layer's present size, and has not."""
        found = self.state.get(layer.weight, {}).get("A_inverse", ())
        return self.exchange.holds(layer) and len(found) != factor_sizes(layer)[0]

    def _inverted(self, layer: Layer, damping: float) -> Factors:
        state = self.state.get(layer.weight, {})
        if len(state.get("A", ())) != factor_sizes(layer)[0]:
            (name,) = (name for name, other in self._statistics.layers.items() if other is layer)
            raise RuntimeError(f"no factors for layer {name!r}: it has a gradient, but no pass backward was gathered")
        return damped_inverses(state["A"], state["G"], damping)

    def _average(self, group: dict, state: dict, A: Tensor, G: Tensor) -> None:
        if "A" in state and state["A"].shape != A.shape:  # a bias was frozen or released
            for name in (*FACTORS, *INVERSES):
                state.pop(name, None)
        state["estimates"] = state.get("estimates", 0) + 1
        weight = 1 - min(1 - 1 / state["estimates"], group["factor_decay"])
        state["A"] = torch.lerp(state["A"], A, weight) if "A" in state else A
        state["G"] = torch.lerp(state["G"], G, weight) if "G" in state else G

    def _precondition(self, group: dict, layers: list[Layer], gradients: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """nu V for the weights and biases of `layers`."""
        gs = {layer: _joined(layer, gradients) for layer in layers}
        own = {layer: self._direction(layer, g) for layer, g in gs.items() if self.exchange.holds(layer)}
        Vs = self.exchange.directions(layers, own)
        directions, total = {}, 0.0
        for layer, V in Vs.items():
            total += (V * gs[layer]).sum().abs().item()
            if (bias := trained_bias(layer)) is not None:
                directions[bias] = V[:, -1]
                V = V[:, :-1]
            directions[layer.weight] = V.reshape(layer.weight.shape)
        clip = float(group["lr"]) ** 2 * total
        nu = min(1.0, math.sqrt(group["kl_clip"] / clip)) if clip > 0 else 1.0
        return {p: nu * V for p, V in directions.items()}

    def _direction(self, layer: Layer, g: Tensor) -> Tensor:
        state = self.state[layer.weight]
        return state["G_inverse"] @ g @ state["A_inverse"]

    def _move(self, group: dict, directions: dict[Tensor, Tensor]) -> None:
        lr = float(group["lr"])
        for p, V in directions.items():
            if group["momentum"]:
                state = self.state[p]
                m = state["momentum_buffer"] = V + group["momentum"] * state.get("momentum_buffer", 0.0)
            else:
                m = V
            if group["decoupled"]:
                p.mul_(1 - lr * group["weight_decay"])
            p.sub_(m, alpha=lr)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, and what was gathered for the factors since the last step."""
        super().zero_grad(set_to_none)
        self._statistics.clear()

    def state_dict(self) -> dict:
        """As torch's, with the number of steps and the state of the generator. Data-parallel, every rank must call it."""
        generator = {"device": self.generator.device.type, "state": self.generator.get_state()}
        saved = super().state_dict()
        numbers = {p: i for i, p in enumerate(self.param_groups[0]["params"])}
        own = {}
        for layer in filter(self.exchange.owns, self.exchange.layers):
            state = self.state.get(layer.weight, {})
            own[numbers[layer.weight]] = {name: state[name] for name in (*FACTORS, *INVERSES) if name in state}
        found = {i: state for i, state in self.exchange.gathered(own).items() if state}
        saved["state"] = {i: saved["state"].get(i, {}) | found.get(i, {}) for i in sorted({*saved["state"], *found})}
        return saved | {"steps": self.steps, "generator": generator}

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's, of an optimiser for the same model."""
        saved = state_dict["generator"]
        if saved["device"] != self.generator.device.type:
            raise ValueError(
                f"the targets were drawn on {saved['device']}, and generator is on {self.generator.device.type}: build the"
                f" optimiser with generator=torch.Generator('{saved['device']}')"
            )
        super().load_state_dict(state_dict)
        for layer in self.exchange.layers:
            state = self.state.get(layer.weight, {})
            kept = (*(FACTORS if self.exchange.owns(layer) else ()), *(INVERSES if self.exchange.holds(layer) else ()))
            for name in {*FACTORS, *INVERSES} - {*kept}:
                state.pop(name, None)
        self.generator.set_state(saved["state"].cpu())
        self.steps = state_dict["steps"]
        self._statistics.watch = self._due("factors_every")
        self._statistics.clear()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "KFAC holds hooks on its model and is not copied or pickled: build one on the copy, and load the state_dict"
        )


def _joined(layer: Layer, gradients: dict[Tensor, Tensor]) -> Tensor:
    """dL/d[W b]: (out, in kh kw [+ 1])."""
    g, bias = gradients[layer.weight].flatten(1), trained_bias(layer)
    return g if bias is None else torch.cat([g, gradients[bias][:, None]], dim=1)


def _refuse_types_and_ties(model: Module, layers: dict[str, Layer]) -> None:
    owners: dict[Tensor, str] = {}
    for name, module in model.named_modules():
        for p in module.parameters(recurse=False):
            if name in layers and p.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"model must be of type float32 or float64, got {p.dtype} in layer {name!r}")
            if p in owners and {name, owners[p]} & layers.keys():
                raise ValueError(
                    f"layers {owners[p]!r} and {name!r} share a parameter: leave them to plain SGD with skip=[...]"
                )
            owners[p] = name
