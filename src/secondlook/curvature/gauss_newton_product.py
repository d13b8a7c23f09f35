r"""Products with the Gauss-Newton matrix of a loss over a data set: what is left of H where the model is taken as linear.

    G v = sum_b w_b J_b^T H_b J_b v,    J_b = d f_b / d theta,   H_b = d^2 l_b / d f_b^2

with f_b = model(theta, x_b) the outputs of batch b, l_b = criterion(f_b, y_b), and w_b as in `objective`. G is symmetric, and
positive semi-definite where the criterion is convex in f. The three factors are applied from the right:

    J v     forward    the derivative of the outputs along v, by dual numbers
            reverse    (d/du) v^T J^T u: J^T u is linear in u, and differentiating it once more transposes it
    H_b     a Hessian-vector product of the criterion alone
    J^T     one backward pass

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient descent".

Cost, by the count of matrix products (see `Cost`): of k products to one pass over the data, k + 2/3 gradients forward and
1 + 4k/3 in reverse, against 1 + 2k for H. Deviations: none.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from secondlook.curvature.objective import Composed, Model, Objective
from secondlook.curvature.products import Vector, hvp, in_chunks


class GaussNewton:
    """G of an `Objective`, at the same parameters and in its mode and chunks; an `Operator`. Work is added to its cost.

    Raises TypeError where the loss is not a `Composed`, which alone says what the outputs are.

    >>> loss = Composed(lambda theta, x: x * theta[0] ** 2, torch.nn.functional.mse_loss)
    >>> G = GaussNewton(Objective(loss, [torch.tensor(1.0)], (torch.ones(1), torch.zeros(1))))
    >>> [Gv for v, Gv in G.products([[torch.tensor(1.0)]])]  # 2 (2 theta)^2; H v is 12
    [[tensor(8.)]]
    """

    def __init__(self, objective: Objective):
        if not isinstance(objective.loss_fn, Composed):
            raise TypeError("GaussNewton needs a loss that tells its outputs: a Composed, such as of_module makes")
        self.objective = objective
        self.params = objective.params

    def products(self, vectors: Iterable[Vector]) -> Iterator[tuple[Vector, list[Tensor]]]:
        """(v, G v) for every v in turn, `objective.chunk_size` of them to a pass over the data."""
        return in_chunks(self._products, vectors, self.objective.chunk_size)

    def _products(self, V: list[Tensor], batched: bool) -> list[Tensor]:
        model, criterion = self.objective.loss_fn.model, self.objective.loss_fn.criterion
        forward = self.objective.mode == "forward"
        theta, total = self.objective.at(), [torch.zeros_like(v) for v in V]
        for w, x, y in self.objective.weighted():
            f = model(theta, x)
            JV = _forward(model, theta, x, V, batched) if forward else _reverse(f, theta, V, batched)
            outputs = f.detach().requires_grad_()
            g = torch.autograd.grad(criterion(outputs, y), outputs, create_graph=True)
            HJV = hvp(g, [outputs], [JV], batched=batched)
            torch._foreach_add_(total, hvp([f], theta, HJV, batched=batched), alpha=w)  # the same backward pass gives J^T
        k = len(V[0]) if batched else 1
        self.objective.spend(gradients=k + 2 / 3 if forward else 1 + 4 * k / 3)
        return total

    def kept(self) -> "GaussNewton":
        """Itself: it has no graph that a product could free."""
        return self


def _forward(model: Model, theta: list[Tensor], x: Tensor, V: list[Tensor], batched: bool) -> Tensor:
    """J v (N_b, C), or for each of V's vectors (k, N_b, C)."""
    at = tuple(p.detach() for p in theta)

    def along(*v: Tensor) -> Tensor:
        return torch.func.jvp(lambda *theta: model(list(theta), x), at, v)[1]

    return (torch.func.vmap(along) if batched else along)(*V)


def _reverse(f: Tensor, theta: list[Tensor], V: list[Tensor], batched: bool) -> Tensor:
    """The same from the graph of the outputs f."""
    u = torch.zeros_like(f, requires_grad=True)
    JTu = torch.autograd.grad(f, theta, u, create_graph=True, allow_unused=True, materialize_grads=True)
    return hvp(JTu, [u], V, batched=batched)[0]
