"""What the optimisers have in common, so that the file of each holds its update rule and little else.

    Checked      checks every option of every group, with a ValueError that names it, and says what a step of it takes
    SecondOrder  `backward(loss)` puts gradients into `.grad` and the curvature aside; `step` hands both to the update

A rule of second order is a subclass of SecondOrder with OPTIONS, KEPT and `_update`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from secondlook.arguments import Must
from secondlook.curvature.diagonal import Diagonal
from secondlook.curvature.gauss_newton import row_weights
from secondlook.curvature.objective import Cost, Objective
from secondlook.curvature.products import GraphHessian, refuse_hidden
from secondlook.curvature.source import Given, GraphLogits, Source, check_estimator

SEED = 200600719  # of the probes, where no generator is given: the number of AdaHessian's paper


def evaluate(closure: Callable[[], Tensor | None], params: Iterable[Tensor]) -> tuple[Tensor | None, bool]:
    """The loss of `closure`, and whether the closure has differentiated it: then `.grad` holds what it put there alone.

    Wrappers of training frameworks hand over closures that return None, as all is done: then `.grad` is as it was.
    """
    aside = [(p, p.grad) for p in params]
    for p, _ in aside:
        p.grad = None
    differentiated = False
    try:
        with torch.enable_grad():
            loss = closure()
        differentiated = any(p.grad is not None for p, _ in aside)
    finally:
        if not differentiated:
            for p, g in aside:
                p.grad = g
    return loss, differentiated


def no_gradient_scaler(optimizer: torch.optim.Optimizer) -> bool:
    """What torch's GradScaler asks for in its `step`: RuntimeError."""
    raise RuntimeError(
        f"{type(optimizer).__name__} takes no GradScaler, which scales gradients and not the curvature: use autocast to"
        " bfloat16, which needs none"
    )


def refuse_sparse_and_complex(optimizer: torch.optim.Optimizer, gradients: Iterable[Tensor]) -> None:
    """Raise where a gradient is one that no optimiser here takes."""
    for g in gradients:
        if g.layout is not torch.strided or g.is_complex():
            raise RuntimeError(f"{type(optimizer).__name__} needs dense real gradients, got {g.layout} of type {g.dtype}")


class Checked(torch.optim.Optimizer):
    """An optimiser whose groups hold valid options, or are not added.

    One rule holds for every closure: it computes and returns the loss. Where it has not differentiated that loss, `step` does.

    differentiate   puts into `.grad` and into the optimiser all that its step needs, from the loss and the model's outputs
    price           what one estimate of curvature costs beside the step's gradient, in passes over the batch; a ValueError
                    where that cannot be known
    estimates       how many estimates of curvature there have been
    HOOKED          whether its curvature comes by hooks on the model, which the replay of a CUDA graph does not call
    """

    OPTIONS: dict[str, Must]  # of a group
    HOOKED = False

    def differentiate(self, loss: Tensor, outputs: Tensor) -> None:
        loss.backward()

    def _loss_of(self, closure: Callable[[], Tensor | None]) -> Tensor | None:
        """The loss of `closure`, differentiated by it or else here; None where the closure says that it was before."""
        loss, differentiated = evaluate(closure, [p for group in self.param_groups for p in group["params"]])
        if not differentiated and loss is not None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = None
            loss.backward()
        return loss

    @property
    def price(self) -> Cost:
        return Cost()

    @property
    def estimates(self) -> int:
        return max((state.get("estimates", 0) for state in self.state.values()), default=0)

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict) -> None:
        for name, must in self.OPTIONS.items():
            must.check(**{name: group[name]})

    def _of(self, name: str, params: Iterable[Tensor]) -> list:
        """The entry `name` of each parameter's state."""
        return [self.state[p][name] for p in params]


class SecondOrder(Checked):
    """An optimiser that is called with `optimizer.backward(loss)` where `loss.backward()` stood.

    Arguments:
        diagonal    estimator of the curvature's diagonal, any `Diagonal`
        generator   source of the random numbers; by default one on the first parameter's device, seeded with SEED. The global
                    random state is never touched. Its state is in `state_dict`, so a run resumes bit for bit

    Option of a group: `every`, the steps of a parameter from one estimate of its curvature to the next; the first has one.

    `curvature` has D of each parameter, as `backward` leaves it for the next step. It is None where there was no `backward`
    since the last step. A step that takes gradient and D by other means puts the gradient into `.grad`, and D of the
    parameters for which it is `due` into `curvature`.

    State of a parameter: `step` (t), `estimates` (how many it has had), and the tensors that KEPT names, in its type.
    Parameters that are frozen or have no gradient rest. Those that the loss never uses should be frozen: otherwise they ask
    for an estimate at every step, also where `every` > 1.

    Mixed precision: autocast to bfloat16. A GradScaler, which rescales gradients and not curvature, is refused by its `step`.

    Several processes: `data_parallel`. DistributedDataParallel alone averages gradients and not the curvature.
    """

    KEPT: tuple[str, ...]  # tensors in the state of a parameter, zero at the start
    _step_supports_amp_scaling = property(no_gradient_scaler)
    OWN = ("diagonal", "generator", "curvature")  # fields that copies and pickles must have: torch takes only its own along

    def __init__(
        self,
        params: Iterable,
        defaults: dict,
        diagonal: Diagonal,
        generator: torch.Generator | None,
    ):
        check_estimator("diagonal", diagonal)
        super().__init__(params, defaults)
        if generator is None:
            device = next((p.device for group in self.param_groups for p in group["params"]), "cpu")
            generator = torch.Generator(device).manual_seed(SEED)
        self.diagonal = diagonal
        self.generator = generator
        self.replicas: Any = None  # the `Replicas` of `data_parallel`
        self.curvature: dict[Tensor, Tensor] | None = None

    def _update(self, group: dict, params: list[Tensor], curvature: dict[Tensor, Tensor]) -> None:
        """The rule: change `params`, all of `group` and with a gradient. `curvature` has D of those that got an estimate."""
        raise NotImplementedError

    def backward(self, loss: Tensor, retain_graph: bool = False, *, curvature_of: Tensor | Objective | None = None) -> None:
        """Add the gradients of `loss` to `.grad` and, where it is due, the curvature to what the next step uses.

        Called several times before a step, gradients and curvature add up: they are those of the summed loss. Only the
        optimiser's own parameters get gradients; these carry no graph. `curvature_of` is what the curvature is estimated from,
        if not from `loss` alone: the loss of a part of the batch, from a forward pass of its own; the logits that `loss` is
        computed from, for `GaussNewtonBartlett`; or an `Objective`, for estimators that take it apart.

        RuntimeError where gradients are there already that no `backward` of this optimiser has put there: the step would add
        them up, and know the curvature of a part alone.

        A gradient reaches `.grad` as in `loss.backward()`, with the hooks that wait for it there, such as those of
        DistributedDataParallel. A hook on a parameter's gradient itself (`register_hook`) runs wherever that gradient is
        taken: here, in each product with the Hessian, and on its way to `.grad`.
        """
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise RuntimeError("the loss has no graph: compute it from the parameters, with gradients enabled")
        self._check_source(curvature_of)
        owners = {p: group for group in self.param_groups for p in group["params"] if p.requires_grad}
        there = [p.grad for p in owners if p.grad is not None] if self.curvature is None else []
        refuse_sparse_and_complex(self, there)
        if any(g.any() for g in there):  # zeros are those of zero_grad(set_to_none=False)
            raise RuntimeError(
                "there are gradients already: call optimizer.backward(loss) in place of loss.backward(), and zero_grad() before"
            )
        second = any(self.due(p, group) for p, group in owners.items())
        twice = second and curvature_of is None
        logits = self.diagonal.source is Source.LOGITS
        keep: dict[str, Any] = {"create_graph": twice, "retain_graph": twice or retain_graph or (second and logits)}
        found = torch.autograd.grad(loss, list(owners), allow_unused=True, **keep) if owners else ()
        gradients = {p: g for p, g in zip(owners, found, strict=True) if g is not None}
        if len(gradients) < len(owners):
            refuse_hidden(loss)
        refuse_sparse_and_complex(self, gradients.values())
        due = [p for p, group in owners.items() if self.due(p, group) and self._used(p, gradients)]
        D = self._estimate(self._source(loss, curvature_of, due, gradients, retain_graph)) if due else {}
        self._keep({p: D[p] for p in due})
        if gradients:
            torch.autograd.backward(list(gradients), list(gradients.values()))

    def _used(self, p: Tensor, gradients: dict[Tensor, Tensor]) -> bool:
        """Whether `p` has a gradient: of this loss, left at zero by zero_grad(set_to_none=False), or on another rank."""
        return p in gradients or p.grad is not None or self.replicas is not None

    def differentiate(self, loss: Tensor, outputs: Tensor) -> None:
        self.backward(loss, curvature_of=outputs if self.diagonal.source is Source.LOGITS else None)

    @property
    def price(self) -> Cost:
        if self.diagonal.source not in (Source.GRAPH, Source.LOGITS):
            raise ValueError(f"the cost of {type(self.diagonal).__name__} depends on how much data its objective has")
        return self.diagonal.cost([p for group in self.param_groups for p in group["params"] if p.requires_grad])

    def _check_source(self, given: Tensor | Objective | None) -> None:
        name, source = type(self.diagonal).__name__, self.diagonal.source
        if isinstance(given, Objective):
            source.check(self.diagonal, given)
            return
        if source in (Source.OBJECTIVE, Source.LAYERS):
            raise RuntimeError(f"{name} needs an objective: call optimizer.backward(loss, curvature_of=Objective(...))")
        if source is Source.LOGITS and given is None:
            raise RuntimeError(f"{name} needs the model's logits: call optimizer.backward(loss, curvature_of=logits)")
        if given is not None and not given.requires_grad:
            raise RuntimeError("curvature_of has no graph: compute it from the parameters, with gradients enabled")
        if given is not None and source is Source.GRAPH and given.numel() != 1:
            raise RuntimeError(f"{name} needs the curvature of a loss, one number, got shape {tuple(given.shape)}")

    def _source(
        self,
        loss: Tensor,
        given: Tensor | Objective | None,
        due: list[Tensor],
        gradients: dict[Tensor, Tensor],
        retain_graph: bool,
    ) -> Given:
        """What the diagonal is to be estimated from, for the parameters `due` at least."""
        if isinstance(given, Objective):
            if any(all(p is not q for q in given.params) for p in due):
                raise RuntimeError("curvature_of is an objective that lacks parameters of the optimiser")
            return given
        if self.diagonal.source is Source.LOGITS:
            return GraphLogits(given, due, retain_graph, row_weights(loss, given))
        if given is None:
            return GraphHessian([gradients[p] if p in gradients else torch.zeros_like(p) for p in due], due, retain_graph)
        g = torch.autograd.grad(given, due, create_graph=True, allow_unused=True)
        if any(gp is None for gp in g):
            refuse_hidden(given)
        g = [torch.zeros_like(p) if gp is None else gp for gp, p in zip(g, due, strict=True)]
        return GraphHessian(g, due, retain_graph)

    def _estimate(self, H: Given) -> dict[Tensor, Tensor]:
        """D of each parameter."""
        generator = self.generator if self.replicas is None else self.replicas.source(self.generator)
        return dict(zip(H.params, self.diagonal(H, generator), strict=True))

    @torch.no_grad()
    def _keep(self, curvature: dict[Tensor, Tensor]) -> None:
        """Add D to what earlier passes left, before the gradients come: a parameter without one skipped its last step."""
        if self.replicas is not None:
            self.replicas.wait()
        kept = self.curvature or {}
        self.curvature = {p: kept[p] + D if p in kept and p.grad is not None else D for p, D in curvature.items()}
        if self.replicas is not None:
            self.replicas.start(self.curvature)

    def due(self, p: Tensor, group: dict) -> bool:
        """Whether the next step wants an estimate of the curvature of `p`, which is in `group`."""
        return p not in self.state or self.state[p]["step"] % group["every"] == 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override] # torch has numbers
        """Update the parameters, once for every `backward`, or for the sum of several.

        A `closure` computes and returns the loss; `step` clears the gradients, calls `backward`, and returns the loss without
        its graph. A closure may also call `backward` by itself, or return None where it has been called before. RuntimeError
        for one that calls loss.backward().
        """
        loss = None if closure is None else self._loss_of(closure)
        active = [[p for p in group["params"] if p.requires_grad and p.grad is not None] for group in self.param_groups]
        refuse_sparse_and_complex(self, (p.grad for params in active for p in params))
        for group, params in zip(self.param_groups, active, strict=True):
            if self.curvature is None or any(self.due(p, group) and p not in self.curvature for p in params):
                raise RuntimeError(
                    "no curvature for this step: call optimizer.backward(loss), not loss.backward(), before it; on a wrapper of"
                    " Lightning or accelerate, optimizer.optimizer.backward(loss)"
                )
        if self.replicas is not None:
            self.replicas.finish(self.curvature)
        curvature = self.curvature or {}
        for p in (p for params in active for p in params):
            self._advance(p, p in curvature)
        self._updates([(group, ps) for group, ps in zip(self.param_groups, active, strict=True) if ps], curvature)
        self.curvature = None
        return loss if loss is None else loss.detach()

    def _loss_of(self, closure: Callable[[], Tensor | None]) -> Tensor | None:
        """The loss of `closure`, differentiated; None where the closure says that it was before."""
        waiting, self.curvature = self.curvature, None
        loss, differentiated = evaluate(closure, [p for group in self.param_groups for p in group["params"]])
        if differentiated and self.curvature is None:
            raise RuntimeError("closure must compute the loss and not call loss.backward(): step differentiates it, twice")
        if not differentiated and loss is None:
            self.curvature = waiting
        elif not differentiated:
            self.zero_grad()
            self.backward(loss)
        return loss

    def _advance(self, p: Tensor, estimated: bool) -> None:
        """Count this step in the state of `p`, which its first step makes."""
        state = self.state[p]
        if not state:
            state.update(step=0, estimates=0, **{name: torch.zeros_like(p) for name in self.KEPT})
        state["step"] += 1
        state["estimates"] += estimated

    def _updates(self, active: list[tuple[dict, list[Tensor]]], curvature: dict[Tensor, Tensor]) -> None:
        """`_update`, group by group."""
        for group, params in active:
            self._update(group, params, curvature)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, and the curvature that came with them."""
        super().zero_grad(set_to_none)
        self.curvature = None

    def state_dict(self) -> dict:
        """As torch's, with the state of the generator."""
        generator = {"device": self.generator.device.type, "state": self.generator.get_state()}
        return super().state_dict() | {"generator": generator}

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's. Without the key 'generator' in `state_dict`, the optimiser's own generator goes on."""
        saved = state_dict.get("generator")
        if saved is not None and saved["device"] != self.generator.device.type:
            raise ValueError(
                f"the probes were drawn on {saved['device']}, and generator is on {self.generator.device.type}: build the"
                f" optimiser with generator=torch.Generator('{saved['device']}'), or remove 'generator' from the state_dict"
            )
        super().load_state_dict(state_dict)
        if saved is not None:
            self.generator.set_state(saved["state"].cpu())
        self.curvature = None

    def __getstate__(self) -> dict:
        own = {name: getattr(self, name) for name in self.OWN} | {"replicas": None}
        if self.replicas is not None:
            own["curvature"] = None  # it may be on its way between ranks
        return super().__getstate__() | own
