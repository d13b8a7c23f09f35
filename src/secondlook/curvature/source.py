"""What an estimator of the diagonal asks its questions of. Every estimator declares one of four kinds of source.

GRAPH       any `Operator`, a matrix that is known by its products: a `GraphHessian`, an `Objective`, a block of one
LOGITS      the logits of a classifier with their graph, a `GraphLogits`; or an `Objective` that tells its outputs
OBJECTIVE   an `Objective`, which can be moved, and taken apart into batches and examples
LAYERS      an `Objective` of a `Composed`, which tells the model, its layers and its outputs from the criterion
"""

from dataclasses import dataclass, replace
from enum import Enum

from torch import Tensor

from secondlook.curvature.objective import Composed, Objective
from secondlook.curvature.products import Operator, Vector


@dataclass(frozen=True)
class GraphLogits:
    """A classifier's `logits` (..., classes) with their graph back to `params`, which is freed unless `retain_graph`.

    `weights` (B,) are those of the rows' cross entropies in the loss; by default it is their mean, 1/B each.

    >>> model, x = torch.nn.Linear(2, 3), torch.ones(4, 2)
    >>> D = GaussNewtonBartlett()(GraphLogits(model(x), list(model.parameters())), None)
    >>> [d.shape for d in D]
    [torch.Size([3, 2]), torch.Size([3])]
    """

    logits: Tensor
    params: Vector
    retain_graph: bool = False
    weights: Tensor | None = None

    def kept(self) -> "GraphLogits":
        """The same logits, whose graph stays for further use."""
        return replace(self, retain_graph=True)


Given = Operator | GraphLogits  # what an estimator is called with


class Source(Enum):
    """A kind of source, and what it is called in an error.

    >>> Hutchinson().source is Source.GRAPH, GaussNewtonBartlett().source is Source.LOGITS
    (True, True)
    """

    GRAPH = "products with a matrix: an Operator"
    LOGITS = "the logits of a classifier: a GraphLogits, or an Objective of a Composed, such as of_module makes"
    OBJECTIVE = "an Objective, which can be moved and taken apart into examples"
    LAYERS = "an Objective whose loss tells its model and outputs: a Composed, such as of_module makes"

    def admits(self, given: Given) -> bool:
        """Whether `given` is a source of this kind."""
        if self is Source.GRAPH:
            return not isinstance(given, GraphLogits)
        if self is Source.OBJECTIVE:
            return isinstance(given, Objective)
        composed = isinstance(given, Objective) and isinstance(given.loss_fn, Composed)
        return composed or (self is Source.LOGITS and isinstance(given, GraphLogits))

    def check(self, estimator: object, given: Given) -> None:
        """TypeError unless `given` is a source of this kind, for `estimator`."""
        if not self.admits(given):
            raise TypeError(f"{type(estimator).__name__} needs {self.value}; got {type(given).__name__}")


def check_estimator(name: str, value: object, source: Source | None = None) -> None:
    """ValueError that names the argument unless `value` is an estimator of the diagonal, from this kind of source alone."""
    kind = None if isinstance(value, type) else getattr(value, "source", None)
    if not isinstance(kind, Source):
        raise ValueError(f"{name} must be an estimator of the diagonal, such as Hutchinson(), got {value!r}")
    if source not in (None, kind):
        raise ValueError(f"{name} must be an estimator that needs {source.value}, such as Hutchinson(), got {value!r}")
