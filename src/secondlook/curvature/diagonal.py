"""What every estimator of the Hessian's diagonal is: a function of the gradients, the parameters and a random generator."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Diagonal(Protocol):
    """D_i, exactly or in expectation H_ii, for every parameter.

    `gradients` and `params` match in number and shape, and the gradients carry a graph; result i has the shape of `params[i]`
    and no graph. Given some of a model's parameters, it is the diagonal of their block of H, which is the same. Random numbers
    come from `generator` alone, on the generator's device. The graph is freed unless `retain_graph`.
    """

    def __call__(
        self,
        gradients: Sequence[Tensor],
        params: Sequence[Tensor],
        generator: torch.Generator | None,
        *,
        retain_graph: bool = False,
    ) -> list[Tensor]: ...
